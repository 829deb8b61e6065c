"""Stochastic gradient descent with momentum: mini-batches, and one step after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hesscli.nodes.node import added
from hesscli.problem.execution import product_bytes
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.problem.placed import placed_graph, with_examples
from hesscli.problem.stored import StoredInputs
from hesscli.system import xp
from hesscli.system.devices import CPU, Device
from hesscli.system.pieces import pieces
from hesscli.system.threads import at_once
from hesscli.witnesses.chain_rule.descent import Descending, Descent
from hesscli.workers.share import ALONE, Workers, share_of

# Sets the epochs' random numbers apart from those that the parameters are drawn with.
_EPOCHS = 1


@dataclass(frozen=True)
class Batches:
    """Mini-batches of ``size`` out of ``examples``, in an order that is drawn again every epoch.

    The last one of an epoch holds what is left, as in Keras. Epoch e has the generator of
    SeedSequence(``seed``, spawn_key=(1, e)): where a training stands in it follows from the
    number of steps alone, so that going on needs no state of a generator.
    """

    examples: int
    size: int
    seed: int

    @property
    def each_epoch(self) -> int:
        return math.ceil(self.examples / self.size)

    def epochs(self, step: int) -> float:
        """How often the examples were seen in ``step`` steps."""
        whole, batches = divmod(step, self.each_epoch)
        return whole + min(batches * self.size, self.examples) / self.examples

    def order(self, epoch: int) -> NDArray[np.intp]:
        """The order (examples,) of an epoch."""
        seeds = np.random.SeedSequence(self.seed, spawn_key=(_EPOCHS, epoch))
        return np.random.default_rng(seeds).permutation(self.examples)


class SGD:
    """Steps of velocity ← momentum · velocity − learning_rate · g, θ ← θ + velocity.

    g is the gradient of a mini-batch's loss. The formula is that of keras.optimizers.SGD
    (https://keras.io/api/optimizers/sgd/); without momentum it is θ ← θ − learning_rate · g.
    ``parameters`` and ``velocity`` (P,) are new arrays after every step.

    Of several ``workers`` each takes its share of the mini-batch; the steps are the same for all.
    They are computed on ``device``, where examples that are held go once, and others with their
    mini-batch; ``parameters`` and ``velocity`` are there.
    On the CPU a mini-batch of much memory is summed in pieces, which threads share; the pieces are
    the same for any number of them.
    """

    def __init__(
        self,
        problem: Problem,
        batches: Batches,
        learning_rate: float,
        momentum: float,
        *,
        parameters: Array,
        velocity: Array,
        step: int = 0,
        workers: Workers = ALONE,
        device: Device = CPU,
    ) -> None:
        self.parameters = device.put(parameters)
        self.velocity = device.put(velocity)
        self.step = step
        held = not isinstance(problem.inputs, StoredInputs)
        self._problem = with_examples(problem, device) if held else problem
        self._workers = workers
        self._device = device
        self._batches = batches
        graph = placed_graph(problem.graph, device)
        self._engine = Descending(replace(self._problem, graph=graph))
        self._bytes_of_an_example = product_bytes(problem.widths, problem.dtype.itemsize)
        # Rounded to the type, as Python's numbers, which every array library multiplies.
        self._learning_rate, self._momentum = (
            float(problem.dtype.type(number)) for number in (learning_rate, momentum)
        )
        self._epoch = -1
        self._order = np.empty(0, dtype=np.intp)

    def advance(self) -> float:
        """Takes one step; gives the mini-batch's loss before it, which may be NaN or infinite.

        Then the parameters stay where they were.
        """
        loss, gradient = self._loss_and_gradient(self._chosen())
        with np.errstate(over="ignore", invalid="ignore"):
            velocity = self._momentum * self.velocity - self._learning_rate * gradient
            parameters = self.parameters + velocity
        if not math.isfinite(loss):
            return loss
        if not xp.all(xp.isfinite(parameters)):
            return math.inf
        self.velocity, self.parameters = velocity, parameters
        self.step += 1
        return loss

    def _loss_and_gradient(self, chosen: NDArray[np.intp]) -> tuple[float, Array]:
        own = chosen[share_of(len(chosen), self._workers)]

        def of_examples(piece: tuple[int, int]) -> Descent:
            batch = self._problem.chosen(own[slice(*piece)], len(chosen))
            return self._engine.descent(self.parameters, with_examples(batch, self._device))

        # A worker's share may have no examples.
        each = [(0, len(own))]
        if self._device.is_cpu and len(own) > 0:
            each = list(pieces(0, len(own), self._bytes_of_an_example))
        parts = list(at_once(of_examples, each))
        loss = sum(part.loss for part in parts)
        with np.errstate(over="ignore", invalid="ignore"):
            gradient = added(part.gradient for part in parts)
        if self._workers.count == 1:
            return loss, gradient
        # In double precision, whatever the type: the order of the workers matters little then.
        gradient = self._device.fetch(gradient)
        total = self._workers.sum(np.concatenate([[loss], gradient], dtype=np.float64))
        with np.errstate(over="ignore", invalid="ignore"):
            return float(total[0]), self._device.put(total[1:].astype(gradient.dtype))

    def _chosen(self) -> NDArray[np.intp]:
        epoch, batch = divmod(self.step, self._batches.each_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._batches.order(epoch)
        start = batch * self._batches.size
        return self._order[start : start + self._batches.size]
