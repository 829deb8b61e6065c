"""Installed software: the versions of packages, and of the library that does NumPy's sums."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any


def installed(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def installed_tensorflow() -> str | None:
    """TensorFlow's version, by either name that it is distributed under, without its import."""
    return installed("tensorflow") or installed("tensorflow-cpu")


def blas() -> str:
    """The name and version of the BLAS that NumPy was built with."""
    import numpy as np

    built: Any = np.show_config(mode="dicts")
    found = built.get("Build Dependencies", {}).get("blas", {})
    return f"{found.get('name')} {found.get('version')}"
