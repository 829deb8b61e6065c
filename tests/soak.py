"""Random agreement at scale: every witness against every other, on one random network a seed.

    make soak NETWORKS=20000

A network's seed decides everything about it (soak_networks.py) and what is compared, so that
``make soak NETWORKS=1 SEED=S`` is the network S of a longer run again. What is compared is judged
as the product judges it, by the functions of ``hesscli.studies``:

    entries        the chain rule's rows of H, its products with unit vectors, and both of G + C,
                   with autodiff's products
    forms          H along the parameter itself and along a random direction
    of G           the entries of G, and the forms of G and C
    products       random products of H (the check ``probes``)
    finite         finite differences against both others, within their error bars
    chunks         H summed over chunks of the examples, as ``--memory`` has it
    studies        ``verify``, whose autodiff is traced; ``compare``, ``sweep``, ``entry``,
                   ``verify --of gradient`` and ``--of jacobian``

The block of the whole network is compared in all of these ways, and so is one block of a layer
or of the inputs, whose G is asked for in half of the networks; products, chunks and studies are
of some networks, in the shares that stand in ``_SHARES``.

A comparison that does not pass, a warning and a traceback are disagreements. A refusal in one
line (NumericalError) and what finite differences leave open are counted apart.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing import get_context

import numpy as np
from soak_networks import Drawn, drawn

from hesscli.problem.execution import Execution
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.studies.checks import DEFAULT_RTOL, check_entries, check_form
from hesscli.studies.comparison import compare
from hesscli.studies.context import no_progress
from hesscli.studies.entry import entry
from hesscli.studies.finitechecks import (
    check_finite_entries,
    check_finite_form,
    contradiction,
)
from hesscli.studies.first_derivatives import verify_first
from hesscli.studies.judge import Check, excused
from hesscli.studies.probes import check_probes
from hesscli.studies.sweep import sweep
from hesscli.studies.verdict import Verdict
from hesscli.studies.verification import verify
from hesscli.studies.witnesses import CheckOptions, Witnesses
from hesscli.system.errors import NumericalError
from hesscli.system.threads import cores
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.finite.engine import FiniteDifferences, FiniteHessian
from hesscli.witnesses.layout import INPUT, NETWORK, input_example, layout_of
from hesscli.witnesses.rounding.floor import RoundingFloor
from hesscli.witnesses.summed.engine import chain_rule_of, floor_of

# Every entry is compared of blocks up to this many parameters.
_ENTRIES_LIMIT = 260
_PROBES = 6
# Of the blocks that may, how many are compared like this. One of autodiff's products takes as
# long as everything of the chain rule together, and a study takes many of them.
_SHARES = {
    "of G": 0.5,
    "products": 0.5,
    "chunks": 0.2,
    "verify": 0.01,
    "compare": 0.02,
    "sweep": 0.03,
    "gradient": 0.05,
    "jacobian": 0.03,
    "entry": 0.03,
}
# Tracing takes a second for a layer, a block of the whole network a second for each layer.
_TRACED_LAYERS = 3
_SEEDS_AT_ONCE = 25


@dataclass
class Tally:
    """What became of the comparisons of some networks."""

    networks: int = 0
    refused_networks: int = 0
    comparisons: Counter[str] = field(default_factory=Counter)
    numbers: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    undecided: int = 0
    open_by_rounding: int = 0
    by_floor: int = 0
    refusals_of_ordinary: int = 0
    extremes: Counter[str] = field(default_factory=Counter)
    disagreements: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.networks += other.networks
        self.refused_networks += other.refused_networks
        self.comparisons += other.comparisons
        self.numbers += other.numbers
        self.refusals += other.refusals
        self.undecided += other.undecided
        self.open_by_rounding += other.open_by_rounding
        self.by_floor += other.by_floor
        self.refusals_of_ordinary += other.refusals_of_ordinary
        self.extremes += other.extremes
        self.disagreements += other.disagreements


class ByProducts(HessianBlock):
    """A sum of blocks whose rows are its products with unit vectors."""

    def __init__(self, *summands: HessianBlock) -> None:
        first = summands[0]
        super().__init__(first.parameter, first.layout, first.dtype)
        self._summands = summands

    def _matmat(self, V: Array) -> Array:
        total: Array = sum(block.matmat(V) for block in self._summands)
        return total


class ByRows(ByProducts):
    """A sum of blocks by their own rows."""

    def rows(self, start: int, stop: int) -> Array:
        total: Array = sum(block.rows(start, stop) for block in self._summands)
        return total


class Asked(HessianBlock):
    """A block of autodiff, asked once for its products: nothing is traced.

    ``directions`` (P, k) are asked for with the unit vectors, where these are few enough for
    ``every_entry``; ``forms`` (k,) are the quadratic forms of the directions.
    """

    def __init__(self, block: HessianBlock, directions: Array) -> None:
        super().__init__(block.parameter, block.layout, block.dtype)
        self.every_entry = self.shape[0] <= _ENTRIES_LIMIT
        size = self.shape[0] if self.every_entry else 0
        units = np.eye(self.shape[0], size, dtype=block.dtype)
        products = block.matmat(np.concatenate([units, directions], axis=1))
        self._rows = np.ascontiguousarray(products[:, :size].T)
        with np.errstate(over="ignore", invalid="ignore"):
            self.forms = [
                float(v.astype(np.float64) @ product.astype(np.float64))
                for v, product in zip(directions.T, products[:, size:].T, strict=True)
            ]

    def _matmat(self, V: Array) -> Array:
        assert self.every_entry
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(self._rows.T @ V)

    def rows(self, start: int, stop: int) -> Array:
        return self._rows[start:stop]


@dataclass
class Soaked:
    """The comparisons of one network. ``checks`` are judged as they come."""

    problem: Problem
    generator: np.random.Generator
    tally: Tally
    failures: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def run(self) -> None:
        self.attempt("the chain rule", lambda: self.engines)
        if self.refusals or self.failures:
            self.tally.refused_networks += 1
            return
        names = block_names(self.problem)
        for name in (NETWORK, str(self.generator.choice(names))):
            self.of_block(name)
        for what, study in self.studies():
            if self.happens(what):
                self.attempt(what, partial(self.of_study, what, study))

    @property
    def engines(self) -> Witnesses:
        if not hasattr(self, "_engines"):
            chain_rule = ChainRule(self.problem)
            self._engines = Witnesses(self.problem, chain_rule, RoundingFloor(chain_rule))
        return self._engines

    @property
    def rtol(self) -> float:
        return DEFAULT_RTOL[self.problem.dtype.name]

    def attempt(self, what: str, compared: Callable[[], object]) -> None:
        """Runs one comparison: its refusals are counted, what else it raises is a failure."""
        try:
            compared()
        except NumericalError as error:
            if "\n" in str(error) or not str(error):
                self.failures.append(f"{what}: a refusal of several lines: {error!r}")
            self.refusals.append(str(error))
            self.tally.refusals[f"{what}: {kind_of(str(error))}"] += 1
        except Exception as error:
            self.failures.append(f"{what}: {in_short(error)}")

    def judge(self, what: str, check: Check) -> None:
        self.tally.comparisons[what.split(" of ")[0]] += 1
        self.tally.numbers += check.compared
        if check.verdict is Verdict.UNDECIDED:
            self.tally.undecided += 1
            self.tally.open_by_rounding += check.open_by_rounding
            return
        numbers = check.max_abs_residual, check.max_abs_entry, check.floor
        if not check.passed:
            self.failures.append(
                f"{what}: FAIL, residual {numbers[0]:.3e}, largest {numbers[1]:.3e}, floor "
                f"{numbers[2]:.3e}, error bar {check.error_bar:.1e}, at {check.worst}"
            )
        elif not np.isfinite(numbers).all():
            self.failures.append(f"{what}: PASS of what is not finite, {numbers}")
        elif not check.compared:
            self.failures.append(f"{what}: PASS of nothing")
        self.tally.by_floor += check.limited_by_rounding

    def happens(self, what: str) -> bool:
        return bool(self.generator.random() < _SHARES[what])

    def of_block(self, name: str) -> None:
        v = self.engines.direction(name)
        drawn = self.generator.standard_normal(v.size).astype(v.dtype)
        self.directions = np.stack([v, drawn], axis=1)
        of_H = Asked(self.engines.autodiff.hessian(name), self.directions)
        if of_H.every_entry:
            self.attempt(f"entries of {name}", partial(self.entries, name, of_H))
        if name != INPUT:
            self.attempt(f"forms of {name}", partial(self.forms, name, of_H))
        if self.happens("of G") or name == NETWORK:
            self.attempt(f"of G of {name}", partial(self.gauss_newton, name, of_H))
        if name == INPUT:
            return
        if self.happens("products"):
            self.attempt(f"products of {name}", partial(self.products, name, of_H))
        if not of_H.every_entry:
            return
        self.attempt(f"finite of {name}", partial(self.finite, name, of_H))
        if input_example(name) is None and self.happens("chunks"):
            self.attempt(f"chunks of {name}", partial(self.chunks, name, of_H))

    def entries(self, name: str, of_H: Asked) -> None:
        mine = self.engines.chain_rule
        H, G, C = mine.hessian(name), mine.gauss_newton(name), mine.curvature(name)
        candidates = {
            "rows": H,
            "R-operator": ByProducts(H),
            "rows of G + C": ByRows(G, C),
            "products of G + C": ByProducts(G, C),
        }
        self.compare_entries(f"entries of {name}", of_H, candidates, partial(self.floors, name))

    def compare_entries(
        self,
        what: str,
        reference: Asked,
        candidates: dict[str, HessianBlock],
        floor: Callable[[], Array],
    ) -> None:
        of = [*candidates.values()]
        groups = reference.layout.groups
        checks = excused(
            lambda found: check_entries(reference, of, found, self.rtol, no_progress),
            np.zeros((groups, groups)),
            floor,
        )
        for candidate, check in zip(candidates, checks, strict=True):
            self.judge(f"{what}, {candidate}", check)

    def floors(self, name: str) -> Array:
        if name != INPUT:
            return self.engines.floor.entries(name)
        each = [self.engines.floor.entries(f"{INPUT}[{n}]") for n in range(self.problem.examples)]
        return np.max(each, axis=0)

    def forms(self, name: str, of_H: Asked) -> None:
        for v, of_v in zip(self.directions.T, of_H.forms, strict=True):
            H, G, C = self.forms_of(name, v)
            with np.errstate(over="ignore", invalid="ignore"):
                residuals = {"H": of_v - H, "H − (G + C)": H - (G + C)}
            self.compare_forms(name, v, residuals, abs(G) + abs(C))

    def gauss_newton(self, name: str, of_H: Asked) -> None:
        """G, and C as what it leaves of H."""
        of_G = Asked(self.engines.autodiff.gauss_newton(name), self.directions)
        if of_G.every_entry:
            G = self.engines.chain_rule.gauss_newton(name)
            candidates = {"rows of G": G, "products of G": ByProducts(G)}
            self.compare_entries(f"entries of {name}", of_G, candidates, partial(self.floors, name))
        if name == INPUT:
            return
        for v, H_form, G_form in zip(self.directions.T, of_H.forms, of_G.forms, strict=True):
            _, G_mine, C_mine = self.forms_of(name, v)
            with np.errstate(over="ignore", invalid="ignore"):
                residuals = {"G": G_form - G_mine, "C": H_form - G_form - C_mine}
            self.compare_forms(name, v, residuals, abs(G_mine) + abs(C_mine))

    def forms_of(self, name: str, v: Array) -> tuple[float, float, float]:
        """The chain rule's forms of H, G and C."""
        mine = self.engines.chain_rule
        H, G, C = (
            of(name).quadratic_form(v) for of in (mine.hessian, mine.gauss_newton, mine.curvature)
        )
        return H, G, C

    def compare_forms(self, name: str, v: Array, residuals: dict[str, float], scale: float) -> None:
        floor = partial(self.engines.floor.quadratic_form, name, v)
        for term, residual in residuals.items():
            check = check_form(name, float(residual), scale, floor, self.rtol)
            self.judge(f"forms of {name}, {term}", check)

    def products(self, name: str, of_H: Asked) -> None:
        (check,) = check_probes(
            of_H if of_H.every_entry else self.engines.autodiff.hessian(name),
            [self.engines.chain_rule.hessian(name)],
            partial(self.engines.floor.product_norm, name),
            self.rtol,
            _PROBES,
            no_progress,
        )
        self.judge(f"products of {name}", check)

    def chunks(self, name: str, of_H: Asked) -> None:
        """Rows and products of the sum over chunks of the examples."""
        size = int(self.generator.integers(1, self.problem.examples + 1))
        engine = chain_rule_of(self.problem, Execution(size))
        H = engine.hessian(name)
        candidates = {"rows": H, "products": ByProducts(H)}
        floor = partial(floor_of(engine).entries, name)
        self.compare_entries(f"chunks of {name}, {size} at a time", of_H, candidates, floor)

    def finite_entries(
        self, block: HessianBlock, finite: FiniteHessian, floor: Array
    ) -> list[Check]:
        return [check_finite_entries(block, finite, floor, self.rtol, no_progress)]

    def finite(self, name: str, of_H: Asked) -> None:
        finite = FiniteDifferences(self.problem).hessian(name)
        # Two witnesses are compared with the same rows.
        finite.rows_with_error = cache(finite.rows_with_error)  # type: ignore[method-assign]
        mine = self.engines.chain_rule
        for witness, block in (("autodiff", of_H), ("chain rule", mine.hessian(name))):
            groups = block.layout.groups
            (check,) = excused(
                partial(self.finite_entries, block, finite),
                np.zeros((groups, groups)),
                partial(self.floors, name),
            )
            self.judge(f"finite of {name}, {witness}", check)
        wrong = contradiction(finite, self.rtol)
        if wrong is not None:
            self.judge(f"finite of {name}, slopes", wrong)
        v = self.directions[:, 0]
        H, G, C = self.forms_of(name, v)
        found = finite.form_with_error(v)
        form_floor = partial(self.engines.floor.quadratic_form, name, v)
        for witness, form in (("autodiff", of_H.forms[0]), ("chain rule", H)):
            check = check_finite_form(name, form, found, abs(G) + abs(C), form_floor, self.rtol)
            self.judge(f"finite of {name}, form of {witness}", check)

    def studies(self) -> Iterator[tuple[str, Callable[[], Iterator[Check]]]]:
        """Each study, and the checks that it makes."""
        problems = [self.problem]
        block = str(self.generator.choice(["kernel", "layer", INPUT, NETWORK]))
        options = CheckOptions(method="form", block=block)

        def traced() -> Iterator[Check]:
            few = len(self.problem.layers) <= _TRACED_LAYERS
            layer = str(self.generator.choice(self.problem.layer_names))
            blocks = [("kernel", (layer,)), ("layer", (layer,)), (INPUT, ())]
            blocks += [(NETWORK, ())] if few else []
            block, layers = blocks[int(self.generator.integers(len(blocks)))]
            witnesses = ("chain_rule", "autodiff", "finite")
            found = verify(problems, CheckOptions(block=block, layers=layers), witnesses=witnesses)
            return (
                check
                for row in found.results
                for pair in row.pairs
                for check in (pair.check, pair.form_check)
            )

        def compared() -> Iterator[Check]:
            rows = compare(problems, options).results
            return (check for row in rows for check in row.form_checks)

        def swept() -> Iterator[Check]:
            nodes = sweep(problems).results
            return (check for node in nodes for check in (node.g_check, node.S_check))

        def first(of: str) -> Iterator[Check]:
            rows = verify_first(problems, of, replace_block(options)).results  # type: ignore[arg-type]
            return (row.check for row in rows)

        def replace_block(options: CheckOptions) -> CheckOptions:
            return CheckOptions(block=options.block)

        def one_entry() -> Iterator[Check]:
            name = NETWORK if self.generator.random() < 0.7 else INPUT
            layout = layout_of(self.problem, name)
            places = self.generator.integers(layout.size, size=2).tolist()
            (row,) = entry(problems, *(layout.name_of(place) for place in places)).results
            finite = [] if row.finite is None else [row.finite.check]
            return iter([*(term.check for term in row.terms), *finite])

        yield "verify", traced
        yield "compare", compared
        yield "sweep", swept
        yield "gradient", partial(first, "gradient")
        yield "jacobian", partial(first, "jacobian")
        yield "entry", one_entry

    def of_study(self, what: str, study: Callable[[], Iterator[Check]]) -> None:
        for check in study():
            self.judge(f"{what} of {check.method} {check.worst}", check)


def block_names(problem: Problem) -> list[str]:
    names = [f"{INPUT}[{example}]" for example in range(problem.examples)] + [INPUT]
    for layer in problem.layers:
        names += [layer.name, f"{layer.name}/kernel"]
        if layer.bias is not None:
            names.append(f"{layer.name}/bias")
    return names


def kind_of(message: str) -> str:
    """A refusal without what differs from network to network."""
    message = re.sub(r"∂\S+", "∂…", message)
    message = re.sub(r"(dense\d+|input)(/\w+)?(\[[\d,]+\])?", "…", message)
    message = message.replace("network:", "…:")
    return re.sub(r"float(32|64)|\(\w+(\(.*\))?\)", "…", message).split(";")[0]


def soaked(seed: int) -> Tally:
    """Draws the network of ``seed`` and compares its witnesses."""
    tally = Tally(networks=1)
    try:
        network = drawn(seed)
    except Exception as error:
        tally.disagreements.append(f"seed {seed}: drawing: {in_short(error)}")
        return tally
    tally.extremes.update(network.extremes)
    run = Soaked(network.problem, np.random.default_rng([seed, 1]), tally)
    run.run()
    tally.refusals_of_ordinary += 0 if network.extremes else len(run.refusals)
    tally.disagreements += [
        f"seed {seed}: {described(network)}\n  {failure}" for failure in run.failures
    ]
    return tally


def in_short(error: Exception) -> str:
    """The error, and the last places of our own that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f"{frame.name}:{frame.lineno}" for frame in frames if "hesscli" in frame.filename]
    return f"{type(error).__name__}: {str(error)[:300]} ({' > '.join(ours[-4:])})"


def described(network: Drawn) -> str:
    problem = network.problem
    widths = "-".join(str(width) for width in problem.widths)
    activations = ",".join(str(layer.activation) for layer in problem.layers)
    loss = f"{problem.loss.name} ({problem.loss.reduction})"
    extremes = "; ".join(network.extremes) or "nothing extreme"
    return (
        f"{problem.dtype} {widths} {activations}, {loss}, {problem.examples} examples, {extremes}"
    )


def several(seeds: Sequence[int]) -> Tally:
    total = Tally()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in seeds:
            total.add(soaked(seed))
    return total


def soak(networks: int, seed: int, jobs: int, report: Callable[[Tally], None]) -> Tally:
    """Soaks the networks of the seeds from ``seed`` on."""
    chunks = [
        range(low, min(low + _SEEDS_AT_ONCE, seed + networks))
        for low in range(seed, seed + networks, _SEEDS_AT_ONCE)
    ]
    total = Tally()
    if jobs == 1:
        for chunk in chunks:
            total.add(several(chunk))
            report(total)
        return total
    # A process for each job, made again: TensorFlow does not survive a fork.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for tally in pool.map(several, chunks):
            total.add(tally)
            report(total)
    return total


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compares the witnesses on random networks.")
    parser.add_argument("--networks", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first network")
    parser.add_argument("--jobs", type=int, default=cores(), help="processes")
    arguments = parser.parse_args(given)
    # One thread each: the arrays are small, and jobs are what is parallel.
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    started, told = time.monotonic(), 0

    def report(total: Tally) -> None:
        nonlocal told
        for disagreement in total.disagreements[told:]:
            print(disagreement, flush=True)
        told = len(total.disagreements)
        seconds = time.monotonic() - started
        print(f"{total.networks} networks, {seconds:.0f} s, {told} disagreements", file=sys.stderr)

    total = soak(arguments.networks, arguments.seed, arguments.jobs, report)
    print(summary(total, time.monotonic() - started))
    seeds = dict.fromkeys(re.findall(r"^seed (\d+):", "\n".join(total.disagreements), re.MULTILINE))
    for seed in seeds:
        print(f"again: make soak NETWORKS=1 SEED={seed}")
    return 1 if total.disagreements else 0


def summary(total: Tally, seconds: float) -> str:
    lines = [
        f"{total.networks:,} networks in {seconds:,.0f} s: {sum(total.comparisons.values()):,} "
        f"comparisons of {total.numbers:,} numbers, {len(total.disagreements)} disagreements",
        *(f"  {count:>9,}  {what}" for what, count in sorted(total.comparisons.items())),
        f"{total.undecided:,} undecided, {total.open_by_rounding:,} of them by a rounding floor "
        f"that is not small; {total.by_floor:,} passed by the floor",
        f"{total.refused_networks:,} networks refused as a whole; refusals, "
        f"{total.refusals_of_ordinary:,} of them in networks with nothing extreme:",
        *(f"  {count:>9,}  {what}" for what, count in total.refusals.most_common()),
        "extremes drawn:",
        *(f"  {count:>9,}  {what}" for what, count in total.extremes.most_common()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
