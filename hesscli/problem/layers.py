"""Layers by Keras's names, arguments and definitions, and the nodes that they are.

A layer is its type, ``conv2d`` for Keras's Conv2D, what it takes, and its arguments; channels come
last. Names and shapes only: no formula stands here. What is wrong, or is not supported, raises
LayerError, which names the argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hesscli.problem import graph as kinds
from hesscli.problem.graph import INPUT, Activation, Array, Graph, Node

if TYPE_CHECKING:
    from hesscli.problem.initializers import Initializer

Shape = tuple[int, ...]
LINEAR = Activation("linear")
DENSE, SHARED, SOFTMAX, ACTIVATION, FLATTEN = "dense", "shared", "softmax", "activation", "flatten"
LOG_SOFTMAX, NORMALIZATION = "log_softmax", "normalization"
# The role of a penalty on what a layer gives.
ACTIVITY = "activity"


class LayerError(ValueError):
    """An error in an argument of a layer, ``key``; None if it is not in one argument.

    ``place`` is that of the layer among others.
    """

    def __init__(self, key: str | None, text: str) -> None:
        super().__init__(text)
        self.key = key
        self.place = 0


@dataclass(frozen=True)
class LayerSpec:
    """A layer: ``inputs`` are the names of the layers before it, or ``input``.

    ``arguments`` are Keras's, but for those that are the default; ``activation`` is applied to its
    output.
    """

    name: str
    type: str
    inputs: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    activation: Activation = LINEAR


@dataclass(frozen=True)
class Part:
    """One node of a layer, which reads ``sources``: inputs of the layer, or −1, the part before.

    Its name is that of the layer with ``suffix``; ``tensors`` are those of the layer by the node's
    own roles.
    """

    kind: str
    shape: Shape
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, str] = field(default_factory=dict)
    constants: tuple[str, ...] = ()
    sources: tuple[int, ...] = (0,)
    suffix: str = ""
    activation: Activation | None = None


@dataclass(frozen=True)
class Made:
    """The parts of a layer: its nodes, and the shapes of its tensors by role."""

    parts: tuple[Part, ...]
    tensors: Mapping[str, Shape] = field(default_factory=dict)
    constants: Mapping[str, Shape] = field(default_factory=dict)


class Arguments:
    """The arguments of a layer, read as what they must be."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given

    def whole(self, key: str, default: int | None = None, least: int = 1) -> int:
        value = self.given.get(key, default)
        if not _is_whole(value, least):
            missing = "missing; " if value is None else f"{value!r}; "
            raise LayerError(key, f"{missing}it must be a whole number, {least} or more")
        return int(value)

    def several(self, key: str, count: int, default: Any = None, least: int = 1) -> Shape:
        """``count`` whole numbers; one stands for as many of it."""
        value = self.given.get(key, default)
        found = [value] * count if _is_whole(value, least) else value
        if (
            not isinstance(found, Sequence)
            or len(found) != count
            or not all(_is_whole(n, least) for n in found)
        ):
            needed = "a whole number" if count == 1 else f"a whole number or {count} of them"
            missing = "missing; " if value is None else f"{value!r}; "
            raise LayerError(key, f"{missing}it must be {needed}, {least} or more")
        return tuple(int(n) for n in found)

    def margins(self, key: str, count: int, default: Any) -> tuple[tuple[int, int], ...]:
        """(before, after) for each of ``count`` axes, as Keras takes them."""
        value = self.given.get(key, default)
        if count == 1 and isinstance(value, Sequence) and all(_is_whole(n, 0) for n in value):
            value = [value]
        each = [value] * count if _is_whole(value, 0) else value
        if not isinstance(each, Sequence) or len(each) != count:
            raise LayerError(key, f"{value!r}; it must be a whole number, or a pair for each axis")
        found = (Arguments({key: pair}).several(key, 2, least=0) for pair in each)
        return tuple((before, after) for before, after in found)

    def number(self, key: str, default: float) -> float:
        value = self.given.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
            raise LayerError(key, f"{value!r}; it must be a number, 0 or more")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.given.get(key, default)
        if not isinstance(value, bool):
            raise LayerError(key, f"{value!r}; it must be true or false")
        return value

    def choice(self, key: str, *names: str) -> str:
        """One of ``names``, of which the first is the default."""
        value = self.given.get(key, names[0])
        if value not in names:
            raise LayerError(key, f"{value!r} is not supported; supported is {', '.join(names)}")
        return str(value)

    def axes(self, key: str, rank: int, default: Any = -1) -> Shape:
        """Axes of one example, counted from 0, out of Keras's, which count the examples."""
        value = self.given.get(key, default)
        every = value if isinstance(value, list | tuple) else [value]
        found = []
        for axis in every:
            if (
                not isinstance(axis, int)
                or isinstance(axis, bool)
                or not (-rank <= axis <= rank and axis != 0)
            ):
                raise LayerError(
                    key, f"{value!r}; it must be an axis, 1 to {rank} or -1 to -{rank}"
                )
            found.append(axis - 1 if axis > 0 else axis + rank)
        return tuple(sorted(found))

    def axis(self, key: str, rank: int, default: int = -1) -> int:
        found = self.axes(key, rank, default)
        if len(found) != 1:
            raise LayerError(key, f"{self.given.get(key)!r}; it must be one axis")
        return found[0]


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


Make = Callable[[Arguments, Sequence[Shape]], Made]


@dataclass(frozen=True)
class LayerType:
    """A type of layer: how it is made, Keras's class, and the arguments that decide what it does.

    ``roles`` are its tensors; ``inputs`` says how many values it takes, None for two or more.
    ``activated`` are those that Keras gives an argument ``activation``. ``initializers`` draw the
    tensors, by role, of a layer that a plugin defines.
    """

    make: Make
    keras: str
    arguments: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    inputs: int | None = 1
    activated: bool = False
    rank: int | None = None
    initializers: Mapping[str, Initializer] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The nodes of layers without their arrays, and the shapes of all tensors by name.

    ``constants`` are the shapes of those that are not parameters; ``constants_of`` their names by
    node and role. ``outputs`` are the values that each layer gives, one for each use of it.
    """

    nodes: tuple[Node, ...]
    input_shape: Shape
    tensors: Mapping[str, Shape]
    constants: Mapping[str, Shape]
    constants_of: Mapping[str, Mapping[str, str]]
    outputs: Mapping[str, tuple[str, ...]]

    @property
    def values(self) -> tuple[str, ...]:
        """The names of the values: the input, and one for each node."""
        return (INPUT, *(node.name for node in self.nodes))

    def shapes_of(self, layer: str) -> dict[str, Shape]:
        """The shapes of a layer's tensors by role, and then those of its constants."""
        every = {**self.tensors, **self.constants}
        parted = ((name.partition("/"), shape) for name, shape in every.items())
        return {role: shape for (of, _, role), shape in parted if of == layer}

    def graph(self, arrays: Mapping[str, Array]) -> Graph:
        """The graph with these arrays for tensors and constants."""
        nodes = tuple(
            replace(
                node,
                constants={
                    role: arrays[name] for role, name in self.constants_of[node.name].items()
                },
            )
            if node.name in self.constants_of
            else node
            for node in self.nodes
        )
        return Graph(nodes, {name: arrays[name] for name in self.tensors}, self.input_shape)


def planned(specs: Sequence[LayerSpec], input_shape: Shape, types: Mapping[str, LayerType]) -> Plan:
    """The nodes of layers in order; raises LayerError, with the layer's place, if one is wrong."""
    values, shapes = {INPUT: INPUT}, {INPUT: input_shape}
    made_of: dict[str, Made] = {}
    outputs: dict[str, tuple[str, ...]] = {}
    nodes: list[Node] = []
    tensors: dict[str, Shape] = {}
    constants: dict[str, Shape] = {}
    constants_of: dict[str, dict[str, str]] = {}
    by_name = {spec.name: spec for spec in specs}
    for place, spec in enumerate(specs):
        try:
            of = spec
            if spec.type == SHARED:
                of = _shared(spec, by_name, made_of)
            read = _values(spec, values)
            in_shapes = [shapes[value] for value in read]
            made = made_layer(of, in_shapes, types)
            if of is not spec and (made.tensors, made.constants) != (
                made_of[of.name].tensors,
                made_of[of.name].constants,
            ):
                raise LayerError("inputs", f"of another shape than those of {of.name}")
        except LayerError as error:
            error.place = place
            raise
        made_of.setdefault(of.name, made)
        used = outputs.get(of.name, ())
        base = f"{of.name}/{len(used) + 1}" if used else of.name
        tensors.update({f"{of.name}/{role}": shape for role, shape in made.tensors.items()})
        constants.update({f"{of.name}/{role}": shape for role, shape in made.constants.items()})
        for part in made.parts:
            name = f"{base}/{part.suffix}" if part.suffix else base
            before = nodes[-1].name if nodes else INPUT
            nodes.append(
                Node(
                    name,
                    part.kind,
                    tuple(before if i < 0 else read[i] for i in part.sources),
                    part.shape,
                    {role: f"{of.name}/{own}" for role, own in part.tensors.items()},
                    part.activation,
                    part.attributes,
                )
            )
            if part.constants:
                constants_of[name] = {role: f"{of.name}/{role}" for role in part.constants}
            shapes[name] = part.shape
        # A layer without a node, such as a dropout, is what it reads.
        values[spec.name] = nodes[-1].name if made.parts else read[0]
        outputs[of.name] = (*used, values[spec.name])
    return Plan(tuple(nodes), input_shape, tensors, constants, constants_of, outputs)


def _shared(
    spec: LayerSpec, by_name: Mapping[str, LayerSpec], made_of: Mapping[str, Made]
) -> LayerSpec:
    of = spec.arguments.get("of")
    if of not in made_of:
        raise LayerError("of", f"{of!r}; it must be the name of a layer before this one")
    return by_name[str(of)]


def _values(spec: LayerSpec, values: Mapping[str, str]) -> list[str]:
    for name in spec.inputs:
        if name not in values:
            known = ", ".join(values)
            raise LayerError(
                "inputs", f"{name!r} is not a layer before this one; there are {known}"
            )
    return [values[name] for name in spec.inputs]


def made_layer(spec: LayerSpec, shapes: Sequence[Shape], types: Mapping[str, LayerType]) -> Made:
    """The parts of a layer for inputs of these shapes."""
    of = types[spec.type]
    if of.inputs is None and len(shapes) < 2:
        raise LayerError("inputs", f"{len(shapes)}; a {spec.type} layer takes two or more")
    if of.inputs is not None and len(shapes) != of.inputs:
        raise LayerError("inputs", f"{len(shapes)}; a {spec.type} layer takes {of.inputs}")
    if of.rank is not None and len(shapes[0]) != of.rank:
        raise LayerError(
            "inputs",
            f"of shape {shapes[0]}; a {spec.type} layer takes {of.rank} axes, channels last",
        )
    made = of.make(Arguments(spec.arguments), shapes)
    empty = [part for part in made.parts if min(part.shape, default=1) < 1]
    if empty:
        raise LayerError("inputs", f"of shape {shapes[0]}; the output would be empty")
    if spec.activation == LINEAR and spec.type != ACTIVATION:
        return made
    shape = made.parts[-1].shape if made.parts else shapes[0]
    source, suffix = ((-1,), "activation") if made.parts else ((0,), "")
    activation = Part(
        kinds.ELEMENTWISE, shape, sources=source, suffix=suffix, activation=spec.activation
    )
    return replace(made, parts=(*made.parts, activation))
