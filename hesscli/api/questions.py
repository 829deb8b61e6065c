"""Each command's question as a function of the same name, which returns the study's result.

Results are frozen dataclasses. ``activations`` asks the question again with every hidden
activation replaced by each of these, parameters and batch as they are; ``"all"`` goes through
them all. ``device`` is where the chain rule computes: "cpu", "gpu", or what ``open_device`` gave.
If a message names an option of a command, the keyword of that name is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from hesscli.api.problems import (
    ActivationLike,
    ConfigSource,
    activation_of,
    load_config,
    problem_from_config,
    require_one_of,
)
from hesscli.config.training import build_training_data, part_at
from hesscli.problem.execution import Execution, execution_of
from hesscli.problem.graph import Activation
from hesscli.problem.names import (
    ACTIVATIONS,
    BLOCKS,
    CHECK_METHODS,
    CONFIGURED,
    DEFAULT_WITNESSES,
    INITIALIZERS,
    WITNESSES,
)
from hesscli.problem.network import Problem
from hesscli.problem.registry import plugin_names
from hesscli.report.notebook import show_in_notebooks
from hesscli.studies import (
    approximation,
    comparison,
    initialization,
    training,
    tuning,
    verification,
)
from hesscli.studies import entry as entries
from hesscli.studies import export as exports
from hesscli.studies import first_derivatives as first
from hesscli.studies import product as multiplied
from hesscli.studies import solve as systems
from hesscli.studies import spectrum as spectra
from hesscli.studies import sweep as sweeps
from hesscli.studies.agreement import agreed
from hesscli.studies.context import Progress, no_progress
from hesscli.studies.spectra.subject import SpectrumOptions
from hesscli.studies.witnesses import CheckOptions
from hesscli.system.devices import CPU, Device, open_device
from hesscli.system.errors import InputError
from hesscli.system.seeds import fresh_seed
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.solution import Asked

# Where results are made, notebooks learn to show them.
show_in_notebooks()

Activations = ActivationLike | Sequence[ActivationLike]
# Those that the commands look at as well: vanishing, usual, exploding.
_STDDEVS = (1e-5, 0.01, 1.0)


def verify(
    problem: Problem,
    activations: Activations = (),
    *,
    check: str = "auto",
    rtol: float | None = None,
    probes: int = 32,
    probe_seed: int | None = None,
    block: str = "kernel",
    layers: Sequence[str] = (),
    terms: verification.Terms = "hessian",
    witnesses: Sequence[str] = DEFAULT_WITNESSES,
    device: str | Device = CPU,
    progress: Progress = no_progress,
) -> verification.Verification:
    """Compares the chain rule's Hessians with autodiff's, block by block.

    ``check`` is auto, form, probes or entries; ``block`` kernel, bias, layer, input or network;
    ``terms`` "gauss-newton" compares the Gauss–Newton term alone with the Hessian; ``rtol`` None
    is 1e-10 in float64 and 1e-5 in float32; ``probe_seed`` draws the random vectors, and is itself
    drawn if it is None (``result.probe_seed``). ``result.passed`` is the verdict. Raises
    InputError for an option that is none, NumericalError if a Hessian leaves the range of the
    dtype.
    """
    require_one_of("terms", terms, get_args(verification.Terms))
    for name in witnesses:
        require_one_of("witnesses", name, WITNESSES)
    if len(set(witnesses)) < 2:
        raise InputError(f"witnesses: two or three of {', '.join(WITNESSES)} are needed")
    options = _check_options(problem, check, rtol, layers, block, probes, probe_seed)
    problems = _problems(problem, activations)
    execution = _execution(problems[0], device)
    return verification.verify(problems, options, terms, progress, witnesses, execution=execution)


def verify_first(
    problem: Problem,
    of: first.FirstDerivative = "gradient",
    activations: Activations = (),
    *,
    rtol: float | None = None,
    block: str = "kernel",
    layers: Sequence[str] = (),
    device: str | Device = CPU,
    progress: Progress = no_progress,
) -> first.FirstVerification:
    """Compares the chain rule's first derivatives with autodiff's, in every entry.

    ``of`` is "gradient" (of the loss) or "jacobian" (of the network's outputs); the others are as
    in ``verify``.
    """
    require_one_of("of", of, get_args(first.FirstDerivative))
    options = _check_options(problem, "entries", rtol, layers, block, 1)
    problems = _problems(problem, activations)
    return first.verify_first(
        problems, of, options, progress, execution=_execution(problems[0], device)
    )


def compare(
    problem: Problem,
    activations: Activations = (),
    *,
    check: str = "auto",
    rtol: float | None = None,
    probes: int = 32,
    probe_seed: int | None = None,
    block: str = "kernel",
    layers: Sequence[str] = (),
    device: str | Device = CPU,
    progress: Progress = no_progress,
) -> comparison.Comparison:
    """Splits the Hessians into Gauss–Newton and curvature term, by both witnesses.

    Options and errors are those of ``verify``; ``result.passed`` is the whole chain rule's.
    """
    options = _check_options(problem, check, rtol, layers, block, probes, probe_seed)
    problems = _problems(problem, activations)
    return comparison.compare(
        problems, options, progress, execution=_execution(problems[0], device)
    )


def approximate(
    problem: Problem,
    activations: Activations = (),
    *,
    block: Literal["kernel", "layer", "network"] = "kernel",
    layers: Sequence[str] = (),
    samples: int = 1,
    rank: int = 10,
    probes: int = 32,
    seed: int = 0,
    device: str | Device = CPU,
    progress: Progress = no_progress,
) -> approximation.ApproximationStudy:
    """How far Fisher, KFAC, EKFAC, diagonals and the best Kronecker product are from the Hessian.

    ``samples`` targets are drawn for each example of the Monte-Carlo Fisher, ``rank`` is that of
    rank k plus diagonal, ``probes`` are random vectors if a distance is not exact.
    """
    require_one_of("block", block, ("kernel", "layer", "network"))
    options = approximation.ApproximationOptions(
        block, _known_layers(problem, layers), samples, rank, probes, seed
    )
    problems = _problems(problem, activations)
    return approximation.approximate(
        problems, options, progress, execution=_execution(problems[0], device)
    )


def approximations(
    problem: Problem, block: str, *, samples: int = 1, rank: int = 10, probe_seed: int = 0
) -> dict[str, HessianBlock]:
    """The approximations of a layer, its kernel or the network as linear operators, by name.

    They take the place of a Hessian block in SciPy's solvers and eigensolvers. Options and errors
    are those of ``approximate``; an unknown ``block`` raises UnknownBlockError.
    """
    options = approximation.ApproximationOptions(samples=samples, rank=rank, seed=probe_seed)
    found = approximation.approximations(problem, block, options, execution=execution_of(problem))
    return {**found}


def solve(
    problem: Problem,
    activations: Activations = (),
    *,
    block: Literal["kernel", "bias", "layer", "network"] = "kernel",
    layers: Sequence[str] = (),
    matrices: Sequence[str] = ("hessian",),
    damping: float = 0.01,
    vector: ArrayLike | None = None,
    method: str = "auto",
    rtol: float | None = None,
    products: int = 1000,
    device: str | Device = CPU,
    progress: Progress = no_progress,
) -> systems.Solve:
    """(X + λI) x = v of blocks, λ = ``damping``; v is the gradient, or ``vector`` (P,).

    ``matrices`` are the X: hessian, gauss-newton, kfac, ekfac or another of the command's. With the
    gradient −x is the damped Newton step, of which ``step`` has the predicted and the actual
    decrease of the loss. ``method`` is auto, exact, minres or cg; these take ``products`` steps at
    most, to a relative residual of ``rtol``, by default 1e-8 in float64 and 1e-4 in float32.
    """
    require_one_of("block", block, ("kernel", "bias", "layer", "network"))
    matrices = (matrices,) if isinstance(matrices, str) else tuple(dict.fromkeys(matrices))
    asked = Asked(method, rtol, products)
    options = systems.SolveOptions(block, _known_layers(problem, layers), matrices, damping, asked)
    problems = _problems(problem, activations)
    of_block = None if vector is None else lambda _: np.asarray(vector)
    return systems.solve(
        problems, options, of_block, progress, execution=_execution(problems[0], device)
    )


def product(
    problem: Problem,
    activations: Activations = (),
    *,
    block: str = "kernel",
    layers: Sequence[str] = (),
    vector: ArrayLike | None = None,
    rtol: float | None = None,
    probe_seed: int = 0,
    device: str | Device = CPU,
    progress: Progress = no_progress,
) -> multiplied.Product:
    """H·v and its terms by both witnesses, for ``vector`` (P,) or a normal one by ``probe_seed``.

    A row for each block and term; ``row.product`` (P,) is the chain rule's. One product alone is
    ``ChainRule(problem).hessian("dense1/kernel").hvp(v)``.
    """
    require_one_of("block", block, BLOCKS)
    options = multiplied.ProductOptions(block, _known_layers(problem, layers), rtol, probe_seed)
    problems = _problems(problem, activations)
    of_block = None if vector is None else lambda _: np.asarray(vector)
    return multiplied.product(
        problems, options, of_block, progress, execution=_execution(problems[0], device)
    )


def sweep(
    problem: Problem,
    activations: Activations = (),
    *,
    inputs: bool = False,
    rtol: float | None = None,
    progress: Progress = no_progress,
) -> sweeps.Sweep:
    """Gradient and Hessian followed backwards through every node, compared with autodiff's.

    ``inputs`` keeps what the sweep ends in as well: gradient and Hessian in the examples' inputs.
    """
    problems = _problems(problem, activations)
    return sweeps.sweep(problems, rtol, inputs, progress, execution=execution_of(problems[0]))


def entry(
    problem: Problem,
    first: str,
    second: str | None = None,
    activations: Activations = (),
    *,
    rtol: float | None = None,
    referee: bool = False,
    device: str | Device = CPU,
    progress: Progress = no_progress,
) -> entries.Entry:
    """∂²L/∂first ∂second by every witness; without ``second`` ∂²L/∂first².

    The names are as in ``dense1/kernel[300,4]``, ``dense2/bias[7]`` or ``input[0][5]``. ``referee``
    has the entry computed to 50 digits, as what is undecided is anyway.
    """
    problems = _problems(problem, activations)
    return entries.entry(
        problems,
        first,
        first if second is None else second,
        rtol,
        progress,
        referee=referee,
        execution=_execution(problems[0], device),
    )


def spectrum(
    problem: Problem,
    activations: Activations = (),
    *,
    block: str = "kernel",
    layers: Sequence[str] = (),
    top: int = 0,
    ends: bool = False,
    density: bool = False,
    classes: bool = False,
    probes: int = 10,
    steps: int = 80,
    seed: int = 0,
    device: str | Device = CPU,
    progress: Progress = no_progress,
) -> spectra.Spectrum:
    """The spectra of Hessians and of their Gauss–Newton terms, exact if that is affordable.

    ``block`` is kernel, bias, layer or network; ``top`` asks for so many eigenpairs, largest
    first or with ``ends`` half from either end. Of a large block these are then all there is, and
    every other number is None, unless ``density`` asks for the whole spectrum. ``classes`` takes
    G apart into what comes from between and from within the classes (Papyan 2020). ``probes``,
    ``steps`` and ``seed`` are those of the estimates if a spectrum is not exact.
    """
    require_one_of("block", block, ("kernel", "bias", "layer", "network"))
    options = SpectrumOptions(
        block=block,
        layers=_known_layers(problem, layers),
        top=top,
        ends=ends,
        density=density,
        classes=classes,
        probes=probes,
        steps=steps,
        seed=seed,
    )
    problems = _problems(problem, activations)
    return spectra.spectrum(problems, options, progress, execution=_execution(problems[0], device))


def init(
    source: ConfigSource = None,
    activations: Activations = (),
    *,
    initializers: Sequence[str] = (),
    stddevs: Sequence[float] = (),
    seeds: int = 5,
    block: Literal["kernel", "bias", "layer"] = "kernel",
    progress: Progress = no_progress,
) -> initialization.Initialization:
    """How large the Hessian is at fresh draws of the kernels, by initializer.

    ``initializers`` are Keras's names, or "configured" for the configuration's own; ``stddevs``
    those of random_normal; with neither, all initializers and three deviations. ``seeds`` counts
    the draws. It draws the kernels itself, so it takes a configuration, no Problem.
    """
    for name in initializers:
        require_one_of("initializers", name, (*INITIALIZERS, CONFIGURED))
    require_one_of("block", block, ("kernel", "bias", "layer"))
    config = load_config(source)
    initialization.require_drawn(config.model)
    schemes = (
        initialization.schemes_of(tuple(initializers), tuple(stddevs))
        if initializers or stddevs
        else initialization.usual_schemes(config.model, _STDDEVS)
    )
    problems = _problems(problem_from_config(config), activations)
    return initialization.initialization(
        problems,
        config.model,
        schemes,
        initialization.seeds_from(config.seed, seeds),
        block,
        progress,
        execution=execution_of(problems[0]),
    )


def tune(
    source: ConfigSource = None,
    activations: Activations = (),
    *,
    target: float = 1.0,
    norm: Literal["frobenius", "spectral"] = "frobenius",
    seeds: int = 5,
    block: Literal["kernel", "bias", "layer"] = "kernel",
    progress: Progress = no_progress,
) -> tuning.Tuning:
    """The scale of each layer's initializer at which its Hessian has the norm ``target``."""
    require_one_of("norm", norm, ("frobenius", "spectral"))
    require_one_of("block", block, ("kernel", "bias", "layer"))
    config = load_config(source)
    initialization.require_drawn(config.model)
    problems = _problems(problem_from_config(config), activations)
    return tuning.tune(
        problems,
        config.model,
        initialization.seeds_from(config.seed, seeds),
        target=target,
        norm=norm,
        block=block,
        progress=progress,
        execution=execution_of(problems[0]),
    )


def train(
    source: ConfigSource | Problem = None,
    *,
    activation: ActivationLike | None = None,
    checkpoint: str | None = None,
    resume: str | None = None,
    watch: training.Watch = training.no_watch,
    stopped: Callable[[], bool] = lambda: False,
    device: str | Device = CPU,
    **options: Any,
) -> training.Training:
    """Trains by SGD and measures the curvature on the way.

    ``source`` is a configuration, or a Problem, which is trained on its own batch. ``options``
    are the keys of the configuration's section ``train``: learning_rate, momentum, batch_size,
    steps, examples, every, measure_examples, checkpoint_every. ``stopped`` is asked after every
    step whether to end. Raises NumericalError if the training diverges.
    """
    settings = {f"train.{key}": value for key, value in options.items()}
    if isinstance(source, Problem):
        config = load_config(settings=settings)
        (problem,) = _problems(source, () if activation is None else activation)
        data = part_at(problem, config.train, f"the problem has {problem.examples}")
    else:
        config = load_config(source, settings=settings, activation=activation)
        data = build_training_data(config)
        agreed(data.problem)
    return training.train(
        data,
        config.train,
        checkpoint=checkpoint,
        resume=resume,
        watch=watch,
        stopped=stopped,
        execution=_execution(data.problem, device),
    )


def export(
    problem: Problem,
    block: str,
    path: str,
    *,
    of: exports.Of = "hessian",
    term: exports.Term = "hessian",
    rows: tuple[int, int | None] | None = None,
    progress: Progress = no_progress,
) -> exports.Export:
    """Writes a block, by the chain rule, to a .npy, .npz, .h5 or .hdf5 file, row by row.

    ``of`` is hessian, diagonal, gradient or jacobian; ``term``, of the first two, hessian,
    gauss-newton or curvature; ``rows`` (start, stop) some of the rows.
    """
    require_one_of("of", of, get_args(exports.Of))
    require_one_of("term", term, get_args(exports.Term))
    return exports.export_block(
        problem,
        block,
        path,
        of=of,
        term=term,
        rows=rows,
        progress=progress,
        execution=execution_of(problem),
    )


def _execution(problem: Problem, device: str | Device) -> Execution:
    """How a problem is run, on a device by its name or as it was opened."""
    opened = open_device(device) if isinstance(device, str) else device
    return execution_of(problem, device=opened)


def _problems(problem: Problem, activations: Activations) -> tuple[Problem, ...]:
    if not isinstance(problem, Problem):
        raise InputError(
            f"problem: {type(problem).__name__}; make one with hesscli.problem_from_config, "
            "problem_from_keras or problem_from_arrays"
        )
    if activations == "all":
        activations = (*ACTIVATIONS, *plugin_names())
    if not isinstance(activations, Sequence) or isinstance(activations, str):
        activations = (activations,)
    chosen: dict[Activation, None] = {
        activation_of(value, "activations"): None for value in activations
    }
    return tuple(problem.with_activation(name) for name in chosen) or (problem,)


def _check_options(
    problem: Problem,
    check: str,
    rtol: float | None,
    layers: Sequence[str],
    block: str,
    probes: int,
    probe_seed: int | None = None,
) -> CheckOptions:
    require_one_of("check", check, CHECK_METHODS)
    require_one_of("block", block, BLOCKS)
    seed = fresh_seed() if probe_seed is None else probe_seed
    return CheckOptions(check, rtol, _known_layers(problem, layers), block, probes, seed)


def _known_layers(problem: Problem, layers: Sequence[str]) -> tuple[str, ...]:
    if isinstance(layers, str):
        layers = (layers,)
    for name in layers:
        require_one_of("layers", name, problem.layer_names)
    return tuple(dict.fromkeys(layers))
