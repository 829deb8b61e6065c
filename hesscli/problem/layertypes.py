"""The layers that there are, each as its nodes: layers.py says what a layer is."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from hesscli.problem import graph as kinds
from hesscli.problem.layers import (
    ACTIVATION,
    DENSE,
    FLATTEN,
    LOG_SOFTMAX,
    NORMALIZATION,
    SOFTMAX,
    Arguments,
    LayerError,
    LayerType,
    Made,
    Make,
    Part,
    Shape,
)
from hesscli.problem.registry import layer_types
from hesscli.problem.shapes import window_count

Shapes = Sequence[Shape]
# Letters of an equation; n and k are kept for examples and directions.
_LETTERS = "abcdefghijlmopqrstuvwxyz"


def _with_bias(
    of: Arguments, kernel: Shape, bias: Shape, part: Callable[[dict[str, str]], Part]
) -> Made:
    tensors = {"kernel": kernel}
    if of.flag("use_bias", True):
        tensors["bias"] = bias
    return Made((part(_same(tensors)),), tensors)


def _same(roles: Iterable[str]) -> dict[str, str]:
    """The roles of a layer's tensors in a node that calls them the same."""
    return {role: role for role in roles}


def _dense(of: Arguments, shapes: Shapes) -> Made:
    (shape,) = shapes
    units = of.whole("units")
    out = (*shape[:-1], units)
    if len(shape) == 1:
        kind, attributes = kinds.DENSE, {}
    else:
        places = _LETTERS[: len(shape)]
        kind, attributes = kinds.EINSUM, {"equation": f"{places},{places[-1]}z->{places[:-1]}z"}
    return _with_bias(
        of, (shape[-1], units), (units,), lambda roles: Part(kind, out, attributes, roles)
    )


def _conv(rank: int) -> Make:
    def make(of: Arguments, shapes: Shapes) -> Made:
        *spatial, channels = shapes[0]
        filters, groups = of.whole("filters"), of.whole("groups", 1)
        windows = _windows_of(of, rank)
        for key, n in (("filters", filters), ("groups", channels)):
            if n % groups:
                raise LayerError(key, f"{n} channels cannot be parted into {groups} groups")
        out = (*_counts(spatial, **windows), filters)
        kernel = (*windows["kernel_size"], channels // groups, filters)
        attributes = {**windows, "groups": groups}
        return _with_bias(
            of, kernel, (filters,), lambda roles: Part(kinds.CONV, out, attributes, roles)
        )

    return make


def _windows_of(of: Arguments, rank: int) -> dict[str, Any]:
    paddings = ("valid", "same", "causal") if rank == 1 else ("valid", "same")
    strides, dilation = of.several("strides", rank, 1), of.several("dilation_rate", rank, 1)
    if max(strides) > 1 and max(dilation) > 1:
        raise LayerError("dilation_rate", f"{dilation}; with strides {strides} it must be 1")
    return {
        "kernel_size": of.several("kernel_size", rank),
        "strides": strides,
        "padding": of.choice("padding", *paddings),
        "dilation_rate": dilation,
    }


def _counts(
    spatial: Sequence[int],
    kernel_size: Shape,
    strides: Shape,
    padding: str,
    dilation_rate: Shape | None = None,
) -> Shape:
    dilation = dilation_rate or (1,) * len(kernel_size)
    return tuple(
        window_count(n, k, s, padding, d)
        for n, k, s, d in zip(spatial, kernel_size, strides, dilation, strict=True)
    )


def _depthwise_part(of: Arguments, shape: Shape) -> tuple[Part, Shape]:
    """The part without its tensors, and the shape of its kernel."""
    *spatial, channels = shape
    windows = _windows_of(of, 2)
    if len(set(windows["strides"])) > 1:
        raise LayerError("strides", f"{windows['strides']}; TensorFlow takes equal ones only")
    multiplier = of.whole("depth_multiplier", 1)
    out = (*_counts(spatial, **windows), channels * multiplier)
    kernel = (*windows["kernel_size"], channels, multiplier)
    return Part(kinds.DEPTHWISE_CONV, out, windows), kernel


def _depthwise(of: Arguments, shapes: Shapes) -> Made:
    part, kernel = _depthwise_part(of, shapes[0])
    return _with_bias(of, kernel, part.shape[-1:], lambda roles: replace(part, tensors=roles))


def _conv_transpose(of: Arguments, shapes: Shapes) -> Made:
    *spatial, channels = shapes[0]
    filters, size, strides = (
        of.whole("filters"),
        of.several("kernel_size", 2),
        of.several("strides", 2, 1),
    )
    padding = of.choice("padding", "valid", "same")
    if of.given.get("output_padding") is not None:
        raise LayerError("output_padding", "not supported; it must be null")
    if max(of.several("dilation_rate", 2, 1)) > 1:
        raise LayerError("dilation_rate", "not supported here; it must be 1")
    out = tuple(
        n * s + (0 if padding == "same" else max(k - s, 0))
        for n, k, s in zip(spatial, size, strides, strict=True)
    )
    attributes = {"kernel_size": size, "strides": strides, "padding": padding}
    return _with_bias(
        of,
        (*size, filters, channels),
        (filters,),
        lambda roles: Part(kinds.CONV_TRANSPOSE, (*out, filters), attributes, roles),
    )


def _pooling(kind: str, rank: int) -> Make:
    def make(of: Arguments, shapes: Shapes) -> Made:
        *spatial, channels = shapes[0]
        size = of.several("pool_size", rank, 2)
        given = of.given.get("strides") is not None
        strides = of.several("strides", rank) if given else size
        padding = of.choice("padding", "valid", "same")
        out = (*_counts(spatial, size, strides, padding), channels)
        return Made((Part(kind, out, {"pool_size": size, "strides": strides, "padding": padding}),))

    return make


def _global_pooling(kind: str) -> Make:
    def make(of: Arguments, shapes: Shapes) -> Made:
        *spatial, channels = shapes[0]
        kept = (1,) * len(spatial) if of.flag("keepdims", False) else ()
        return Made((Part(kind, (*kept, channels)),))

    return make


def _padding(rank: int) -> Make:
    def make(of: Arguments, shapes: Shapes) -> Made:
        *spatial, channels = shapes[0]
        margins = of.margins("padding", rank, 1)
        out = (*(n + sum(of) for n, of in zip(spatial, margins, strict=True)), channels)
        return Made((Part(kinds.ZERO_PADDING, out, {"padding": margins}),))

    return make


def _cropping(rank: int) -> Make:
    def make(of: Arguments, shapes: Shapes) -> Made:
        *spatial, channels = shapes[0]
        margins = of.margins("cropping", rank, [1, 1] if rank == 1 else 0)
        out = (*(n - sum(of) for n, of in zip(spatial, margins, strict=True)), channels)
        return Made((Part(kinds.CROPPING, out, {"cropping": margins}),))

    return make


def _up_sampling(rank: int) -> Make:
    def make(of: Arguments, shapes: Shapes) -> Made:
        *spatial, channels = shapes[0]
        of.choice("interpolation", "nearest")
        size = of.several("size", rank, 2)
        out = (*(n * s for n, s in zip(spatial, size, strict=True)), channels)
        return Made((Part(kinds.UP_SAMPLING, out, {"size": size}),))

    return make


def _flatten(_: Arguments, shapes: Shapes) -> Made:
    return Made((Part(kinds.RESHAPE, (math.prod(shapes[0]),)),))


def _reshape(of: Arguments, shapes: Shapes) -> Made:
    given, size = of.given.get("target_shape"), math.prod(shapes[0])
    every = list(given) if isinstance(given, list | tuple) else [given]
    target = [n for n in every if isinstance(n, int)]
    if len(target) < len(every):
        raise LayerError("target_shape", f"{given!r}; it must be whole numbers, or -1 for one")
    known = math.prod(n for n in target if n != -1)
    if target.count(-1) == 1 and known > 0:
        target[target.index(-1)] = size // known
    if min(target, default=0) < 1 or math.prod(target) != size:
        raise LayerError("target_shape", f"{given!r}; {shapes[0]} has {size} numbers")
    return Made((Part(kinds.RESHAPE, tuple(target)),))


def _permute(of: Arguments, shapes: Shapes) -> Made:
    (shape,) = shapes
    dims = of.several("dims", len(shape))
    if sorted(dims) != list(range(1, len(shape) + 1)):
        raise LayerError("dims", f"{list(dims)}; it must be an order of 1 to {len(shape)}")
    return Made((Part(kinds.PERMUTE, tuple(shape[i - 1] for i in dims), {"dims": dims}),))


def _scaling(of: Arguments) -> tuple[str, ...]:
    """Which of γ and β there are."""
    flags = {"gamma": of.flag("scale", True), "beta": of.flag("center", True)}
    return tuple(role for role, has in flags.items() if has)


def _normalized(of: Arguments, shape: Shape, axes: Shape, parts: tuple[Part, ...] = ()) -> Made:
    """A normalization, and then γ and β along ``axes``."""
    roles = _scaling(of)
    own = tuple(shape[axis] for axis in axes)
    scale = Part(kinds.SCALE, shape, {"axes": axes}, _same(roles), sources=(-1,))
    return Made((*parts, scale) if roles else parts, dict.fromkeys(roles, own))


def _layer_normalization(of: Arguments, shapes: Shapes) -> Made:
    (shape,) = shapes
    axes = of.axes("axis", len(shape))
    if of.given.get("rms_scaling"):
        raise LayerError("rms_scaling", "not supported; it must be false")
    attributes = {"axes": axes, "epsilon": of.number("epsilon", 1e-3)}
    part = Part(kinds.NORMALIZATION, shape, attributes, suffix="normalized")
    return _normalized(of, shape, axes, (part,))


def _group_normalization(of: Arguments, shapes: Shapes) -> Made:
    (shape,) = shapes
    axis, groups = of.axis("axis", len(shape)), of.given.get("groups", 32)
    if axis != len(shape) - 1:
        raise LayerError("axis", f"{of.given['axis']}; it must be the last one")
    groups = shape[-1] if groups == -1 else of.whole("groups", 32)
    if shape[-1] % groups:
        raise LayerError("groups", f"{groups}; it must part {shape[-1]} channels evenly")
    # Over all places and the channels of a group, which are the last axis behind the groups.
    axes = (*range(len(shape) - 1), len(shape))
    attributes = {"axes": axes, "epsilon": of.number("epsilon", 1e-3), "groups": groups}
    part = Part(kinds.NORMALIZATION, shape, attributes, suffix="normalized")
    return _normalized(of, shape, (axis,), (part,))


def _batch_normalization(of: Arguments, shapes: Shapes) -> Made:
    (shape,) = shapes
    axis = of.axis("axis", len(shape))
    if of.given.get("renorm"):
        raise LayerError("renorm", "not supported; it must be false")
    own = (shape[axis],)
    roles = _scaling(of)
    statistics = ("moving_mean", "moving_variance")
    attributes = {"axis": axis, "epsilon": of.number("epsilon", 1e-3)}
    part = Part(kinds.BATCH_NORMALIZATION, shape, attributes, _same(roles), statistics)
    return Made((part,), dict.fromkeys(roles, own), dict.fromkeys(statistics, own))


def _separable(of: Arguments, shapes: Shapes) -> Made:
    filters = of.whole("filters")
    part, kernel = _depthwise_part(of, shapes[0])
    depthwise = replace(part, tensors={"kernel": "depthwise_kernel"}, suffix="depthwise")
    channels = depthwise.shape[-1]
    tensors = {"depthwise_kernel": kernel, "pointwise_kernel": (1, 1, channels, filters)}
    if of.flag("use_bias", True):
        tensors["bias"] = (filters,)
    point = {"kernel_size": (1, 1), "strides": (1, 1), "dilation_rate": (1, 1), "groups": 1}
    pointwise = Part(
        kinds.CONV,
        (*depthwise.shape[:-1], filters),
        {**point, "padding": "valid"},
        {"kernel": "pointwise_kernel", **_same(list(tensors)[2:])},
        sources=(-1,),
    )
    return Made((depthwise, pointwise), tensors)


def _prelu(of: Arguments, shapes: Shapes) -> Made:
    (shape,) = shapes
    shared = of.given.get("shared_axes")
    axes = of.axes("shared_axes", len(shape)) if shared else ()
    alpha = tuple(1 if axis in axes else n for axis, n in enumerate(shape))
    part = Part(kinds.PRELU, shape, {"axes": tuple(range(len(shape)))}, _same(["alpha"]))
    return Made((part,), {"alpha": alpha})


def _softmax(of: Arguments, shapes: Shapes) -> Made:
    (shape,) = shapes
    axis = of.axis("axis", len(shape)) - len(shape)
    return Made((Part(kinds.SOFTMAX, shape, {} if axis == -1 else {"axis": axis}),))


def _log_softmax(of: Arguments, shapes: Shapes) -> Made:
    (shape,) = shapes
    axis = of.axis("axis", len(shape)) - len(shape)
    return Made((Part(kinds.LOG_SOFTMAX, shape, {"axis": axis}),))


def _adapted(of: Arguments, shapes: Shapes) -> Made:
    """Keras's Normalization: (x − mean)/√variance, both constants."""
    (shape,) = shapes
    for key in ("mean", "variance"):
        if of.given.get(key) is not None:
            raise LayerError(key, "given in the configuration; adapt() the layer to data instead")
    if of.flag("invert", False):
        raise LayerError("invert", "not supported; it must be false")
    axis = of.axis("axis", len(shape))
    statistics = ("moving_mean", "moving_variance")
    part = Part(
        kinds.BATCH_NORMALIZATION, shape, {"axis": axis, "epsilon": 0.0}, constants=statistics
    )
    return Made((part,), constants=dict.fromkeys(statistics, (shape[axis],)))


def _einsum_dense(of: Arguments, shapes: Shapes) -> Made:
    (shape,) = shapes
    axes = str(of.given.get("bias_axes") or "")
    x, W, y, biased = _letters(str(of.given.get("equation")), len(shape), axes)
    sizes = dict(zip(x, shape, strict=True))
    given = of.given.get("output_shape")
    target = [given] if isinstance(given, int) or given is None else list(given)
    # Keras's output shape leaves out the axes that an ellipsis stands for.
    out = [*shape[: len(y) - len(target)], *target]
    for letter, n in zip(y, out, strict=True):
        if n is None and letter in sizes:
            n = sizes[letter]
        if not isinstance(n, int) or sizes.setdefault(letter, n) != n:
            raise LayerError("output_shape", f"{given!r} does not fit {shape} and the equation")
    if not set(W) <= set(sizes) or not set(x) <= set(W + y):
        raise LayerError(
            "equation", f"{of.given['equation']!r}; it is not a product of x and kernel"
        )
    tensors = {"kernel": tuple(sizes[letter] for letter in W)}
    if biased:
        first = min(y.index(letter) for letter in biased)
        tensors["bias"] = tuple(sizes[letter] if letter in biased else 1 for letter in y[first:])
    out_shape = tuple(sizes[letter] for letter in y)
    attributes = {"equation": f"{x},{W}->{y}"}
    return Made((Part(kinds.EINSUM, out_shape, attributes, _same(tensors)),), tensors)


def _letters(equation: str, rank: int, others: str = "") -> list[str]:
    """The letters of x, kernel, y and ``others`` without the examples' axis."""
    wrong = LayerError("equation", f"{equation!r}; it must be as in 'abc,cd->abd'")
    operands, arrow, y = equation.replace(" ", "").partition("->")
    x, comma, W = operands.partition(",")
    if not (arrow and comma and x and W and y):
        raise wrong
    if "..." in x:
        if not (x.startswith("...") and y.startswith("...")):
            raise LayerError("equation", f"{equation!r}; an ellipsis must come first")
        x, y = x[3:], y[3:]
        free = [letter for letter in _LETTERS.upper() if letter not in x + W + y]
        more = "".join(free[: rank - len(x)])
        x, y = more + x, more + y
    else:
        if x[0] != y[0] or x[0] in W:
            raise LayerError("equation", f"{equation!r}; the examples' axis must come first")
        x, y = x[1:], y[1:]
    every = list(dict.fromkeys(x + W + y))
    unique = all(len(set(of)) == len(of) for of in (x, W, y))
    if len(x) != rank or len(every) > len(_LETTERS) or not "".join(every).isalpha() or not unique:
        raise wrong
    if not set(others) <= set(y):
        raise LayerError("bias_axes", f"{others!r}; they must be axes of the output {y!r}")
    names = dict(zip(every, _LETTERS, strict=False))
    return ["".join(names[letter] for letter in of) for of in (x, W, y, others)]


def _merged(kind: str, *, chained: bool = False) -> Make:
    """A function of values of one shape; ``chained`` of two at a time."""

    def make(_: Arguments, shapes: Shapes) -> Made:
        _require_equal(shapes)
        shape = shapes[0]
        equation = _LETTERS[: len(shape)]
        attributes = (
            {"equation": f"{equation},{equation}->{equation}"} if kind == kinds.PRODUCT else {}
        )
        if not chained:
            return Made((Part(kind, shape, attributes, sources=tuple(range(len(shapes)))),))
        last = len(shapes) - 1
        parts = [
            Part(
                kind,
                shape,
                attributes,
                sources=(0, 1) if i == 1 else (-1, i),
                suffix="" if i == last else str(i),
            )
            for i in range(1, len(shapes))
        ]
        return Made(tuple(parts))

    return make


def _require_equal(shapes: Shapes) -> None:
    if len(set(shapes)) > 1:
        raise LayerError("inputs", f"of shapes {', '.join(map(str, shapes))}; they must be equal")


def _concatenate(of: Arguments, shapes: Shapes) -> Made:
    rank = len(shapes[0])
    axis = of.axis("axis", rank)
    if len({(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}) > 1 or any(
        len(shape) != rank for shape in shapes
    ):
        given = ", ".join(map(str, shapes))
        raise LayerError("inputs", f"of shapes {given}; they must be equal except for one axis")
    out = (*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])
    sources = tuple(range(len(shapes)))
    return Made((Part(kinds.CONCATENATE, out, {"axis": axis}, sources=sources),))


def _dot(of: Arguments, shapes: Shapes) -> Made:
    first, second = shapes
    given = of.given.get("axes", -1)
    if of.given.get("normalize"):
        raise LayerError("normalize", "not supported; it must be false")
    pair = given if isinstance(given, list | tuple) else [given, given]
    if len(pair) != 2:
        raise LayerError("axes", f"{given!r}; it must be one axis, or one of each value")
    axes = [
        Arguments({"axes": axis}).axis("axes", len(shape))
        for axis, shape in zip(pair, shapes, strict=True)
    ]
    if first[axes[0]] != second[axes[1]]:
        raise LayerError("axes", f"{given!r}; {first} and {second} differ along them")
    x, y = list(_LETTERS[: len(first)]), list(_LETTERS[len(first) : len(first) + len(second)])
    y[axes[1]] = x[axes[0]]
    rest = [*x[: axes[0]], *x[axes[0] + 1 :], *y[: axes[1]], *y[axes[1] + 1 :]]
    sizes = {**dict(zip(x, first, strict=True)), **dict(zip(y, second, strict=True))}
    equation = f"{''.join(x)},{''.join(y)}->{''.join(rest)}"
    out = tuple(sizes[letter] for letter in rest)
    product = Part(kinds.PRODUCT, out, {"equation": equation}, sources=(0, 1))
    if out:
        return Made((product,))
    # Of two vectors Keras gives one number as a vector.
    inner = Part(kinds.PRODUCT, (), {"equation": equation}, sources=(0, 1), suffix="product")
    return Made((inner, Part(kinds.RESHAPE, (1,), sources=(-1,))))


def _nothing(_of: Arguments, _shapes: Shapes) -> Made:
    return Made(())


_CONV = ("filters", "kernel_size", "strides", "padding", "dilation_rate", "groups", "use_bias")
_DEPTHWISE = ("kernel_size", "strides", "padding", "depth_multiplier", "dilation_rate", "use_bias")
_BIASED = ("kernel", "bias")
_STATISTICS = ("scale", "center", "epsilon", "axis")

_OF_KERAS: Mapping[str, LayerType] = MappingProxyType(
    {
        DENSE: LayerType(_dense, "Dense", ("units", "use_bias"), _BIASED, activated=True),
        "conv1d": LayerType(_conv(1), "Conv1D", _CONV, _BIASED, activated=True, rank=2),
        "conv2d": LayerType(_conv(2), "Conv2D", _CONV, _BIASED, activated=True, rank=3),
        "depthwise_conv2d": LayerType(
            _depthwise, "DepthwiseConv2D", _DEPTHWISE, _BIASED, activated=True, rank=3
        ),
        "separable_conv2d": LayerType(
            _separable,
            "SeparableConv2D",
            ("filters", *_DEPTHWISE),
            ("depthwise_kernel", "pointwise_kernel", "bias"),
            activated=True,
            rank=3,
        ),
        "conv2d_transpose": LayerType(
            _conv_transpose,
            "Conv2DTranspose",
            (*_CONV[:5], "output_padding", "use_bias"),
            _BIASED,
            activated=True,
            rank=3,
        ),
        "einsum_dense": LayerType(
            _einsum_dense,
            "EinsumDense",
            ("equation", "output_shape", "bias_axes"),
            _BIASED,
            activated=True,
        ),
        **{
            f"{name}_pooling{rank}d": LayerType(
                _pooling(kind, rank),
                f"{name.title()}Pooling{rank}D",
                ("pool_size", "strides", "padding"),
                rank=rank + 1,
            )
            for name, kind in (("max", kinds.MAX_POOLING), ("average", kinds.AVERAGE_POOLING))
            for rank in (1, 2)
        },
        **{
            f"global_{name}_pooling{rank}d": LayerType(
                _global_pooling(kind),
                f"Global{name.title()}Pooling{rank}D",
                ("keepdims",),
                rank=rank + 1,
            )
            for name, kind in (
                ("max", kinds.GLOBAL_MAX_POOLING),
                ("average", kinds.GLOBAL_AVERAGE_POOLING),
            )
            for rank in (1, 2)
        },
        **{
            f"{name}{rank}d": LayerType(make(rank), f"{keras}{rank}D", arguments, rank=rank + 1)
            for name, keras, make, arguments in (
                ("zero_padding", "ZeroPadding", _padding, ("padding",)),
                ("cropping", "Cropping", _cropping, ("cropping",)),
                ("up_sampling", "UpSampling", _up_sampling, ("size", "interpolation")),
            )
            for rank in (1, 2)
        },
        FLATTEN: LayerType(_flatten, "Flatten"),
        "reshape": LayerType(_reshape, "Reshape", ("target_shape",)),
        "permute": LayerType(_permute, "Permute", ("dims",)),
        "batch_normalization": LayerType(
            _batch_normalization, "BatchNormalization", (*_STATISTICS, "renorm"), ("gamma", "beta")
        ),
        "layer_normalization": LayerType(
            _layer_normalization,
            "LayerNormalization",
            (*_STATISTICS, "rms_scaling"),
            ("gamma", "beta"),
        ),
        "group_normalization": LayerType(
            _group_normalization, "GroupNormalization", (*_STATISTICS, "groups"), ("gamma", "beta")
        ),
        "prelu": LayerType(_prelu, "PReLU", ("shared_axes",), ("alpha",)),
        NORMALIZATION: LayerType(_adapted, "Normalization", ("axis", "invert", "mean", "variance")),
        SOFTMAX: LayerType(_softmax, "Softmax", ("axis",)),
        LOG_SOFTMAX: LayerType(_log_softmax, "Activation('log_softmax')", ("axis",)),
        ACTIVATION: LayerType(_nothing, "Activation", activated=True),
        "add": LayerType(_merged(kinds.ADD), "Add", inputs=None),
        "subtract": LayerType(_merged(kinds.SUBTRACT), "Subtract", inputs=2),
        "multiply": LayerType(_merged(kinds.PRODUCT, chained=True), "Multiply", inputs=None),
        "average": LayerType(_merged(kinds.AVERAGE), "Average", inputs=None),
        "maximum": LayerType(_merged(kinds.MAXIMUM, chained=True), "Maximum", inputs=None),
        "concatenate": LayerType(_concatenate, "Concatenate", ("axis",), inputs=None),
        "dot": LayerType(_dot, "Dot", ("axes", "normalize"), inputs=2),
    }
)
BY_KERAS_CLASS: Mapping[str, str] = MappingProxyType(
    {of.keras: name for name, of in _OF_KERAS.items()}
)
# With those that plugins define.
TYPES: Mapping[str, LayerType] = MappingProxyType(
    ChainMap({}, layer_types(), _OF_KERAS)  # type: ignore[arg-type]  # nothing is written
)
# Of Keras's layers those that do nothing at inference.
IDLE = (
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
    *("AlphaDropout", "GaussianNoise", "GaussianDropout"),
)
