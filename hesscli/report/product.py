"""``hesscli product``: a Product as a Document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hesscli.report.common import (
    ROW,
    beyond,
    study_document,
    what_happened,
)
from hesscli.report.document import Case, Document, to_digits
from hesscli.report.fields import Field, named, table
from hesscli.report.legend import CHECKED, checked_notes, tables_of
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
    *CHECKED,
)


def product_document(result: Product) -> Document:
    """Tables, data and test cases of products."""
    return study_document(
        result,
        "product",
        _FIELDS,
        before={"vector": {"given": result.given, "seed": _seed(result)}},
        tables=tables_of(
            result.results,
            lambda activation, rows: table(
                f"{activation}: products with v, chain rule against autodiff "
                f"({result.options.block})",
                _FIELDS,
                rows,
                _notes(result, activation, rows),
            ),
        ),
        cases=(
            Case(row.activation, f"{row.layer}/{row.block} {row.term}", _failure(row))
            for row in result.results
        ),
    )


def _seed(result: Product) -> int | None:
    return None if result.given else result.options.seed


def _notes(result: Product, activation: str, rows: Sequence[MultipliedBlock]) -> Iterator[str]:
    v = "v is the given vector" if result.given else f"v is normal, --probe-seed {_seed(result)}"
    return checked_notes(activation, rows, ("product", "products are", "numbers"), _failure, v)


def _failure(row: MultipliedBlock) -> str | None:
    if not row.check.failed or row.check.worst is None:
        return what_happened(row.check)
    product, parameter = row.check.worst
    return beyond(row.check, f"{product} at {parameter}", "largest number")
