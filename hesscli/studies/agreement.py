"""Is the problem the user's own model? Keras evaluates it on the batch, and must find the same.

Outputs, loss and gradient of a problem that is made of a Keras model are compared with those of
Keras's own model. A difference is not rounding but another function, which is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from hesscli.nodes.passes import forward
from hesscli.problem.graph import SOFTMAX, Array, Node
from hesscli.problem.network import Original, Problem, Targets
from hesscli.problem.registry import is_untold
from hesscli.system.errors import InputError, NumericalError
from hesscli.system.pieces import pieces
from hesscli.witnesses.chain_rule.descent import Descending
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.rounding.floor import RoundingFloor
from hesscli.witnesses.twin import Differentiated, KerasBatch, KerasTwin

# Relative to the largest number. Keras rounds some constants, such as slopes, to float32.
_AGREE = {"float64": 1e-6, "float32": 1e-3}
# If it does not, gradients agree so far, and autodiff may differentiate Keras's own model. Of
# other activations Keras has no second derivative, or one of fewer digits.
_DIGITS = {"float64": 1e-12, "float32": 1e-5}
_TWICE = frozenset(
    {"linear", "relu", "relu6", "sigmoid", "tanh", "softplus", "exponential", "hard_sigmoid"}
)
_NOT_THE_MODEL = "what would be analysed is not this model"
# Numbers of a layer that are held at a time.
_PIECE_BYTES = 2**26


def agreed(problem: Problem, live: Any = None) -> Problem:
    """``problem``, with Keras's own model for autodiff if both have the same digits.

    Raises InputError if Keras's own model is another function than ``problem``.
    ``live`` is the ``keras.Model`` itself, if there is one; otherwise the problem's file is
    loaded. Nothing is done for a problem that is made of no Keras model, or of a file with what a
    plugin has no TensorFlow function of, which a note says.
    """
    original = problem.original
    if original is None or (live is None and any(map(is_untold, original.plugins.values()))):
        return problem
    try:
        twin = KerasTwin(
            original.path if live is None else live,
            problem.dtype.name,
            original.loss,
            original.plugins,
        )
        return _Agreement(replace(problem, graph=original.graph), original, twin).of(problem)
    except InputError as error:
        raise InputError(f"model.keras: {original.path}: {error}") from error


class _Agreement:
    def __init__(self, problem: Problem, original: Original, twin: KerasTwin) -> None:
        self.problem, self.original, self.twin = problem, original, twin
        self.rtol, self.digits = _AGREE[problem.dtype.name], _DIGITS[problem.dtype.name]
        self.theta = problem.graph.vector()
        self.descending = Descending(problem)
        # The last batch that was compared, and Keras's paths if the gradients are the same.
        self.batch: KerasBatch | None = None
        self.paths: dict[str, str] = {}

    def of(self, problem: Problem) -> Problem:
        """``problem`` once all of it agrees."""
        self.require()
        activations = [node.activation for node in problem.graph.nodes]
        usable = (
            self.batch is not None
            and len(self.batch.inputs) == problem.total
            and isinstance(problem.inputs, np.ndarray)
            and set(self.paths) == set(problem.graph.tensors)
            and activations == [node.activation for node in self.original.graph.nodes]
            and {of.name for of in activations if of is not None} <= _TWICE
        )
        if not usable:
            return problem
        assert self.batch is not None
        found = Differentiated(self.twin, self.batch, problem, self.paths)
        note = f"{self.original.path}: autodiff's forms and probes are of Keras's own model"
        return replace(
            problem,
            original=replace(self.original, differentiated=found),
            notes=(*problem.notes, note),
        )

    def require(self) -> None:
        widest = max(map(math.prod, (self.original.shape, *self._shapes())))
        each = widest * self.problem.dtype.itemsize
        for low, high in pieces(0, self.problem.examples, each, _PIECE_BYTES):
            inputs = self.original.inputs[low:high].reshape(-1, *self.original.shape)
            self._require(self.problem.part(low, high), inputs, self.original.targets[low:high])

    def _require(self, part: Problem, inputs: Array, targets: Targets) -> None:
        """Compares what some of the examples have in the whole loss."""
        ours = self.descending.descent(self.theta, part)
        if not (np.isfinite(ours.gradient).all() and np.isfinite(ours.outputs).all()):
            # Whatever the command is, it says so.
            return
        shown = self._shown(ours.outputs)
        if not self._same(shown, self.twin.outputs(inputs).reshape(shown.shape)):
            raise self._other_layer(part, inputs)
        if self.original.loss is None:
            return
        mean = part.loss.reduction == "mean"
        penalized = part.penalties or part.graph.activities
        self.batch = KerasBatch(
            inputs,
            targets,
            weights=(part.share if mean else 1.0, part.share if penalized else 0.0),
            of_examples=part.sample_weight,
            as_logits=part.loss.from_logits is True,
        )
        loss, gradients = self.twin.loss_and_gradient(self.batch)
        if not math.isclose(loss, ours.loss, rel_tol=self.rtol, abs_tol=self.rtol * part.share):
            raise InputError(
                f"the loss is {ours.loss:.6g} here and {loss:.6g} by Keras's own model; "
                f"{_NOT_THE_MODEL}"
            )
        self._require_gradient(part, ours.gradient, gradients)

    def _require_gradient(self, part: Problem, ours: Array, theirs: Mapping[str, Array]) -> None:
        for (name, tensor), g in zip(part.graph.tensors.items(), self._split(ours), strict=True):
            layer, _, role = name.rpartition("/")
            ending = f"{self.original.layers.get(layer, layer)}/{role}"
            # Models within the model may have layers of one name.
            by_path = {
                path: gradient.reshape(tensor.shape)
                for path, gradient in theirs.items()
                if f"/{path}".endswith(f"/{ending}") and gradient.size == tensor.size
            }
            found = list(by_path.values())
            same = [path for path, of in by_path.items() if self._same(g, of, self.digits)]
            if len(same) == 1:
                self.paths[name] = same[0]
            if not any(self._same(g, gradient) for gradient in found) and not any(
                self._rounding(part, name, g - gradient) for gradient in found
            ):
                raise InputError(
                    f"the gradient in {name} is another by Keras's own model; {_NOT_THE_MODEL}"
                )

    def _split(self, vector: Array) -> list[Array]:
        return list(self.problem.graph.with_vector(vector).tensors.values())

    def _same(self, ours: Array, theirs: Array, rtol: float | None = None) -> bool:
        largest = max(float(np.abs(of).max(initial=0)) for of in (ours, theirs))
        allowed = self.rtol if rtol is None else rtol
        return bool(np.abs(ours - theirs).max(initial=0) <= allowed * largest)

    def _rounding(self, part: Problem, name: str, residual: Array) -> bool:
        """Whether rounding explains the residual of a gradient."""
        try:
            floor = RoundingFloor(ChainRule(part)).gradient(name)
        except NumericalError:
            return False
        return bool((np.abs(residual).reshape(-1) <= floor).all())

    def _shown(self, outputs: Array) -> Array:
        """Our outputs as the model gives them, with what was taken off at its end."""
        if self.original.folded == SOFTMAX:
            return np.asarray(softmax(outputs, axis=-1))
        return np.asarray(expit(outputs)) if self.original.folded else outputs

    def _shapes(self) -> list[tuple[int, ...]]:
        return [node.shape for node in self.problem.graph.nodes]

    def _other_layer(self, part: Problem, inputs: Array) -> InputError:
        """The first of Keras's layers whose value is none of ours."""
        ours = [part.batch, inputs]

        def keep(_node: Node, _where: str, value: Array) -> None:
            ours.append(value)

        f = forward(part.graph, part.graph.shaped(part.batch), (), check=keep).f
        ours.append(self._shown(f))
        flat = [value.reshape(len(inputs), -1) for value in ours]
        name = "its output"
        for layer, value in self.twin.layer_outputs(inputs):
            theirs = value.reshape(len(inputs), -1)
            if not any(of.shape == theirs.shape and self._same(of, theirs) for of in flat):
                name = f"layer {layer!r}"
                break
        return InputError(f"{name} gives other numbers in Keras's own model; {_NOT_THE_MODEL}")
