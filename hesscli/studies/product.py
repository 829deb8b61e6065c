"""H·v, G·v and C·v of a vector v, by the chain rule and by autodiff.

H·v is the gradient of vᵀ∂L/∂θ, so its numbers are judged as those of a gradient are: each by the
largest one of its layer, and by what rounding leaves uncertain of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from hesscli.nodes.passes import CURVATURE, GAUSS_NEWTON, HESSIAN, Term
from hesscli.problem.execution import HELD, Execution
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.problem.vectorfile import Vector
from hesscli.studies.blocks import chosen
from hesscli.studies.checks import frobenius_norm, rtol_for
from hesscli.studies.context import Progress, Study, no_progress
from hesscli.studies.evaluation import origin
from hesscli.studies.judge import Check, Tally
from hesscli.studies.ontrial import judged
from hesscli.studies.rows import Piece
from hesscli.studies.verdict import Judged, Verdict
from hesscli.studies.witnesses import Witnesses
from hesscli.system.ranges import require_not_negative, require_whole
from hesscli.witnesses.layout import Layout, layout_of
from hesscli.witnesses.solution import vector_of
from hesscli.witnesses.summed.engine import chain_rule_of, floor_of

TERMS = (HESSIAN, GAUSS_NEWTON, CURVATURE)
_LETTERS = "HGC"


@dataclass(frozen=True)
class ProductOptions:
    """Which blocks, how closely, and the ``seed`` that draws v if none is given.

    ``rtol`` None takes the default of the dtype; no layers mean all of them.
    """

    block: str = "kernel"
    layers: tuple[str, ...] = ()
    rtol: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rtol is not None:
            require_not_negative("rtol", self.rtol)
        require_whole("probe_seed", self.seed, 0)


@dataclass(frozen=True)
class MultipliedBlock(Judged):
    """T·v of one ``term`` T of a block, H, G or C: its length, and vᵀT v, by both witnesses.

    ``vector_norm`` is ‖v‖, ``product`` (P,) the chain rule's; ``check`` compares every number.
    """

    activation: str
    layer: str
    block: str
    layout: Layout
    term: str
    vector_norm: float
    product: Array
    autodiff_norm: float
    chain_rule_norm: float
    autodiff_form: float
    chain_rule_form: float
    check: Check

    @property
    def size(self) -> int:
        return self.layout.size

    @property
    def verdict(self) -> Verdict:
        return self.check.verdict


@dataclass(frozen=True)
class Product(Study):
    """The result of ``hesscli product``, a row for each activation, block and term.

    ``given`` says that v was given, not drawn.
    """

    options: ProductOptions
    given: bool
    results: tuple[MultipliedBlock, ...]


def product(
    problems: Sequence[Problem],
    options: ProductOptions,
    vector: Vector | None = None,
    progress: Progress = no_progress,
    *,
    execution: Execution = HELD,
) -> Product:
    """H·v, G·v and C·v in blocks of ``problems``, which differ in their activations only.

    ``vector`` None draws normal numbers by the seed, the same for every activation. Raises
    InputError if the options name no block or v does not fit, NumericalError if a product
    leaves the range of the dtype.
    """
    names = chosen(problems[0], options.block, options.layers)
    total = len(problems) * len(names)
    rows: list[MultipliedBlock] = []
    for problem in problems:
        chain_rule = chain_rule_of(problem, execution)
        witnesses = Witnesses(problem, chain_rule, floor_of(chain_rule), execution)
        for layer, parameter in names:
            done = len(rows) // len(TERMS)
            progress(f"{problem.hidden_activation} {parameter}", done, total)
            layout = layout_of(problem, parameter)
            drawn = np.random.default_rng(options.seed).standard_normal(layout.size)
            given = drawn if vector is None else vector(layout.shapes)
            v = vector_of(chain_rule.hessian(parameter), given)
            by_term = _multiplied(witnesses, parameter, v, options.rtol)
            rows += [of(layer=layer, block=options.block) for of in by_term]
    return Product(
        *origin(problems, execution),
        options,
        vector is not None,
        tuple(rows),
    )


def _multiplied(
    witnesses: Witnesses, parameter: str, v: Array, rtol: float | None
) -> Iterator[Callable[..., MultipliedBlock]]:
    """A row of each term, but for the layer and the block that it is of."""
    problem, layout = witnesses.problem, layout_of(witnesses.problem, parameter)
    autodiff, chain_rule = witnesses.autodiff, witnesses.chain_rule
    ours = [getattr(chain_rule, term.name)(parameter).hvp(v) for term in TERMS]
    theirs = [of(parameter).hvp(v) for of in (autodiff.hessian, autodiff.gauss_newton)]
    with np.errstate(over="ignore", invalid="ignore"):
        # As autodiff's curvature is defined, without its two products once more.
        theirs.append(theirs[0] - theirs[1])
    for index, (term, reference, product) in enumerate(zip(TERMS, theirs, ours, strict=True)):
        piece = Piece(
            layout,
            0,
            reference[None],
            product[None],
            partial(_floor, witnesses, parameter, v, term),
            partial(_names, layout, f"{_LETTERS[index]}·v"),
            number="{} at {}",
            subtracted=theirs[1][None] if term is CURVATURE else None,
        )
        tally = Tally(rtol_for(problem.dtype.name, rtol))
        for part, seen in piece.seen(tally.rtol):
            tally.add(part, seen)
        forms = [float(v @ found.astype(np.float64)) for found in (reference, product)]
        yield partial(
            MultipliedBlock,
            activation=problem.hidden_activation,
            layout=layout,
            term=term.name,
            vector_norm=frobenius_norm(v),
            product=product,
            autodiff_norm=frobenius_norm(reference),
            chain_rule_norm=frobenius_norm(product),
            autodiff_form=forms[0],
            chain_rule_form=forms[1],
            check=judged(problem, tally.check("product")),
        )


def _floor(witnesses: Witnesses, parameter: str, v: Array, term: Term) -> Array:
    terms = (HESSIAN, GAUSS_NEWTON) if term is CURVATURE else (term,)
    floors = [witnesses.floor.product(parameter, v[:, None], of)[:, 0] for of in terms]
    return np.asarray(sum(floors))[None]


def _names(layout: Layout, product: str, _: int, column: int) -> tuple[str, str]:
    return product, layout.name_of(column)
