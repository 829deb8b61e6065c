"""The eigenpairs of a Spectrum as an ``.npz`` file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesscli.studies.spectrum import Spectrum
from hesscli.system.files import replacing


def write_eigenvectors(result: Spectrum, path: str) -> None:
    """Writes the eigenpairs that were asked for to ``path``, whole or not at all.

    For each activation, block and term, as in ``tanh/dense1/kernel/hessian/``: ``eigenvalues``
    (K,), ``residuals`` (K,) and ``eigenvectors`` (P, K), in the order of the block's parameters.
    Raises InputError if the file cannot be written.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for row in result.results:
        for term, found in (("hessian", row.hessian), ("gauss_newton", row.gauss_newton)):
            if found.top is not None:
                name = f"{row.activation}/{row.parameter}/{term}"
                arrays[f"{name}/eigenvalues"] = found.top.values
                arrays[f"{name}/residuals"] = found.top.residuals
                arrays[f"{name}/eigenvectors"] = found.top.vectors
    with replacing(path) as stream:
        # Not with allow_pickle, which NumPy 2.0 takes for the name of an array.
        np.savez(stream, **arrays)  # type: ignore[arg-type]
