"""hesscli: layer Hessians by two independent witnesses, compared, split and analysed.

The Python API, documented in docs/api.md:

    >>> import hesscli
    >>> problem = hesscli.problem_from_config({"data": {"batch_size": 4}}, activation="tanh")
    >>> H = hesscli.ChainRule(problem).hessian("dense2/kernel")
    >>> H.shape
    (900, 900)

Everything here is imported on first use: ``import hesscli`` itself imports neither NumPy nor
TensorFlow.
"""

from __future__ import annotations

from hesscli.version import __version__

# What typing calls so, without the import: until the program has begun, Ctrl-C is a traceback.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from hesscli.api.answers import document, plot, render, save
    from hesscli.api.problems import (
        load_config,
        problem_from_arrays,
        problem_from_config,
        problem_from_keras,
    )
    from hesscli.api.questions import (
        approximate,
        approximations,
        compare,
        entry,
        export,
        init,
        product,
        solve,
        spectrum,
        sweep,
        train,
        tune,
        verify,
        verify_first,
    )
    from hesscli.config.schema import Config
    from hesscli.nodes.plugins import load_plugin
    from hesscli.problem.graph import Activation, Graph, Layer, Node, Penalty, chain
    from hesscli.problem.network import Loss, Problem
    from hesscli.report.document import Document
    from hesscli.system.devices import Device, open_device
    from hesscli.system.errors import HesscliError, InputError, NumericalError, UnknownBlockError
    from hesscli.system.threads import use_threads
    from hesscli.witnesses.autodiff.engine import Autodiff
    from hesscli.witnesses.block import HessianBlock
    from hesscli.witnesses.chain_rule.engine import ChainRule
    from hesscli.witnesses.chain_rule.ondevice import ChainRuleOn
    from hesscli.witnesses.finite.engine import FiniteDifferences

__all__ = [
    "Activation",
    "Autodiff",
    "ChainRule",
    "ChainRuleOn",
    "Config",
    "Device",
    "Document",
    "FiniteDifferences",
    "Graph",
    "HesscliError",
    "HessianBlock",
    "InputError",
    "Layer",
    "Loss",
    "Node",
    "NumericalError",
    "Penalty",
    "Problem",
    "UnknownBlockError",
    "__version__",
    "approximate",
    "approximations",
    "chain",
    "compare",
    "document",
    "entry",
    "export",
    "init",
    "load_config",
    "load_plugin",
    "open_device",
    "plot",
    "problem_from_arrays",
    "problem_from_config",
    "problem_from_keras",
    "product",
    "render",
    "save",
    "solve",
    "spectrum",
    "sweep",
    "train",
    "tune",
    "use_threads",
    "verify",
    "verify_first",
]

# A type checker sees the imports above, and so reports a name that is not among them.
if not TYPE_CHECKING:
    _HOMES = {
        "hesscli.api.answers": "document plot render save",
        "hesscli.api.problems": "load_config problem_from_arrays problem_from_config "
        "problem_from_keras",
        "hesscli.api.questions": "approximate approximations compare entry export init product "
        "solve spectrum sweep train tune verify verify_first",
        "hesscli.config.schema": "Config",
        "hesscli.witnesses.autodiff.engine": "Autodiff",
        "hesscli.witnesses.block": "HessianBlock",
        "hesscli.witnesses.chain_rule.engine": "ChainRule",
        "hesscli.witnesses.chain_rule.ondevice": "ChainRuleOn",
        "hesscli.system.devices": "Device open_device",
        "hesscli.witnesses.finite.engine": "FiniteDifferences",
        "hesscli.system.errors": "HesscliError InputError NumericalError UnknownBlockError",
        "hesscli.problem.graph": "Activation Graph Layer Node Penalty chain",
        "hesscli.problem.network": "Loss Problem",
        "hesscli.nodes.plugins": "load_plugin",
        "hesscli.system.threads": "use_threads",
        "hesscli.report.document": "Document",
    }
    _HOME_OF = {name: home for home, all_ in _HOMES.items() for name in all_.split()}

    def __getattr__(name):
        from importlib import import_module

        if name not in _HOME_OF:
            raise AttributeError(f"module 'hesscli' has no attribute {name!r}")
        value = getattr(import_module(_HOME_OF[name]), name)
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
