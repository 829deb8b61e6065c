"""Options of studies that are numbers: refused by name if they are out of range."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from hesscli.system.errors import InputError, shown


def require_whole(name: str, value: object, least: int, most: int | None = None) -> int:
    """``value`` as an int; raises InputError unless it is a whole number in the range."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # which is what is found out
    except TypeError:
        raise InputError(f"{name}: {shown(value)}; it must be a whole number") from None
    if number < least or (most is not None and number > most):
        allowed = f"{least} or more" if most is None else f"{least} to {most:,}"
        raise InputError(f"{name}: {shown(number)}; it must be {allowed}")
    return number


def require_above_zero(name: str, value: object) -> float:
    """``value`` as a float; raises InputError unless it is finite and above 0."""
    return _require_number(name, value, "above 0 and finite", lambda x: 0 < x < math.inf)


def require_not_negative(name: str, value: object) -> float:
    """``value`` as a float; raises InputError unless it is 0 or more."""
    return _require_number(name, value, "0 or more", lambda x: x >= 0)


def _require_number(
    name: str, value: object, allowed: str, is_allowed: Callable[[float], bool]
) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]  # which is what is found out
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{name}: {shown(value)}; it must be a number") from None
    if not is_allowed(number):
        raise InputError(f"{name}: {number:g}; it must be {allowed}")
    return number
