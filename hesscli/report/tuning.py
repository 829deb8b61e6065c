"""``hesscli init --tune``: a Tuning as a Document, and as a section of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from operator import attrgetter

from hesscli.config.load import layers_to_yaml, to_yaml
from hesscli.config.schema import Config
from hesscli.problem.initializers import Initializer
from hesscli.report.common import ROW, STATUS, by_activation, listed, study_document
from hesscli.report.document import Case, Document, scientific, verdict_text
from hesscli.report.fields import Field, named, table
from hesscli.report.initialization import (
    OVERFLOW,
    seeds_text,
    spread_data,
    spread_text,
)
from hesscli.report.initialization_plot import NORM_SIGNS
from hesscli.report.tuning_plot import tuning_drawing
from hesscli.studies.initialization import Spread
from hesscli.studies.tuning import SCALES, TUNED_RTOL, TunedBlock, TunedModel, Tuning


def _initializer_text(initializer: Initializer) -> str:
    values = ", ".join(f"{key}={value:g}" for key, value in initializer.parameters)
    return f"{initializer.name}({values})"


def _size(title: str, attribute: str) -> tuple[Field, Field]:
    find: Callable[[TunedBlock], Spread | None] = attrgetter(attribute)
    return (
        Field(attribute, lambda row: spread_data(find(row))),
        Field(None, lambda row: spread_text(size) if (size := find(row)) else OVERFLOW, title),
    )


_FIELDS = (
    *ROW,
    Field("factor", title="factor", text=lambda factor: f"{factor:.4g}"),
    Field("initializer", lambda row: _initializer_text(row.initializer)),
    *_size("before", "before"),
    *_size("after", "reached"),
    *_size("other seeds", "fresh"),
    STATUS,
    named(None, "verdict", lambda row: verdict_text(row.verdict)),
)


def tuning_document(result: Tuning) -> Document:
    """Tables with the section below, data and test cases of a tuning."""
    models = {model.activation: model for model in result.models}
    return study_document(
        result,
        "init-tune",
        _FIELDS,
        before={
            "block": result.block,
            "norm": result.norm,
            "target": result.target,
            "rtol": TUNED_RTOL,
            "seeds": result.seeds,
            "fresh_seeds": result.fresh_seeds,
        },
        after={"sections": {model.activation: _section(model) for model in result.models}},
        tables=(
            table(
                f"{activation}: scales at which the mean {NORM_SIGNS[result.norm]} of every "
                f"{result.block} is {result.target:g}",
                _FIELDS,
                rows,
                _notes(result, models[activation], rows),
            )
            for activation, rows in by_activation(result.results)
        ),
        cases=(Case(row.activation, row.layer, _failure(result, row)) for row in result.results),
        drawings=(
            tuning_drawing(result, activation, rows)
            for activation, rows in by_activation(result.results)
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


def _notes(result: Tuning, model: TunedModel, rows: Sequence[TunedBlock]) -> Iterator[str]:
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
        f"{_what(result, model)}, within {TUNED_RTOL:.0%}. After: {drawn}, drawn again; other "
        f"seeds: {other}, which the scales were not fitted to. This section can be pasted into a "
        "configuration:"
    )
    # Four spaces make it a block of code in Markdown.
    yield "\n".join(f"    {line}" for line in _section(model).splitlines())


def _failure(result: Tuning, row: TunedBlock) -> str | None:
    if row.passed:
        return None
    reached = OVERFLOW if row.reached is None else scientific(row.reached.mean, 4)
    return f"mean {NORM_SIGNS[result.norm]} {reached}; the target is {result.target:g}"
