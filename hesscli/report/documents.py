"""From any study's result to its Document: what the commands and the Python API both call."""

from __future__ import annotations

from collections.abc import Mapping
from pkgutil import resolve_name
from types import MappingProxyType

from hesscli.report.document import Document

# By name, so that a command imports the report of its own result and no other.
_BUILDERS: Mapping[str, str] = MappingProxyType(
    {
        "hesscli.studies.approximation:ApproximationStudy": "approximation:approximation_document",
        "hesscli.studies.comparison:Comparison": "comparison:comparison_document",
        "hesscli.studies.doctor:Diagnosis": "doctor:diagnosis_document",
        "hesscli.studies.entry:Entry": "entry:entry_document",
        "hesscli.studies.export:Export": "export:export_document",
        "hesscli.studies.first_derivatives:FirstVerification": "first_derivatives:first_document",
        "hesscli.studies.initialization:Initialization": "initialization:initialization_document",
        "hesscli.studies.solve:Solve": "solve:solve_document",
        "hesscli.studies.product:Product": "product:product_document",
        "hesscli.studies.spectrum:Spectrum": "spectrum:spectrum_document",
        "hesscli.studies.sweep:Sweep": "sweep:sweep_document",
        "hesscli.studies.training:Training": "training:training_document",
        "hesscli.studies.trial:Trial": "trial:trial_document",
        "hesscli.studies.tuning:Tuning": "tuning:tuning_document",
        "hesscli.studies.verification:Verification": "verification:verification_document",
    }
)


def document_of(result: object) -> Document:
    """Tables, data, test cases and plots of what a study returned.

    Raises TypeError for an object that no study returns.
    """
    kind = type(result)
    name = f"{kind.__module__}:{kind.__qualname__}"
    if name not in _BUILDERS:
        raise TypeError(f"{kind.__qualname__} is not the result of a study, so it has no report")
    document: Document = resolve_name(f"hesscli.report.{_BUILDERS[name]}")(result)
    return document


def result_types() -> tuple[type, ...]:
    """Every class that ``document_of`` takes; imports all of them."""
    return tuple(resolve_name(name) for name in _BUILDERS)
