"""Autodiff on random graphs gives what TensorFlow gives for one flat vector of all parameters.

The reference evaluates the graph by itself, in operations written out here, and differentiates the
loss twice by the vector of all tensors and inputs: one dense matrix, of which every block is a
part. A test holds the reference itself to ``tf.hessians``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from networks import make_problem
from random_graphs import random_graph_problem

from hesscli.problem.graph import ADD, DENSE, ELEMENTWISE, INPUT, SOFTMAX, Array, Node
from hesscli.problem.network import Problem
from hesscli.system.errors import InputError, UnknownBlockError
from hesscli.system.tensorflow import load_tensorflow
from hesscli.witnesses.autodiff import blocks, rows
from hesscli.witnesses.autodiff.engine import Autodiff
from hesscli.witnesses.quantities import quantities

SEEDS = range(25)
RTOL = 1e-11
Tensor = Any


def activations(tf: Any) -> Mapping[str, Callable[[Tensor], Tensor]]:
    return {
        "tanh": lambda z: (tf.exp(z) - tf.exp(-z)) / (tf.exp(z) + tf.exp(-z)),
        "sigmoid": lambda z: 1 / (1 + tf.exp(-z)),
        "softplus": lambda z: tf.math.log(1 + tf.exp(z)),
        "gelu": lambda z: z * (1 + tf.math.erf(z / np.sqrt(2))) / 2,
        "silu": lambda z: z / (1 + tf.exp(-z)),
        "sin": tf.sin,
        "square": lambda z: z * z,
        "relu": lambda z: tf.maximum(z, 0),
        "elu": lambda z: tf.where(z > 0, z, tf.exp(z) - 1),
    }


def losses(tf: Any, f: Tensor, t: Any) -> Mapping[str, Callable[[], Tensor]]:
    """Each example's loss (…, N)."""

    def from_probabilities(t: Any) -> Tensor:
        return -tf.reduce_sum(t * tf.math.log(softmax(tf, f)), -1)

    def limited(of: Any) -> Tensor:
        return tf.clip_by_value(of, 1e-7, 1)

    return {
        "sparse_categorical_crossentropy": lambda: from_probabilities(np.eye(f.shape[-1])[t]),
        "categorical_crossentropy": lambda: from_probabilities(t),
        "binary_crossentropy": lambda: tf.reduce_mean(tf.math.log(1 + tf.exp(f)) - t * f, -1),
        "mean_squared_error": lambda: tf.reduce_mean((f - t) ** 2, -1),
        "mean_absolute_error": lambda: tf.reduce_mean(tf.abs(f - t), -1),
        "huber": lambda: tf.reduce_mean(
            tf.where(abs(f - t) <= 1, (f - t) ** 2 / 2, tf.abs(f - t) - 0.5), -1
        ),
        "log_cosh": lambda: tf.reduce_mean(tf.math.log(tf.cosh(f - t)), -1),
        "kl_divergence": lambda: tf.reduce_sum(
            limited(t) * tf.math.log(limited(t) / limited(f)), -1
        ),
        "poisson": lambda: tf.reduce_mean(f - t * tf.math.log(f + 1e-7), -1),
        "sum_of_squares": lambda: tf.reduce_sum(f**2, -1),
        "sum": lambda: tf.reduce_sum(f, -1),
    }


def softmax(tf: Any, x: Tensor) -> Tensor:
    return tf.exp(x) / tf.reduce_sum(tf.exp(x), -1, keepdims=True)


class Plain:
    """A problem's values and loss, with whatever is ``given`` in place of what the graph has.

    All may have leading axes.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.tf = load_tensorflow()
        self.activations = activations(self.tf)

    def values(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        graph = self.problem.graph
        known = {INPUT: self.problem.batch, **graph.tensors, **given}
        for node in graph.nodes:
            if node.name not in known:
                known[node.name] = self.value(node, known)
        return known

    def value(self, node: Node, known: Mapping[str, Tensor]) -> Tensor:
        x = [known[name] for name in node.inputs]
        if node.kind == DENSE:
            z = self.tf.einsum("...ni,...ih->...nh", x[0], known[node.tensors["kernel"]])
            return z + known[node.tensors["bias"]][..., None, :] if "bias" in node.tensors else z
        if node.kind == ELEMENTWISE:
            assert node.activation is not None
            return self.activations[node.activation.name](x[0])
        if node.kind == SOFTMAX:
            return softmax(self.tf, x[0])
        assert node.kind == ADD
        return sum(x[1:], x[0])

    def loss(self, f: Tensor) -> Tensor:
        each = losses(self.tf, f, self.problem.targets)[self.problem.loss.name]()
        return self.problem.loss.scale(self.problem.examples) * self.tf.reduce_sum(each, -1)

    def twice(self, of: Callable[[Tensor], Tensor], vector: Array) -> tuple[Array, Array]:
        """The gradient (P,) and the Hessian (P, P) of a number: every row in a copy of its own."""
        tf = self.tf
        at = tf.constant(np.tile(vector, (len(vector), 1)))
        with tf.GradientTape() as outer:
            outer.watch(at)
            with tf.GradientTape() as inner:
                inner.watch(at)
                numbers = of(at)
            gradients = inner.gradient(numbers, at, unconnected_gradients="zero")
        units = np.eye(len(vector))
        rows = outer.gradient(gradients, at, units, unconnected_gradients="zero")
        return np.asarray(gradients[0]), np.asarray(rows)


@dataclass(frozen=True)
class Reference:
    """All derivatives by all tensors, one after the other, and then the inputs.

    ``loss`` (…) is a function of vectors (…, P), ``at`` the vector that the problem has.
    """

    problem: Problem
    loss: Callable[[Tensor], Tensor]
    at: Array
    gradient: Array
    jacobian: Array
    hessian: Array
    gauss_newton: Array

    def places(self, block: str) -> slice:
        """Where the parameters of a block stand."""
        low, places = 0, {}
        graph = self.problem.graph
        for name, tensor in graph.tensors.items():
            places[name] = slice(low, low + tensor.size)
            low += tensor.size
        for layer, names in graph.layer_tensors.items():
            places[layer] = slice(places[names[0]].start, places[names[-1]].stop)
        (width,) = graph.input_shape
        for n in range(self.problem.examples):
            places[f"{INPUT}[{n}]"] = slice(low + n * width, low + (n + 1) * width)
        places["network"], places[INPUT] = slice(0, low), slice(low, None)
        return places[block]


@cache
def reference(seed: int) -> Reference:
    problem = random_graph_problem(seed)
    plain, graph = Plain(problem), problem.graph
    tf = plain.tf
    arrays = {**graph.tensors, INPUT: problem.batch}
    sizes = [array.size for array in arrays.values()]

    def output(flat: Tensor) -> Tensor:
        parts = zip(arrays.items(), tf.split(flat, sizes, axis=-1), strict=True)
        given = {
            name: tf.reshape(part, (*flat.shape[:-1], *array.shape))
            for (name, array), part in parts
        }
        return plain.values(given)[graph.output]

    def loss(flat: Tensor) -> Tensor:
        return plain.loss(output(flat))

    def loss_of_output(f: Tensor) -> Tensor:
        return plain.loss(tf.reshape(f, (*f.shape[:-1], problem.examples, problem.outputs)))

    vector = np.concatenate([array.reshape(-1) for array in arrays.values()])
    g, H = plain.twice(loss, vector)
    f = np.asarray(output(tf.constant(vector))).reshape(-1)
    _, of_loss = plain.twice(loss_of_output, f)
    copies = tf.constant(np.tile(vector, (len(f), 1)))
    with tf.GradientTape() as tape:
        tape.watch(copies)
        outputs = tf.reshape(output(copies), (len(f), len(f)))
    J = np.asarray(tape.gradient(outputs, copies, np.eye(len(f))))
    return Reference(problem, loss, vector, g, J, H, J.T @ of_loss @ J)


def test_the_reference_is_what_tensorflow_s_own_hessian_says() -> None:
    tf, right = load_tensorflow(), reference(8)
    own = tf.function(lambda at: tf.hessians(right.loss(at), at)[0], autograph=False)
    hessian = np.asarray(own(tf.constant(right.at)))
    assert np.allclose(right.hessian, hessian, rtol=0, atol=1e-13 * np.abs(hessian).max())


def some_blocks(problem: Problem, seed: int, count: int) -> list[str]:
    """Blocks that have their turn with this graph: all have it with some."""
    names = ["network", INPUT, *problem.layer_names, *problem.graph.tensors]
    names += [f"{INPUT}[{n}]" for n in range(problem.examples)]
    return [names[(count * seed + k) % len(names)] for k in range(count)]


def assert_close(found: Array, expected: Array, largest: float, what: object) -> None:
    assert found.shape == expected.shape, what
    assert (np.abs(found - expected) <= RTOL * largest + 1e-14).all(), what


def largest(array: Array) -> float:
    return float(np.abs(array).max())


@pytest.mark.parametrize("seed", SEEDS)
def test_products_with_every_term_of_every_block(seed: int) -> None:
    right = reference(seed)
    engine = Autodiff(right.problem)
    G, H = right.gauss_newton, right.hessian
    for name in ("network", *some_blocks(right.problem, seed, 1)):
        at = right.places(name)
        units = np.eye(len(H[at, at]))
        blocks = engine.hessian(name), engine.gauss_newton(name)
        by_engine = [block.matmat(units) for block in blocks]
        for found, expected in zip(by_engine, (H, G), strict=True):
            assert_close(found, expected[at, at], largest(H), name)
    v = np.cos(np.arange(len(units)))
    C = engine.curvature(name)
    assert_close(C @ v, (H - G)[at, at] @ v, len(v) * largest(H), name)


@pytest.mark.usefixtures("rows_are_traced")
@pytest.mark.parametrize("seed", SEEDS[:15])
def test_rows_panels_and_the_dense_matrix(seed: int) -> None:
    right = reference(seed)
    engine = Autodiff(right.problem)
    # Tracing takes long.
    (name,) = some_blocks(right.problem, seed, 1)
    at = right.places(name)
    expected = right.hessian[at, at]
    block, middle = engine.hessian(name), len(expected) // 2
    rows = np.concatenate([block.rows(0, middle), block.rows(middle, len(expected) + 5)])
    panels = block.panels(0, len(expected))
    by_row = [panel.swapaxes(0, 1).reshape(len(expected), -1) for panel in panels]
    for found in (rows, block.to_dense(), np.concatenate(by_row, axis=1)):
        assert_close(found, expected, largest(right.hessian), name)


@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_and_jacobians(seed: int) -> None:
    right = reference(seed)
    problem, J = right.problem, right.jacobian
    engine = Autodiff(problem)
    for name in some_blocks(problem, seed, 3):
        at = right.places(name)
        assert_close(engine.gradient(name), right.gradient[at], largest(right.gradient), name)
        if name == INPUT:
            with pytest.raises(InputError, match=r"input\[0\]"):
                engine.jacobian(name)
            continue
        jacobian = engine.jacobian(name)
        first = jacobian.first_example * jacobian.outputs
        expected = J[first : first + jacobian.shape[0], at]
        assert_close(jacobian.rows(0, jacobian.shape[0] + 3), expected, largest(J), name)


@pytest.mark.parametrize("seed", SEEDS)
def test_gradient_and_hessian_in_every_value(seed: int) -> None:
    problem = random_graph_problem(seed)
    plain, engine = Plain(problem), Autodiff(problem)
    tf, values = plain.tf, plain.values({})
    assert [quantity.value for quantity in quantities(problem)] == [
        *(node.name for node in reversed(problem.graph.nodes)),
        INPUT,
    ]
    start, stop = problem.examples // 3, problem.examples
    for quantity in quantities(problem)[seed % 4 :: 4]:
        shape = problem.examples, quantity.width

        def loss(flat: Tensor, name: str = quantity.value, shape: Any = shape) -> Tensor:
            given = {name: tf.reshape(flat, (*flat.shape[:-1], *shape))}
            return plain.loss(plain.values(given)[problem.graph.output])

        g, H = plain.twice(loss, np.asarray(values[quantity.value]).reshape(-1))
        examples = np.arange(start, stop)
        S = H.reshape(*shape, *shape)[examples, :, examples, :]
        found_g, found_S = engine.gradient_and_hessian(quantity, start, stop)
        assert_close(found_g, g.reshape(shape)[start:stop], largest(g), quantity)
        assert_close(found_S, S, largest(H), quantity)


def test_pieces_of_vectors_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = 5
    right = reference(seed)
    assert any(len(users) > 1 for users in right.problem.graph.users.values())
    monkeypatch.setattr(blocks, "_PIECE_BYTES", 1)
    engine = Autodiff(right.problem)
    for name in ("network", "dense2", "dense3"):
        at = right.places(name)
        for term in ("hessian", "gauss_newton"):
            expected = getattr(right, term)[at, at][:, :3]
            found = getattr(engine, term)(name).matmat(np.eye(*expected.shape))
            assert_close(found, expected, largest(right.hessian), (term, name))


@pytest.mark.parametrize("seed", [1, 5])
def test_traced_products_are_those_of_the_reference(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = reference(seed)
    # As if every block were large.
    monkeypatch.setattr(blocks, "_TRACED_BYTES", 0)
    monkeypatch.setattr(rows, "_kept", kept := OrderedDict[Any, Any]())
    engine = Autodiff(right.problem)
    for name in ("dense1", "dense2", "dense3"):
        at = right.places(name)
        V = np.random.default_rng(seed).standard_normal((len(right.hessian[at]), 3))
        expected = right.hessian[at, at] @ V
        found = engine.hessian(name).matmat(V)
        assert_close(found, expected, largest(expected), name)
    assert any(key[-1] == "products" for key in kept)


def like(problem: Problem, change: str) -> Problem:
    """The problem with other numbers, or with another value read by its first sum."""
    graph = problem.graph
    if change == "numbers":
        tensors = {name: 1.25 * tensor for name, tensor in graph.tensors.items()}
        return replace(problem, graph=graph.with_tensors(tensors))
    first = next(node for node in graph.nodes if node.kind == ADD)
    other = replace(first, inputs=first.inputs[:1] * len(first.inputs))
    assert other != first
    nodes = tuple(other if node is first else node for node in graph.nodes)
    return replace(problem, graph=replace(graph, nodes=nodes))


@pytest.mark.usefixtures("rows_are_traced")
@pytest.mark.parametrize(("change", "functions"), [("numbers", 0), ("inputs", 1)])
def test_a_traced_function_serves_the_graphs_that_differ_in_numbers_alone(
    change: str, functions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "_kept", kept := OrderedDict[Any, Any]())
    problem = random_graph_problem(2)
    Autodiff(problem).hessian("dense2").to_dense()
    before = len(kept)
    block = Autodiff(like(problem, change)).hessian("dense2")
    by_products = block.matmat(np.eye(block.shape[0]))
    assert_close(block.to_dense(), by_products, largest(by_products), change)
    assert len(kept) == before + functions


@pytest.mark.parametrize("block", ["dense9", "dense1/weights", "input[9]", "add1"])
def test_an_unknown_block_is_said(block: str) -> None:
    engine = Autodiff(random_graph_problem(1))
    for derivative in (engine.gradient, engine.jacobian):
        with pytest.raises(UnknownBlockError):
            derivative(block)


def test_the_quantities_of_a_chain_and_of_a_graph_have_their_names() -> None:
    chain = quantities(make_problem((4, 5, 2), "tanh"))
    assert [(quantity.name, quantity.label, quantity.kind) for quantity in chain] == [
        ("f", "loss", "loss"),
        ("z2", "dense2 linear", "activation"),
        ("a1", "dense2 dense", "dense"),
        ("z1", "dense1 tanh", "activation"),
        ("x", "dense1 dense", "dense"),
    ]
    graph = {quantity.value: quantity for quantity in quantities(random_graph_problem(2))}
    assert graph["dense1"].name == "z1"
    assert graph["dense1/activation"].name == "a1"
    assert graph["add1"].name == "add1"
    assert (graph["add1"].label, graph["add1"].kind) == ("dense3 + add2", "dense+add")
    assert graph["dense2/2"].label == "dense2/2 silu"
