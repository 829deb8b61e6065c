"""How a block's parameters are laid out: which index is which parameter of which unit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hesscli.problem.graph import INPUT as INPUT
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.system import xp
from hesscli.system.errors import InputError, UnknownBlockError
from hesscli.system.near import nearest

NETWORK = "network"
# Of at most 18 digits: no number of an example or entry has more, and Python reads no thousands.
_INPUT_NAME = re.compile(rf"{INPUT}\[(\d{{1,18}})\]")
# A tensor and a place in it; indices below zero are read, to be refused with the shape.
_ENTRY_NAME = re.compile(r"(.+)\[\s*(-?\d{1,18}(?:\s*,\s*-?\d{1,18})*)\s*\]")


@dataclass(frozen=True)
class Tensor:
    """A tensor of a segment, whose last axis are its units."""

    name: str
    shape: tuple[int, ...]

    @property
    def rows(self) -> int:
        """How many rows of its units it has; a vector has one."""
        return math.prod(self.shape[:-1])

    @property
    def is_vector(self) -> bool:
        return len(self.shape) == 1


@dataclass(frozen=True)
class Segment:
    """A run of parameters in rows of ``units``: a kernel, a bias, both, or an example's input.

    A layer has several if its tensors have not as many units.
    """

    units: int
    tensors: tuple[Tensor, ...]

    @property
    def rows(self) -> int:
        return sum(tensor.rows for tensor in self.tensors)

    @property
    def size(self) -> int:
        return self.rows * self.units


@dataclass(frozen=True)
class Layout:
    """The segments of a block, in the order of its parameters.

    Parameters of one unit form a group; groups are numbered through all segments.
    """

    segments: tuple[Segment, ...]

    @property
    def size(self) -> int:
        return sum(segment.size for segment in self.segments)

    @property
    def groups(self) -> int:
        return sum(segment.units for segment in self.segments)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The index of each segment's first parameter, and the size at the end."""
        sizes = [segment.size for segment in self.segments]
        return tuple(int(start) for start in np.cumsum([0, *sizes]))

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the tensors, in order."""
        return tuple(tensor.name for segment in self.segments for tensor in segment.tensors)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor, in order."""
        return {
            tensor.name: tensor.shape for segment in self.segments for tensor in segment.tensors
        }

    def split(self, V: Array) -> dict[str, Array]:
        """The columns of V (P, k) as k directions in each tensor, (k, *shape).

        In memory all directions of a row are together, (rows, k, units): one matrix product
        takes them at once.
        """
        parts: dict[str, Array] = {}
        for segment, low in zip(self.segments, self.starts, strict=False):
            k = V.shape[1]
            of_segment = V[low : low + segment.size, :]
            whole = xp.reshape(of_segment, (segment.rows, segment.units, k))
            whole = xp.contiguous(xp.swapaxes(whole, 1, 2))
            row = 0
            for tensor in segment.tensors:
                part = xp.swapaxes(whole[row : row + tensor.rows, ...], 0, 1)
                parts[tensor.name] = xp.reshape(part, (k, *tensor.shape))
                row += tensor.rows
        return parts

    def join(self, parts: Mapping[str, Array]) -> Array:
        """The inverse of ``split``: (P, k)."""
        rows = []
        for segment in self.segments:
            for tensor in segment.tensors:
                part = parts[tensor.name]
                k = part.shape[0]
                by_row = xp.reshape(part, (k, tensor.rows, segment.units))
                by_row = xp.permute_dims(by_row, (1, 2, 0))
                rows.append(xp.reshape(by_row, (tensor.rows * segment.units, k)))
        return rows[0] if len(rows) == 1 else xp.concat(rows)

    def groups_of(self, start: int, stop: int) -> NDArray[np.intp]:
        """The group of each parameter from ``start`` to ``stop``."""
        groups: list[NDArray[np.intp]] = []
        first = 0
        for segment, low in zip(self.segments, self.starts, strict=False):
            inside = np.arange(max(start, low), min(stop, low + segment.size)) - low
            groups.append(first + inside % segment.units)
            first += segment.units
        return np.concatenate(groups)

    def at(self, of_groups: Array, row: int, column: int) -> float:
        """The number (groups, groups) that belongs to the entry of two parameters."""
        groups = (self.groups_of(index, index + 1)[0] for index in (row, column))
        return float(of_groups[tuple(groups)])

    def name_of(self, index: int) -> str:
        """The parameter at ``index``, as in ``dense1/kernel[300,4]`` or ``dense1/bias[4]``."""
        for segment, low in zip(self.segments, self.starts, strict=False):
            if index < low + segment.size:
                inside = index - low
                for tensor in segment.tensors:
                    size = math.prod(tensor.shape)
                    if inside < size:
                        place = np.unravel_index(inside, tensor.shape)
                        return f"{tensor.name}[{','.join(str(int(i)) for i in place)}]"
                    inside -= size
        raise IndexError(index)

    def index_of(self, name: str) -> int:
        """The index of the parameter called ``name``: the inverse of ``name_of``.

        Raises InputError, with the shape, for a place that the tensor does not have, and
        KeyError for a tensor that is not in the layout.
        """
        wanted, place = _parsed(name)
        for segment, low in zip(self.segments, self.starts, strict=False):
            for tensor in segment.tensors:
                if tensor.name == wanted:
                    _require_inside(name, wanted, place, tensor.shape)
                    return low + int(np.ravel_multi_index(place, tensor.shape))
                low += math.prod(tensor.shape)
        raise KeyError(wanted)


def layout_of(problem: Problem, parameter: str) -> Layout:
    """The layout of the block ``parameter``; raises UnknownBlockError for a name that is none.

    A block is a tensor (``dense1/kernel``, ``dense1/bias``), a layer (``dense1``: its kernel,
    then its bias), an example's input (``input[0]``), all inputs of the batch (``input``) or the
    ``network``, layer by layer but for frozen ones.
    """
    try:
        return _layout(problem, parameter)
    except KeyError:
        layers = ", ".join(problem.layer_names)
        raise UnknownBlockError(
            f"{parameter!r} is not a block; use <layer>/kernel, <layer>/bias or <layer> with the "
            f"layers {layers}, or input, input[0] to input[{problem.examples - 1}], {NETWORK}"
        ) from None


def _layout(problem: Problem, parameter: str) -> Layout:
    if parameter == NETWORK:
        of_layers = (
            _of_tensors(problem, problem.graph.layer_tensors[name])
            for name in problem.trainable_layers
        )
        return Layout(tuple(segment for segments in of_layers for segment in segments))
    width = (math.prod(problem.graph.input_shape),)
    if parameter == INPUT:
        tensors = tuple(Tensor(f"{INPUT}[{n}]", width) for n in range(problem.examples))
        return Layout((Segment(*width, tensors),))
    example = input_example(parameter)
    if example is not None and example < problem.examples:
        return Layout((Segment(*width, (Tensor(parameter, width),)),))
    of_layer = problem.graph.layer_tensors.get(parameter)
    return Layout(_of_tensors(problem, (parameter,) if of_layer is None else of_layer))


def input_example(parameter: str) -> int | None:
    """The example n of a block called ``input[n]``; None for other names."""
    match = _INPUT_NAME.fullmatch(parameter)
    return int(match[1]) if match else None


def tensor_of(problem: Problem, name: str) -> str:
    """The tensor that the parameter ``name`` is in, as in ``dense1/kernel`` for
    ``dense1/kernel[300,4]``.

    Raises InputError for a name that is not of this form, or of a tensor that is not there.
    """
    tensor, _ = _parsed(name)
    example = input_example(tensor)
    if example is not None:
        if example >= problem.examples:
            raise InputError(
                f"{name}: there is no example {example}; the batch has {problem.examples}, "
                f"{INPUT}[0] to {INPUT}[{problem.examples - 1}]"
            )
        return tensor
    known = list(problem.graph.tensors)
    if tensor not in known:
        raise InputError(f"{name}: {tensor!r} is unknown{nearest(tensor, known, str)}")
    return tensor


def value_of(problem: Problem, parameter: str) -> Array:
    """The value of the parameters of a block, (P,)."""
    if parameter == INPUT:
        return xp.reshape(problem.batch, (-1,))
    example = input_example(parameter)
    if example is not None:
        chosen: Array = problem.part(example, example + 1).batch[0, :]
        return chosen
    names = layout_of(problem, parameter).tensors
    return xp.concat([xp.reshape(problem.graph.tensors[name], (-1,)) for name in names])


def layer_of(parameter: str) -> str:
    """The layer that a tensor's or a layer's block belongs to."""
    return parameter.partition("/")[0]


def _parsed(name: str) -> tuple[str, tuple[int, ...]]:
    """The tensor and the place in it that ``name`` says."""
    match = _ENTRY_NAME.fullmatch(name.strip())
    if match is None:
        raise InputError(
            f"{name!r} names no single parameter; write <layer>/kernel[i,h], <layer>/bias[h] or "
            f"{INPUT}[n][i]"
        )
    return match[1], tuple(int(index) for index in match[2].split(","))


def _require_inside(name: str, tensor: str, place: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if len(place) != len(shape) or not all(
        0 <= index < size for index, size in zip(place, shape, strict=True)
    ):
        last = ",".join(str(size - 1) for size in shape)
        sizes = f"({shape[0]},)" if len(shape) == 1 else str(shape)
        raise InputError(
            f"{name}: {tensor} has the shape {sizes}; its last entry is {tensor}[{last}]"
        )


def _of_tensors(problem: Problem, names: Sequence[str]) -> tuple[Segment, ...]:
    """Segments of tensors that stand one after the other and have as many units."""
    segments: list[Segment] = []
    for name in names:
        tensor = Tensor(name, problem.graph.tensors[name].shape)
        units = tensor.shape[-1]
        if segments and segments[-1].units == units:
            segments[-1] = Segment(units, (*segments[-1].tensors, tensor))
        else:
            segments.append(Segment(units, (tensor,)))
    return tuple(segments)
