"""What does the curvature do while a network is trained?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hesscli.config.schema import TrainConfig
from hesscli.config.training import TrainingData
from hesscli.problem.execution import HELD, Execution
from hesscli.problem.graph import Array
from hesscli.problem.network import Problem
from hesscli.studies.checkpoint import Moment, fingerprint, load_checkpoint, save_checkpoint
from hesscli.studies.context import (
    Environment,
    ProblemSummary,
    environment,
    summary,
)
from hesscli.studies.evaluation import batch_loss
from hesscli.studies.measurement import Measured, Measurement, measure, network_share
from hesscli.studies.norm_estimates import REST, estimated_note
from hesscli.studies.sgd import SGD, Batches
from hesscli.system.errors import InputError, NumericalError
from hesscli.witnesses.chain_rule.descent import Descending
from hesscli.workers.share import ALONE, share_of

_ESTIMATED = f"the products of Lanczos and {REST} random ones"

# Called after every step with the number of steps done, the mini-batch's loss before the step
# and the last measurement.
Watch = Callable[[int, float, Measurement], None]


def no_watch(step: int, loss: float, last: Measurement) -> None:
    """For callers who do not watch."""


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy on a set of examples; ``accuracy`` None where nothing is classified."""

    name: str
    examples: int
    loss: float
    accuracy: float | None


@dataclass(frozen=True)
class Training:
    """The result of ``hesscli train``.

    ``problem`` is what was trained, all training examples being its batch; ``batch_size`` and
    ``measured_examples`` are numbers of examples. ``steps`` were done, ``resumed_at`` of them by
    an earlier run; ``completed`` says whether they are as many as were asked for.

    ``threshold`` is the sharpness beyond which gradient descent on a quadratic diverges: 2/η,
    with momentum (2 + 2β)/η; Cohen et al. 2021, "Gradient Descent on Neural Networks Typically
    Occurs at the Edge of Stability" (arXiv:2103.00065). With the reduction ``sum`` it is for the
    sum over the measuring batch, of which a step sees ``batch_size`` examples.

    ``measurements`` begin before the first step and end after the last one, where
    ``gauss_newton_share`` is that of the whole network.
    """

    environment: Environment
    problem: ProblemSummary
    activation: str
    options: TrainConfig
    batch_size: int
    measured_examples: int
    threshold: float
    steps: int
    resumed_at: int
    completed: bool
    measurements: tuple[Measurement, ...]
    gauss_newton_share: float | None
    final: tuple[Evaluation, ...]
    checkpoint: str | None

    def stability_ratio(self, measurement: Measurement) -> float:
        """The sharpness in units of the threshold."""
        return measurement.sharpness / self.threshold


def train(
    data: TrainingData,
    options: TrainConfig,
    *,
    checkpoint: str | None = None,
    resume: str | None = None,
    watch: Watch = no_watch,
    stopped: Callable[[], bool] = lambda: False,
    execution: Execution = HELD,
) -> Training:
    """Trains by SGD and measures the curvature every ``options.every`` steps, and at the end.

    ``checkpoint`` is written every ``options.checkpoint_every`` steps and at the end; from
    ``resume``, such a file, the training goes on as if it had not been interrupted. After each
    step ``stopped`` is asked whether to end. Of several workers each calls this with the same
    data and takes its share of every mini-batch. Raises NumericalError where the training diverges,
    InputError where a checkpoint cannot be written, read, or belongs to another configuration.
    """
    if data.problem.frozen:
        raise InputError(
            f"train: {', '.join(data.problem.frozen)} must not be trained (trainable is false), "
            "and train changes every layer; make them trainable"
        )
    run = _Run(data, options, checkpoint, execution)
    if resume is not None:
        run.resume(resume)
    resumed_at = run.sgd.step
    while run.sgd.step < options.steps and not run.any_worker(stopped()):
        if run.sgd.step % options.every == 0:
            run.measure()
        loss = run.advance()
        watch(run.sgd.step, loss, run.history[-1])
        if run.sgd.step % options.checkpoint_every == 0 and run.sgd.step < options.steps:
            run.save()
    measurements = run.measurements_to_the_end()
    run.save()
    return run.result(measurements, resumed_at)


class _Run:
    """A training under way."""

    def __init__(
        self,
        data: TrainingData,
        options: TrainConfig,
        checkpoint: str | None,
        execution: Execution,
    ) -> None:
        self.data = data
        self.execution = execution
        self.workers = execution.workers
        self.options = options
        self.checkpoint = checkpoint
        self.problem = problem = data.problem
        size, measured = options.batch_size, options.measure_examples
        self.batch_size = problem.examples if size == "all" else size
        examples = problem.examples if measured == "all" else min(measured, problem.examples)
        if execution.chunk is not None and examples > execution.chunk:
            raise InputError(
                f"train.measure_examples: {measured}; they are held together, so use at most "
                f"{execution.chunk}, or more data.memory"
            )
        # Held, whatever the training examples are: they are measured again and again.
        self.measured = problem.chosen(slice(examples))
        self.seed = 0 if problem.seed is None else problem.seed
        self.batches = Batches(problem.examples, self.batch_size, self.seed)
        self.vectors: Mapping[str, Array] = {}
        self.history: tuple[Measurement, ...] = ()
        self.saved_at: int | None = None
        theta = problem.graph.vector()
        self.sgd = self._sgd(0, theta, np.zeros_like(theta))

    def any_worker(self, says: bool) -> bool:
        """Whether one of the workers says so; then all of them know."""
        return bool(self.workers.sum(np.array(float(says))) > 0)

    @property
    def configuration(self) -> dict[str, Any]:
        return fingerprint(self.problem, self.options, self.batch_size)

    def resume(self, path: str) -> None:
        moment = load_checkpoint(path, self.problem, self.configuration)
        if moment.step > self.options.steps:
            raise InputError(
                f"{path}: {moment.step} steps are done in it; train.steps is {self.options.steps} "
                f"and must be {moment.step} or more"
            )
        self.sgd = self._sgd(moment.step, moment.parameters, moment.velocity)
        self.vectors, self.history = moment.vectors, moment.history
        if path == self.checkpoint:
            self.saved_at = moment.step

    def measure(self) -> None:
        """Appends a measurement, unless this step has one from the run that is resumed."""
        if self.history and self.history[-1].step == self.sgd.step:
            return
        measured = self._measured()
        self.history = (*self.history, measured.measurement)
        self.vectors = measured.vectors

    def advance(self) -> float:
        loss = self.sgd.advance()
        if not math.isfinite(loss):
            raise NumericalError(self._diverged("the loss is not a finite number"))
        return loss

    def measurements_to_the_end(self) -> tuple[Measurement, ...]:
        """The history, ending after the last step.

        A measurement that does not fall on ``train.every`` is no part of the history: a run of
        more steps would not have it.
        """
        if self.sgd.step % self.options.every == 0:
            self.measure()
            return self.history
        return (*self.history, self._measured().measurement)

    def save(self) -> None:
        if self.checkpoint is None or self.saved_at == self.sgd.step:
            return
        outputs = Descending(self.problem).outputs(self.parameters, self.measured.batch)
        if not np.isfinite(outputs).all():
            raise NumericalError(self._diverged("the outputs are not finite numbers"))
        moment = Moment(
            self.sgd.step,
            self.parameters,
            self.execution.device.fetch(self.sgd.velocity),
            self.vectors,
            self.history,
        )
        save_checkpoint(self.checkpoint, self.measured, moment, self.configuration)
        self.saved_at = self.sgd.step

    def result(self, measurements: tuple[Measurement, ...], resumed_at: int) -> Training:
        final = [self._evaluation("training", self.problem)]
        if self.data.held_out is not None:
            final.append(self._evaluation(self.data.held_out_name, self.data.held_out))
        return Training(
            environment=environment(self.problem, self.execution),
            problem=summary(
                replace(
                    self.problem,
                    notes=(
                        *self.problem.notes,
                        *estimated_note(self.measured, self.problem.layer_names, _ESTIMATED),
                    ),
                ),
                self.execution,
            ),
            activation=self.problem.hidden_activation,
            options=self.options,
            batch_size=self.batch_size,
            measured_examples=self.measured.examples,
            threshold=self._threshold(),
            steps=self.sgd.step,
            resumed_at=resumed_at,
            completed=self.sgd.step >= self.options.steps,
            measurements=measurements,
            gauss_newton_share=network_share(self._measuring(), self.execution.device),
            final=tuple(final),
            checkpoint=self.checkpoint,
        )

    def _sgd(self, step: int, parameters: Array, velocity: Array) -> SGD:
        return SGD(
            self.problem,
            self.batches,
            self.options.learning_rate,
            self.options.momentum,
            parameters=parameters,
            velocity=velocity,
            step=step,
            workers=self.workers,
            device=self.execution.device,
        )

    @property
    def parameters(self) -> Array:
        """The parameters (P,) as they are now, on the host."""
        parameters: Array = self.execution.device.fetch(self.sgd.parameters)
        return parameters

    def _measuring(self) -> Problem:
        """The measuring batch with the parameters as they are now."""
        return replace(self.measured, graph=self.measured.graph.with_vector(self.parameters))

    def _measured(self) -> Measured:
        step = self.sgd.step
        try:
            return measure(
                self._measuring(),
                step,
                self.batches.epochs(step),
                self.vectors,
                self.seed,
                self.execution.device,
            )
        except NumericalError as error:
            if step == 0:
                raise
            # What it advises is for a network as it was configured.
            what, _, _ = str(error).partition(";")
            raise NumericalError(self._diverged(what)) from error

    def _threshold(self) -> float:
        # Both losses are c_N N times the mean over examples: N c_N is 1, with the reduction sum N.
        scale = self.problem.loss.scale
        measured, batch = self.measured.examples, self.batch_size
        relative = measured * scale(measured) / (batch * scale(batch))
        return relative * (2 + 2 * self.options.momentum) / self.options.learning_rate

    def _evaluation(self, name: str, problem: Problem) -> Evaluation:
        # Of fewer examples than workers each looks at all.
        workers = self.workers if problem.examples >= self.workers.count else ALONE
        own = share_of(problem.examples, workers)
        found = batch_loss(problem, workers, self.parameters, own)
        if not math.isfinite(found.total):
            raise NumericalError(
                self._diverged(f"the loss on the {name} set is not a finite number")
            )
        return Evaluation(name, problem.examples, found.total, found.accuracy)

    def _diverged(self, what: str) -> str:
        momentum = " or train.momentum" if self.options.momentum else ""
        wider = ", or dtype float64" if self.problem.dtype == np.float32 else ""
        kept = ""
        if self.checkpoint is not None and self.saved_at is not None:
            kept = f"; {self.checkpoint} holds step {self.saved_at}"
        return (
            f"after step {self.sgd.step} the training diverged ({what}); use a smaller "
            f"train.learning_rate than {self.options.learning_rate:g}{momentum}{wider}{kept}"
        )
