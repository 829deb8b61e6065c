"""The time that norms over many examples will take, estimated from a few of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hesscli.problem.network import Problem
from hesscli.studies.norms import frobenius_norms, frobenius_work, layer_block, spectral_norm
from hesscli.system.errors import NumericalError
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.layout import layout_of

# What takes less seconds than this is not announced.
WORTH_SAYING = 10.0
# So many multiplications are done in about a second, and a trial would be a large part of it.
_SHORT_WORK = 1e10
# More than most layers have inputs: of fewer examples the spectral norm is found in another way.
_TRIAL_EXAMPLES = 1024
_WARMING_EXAMPLES = 64


def seconds_of(
    problem: Problem, names: Sequence[str], draws: int, *, spectral: bool, blocks: int
) -> float:
    """How long the norms of the layers' blocks ``names`` take at ``draws`` draws, about.

    They are ‖·‖₂ of H, if ``spectral``, and ‖·‖_F of so many ``blocks``: none, H alone, or 3
    with its two terms. The time for ‖·‖_F is that of a trial times the ratio of their work
    (``frobenius_work``); all else grows as the number of examples. 0 if it is certainly little.
    """
    engine = ChainRule(problem.part(0, min(1, problem.examples)))
    if not all(engine.is_dense(name) for name in names):
        return 0.0
    segments = [layout_of(problem, name).segments[0] for name in names]
    shapes = [(segment.rows, segment.units) for segment in segments]
    examples, few = problem.examples, _TRIAL_EXAMPLES
    work = [frobenius_work(examples, *shape, max(blocks, 1)) for shape in shapes]
    if examples <= few or draws * sum(work) < _SHORT_WORK:
        return 0.0
    try:
        # Once for what only the first call does: threads that start, modules that are imported.
        _trial(problem.part(0, _WARMING_EXAMPLES), names, spectral, blocks)
        times = _trial(problem.part(0, few), names, spectral, blocks)
    except NumericalError:
        # The draws of the study may well be in range; of this one nothing can be said.
        return 0.0
    return draws * sum(
        rest * examples / few + frobenius * whole / frobenius_work(few, *shape, max(blocks, 1))
        for (rest, frobenius), shape, whole in zip(times, shapes, work, strict=True)
    )


def _trial(
    problem: Problem, names: Sequence[str], spectral: bool, blocks: int
) -> list[tuple[float, float]]:
    """Seconds for ‖·‖_F of each block, after those for all else."""
    engine = ChainRule(problem)
    terms = (engine.hessian, engine.gauss_newton, engine.curvature)[: max(blocks, 1)]
    times = []
    for name in names:
        began = time.perf_counter()
        parts = [layer_block(term(name)) for term in terms]
        for part in parts:
            part.S  # noqa: B018  # computed when it is asked for
        if spectral:
            spectral_norm(parts[0])
        middle = time.perf_counter()
        if blocks > 0:
            frobenius_norms(parts)
        times.append((middle - began, time.perf_counter() - middle))
    return times


def duration_text(duration: float) -> str:
    """``40 seconds``, ``12 minutes`` or ``3 hours``."""
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if duration >= 2 * size:
            return f"{duration / size:.0f} {unit}"
    return f"{duration:.0f} seconds"
