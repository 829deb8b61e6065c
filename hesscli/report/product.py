"""``hesscli product``: a Product as a Document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hesscli.report.common import (
    ROW,
    STATUS,
    beyond,
    by_activation,
    limited_of,
    outcome,
    rounding_notes,
    study_document,
    undecided_notes,
    verdict_column,
    what_happened,
)
from hesscli.report.document import Case, Document, scientific, to_digits
from hesscli.report.fields import Field, named, table
from hesscli.report.legend import legend, overview
from hesscli.studies.product import MultipliedBlock, Product

_LETTERS = {"hessian": "H", "gauss_newton": "G", "curvature": "C"}
_FIELDS = (
    *ROW,
    named(None, "", lambda row: f"{_LETTERS[row.term]}·v"),
    Field("term"),
    Field("size"),
    Field("vector_norm"),
    Field("norm.autodiff", lambda row: row.autodiff_norm, "autodiff ‖·‖", to_digits(7)),
    Field("norm.chain_rule", lambda row: row.chain_rule_norm, "chain rule", to_digits(7)),
    Field("form.autodiff", lambda row: row.autodiff_form),
    Field("form.chain_rule", lambda row: row.chain_rule_form, "vᵀ(·v)", to_digits(5)),
    Field(None, lambda row: row.check.max_abs_residual, "residual", scientific),
    Field(None, lambda row: row.check.relative_residual, "relative", scientific),
    Field("check"),
    STATUS,
    verdict_column(limited_of),
)


def product_document(result: Product) -> Document:
    """Tables, data and test cases of products."""
    return study_document(
        result,
        "product",
        _FIELDS,
        before={"vector": {"given": result.given, "seed": _seed(result)}},
        tables=(
            *(
                table(
                    f"{activation}: products with v, chain rule against autodiff "
                    f"({result.options.block})",
                    _FIELDS,
                    rows,
                    _notes(result, activation, rows),
                )
                for activation, rows in by_activation(result.results)
            ),
            *overview(result.results, lambda row: row.check),
        ),
        cases=(
            Case(row.activation, f"{row.layer}/{row.block} {row.term}", _failure(row))
            for row in result.results
        ),
    )


def _seed(result: Product) -> int | None:
    return None if result.given else result.options.seed


def _notes(result: Product, activation: str, rows: Sequence[MultipliedBlock]) -> Iterator[str]:
    def wrong(failed: Sequence[MultipliedBlock]) -> str:
        worst = max(failed, key=lambda row: row.check.relative_residual)
        return f"the chain rule's product is not autodiff's. Worst is {_failure(worst)}"

    def right(passed: Sequence[MultipliedBlock]) -> str:
        largest = max(row.check.relative_residual for row in passed)
        return (
            f"the chain rule's products are autodiff's in "
            f"{sum(row.check.compared for row in passed):,} numbers, to {scientific(largest)} of "
            "the largest"
        )

    of = "v is the one given" if result.given else f"v is normal, --probe-seed {_seed(result)}"
    yield from legend((row.check for row in rows), of)
    yield from outcome(activation, rows, lambda row: row.verdict, wrong, right)
    yield from undecided_notes(activation, [(row.layer, row.check) for row in rows])
    yield from rounding_notes(rows, limited_of)


def _failure(row: MultipliedBlock) -> str | None:
    if not row.check.failed or row.check.worst is None:
        return what_happened(row.check)
    product, parameter = row.check.worst
    return beyond(row.check, f"{product} at {parameter}", "largest number")
