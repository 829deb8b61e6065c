"""``hesscli init --tune``: a Tuning as a Document, and as a section of a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hesscli.config.load import layers_to_yaml, to_yaml
from hesscli.config.schema import Config
from hesscli.problem.initializers import Initializer
from hesscli.report.common import by_activation, heading, listed, preamble
from hesscli.report.document import Case, Column, Document, Table, verdict_text
from hesscli.report.initialization import (
    OVERFLOW,
    seeds_text,
    spread_data,
    spread_text,
)
from hesscli.report.initialization_plot import NORM_SIGNS
from hesscli.studies.initialization import Spread
from hesscli.studies.tuning import SCALES, TUNED_RTOL, TunedBlock, TunedModel, Tuning
from hesscli.studies.verdict import Verdict


def tuning_document(result: Tuning) -> Document:
    """Tables with the section below, data and test cases of a tuning."""
    models = {model.activation: model for model in result.models}
    return Document(
        heading=heading(result.problem, result.environment),
        tables=tuple(
            _table(result, models[activation], rows)
            for activation, rows in by_activation(result.results)
        ),
        data={
            **preamble(
                "hesscli/init-tune/1", Verdict.of(result.passed), result.environment, result.problem
            ),
            "block": result.block,
            "norm": result.norm,
            "target": result.target,
            "rtol": TUNED_RTOL,
            "seeds": list(result.seeds),
            "fresh_seeds": list(result.fresh_seeds),
            "results": [_row_data(row) for row in result.results],
            "sections": {model.activation: _section(model) for model in result.models},
        },
        cases=tuple(
            Case(row.activation, row.layer, _failure(result, row)) for row in result.results
        ),
    )


def tuned_configuration(result: Tuning, config: Config) -> str:
    """``config`` with the tuned initializers of a result of one activation, as YAML."""
    (model,) = result.models
    tuned = replace(config, model=replace(config.model, layers=model.layers))
    return f"# {_what(result, model)}.\n{to_yaml(tuned)}"


def _what(result: Tuning, model: TunedModel) -> str:
    return (
        f"{model.activation}: mean {NORM_SIGNS[result.norm]} of every {result.block} is "
        f"{result.target:g} at {seeds_text(result.seeds)}"
    )


def _section(model: TunedModel) -> str:
    return layers_to_yaml(model.layers)


def _table(result: Tuning, model: TunedModel, rows: tuple[TunedBlock, ...]) -> Table:
    sign = NORM_SIGNS[result.norm]
    return Table(
        title=f"{model.activation}: scales at which the mean {sign} of every {result.block} is "
        f"{result.target:g}",
        columns=(
            Column("layer", numeric=False),
            Column("factor"),
            Column("before"),
            Column("drawn anew"),
            Column("other seeds"),
            Column("verdict", numeric=False),
        ),
        rows=tuple(
            (
                row.layer,
                f"{row.factor:.4g}",
                _spread_text(row.before),
                _spread_text(row.reached),
                _spread_text(row.fresh),
                verdict_text(Verdict.of(row.passed)),
            )
            for row in rows
        ),
        notes=tuple(_notes(result, model, rows)),
    )


def _spread_text(spread: Spread | None) -> str:
    return OVERFLOW if spread is None else spread_text(spread)


def _notes(result: Tuning, model: TunedModel, rows: tuple[TunedBlock, ...]) -> Iterator[str]:
    failed = [row.layer for row in rows if not row.passed]
    if failed:
        low, high = SCALES
        yield (
            f"FAIL: no scales were found at which every layer meets {result.target:g}; "
            f"{listed(failed)} {'miss' if len(failed) > 1 else 'misses'} it at the nearest that "
            f"were, so no section is given. Looked for: kernels with {low:g} to {high:g} times the "
            "deviation of Glorot's. Another --target, --norm or activation may do."
        )
        return
    drawn, other = seeds_text(result.seeds), seeds_text(result.fresh_seeds)
    yield (
        f"{_what(result, model)}, within {TUNED_RTOL:.0%}. Drawn anew: {drawn}; other seeds: "
        f"{other}, which the scales were not fitted to. This section can be pasted into a "
        "configuration:"
    )
    # Four spaces make it a block of code in Markdown.
    yield "\n".join(f"    {line}" for line in _section(model).splitlines())


def _failure(result: Tuning, row: TunedBlock) -> str | None:
    if row.passed:
        return None
    reached = OVERFLOW if row.reached is None else f"{row.reached.mean:.3e}"
    return f"mean {NORM_SIGNS[result.norm]} {reached}; the target is {result.target:g}"


def _row_data(row: TunedBlock) -> dict[str, Any]:
    return {
        "activation": row.activation,
        "layer": row.layer,
        "block": row.block,
        "factor": row.factor,
        "initializer": _initializer_text(row.initializer),
        "before": spread_data(row.before),
        "reached": spread_data(row.reached),
        "fresh": spread_data(row.fresh),
        "status": Verdict.of(row.passed).value,
    }


def _initializer_text(initializer: Initializer) -> str:
    values = ", ".join(f"{key}={value:g}" for key, value in initializer.parameters)
    return f"{initializer.name}({values})"
