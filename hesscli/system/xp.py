"""The array functions that formulas are written in, whichever library their arrays are of.

Their names and meanings are those of the array API standard, and each takes its library from its
arrays (``namespace``). What makes a new array takes library, device and type from one that is
there, ``like``. At the end stands what the standard has not, made of what it has; there NumPy, and
CuPy where it has the same functions, are asked for their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import array_api_compat
import numpy as np
import scipy.special
from numpy.typing import NDArray

from hesscli.system.arrays import from_device, is_foreign, is_numpy, namespace, place
from hesscli.system.pieces import pieces

Array = NDArray[Any]
Shape = tuple[int, ...]

# Work on NumPy's arrays is done in blocks of rows: they stay in the cache, and no intermediate
# result is as large as the arrays themselves.
_BLOCK_BYTES = 2**20
_DOUBLE = np.dtype(np.float64)


def _named(name: str, *arrays: Array) -> Callable[..., Array]:
    """The function ``name`` of the library that the arrays are of."""
    function: Callable[..., Array] = getattr(namespace(*arrays), name)
    return function


def _of_first(name: str) -> Callable[..., Array]:
    """The function ``name`` of its first argument's library."""
    # NumPy's methods take a tenth of the time that its functions of the same names take.
    of_numpy = getattr(np.ndarray, name, None) or getattr(np, name)

    def function(x: Array, *others: Any, **keywords: Any) -> Array:
        own: Callable[..., Array] = of_numpy if is_numpy(x) else _named(name, x)
        return own(x, *others, **keywords)

    return function


abs = _of_first("abs")  # noqa: A001  # the standard's name
all = _of_first("all")  # noqa: A001
any = _of_first("any")  # noqa: A001
argmax = _of_first("argmax")
broadcast_to = _of_first("broadcast_to")
clip = _of_first("clip")
cos = _of_first("cos")
count_nonzero = _of_first("count_nonzero")
exp = _of_first("exp")
expand_dims = _of_first("expand_dims")
expm1 = _of_first("expm1")
isfinite = _of_first("isfinite")
isnan = _of_first("isnan")
log = _of_first("log")
log1p = _of_first("log1p")
max = _of_first("max")  # noqa: A001
maximum = _of_first("maximum")
mean = _of_first("mean")
min = _of_first("min")  # noqa: A001
minimum = _of_first("minimum")
repeat = _of_first("repeat")
sign = _of_first("sign")
sin = _of_first("sin")
sqrt = _of_first("sqrt")
square = _of_first("square")
sum = _of_first("sum")  # noqa: A001
tanh = _of_first("tanh")
tensordot = _of_first("tensordot")
where = _of_first("where")
empty_like = _of_first("empty_like")
full_like = _of_first("full_like")
ones_like = _of_first("ones_like")
zeros_like = _of_first("zeros_like")


def reshape(x: Array, shape: Sequence[int]) -> Array:
    """``x`` in another shape."""
    return x.reshape(shape) if is_numpy(x) else _named("reshape", x)(x, tuple(shape))


def permute_dims(x: Array, axes: Sequence[int]) -> Array:
    """``x`` with its axes in another order."""
    return x.transpose(axes) if is_numpy(x) else _named("permute_dims", x)(x, tuple(axes))


def concat(arrays: Sequence[Array], *, axis: int = 0) -> Array:
    """Arrays one after the other along an axis."""
    return _named("concat", *arrays)(list(arrays), axis=axis)


def stack(arrays: Sequence[Array], *, axis: int = 0) -> Array:
    """Arrays one after the other along a new axis."""
    return _named("stack", *arrays)(list(arrays), axis=axis)


def take(x: Array, indices: NDArray[np.intp], *, axis: int) -> Array:
    """``x`` at NumPy's ``indices`` along an axis."""
    if is_numpy(x):
        return x.take(indices, axis=axis)
    return _named("take", x)(x, asarray(indices, like=x), axis=axis)


def diagonal(x: Array) -> Array:
    """The diagonals (…, d) of matrices (…, d, d)."""
    of: Array = namespace(x).linalg.diagonal(x)
    return of


# New arrays, of the library, the device and the type of ``like``.


def zeros(shape: Sequence[int], *, like: Array) -> Array:
    """Zeros."""
    return _new("zeros", shape, like=like)


def ones(shape: Sequence[int], *, like: Array) -> Array:
    """Ones."""
    return _new("ones", shape, like=like)


def empty(shape: Sequence[int], *, like: Array) -> Array:
    """An array of no particular numbers."""
    return _new("empty", shape, like=like)


def full(shape: Sequence[int], value: float, *, like: Array) -> Array:
    """One number throughout."""
    return _new("full", shape, value, like=like)


def eye(rows: int, columns: int | None = None, *, k: int = 0, like: Array) -> Array:
    """1 on the k-th diagonal of (rows, columns), 0 elsewhere."""
    return _named("eye", like)(rows, columns, k=k, dtype=like.dtype, **_there(like))


def _new(function: str, shape: Sequence[int], *others: Any, like: Array) -> Array:
    return _named(function, like)(tuple(shape), *others, dtype=like.dtype, **_there(like))


def _there(like: Array) -> dict[str, Any]:
    # NumPy has one device, and takes longer if it is named.
    return {} if is_numpy(like) else {"device": place(like)}


def arange(n: int, *, like: Array) -> Array:
    """The whole numbers from 0 to n − 1, on the device of ``like``."""
    return _named("arange", like)(n, **_there(like))


def asarray(of_numpy: Array, *, like: Array) -> Array:
    """An array of NumPy's, of its own type, of the library and on the device of ``like``.

    What is of that library already is returned as it is.
    """
    if is_numpy(like) or is_foreign(of_numpy):
        return of_numpy
    return _named("asarray", like)(np.asarray(of_numpy), device=place(like))


def on_host(x: Array) -> Array:
    """``x`` as an array of NumPy's, itself if it is one."""
    if is_numpy(x):
        return x
    of_cupy: Any = x
    fetched: Array = of_cupy.get() if array_api_compat.is_cupy_array(x) else from_device(x)
    return fetched


def astype(x: Array, dtype: Any) -> Array:
    """``x`` in another type, of its library or of NumPy; itself if it has it."""
    if is_numpy(x):
        return x.astype(dtype, copy=False)
    own = getattr(namespace(x), dtype.name) if isinstance(dtype, np.dtype) else dtype
    return _named("astype", x)(x, own, copy=False)


def double(x: Array) -> Array:
    """``x`` in double precision, itself if it is."""
    return astype(x, _DOUBLE)


def copy(x: Array) -> Array:
    """A copy."""
    return _named("asarray", x)(x, copy=True)


# What the standard has not.


def swapaxes(x: Array, first: int, second: int) -> Array:
    """``x`` with two axes in each other's place."""
    if is_numpy(x):
        swapped: Array = x.swapaxes(first, second)
        return swapped
    axes = list(range(x.ndim))
    axes[first], axes[second] = axes[second], axes[first]
    return permute_dims(x, axes)


def contiguous(x: Array) -> Array:
    """``x`` in C order in memory, if its library has an order."""
    ordered: Callable[[Array], Array] | None = getattr(namespace(x), "ascontiguousarray", None)
    return x if ordered is None else ordered(x)


def row_pieces(x: Array) -> Iterator[tuple[int, int]]:
    """(low, high) of blocks of the rows of x (n, …) for elementwise work; of all elsewhere."""
    if is_numpy(x) and x.nbytes > _BLOCK_BYTES:
        return pieces(0, len(x), x[0].nbytes, _BLOCK_BYTES)
    return iter([(0, x.shape[0])])


def copy_where(x: Array, mask: Array, *, to: Array) -> Array:
    """``to`` with the numbers of x where the mask is true; an array of NumPy's is changed."""
    if is_numpy(to):
        np.copyto(to, x, where=mask)
        return to
    return where(mask, x, to)


def take_along_axis(x: Array, indices: Array, *, axis: int) -> Array:
    """The numbers of x at indices (one or more along the axis, else as x is)."""
    return _named("take_along_axis", x)(x, indices, axis=axis)


def of_each(v: Array, index: Array) -> Array:
    """V[n, :, index[n]] (n, k, 1), for v (n, k, c) and one index (n,) of each."""
    if is_numpy(v):
        own: Array = v[np.arange(len(v)), :, index]
        return own[:, :, None]
    n, k, _ = v.shape
    return take_along_axis(v, broadcast_to(index[:, None, None], (n, k, 1)), axis=-1)


def with_diagonal(x: Array, d: Array | float) -> Array:
    """Matrices x (n, d, d), which are changed, with other numbers (n, d) on their diagonals."""
    n, size, _ = x.shape
    flat = reshape(x, (n, size * size))
    flat[:, :: size + 1] = d
    return reshape(flat, x.shape)


def pad(x: Array, margins: Sequence[tuple[int, int]], value: float = 0.0) -> Array:
    """``x`` with so many times a value before and after it along each axis."""
    each = list(zip(x.shape, margins, strict=True))
    shape = [before + n + after for n, (before, after) in each]
    padded = full(shape, value, like=x) if value else zeros(shape, like=x)
    padded[tuple(slice(before, before + n) for n, (before, _) in each)] = x
    return padded


def einsum(equation: str, a: Array, b: Array) -> Array:
    """``numpy.einsum`` of two arrays, as one matrix product where all they share is summed over."""
    operands, y = equation.split("->")
    A, B = operands.split(",")
    both = [letter for letter in A if letter in B]
    summed = [letter for letter in both if letter not in y]
    if len(summed) == len(both):
        axes = [A.index(letter) for letter in both], [B.index(letter) for letter in both]
        left = [letter for letter in A + B if letter not in both]
        return permute_dims(tensordot(a, b, axes=axes), [left.index(letter) for letter in y])
    own: Callable[..., Array] | None = getattr(namespace(a, b), "einsum", None)
    if own is not None:
        return own(equation, a, b)
    # (each, own of A, summed) times (each, summed, own of B), each matrix on its own
    each = [letter for letter in both if letter in y]
    of_a, of_b = ([letter for letter in of if letter not in both] for of in (A, B))
    sizes = dict(zip(A + B, (*a.shape, *b.shape), strict=True))

    def matrices(x: Array, letters: str, *parts: Sequence[str]) -> Array:
        order = [letters.index(letter) for part in (each, *parts) for letter in part]
        shape = [math.prod(sizes[letter] for letter in part) for part in (each, *parts)]
        return reshape(permute_dims(x, order), shape)

    product = matrices(a, A, of_a, summed) @ matrices(b, B, summed, of_b)
    left = [*each, *of_a, *of_b]
    product = reshape(product, [sizes[letter] for letter in left])
    return permute_dims(product, [left.index(letter) for letter in y])


def expit(z: Array) -> Array:
    """s(z) = 1 / (1 + exp(−z))."""
    own = _special("expit", z)
    if own is not None:
        return own(z)
    e = exp(-abs(z))
    s: Array = where(z < 0, e, 1.0) / (1 + e)
    return s


def erfc(z: Array) -> Array:
    """1 − erf(z); by way of NumPy, on the host, if the library has none."""
    own = _special("erfc", z)
    if own is not None:
        return own(z)
    return asarray(scipy.special.erfc(on_host(z)), like=z)


def _special(name: str, z: Array) -> Callable[[Array], Array] | None:
    """The special function of that name for an array, None if its library has none."""
    module: Any = None
    if is_numpy(z):
        module = scipy.special
    elif array_api_compat.is_cupy_array(z):
        import cupyx.scipy.special

        module = cupyx.scipy.special
    return getattr(module, name, None)
