"""One second-order partial derivative, or one pure second derivative, by all witnesses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from hesscli.problem.execution import HELD, Execution
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.studies.checks import rtol_for
from hesscli.studies.context import Progress, Study, no_progress
from hesscli.studies.evaluation import origin
from hesscli.studies.finitechecks import check_finite_form, contradiction
from hesscli.studies.judge import Check, judged_alone, layer_around
from hesscli.studies.ontrial import judged
from hesscli.studies.referee import (
    CORNER,
    Answer,
    Ruling,
    affordable,
    referee_of,
)
from hesscli.studies.verdict import Judged, Verdict, joint
from hesscli.system.errors import InputError, NumericalError
from hesscli.witnesses.block import Engine
from hesscli.witnesses.layout import (
    INPUT,
    NETWORK,
    Layout,
    input_example,
    layer_of,
    layout_of,
    tensor_of,
)
from hesscli.witnesses.summed.engine import (
    ChainRuleEngine,
    autodiff_of,
    chain_rule_of,
    floor_of,
    require_held,
)
from hesscli.witnesses.summed.finite import FiniteBlock, finite_of


@dataclass(frozen=True)
class EntryTerm:
    """The entry of one term of the Hessian by both witnesses.

    ``term`` is ``hessian``, ``gauss_newton`` or ``curvature``; ``check`` judges the residual by
    the largest entry that autodiff has in the row of the first name and the layer of the second,
    in any of the terms.
    """

    term: str
    autodiff: float
    chain_rule: float
    check: Check

    @property
    def residual(self) -> float:
        return self.autodiff - self.chain_rule


@dataclass(frozen=True)
class FiniteEntry:
    """The Hessian's entry by finite differences: ``check`` compares it with autodiff's.

    If the gradients that are differenced are not the slopes of the loss, it is that check.
    If ``check`` is not decided the error bar, which may be infinite, is too wide to tell.
    """

    value: float
    error: float
    residual: float
    check: Check


@dataclass(frozen=True)
class EntryOf(Judged):
    """The entry for one activation. ``block`` is the block whose row was computed.

    ``finite`` is None for inputs of two different examples, whose derivative is zero by
    structure. ``ruling`` is the referee's on the Hessian, if it was asked for or what is found
    would be open; ``unruled`` says why there is none.
    """

    activation: str
    block: str
    terms: tuple[EntryTerm, ...]
    finite: FiniteEntry | None
    ruling: Ruling | None = None
    unruled: str | None = None

    def verdict_of(self, term: EntryTerm) -> Verdict:
        """Whether the exact witnesses agree, by the referee if it answered for the term.

        It answers for the Hessian, and for a term that is the Hessian by both witnesses.
        """
        whole = self.terms[0]
        same = (term.autodiff, term.chain_rule) == (whole.autodiff, whole.chain_rule)
        return self.ruling.verdict if self.ruling is not None and same else term.check.verdict

    @property
    def verdict(self) -> Verdict:
        """Whether the exact witnesses agree, and finite differences do not contradict them."""
        if self.finite is not None and self.finite.check.failed:
            return Verdict.FAIL
        return joint(map(self.verdict_of, self.terms))


@dataclass(frozen=True)
class Entry(Study):
    """The result of ``hesscli entry``: ∂²L/∂first ∂second for each activation.

    ``first`` and ``second`` are parameters or input values as the layout names them;
    ``separate_examples`` says that they are inputs of two different examples.
    """

    first: str
    second: str
    separate_examples: bool
    results: tuple[EntryOf, ...]


@dataclass(frozen=True)
class _Place:
    """The entry's block, and its row and column there."""

    block: str
    layout: Layout
    row: int
    column: int
    separate_examples: bool

    @property
    def beside(self) -> slice:
        """The row's entries in the layer of the column."""
        return layer_around(self.layout, self.column)

    @property
    def names(self) -> tuple[str, str]:
        return self.layout.name_of(self.row), self.layout.name_of(self.column)


def entry(
    problems: Sequence[Problem],
    first: str,
    second: str,
    rtol: float | None = None,
    progress: Progress = no_progress,
    *,
    referee: bool = False,
    execution: Execution = HELD,
) -> Entry:
    """∂²L/∂first ∂second of ``problems``, which differ in their activations only.

    The names are as in ``dense1/kernel[300,4]``, ``dense2/bias[7]`` or ``input[0][5]``. ``rtol``
    None takes the default of the dtype; ``referee`` has the entry computed to 50 digits, as what
    is open is anyway. Raises InputError for a name that is none, for one input with one parameter,
    and if the referee is asked for and cannot answer; NumericalError if an entry leaves the
    range of the dtype.
    """
    place = _place(problems[0], first, second)
    rows = []
    for done, problem in enumerate(problems):
        progress(problem.hidden_activation, done, len(problems))
        rows.append(_entry_of(problem, execution, place, rtol, referee))
    return Entry(
        *origin(problems, execution),
        *place.names,
        place.separate_examples,
        tuple(rows),
    )


def _place(problem: Problem, first: str, second: str) -> _Place:
    """The smallest block that both names are in, and where they are in it."""
    one, other = tensor_of(problem, first), tensor_of(problem, second)
    examples = input_example(one), input_example(other)
    if examples.count(None) == 1:
        raise InputError(
            f"{first} and {second}: one is an input and one a parameter; give two parameters or "
            "two inputs"
        )
    if one == other:
        block = one
    elif None not in examples:
        block = INPUT
    else:
        of_layers = {layer_of(one), layer_of(other)}
        block = layer_of(one) if len(of_layers) == 1 else NETWORK
        if block == NETWORK and of_layers & set(problem.frozen):
            raise InputError(
                f"{first} and {second}: of a frozen layer ({', '.join(problem.frozen)}) only its "
                "own block is known; give two parameters of one layer"
            )
    layout = layout_of(problem, block)
    return _Place(block, layout, layout.index_of(first), layout.index_of(second), block == INPUT)


def _entry_of(
    problem: Problem, execution: Execution, place: _Place, rtol: float | None, referee: bool
) -> EntryOf:
    if place.block.startswith(INPUT):
        require_held(problem, execution, "an input belongs to one of them")
    chain_rule, autodiff = chain_rule_of(problem, execution), autodiff_of(problem, execution)
    floor = cache(partial(_floor, chain_rule, place))
    rtol = rtol_for(problem.dtype.name, rtol)

    # H is symmetric: the row is a product, which for one is quicker than rows().
    unit = np.zeros(place.layout.size, dtype=problem.dtype)
    unit[place.row] = 1

    def row(engine: Engine, term: str) -> Array:
        values: Array = getattr(engine, term)(place.block) @ unit
        return values

    terms = ("hessian", "gauss_newton", "curvature")
    theirs = {term: row(autodiff, term) for term in terms}
    scale = float(max(np.abs(values[place.beside]).max() for values in theirs.values()))
    ours = {term: row(chain_rule, term) for term in terms}
    found = [
        _term(
            problem,
            term,
            float(theirs[term][place.column]),
            float(ours[term][place.column]),
            scale,
            rtol,
            floor,
            place.names,
        )
        for term in terms
    ]
    finite = None
    if not place.separate_examples:
        block = finite_of(problem, execution).hessian(place.block)
        finite = _finite(block, place, unit, found[0].autodiff, scale, rtol, floor)
        finite = replace(finite, check=judged(problem, finite.check))
    result = EntryOf(problem.hidden_activation, place.block, tuple(found), finite)
    if not referee and found[0].check.verdict is not Verdict.UNDECIDED:
        return result
    # A witness that lost its digits may have found too large a number.
    largest = min(float(np.abs(of["hessian"][place.beside]).max()) for of in (theirs, ours))
    try:
        return replace(
            result, ruling=_ruling(problem, execution, place, found[0], largest, rtol, floor)
        )
    except InputError as error:
        if referee:
            raise InputError(f"--referee: {error}") from error
        return replace(result, unruled=str(error))


def _ruling(
    problem: Problem,
    execution: Execution,
    place: _Place,
    term: EntryTerm,
    largest: float,
    rtol: float,
    floor: Callable[[], float],
) -> Ruling:
    """Both witnesses by the Hessian's entry to 50 digits; InputError if that is unknown."""
    asked = referee_of(problem, execution)
    if (too_much := affordable(asked, 1)) is not None:
        raise InputError(too_much)
    exact = asked.entry(place.block, place.row, place.column)
    if exact is None:
        raise InputError(CORNER)
    by_witness = {"chain_rule": term.chain_rule, "autodiff": term.autodiff}
    scale = max(abs(exact.value), largest)
    checks = {
        name: judged(
            problem, judged_alone("entry", value - exact.value, scale, rtol, floor, place.names)
        )
        for name, value in by_witness.items()
    }
    return Ruling("chain_rule", (Answer(place.names, exact, by_witness, checks),))


def _finite(
    block: FiniteBlock,
    place: _Place,
    unit: Array,
    autodiff: float,
    scale: float,
    rtol: float,
    floor: Callable[[], float],
) -> FiniteEntry:
    values, errors = block.product_with_error(unit.astype(np.float64)[:, None])
    value, error = float(values[place.column, 0]), float(errors[place.column, 0])
    name = f"{place.names[0]}, {place.names[1]}"
    check = contradiction(block, rtol) or check_finite_form(
        name, autodiff, (value, error), scale, floor, rtol
    )
    return FiniteEntry(value, error, autodiff - value, check)


def _term(
    problem: Problem,
    term: str,
    autodiff: float,
    chain_rule: float,
    scale: float,
    rtol: float,
    floor: Callable[[], float],
    names: tuple[str, str],
) -> EntryTerm:
    size = abs(autodiff - chain_rule)
    if not np.isfinite([size, scale]).all():
        raise NumericalError(
            f"{names[0]}, {names[1]}: the entry is not finite; use smaller weights or dtype float64"
        )
    check = judged_alone("entry", size, scale, rtol, floor, names)
    return EntryTerm(term, autodiff, chain_rule, judged(problem, check))


def _floor(chain_rule: ChainRuleEngine, place: _Place) -> float:
    """The uncertainty by rounding; 0 between two examples, where nothing is rounded."""
    if place.separate_examples:
        return 0.0
    floors = floor_of(chain_rule).entries(place.block)
    return place.layout.at(floors, place.row, place.column)
