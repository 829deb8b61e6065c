"""Wrong chain rules, to see which check notices: the table of docs/trust.md.

    python tests/mutants.py            prints the tables, in a few minutes
    python tests/mutants.py --write    puts them into docs/trust.md

(with the project's environment: ``.venv/bin/python``, once ``make test`` has made it).

A mutant is the chain rule with one of its formulas edited, where it stands in the source, both
in the sweep that rows of a block come from and in the R-operator that products come from. A fault
is a matrix added to a right Hessian, of a size that is chosen. Both are judged by ``verify``.
"""

from __future__ import annotations

import argparse
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import SIXTEEN, make_problem

from hesscli.config.build import build_problem
from hesscli.config.schema import Config
from hesscli.nodes.dense import Dense
from hesscli.nodes.elementwise import Elementwise
from hesscli.nodes.losses import LossDerivatives, loss_derivatives
from hesscli.problem.graph import Activation, Array
from hesscli.problem.network import Loss, Problem
from hesscli.studies.context import no_progress
from hesscli.studies.judge import Check
from hesscli.studies.verification import VerifiedBlock, verify
from hesscli.studies.witnesses import CheckOptions, each_subject
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule import engine as chainrule
from hesscli.witnesses.chain_rule.dense import DenseBlock
from hesscli.witnesses.chain_rule.engine import ChainRule

DOCUMENT = Path(__file__).parents[1] / "docs" / "trust.md"
CHECKS = ("form", "probes", "entries")
DTYPES = ("float64", "float32")
# σ″ = 0 wherever it exists.
PIECEWISE_LINEAR = frozenset({"linear", "relu", "leaky_relu"})

MonkeyPatch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Mutation:
    """One wrong formula. It changes no kernel block of networks with ``unchanged`` activations."""

    name: str
    right: str
    wrong: str
    rows: str
    products: str
    apply: Callable[[MonkeyPatch], None]
    unchanged: frozenset[str] = frozenset()


def edit(patch: MonkeyPatch, owner: type, name: str, old: str, new: str) -> None:
    """Replaces ``old``, which occurs once in the source of ``owner.name``, by ``new``."""
    found = owner.__dict__[name]
    function = found.func if isinstance(found, cached_property) else found
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(old) != 1:
        raise ValueError(f"{old!r} stands {source.count(old)} times in {owner.__name__}.{name}")
    source = source[source.index("def ") :].replace(old, new)
    names: dict[str, Any] = {}
    code = compile("from __future__ import annotations\n" + source, f"<{name}, edited>", "exec")
    exec(code, function.__globals__, names)
    edited: Any = names[name]
    if isinstance(found, cached_property):
        edited = cached_property(edited)
        edited.__set_name__(owner, name)
    patch.setattr(owner, name, edited)


def _edits(*edits: tuple[type, str, str, str]) -> Callable[[MonkeyPatch], None]:
    def apply(patch: MonkeyPatch) -> None:
        for each in edits:
            edit(patch, *each)

    return apply


def _of_second(wrong: str) -> Callable[[MonkeyPatch], None]:
    # σ″ ⊙ g is what both the sweep and the products read.
    return _edits((Elementwise, "curved", "at.sigma.second(z) * g", wrong))


def _transposed(kernel: str) -> str:
    return f"({kernel} if {kernel}.shape[0] == {kernel}.shape[1] else {kernel}.T)"


def _without_scale(patch: MonkeyPatch) -> None:
    edit(patch, ChainRule, "__init__", "problem.scales", "np.ones(problem.examples)")


def _next_class(patch: MonkeyPatch) -> None:
    def wrong(loss: Loss) -> LossDerivatives:
        right = loss_derivatives(loss)
        return replace(
            right, gradient=lambda f, labels: right.gradient(f, (labels + 1) % f.shape[1])
        )

    patch.setattr(chainrule, "loss_derivatives", wrong)


def _swapped_axes(patch: MonkeyPatch) -> None:
    """Parameters of a kernel in Fortran order: (i,h) at h · inputs + i."""
    panels, products, form = DenseBlock.panels, DenseBlock._matmat, DenseBlock.quadratic_form

    def order(self: DenseBlock) -> Any:
        return np.arange(self.shape[0]).reshape(self.inputs, self.units).T.reshape(-1)

    def wrong_panels(self: DenseBlock, start: int, stop: int) -> tuple[Array, ...]:
        wrong = order(self)
        rows = [panels(self, row, row + 1)[0].reshape(-1)[wrong] for row in wrong[start:stop]]
        return (np.stack([row.reshape(self.inputs, self.units) for row in rows], axis=1),)

    def wrong_products(self: DenseBlock, V: Array) -> Array:
        given = np.empty_like(V)
        given[order(self)] = V
        return products(self, given)[order(self)]

    def wrong_form(self: DenseBlock, v: Array) -> float:
        given = np.empty(v.size)
        given[order(self)] = v.reshape(-1)
        return form(self, given)

    patch.setattr(DenseBlock, "panels", wrong_panels)
    patch.setattr(DenseBlock, "_matmat", wrong_products)
    patch.setattr(DenseBlock, "quadratic_form", wrong_form)


MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        "O is dropped",
        "diag(σ″ ⊙ g_a)",
        "0",
        "O in the sweep of S",
        "(σ″ ⊙ g_a) ⊙ Rz",
        _of_second("xp.zeros_like(g)"),
        PIECEWISE_LINEAR,
    ),
    Mutation(
        "wrong sign of σ″",
        "σ″",
        "−σ″",
        "O in the sweep of S",
        "(σ″ ⊙ g_a) ⊙ Rz",
        _of_second("-at.sigma.second(z) * g"),
        PIECEWISE_LINEAR,
    ),
    Mutation(
        "σ′ for σ″",
        "σ″",
        "σ′",
        "O in the sweep of S",
        "(σ″ ⊙ g_a) ⊙ Rz",
        _of_second("at.sigma.first(z) * g"),
    ),
    Mutation(
        "W transposed",
        "W S Wᵀ, g Wᵀ",
        "Wᵀ S W, g W",
        "W S Wᵀ, and g",
        "Rg Wᵀ, and g",
        # Where it can be: a kernel that is not square stays as it is.
        _edits(
            (Dense, "pull", "at.W.T", _transposed("at.W")),
            (
                Dense,
                "second",
                "at.W @ S @ at.W.T",
                "at.W.T @ S @ at.W if len(at.W) == at.W.shape[1] else at.W @ S @ at.W.T",
            ),
        ),
    ),
    Mutation(
        "1/N is missing",
        "c = 1/N",
        "c = 1",
        "S and g at the output",
        "Rg and g at the output",
        _without_scale,
    ),
    Mutation(
        "axes swapped",
        "(i,h) at i · units + h",
        "at h · inputs + i",
        "the order of rows and columns",
        "the order of V and of H·V",
        _swapped_axes,
    ),
    Mutation(
        "class off by one",
        "p − e_y",
        "p − e_{y+1}",
        "g, so O",
        "g, so σ″ ⊙ g_a",
        _next_class,
        PIECEWISE_LINEAR,
    ),
)


def network(activation: str, dtype: str) -> Problem:
    """5-5-5-5, so that W may be transposed, with biases, on 8 examples."""
    return make_problem((5, 5, 5, 5), activation, examples=8, dtype=dtype)


@contextmanager
def applied(apply: Callable[[MonkeyPatch], None]) -> Iterator[None]:
    with MonkeyPatch.context() as patch:
        apply(patch)
        yield


@dataclass(frozen=True)
class Seen:
    """What each check by itself says of the lowest kernel's block, and ``verify`` as a whole."""

    form: bool
    probes: bool
    entries: bool
    verify: bool

    @classmethod
    def of(cls, problem: Problem) -> Seen:
        """True where it says FAIL. Which check ``verify`` does by default is left to it."""
        options = CheckOptions(layers=(problem.layers[0].name,))
        (by_default,) = verify([problem], options).results
        assert by_default.check.method in ("entries", "products")
        ((engines, subject),) = each_subject([problem], options)
        blocks = [engines.chain_rule.hessian]
        (by_probes,) = engines.check_probes(subject, blocks, options, no_progress)
        return cls(
            form=not by_default.form_check.passed,
            probes=not by_probes.passed,
            entries=not by_default.check.passed,
            verify=not by_default.passed,
        )


def mutants() -> dict[tuple[str, str, str], Seen]:
    """What is seen of every mutation in every network, by mutation, activation and dtype."""
    found = {}
    for activation in SIXTEEN:
        for dtype in DTYPES:
            problem = network(activation, dtype)
            for mutation in MUTATIONS:
                with applied(mutation.apply):
                    found[mutation.name, activation, dtype] = Seen.of(problem)
    return found


@dataclass(frozen=True)
class Seen784:
    """What ``verify`` as it comes says of 784-30-30-10 on MNIST.

    ``dense2`` has what it says of that kernel for each activation and type; ``dense1`` the check
    of the largest block, of tanh, for each type.
    """

    dense2: tuple[bool, ...]
    dense1: tuple[Check, ...]

    @classmethod
    def of(cls, mutation: Mutation) -> Seen784:
        # Above dense2 is no square kernel that could be transposed.
        names = [] if mutation.name == "W transposed" else SIXTEEN
        dense2 = [
            not _verified(name, dtype, "dense2").passed
            for name in names
            for dtype in DTYPES
            if name not in mutation.unchanged
        ]
        dense1 = [_verified("tanh", dtype, "dense1").check for dtype in DTYPES]
        return cls(tuple(dense2), tuple(dense1))


def _verified(activation: str, dtype: str, layer: str) -> VerifiedBlock:
    problem = build_problem(Config(dtype=dtype)).with_activation(Activation(activation))
    (row,) = verify([problem], CheckOptions(layers=(layer,))).results
    assert row.check.method == "entries"
    return row


def mutants_of_the_default() -> dict[str, Seen784]:
    found = {}
    for mutation in MUTATIONS:
        with applied(mutation.apply):
            found[mutation.name] = Seen784.of(mutation)
    return found


class Faulty(HessianBlock):
    """A right block with a matrix E (P, P) added, on the paths that are named."""

    def __init__(self, right: HessianBlock, E: Array, rows: bool, products: bool) -> None:
        super().__init__(right.parameter, right.layout, right.dtype)
        self._right = right
        self._in_rows, self._in_products = rows * E, products * E

    def _matmat(self, V: Array) -> Array:
        return np.asarray(self._right.matmat(V) + self._in_products @ V)

    def rows(self, start: int, stop: int) -> Array:
        return np.asarray(self._right.rows(start, stop) + self._in_rows[start:stop])

    def quadratic_form(self, v: Array) -> float:
        return self._right.quadratic_form(v) + float(v @ self._in_products @ v)


@dataclass(frozen=True)
class Fault:
    """A matrix that is added to the lowest kernel's Hessian.

    ``matrix`` makes it of the parameters v and the Hessian; ``size`` says how large it is.
    """

    name: str
    size: str
    matrix: Callable[[Array, Array], Array]
    rows: bool = True
    products: bool = True


def _entry(size: float, v: Array, H: Array, mirrored: float) -> Array:
    """One entry off the diagonal, of the parameters that are nearest to zero."""
    E = np.zeros_like(H)
    i, j = np.argsort(np.abs(v))[:2]
    E[i, j], E[j, i] = size, mirrored * size
    return E


def _across(v: Array, H: Array) -> Array:
    """U uᵀ with u ⟂ v, whose largest entry is 1e-6 of the Hessian's."""
    u = np.cos(np.arange(v.size))
    u = u - v * (u @ v) / (v @ v)
    E = np.outer(u, u)
    return np.asarray(1e-6 * np.abs(H).max() / np.abs(E).max() * E)


def _largest(H: Array) -> float:
    return float(np.abs(H).max())


FAULTS: tuple[Fault, ...] = (
    Fault(
        "one entry and its mirror image",
        "1e-6 of the largest entry",
        lambda v, H: _entry(1e-6 * _largest(H), v, H, 1),
    ),
    Fault("u uᵀ with uᵀv = 0", "1e-6 of the largest entry", _across),
    Fault(
        "one entry, its mirror image with the other sign",
        "1e-6 of the largest entry",
        lambda v, H: _entry(1e-6 * _largest(H), v, H, -1),
    ),
    Fault(
        "one entry and its mirror image",
        "1e-11 ‖H‖_F",
        lambda v, H: _entry(1e-11 * float(np.linalg.norm(H)), v, H, 1),
    ),
    Fault(
        "a thousandth of H, in the rows only",
        "1e-3 of every entry",
        lambda v, H: 1e-3 * H,
        products=False,
    ),
    Fault(
        "a thousandth of H, in the products only",
        "1e-3 of every entry",
        lambda v, H: 1e-3 * H,
        rows=False,
    ),
)


def faulty_network() -> Problem:
    """Its block's Frobenius norm is many times its largest entry, as it is for MNIST's."""
    return make_problem((40, 8, 4), "tanh", examples=24, scale=0.5)


def faults() -> list[tuple[Fault, Seen]]:
    problem = faulty_network()
    name = f"{problem.layers[0].name}/kernel"
    v, H = problem.layers[0].kernel.reshape(-1), ChainRule(problem).hessian(name).to_dense()
    right = ChainRule.hessian
    found = []
    for fault in FAULTS:
        E = fault.matrix(v, H)

        def wrong(
            self: ChainRule, parameter: str, E: Array = E, fault: Fault = fault
        ) -> HessianBlock:
            return Faulty(right(self, parameter), E, fault.rows, fault.products)

        with applied(lambda patch, wrong=wrong: patch.setattr(ChainRule, "hessian", wrong)):
            found.append((fault, Seen.of(problem)))
    return found


def mutant_table(found: Mapping[tuple[str, str, str], Seen]) -> list[str]:
    lines = [
        "| mutant | right | wrong | rows | products | no change for | form | probes | entries |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for mutation in MUTATIONS:
        changed = [name for name in SIXTEEN if name not in mutation.unchanged]
        cells = []
        for check in CHECKS:
            seen = sum(
                getattr(found[mutation.name, name, dtype], check)
                for name in changed
                for dtype in DTYPES
            )
            cells.append(f"{seen} of {len(changed) * len(DTYPES)}")
        unchanged = ", ".join(name for name in SIXTEEN if name in mutation.unchanged) or "–"
        lines.append(
            f"| {mutation.name} | {mutation.right} | {mutation.wrong} | {mutation.rows} "
            f"| {mutation.products} | {unchanged} | {' | '.join(cells)} |"
        )
    return lines


def default_table(found: Mapping[str, Seen784]) -> list[str]:
    lines = [
        "| mutant | dense2 | dense1, tanh, float64 | dense1, tanh, float32 |",
        "|---|---|---|---|",
    ]
    for name, seen in found.items():
        counted = f"{sum(seen.dense2)} of {len(seen.dense2)}" if seen.dense2 else "–"
        checks = [
            f"{'PASS' if check.passed else 'FAIL'} {check.relative_residual:.1g}"
            for check in seen.dense1
        ]
        lines.append(f"| {name} | {counted} | {' | '.join(checks)} |")
    return lines


def fault_table(found: list[tuple[Fault, Seen]]) -> list[str]:
    lines = ["| fault | size | form | probes | entries |", "|---|---|---|---|---|"]
    for fault, seen in found:
        cells = ["FAIL" if getattr(seen, check) else "PASS" for check in CHECKS]
        lines.append(f"| {fault.name} | {fault.size} | {' | '.join(cells)} |")
    return lines


def with_table(text: str, name: str, by: str, lines: list[str]) -> str:
    """``text`` with the lines between the marks of ``name``, made ``by`` a script, replaced."""
    first, last = f"<!-- {name}: made by {by} -->", f"<!-- end of {name} -->"
    before, rest = text.split(first)
    _, after = rest.split(last)
    return "\n".join([f"{before}{first}", *lines, f"{last}{after}"])


def print_or_write(by: str, tables_of: Callable[[], Mapping[str, list[str]]]) -> None:
    """The command line of a script that makes tables of the document, by name."""
    parser = argparse.ArgumentParser(description="Which check sees which wrong chain rule.")
    parser.add_argument("--write", action="store_true", help=f"into {DOCUMENT.name}")
    arguments = parser.parse_args()
    tables = tables_of()
    if not arguments.write:
        print("\n\n".join("\n".join(lines) for lines in tables.values()))
        return
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, lines in tables.items():
        text = with_table(text, name, by, lines)
    DOCUMENT.write_text(text, encoding="utf-8")


def tables() -> dict[str, list[str]]:
    return {
        "mutants": mutant_table(mutants()),
        "mutants of the default": default_table(mutants_of_the_default()),
        "faults": fault_table(faults()),
    }


if __name__ == "__main__":
    print_or_write("tests/mutants.py", tables)
