"""Random networks for the soak: ordinary ones, and those that a floating-point type dislikes.

A network belongs to its seed: the same seed gives the same arrays, whatever was drawn before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from networks import SIXTEEN, random_targets

from hesscli.problem.graph import Activation, Array, Layer, chain
from hesscli.problem.names import ACTIVATIONS
from hesscli.problem.network import Loss, Problem
from hesscli.problem.targets import fit_targets

# A network is its seed: what came later is not among what a seed chooses from, but for activations
# from this one on.
NEWER = 10**6
LOSSES = (
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "binary_crossentropy",
    "mean_squared_error",
    "sum_of_squares",
    "sum",
)

Generator = np.random.Generator

# Standard deviations of the parameters: nearly linear, ordinary, saturated.
_SCALES = (1e-20, 1e-3, 0.1, 0.3, 1.0, 1.0, 3.0, 30.0)
# How often a network has 1, 2, 3 and 4 layers, or 5 to 20: what a comparison takes grows with
# the number of layers.
_DEPTHS = (0.2, 0.35, 0.26, 0.15, 0.04)
# The widest layer by the number of layers, so that every entry of a block can be compared.
_WIDEST = ((3, 12), (6, 7), (20, 4))
# How far a type's numbers are taken: to its ends, where squares overflow and vanish.
_HUGE = {"float64": 150, "float32": 30}
_TINY = {"float64": (1e-300, 1e-160, 5e-324), "float32": (1e-37, 1e-20, 1e-45)}
_SHARE_OF_EXTREMES = 0.4


@dataclass(frozen=True)
class Drawn:
    """A network and what is extreme in it, by name."""

    problem: Problem
    extremes: tuple[str, ...]


def drawn(seed: int) -> Drawn:
    """The network of one seed.

    1 to 20 layers of widths 1 to 12, every activation, hidden and of the output, every loss and
    reduction, both types, batches of 1 to 8; in a good third of them something extreme.
    """
    generator = np.random.default_rng(seed)
    names = SIXTEEN if seed < NEWER else ACTIVATIONS
    dtype = str(generator.choice(["float64", "float64", "float32"]))
    problem = _ordinary(generator, dtype, names)
    extremes: list[str] = []
    if generator.random() < _SHARE_OF_EXTREMES:
        chosen = generator.choice(len(EXTREMES), int(generator.integers(1, 3)), replace=False)
        for name in [list(EXTREMES)[index] for index in chosen]:
            problem = EXTREMES[name](problem, generator)
            extremes.append(name)
    return Drawn(problem, tuple(extremes))


def _ordinary(generator: Generator, dtype: str, names: Sequence[str]) -> Problem:
    depth = 1 + int(generator.choice(len(_DEPTHS), p=_DEPTHS))
    if depth == len(_DEPTHS):
        depth = int(generator.integers(depth, 21))
    widest = next(width for layers, width in _WIDEST if depth <= layers)
    widths = generator.integers(1, widest + 1, depth + 1).tolist()
    scale = float(generator.choice(_SCALES))
    by_inputs = bool(generator.random() < 0.6)
    of_bias = float(generator.choice([0.0, 0.1, 1.0])) if generator.random() < 0.7 else None
    hidden = [_activation(generator, names)] * depth
    if generator.random() < 0.4:
        hidden = [_activation(generator, names) for _ in hidden]
    output = Activation("linear") if generator.random() < 0.5 else _activation(generator, names)
    layers = tuple(
        Layer(
            name=f"dense{index + 1}",
            kernel=_normal(generator, (n, m), scale / (np.sqrt(n) if by_inputs else 1), dtype),
            bias=None if of_bias is None else _normal(generator, (m,), scale * of_bias, dtype),
            activation=hidden[index] if index < depth - 1 else output,
        )
        for index, (n, m) in enumerate(pairwise(widths))
    )
    examples = int(generator.integers(1, 9))
    inputs = generator.standard_normal((examples, widths[0]))
    if generator.random() < 0.3:
        inputs = generator.random((examples, widths[0]))
    # MNIST's border pixels are exactly zero, and so are their derivatives.
    inputs[generator.random(inputs.shape) < 0.2] = 0
    loss = Loss(str(generator.choice(LOSSES)), str(generator.choice(["mean", "sum"])))
    targets = random_targets(loss.name, examples, widths[-1], generator)
    if generator.random() < 0.3:
        targets = generator.integers(0, widths[-1], examples)
    return Problem(
        graph=chain(layers),
        inputs=inputs.astype(dtype),
        targets=fit_targets(targets, loss.name, widths[-1], np.dtype(dtype), "drawn"),
        loss=loss,
    )


def _activation(generator: Generator, names: Sequence[str]) -> Activation:
    name = str(generator.choice(names))
    if name == "leaky_relu" and generator.random() < 0.5:
        slope = float(generator.choice([0.0, 0.01, 0.3, 1.0, -0.5]))
        return Activation(name, (("negative_slope", slope),))
    if name == "elu" and generator.random() < 0.5:
        return Activation(name, (("alpha", float(generator.choice([0.1, 0.7, 2.0]))),))
    return Activation(name)


def _normal(generator: Generator, shape: tuple[int, ...], scale: float, dtype: str) -> Array:
    values: Array = (scale * generator.standard_normal(shape)).astype(dtype)
    return values


# Extremes: each is a problem with something changed.


def _some_layer(problem: Problem, generator: Generator) -> int:
    return int(generator.integers(len(problem.layers)))


def _with_layer(
    problem: Problem, index: int, *, kernel: Array | None = None, bias: Array | None = None
) -> Problem:
    layer = problem.layers[index]
    changed = replace(
        layer,
        kernel=layer.kernel if kernel is None else kernel.astype(problem.dtype),
        bias=layer.bias if bias is None else bias.astype(problem.dtype),
    )
    layers = (*problem.layers[:index], changed, *problem.layers[index + 1 :])
    return replace(problem, graph=chain(layers))


def _tiny_layer(problem: Problem, generator: Generator) -> Problem:
    index = _some_layer(problem, generator)
    factor = float(generator.choice(_TINY[problem.dtype.name]))
    return _with_layer(problem, index, kernel=factor * problem.layers[index].kernel)


def _huge_layer(problem: Problem, generator: Generator) -> Problem:
    index = _some_layer(problem, generator)
    factor = 10.0 ** generator.uniform(3, _HUGE[problem.dtype.name])
    return _with_layer(problem, index, kernel=_clipped(problem, factor, index))


def _clipped(problem: Problem, factor: float, index: int) -> Array:
    largest = float(np.finfo(problem.dtype).max) / 2
    kernel = problem.layers[index].kernel.astype(np.float64)
    return np.clip(factor * kernel, -largest, largest)


def _odd_entries(problem: Problem, generator: Generator) -> Problem:
    index = _some_layer(problem, generator)
    kernel = problem.layers[index].kernel.astype(np.float64)
    name = problem.dtype.name
    huge = 10.0 ** _HUGE[name]
    odd = [0.0, -0.0, 1.0, huge, -huge, np.sqrt(huge), *_TINY[name]]
    where = generator.random(kernel.shape) < 0.3
    return _with_layer(problem, index, kernel=np.where(where, generator.choice(odd), kernel))


def _saturated(problem: Problem, generator: Generator) -> Problem:
    index = _some_layer(problem, generator)
    units = problem.layers[index].units
    size = 10.0 ** generator.uniform(1, 4)
    bias = size * generator.choice([-1.0, 1.0], units)
    return _with_layer(problem, index, bias=bias * (generator.random(units) < 0.8))


def _far_logits(problem: Problem, generator: Generator) -> Problem:
    last = len(problem.layers) - 1
    bias = generator.choice([-1e4, 0.0, 1e4], problem.layers[last].units)
    return _with_layer(problem, last, bias=bias)


def _equal_logits(problem: Problem, generator: Generator) -> Problem:
    last = len(problem.layers) - 1
    kernel = np.repeat(problem.layers[last].kernel[:, :1], problem.layers[last].units, axis=1)
    return _with_layer(problem, last, kernel=kernel, bias=np.zeros(kernel.shape[1]))


def _kinks(problem: Problem, generator: Generator) -> Problem:
    """Some units have z = 0 for every example."""
    index = _some_layer(problem, generator)
    kernel = problem.layers[index].kernel.copy()
    dead = generator.random(kernel.shape[1]) < 0.6
    kernel[:, dead] = 0
    bias = problem.layers[index].bias
    return _with_layer(
        problem, index, kernel=kernel, bias=None if bias is None else np.where(dead, 0, bias)
    )


def _whole_numbers(problem: Problem, generator: Generator) -> Problem:
    """Parameters and inputs of −1, 0 and 1: sums that are exactly zero, equal logits, kinks."""
    for index, layer in enumerate(problem.layers):
        kernel = generator.integers(-1, 2, layer.kernel.shape).astype(np.float64)
        bias = None if layer.bias is None else generator.integers(-1, 2, layer.units)
        problem = _with_layer(problem, index, kernel=kernel, bias=bias)
    inputs = generator.integers(-1, 2, problem.inputs.shape).astype(problem.dtype)
    return replace(problem, inputs=inputs)


def _zero_inputs(problem: Problem, generator: Generator) -> Problem:
    inputs = problem.inputs.copy()
    inputs[generator.random(len(inputs)) < generator.choice([0.5, 1.0])] = 0
    return replace(problem, inputs=inputs)


def _zero_kernel(problem: Problem, generator: Generator) -> Problem:
    index = _some_layer(problem, generator)
    return _with_layer(problem, index, kernel=0 * problem.layers[index].kernel)


def _odd_inputs(problem: Problem, generator: Generator) -> Problem:
    factor = 10.0 ** generator.uniform(-1, 1) ** 3
    sizes = [factor * 1e3, 1e-3 * factor, *_TINY[problem.dtype.name]]
    inputs = problem.inputs.astype(np.float64) * generator.choice(sizes)
    return replace(problem, inputs=inputs.astype(problem.dtype))


def _equal_examples(problem: Problem, generator: Generator) -> Problem:
    inputs = np.repeat(problem.inputs[:1], problem.examples, axis=0)
    return replace(problem, inputs=inputs)


EXTREMES: dict[str, Callable[[Problem, Generator], Problem]] = {
    "a layer of tiny weights": _tiny_layer,
    "a layer of huge weights": _huge_layer,
    "weights that are odd": _odd_entries,
    "saturated units": _saturated,
    "logits of ±1e4": _far_logits,
    "equal logits": _equal_logits,
    "units with z = 0": _kinks,
    "whole numbers": _whole_numbers,
    "zero inputs": _zero_inputs,
    "a kernel of zeros": _zero_kernel,
    "odd inputs": _odd_inputs,
    "equal examples": _equal_examples,
}
