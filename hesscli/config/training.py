"""A Config into what is trained on, and what is held out to judge the result by."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hesscli.config.build import build_problem
from hesscli.config.schema import Config, DataConfig, TrainConfig
from hesscli.problem.data import has_test_split
from hesscli.problem.network import Problem
from hesscli.problem.stored import StoredInputs
from hesscli.system.errors import InputError
from hesscli.workers.share import ALONE, Workers, with_all_examples


@dataclass(frozen=True)
class TrainingData:
    """The network with all examples that it is trained on as its batch, and those held out.

    ``held_out`` is the source's test split if it has one, otherwise the examples that
    ``train.examples`` left; None if there are none. ``held_out_name`` says which.
    """

    problem: Problem
    held_out: Problem | None
    held_out_name: str


def build_training_data(config: Config, workers: Workers = ALONE) -> TrainingData:
    """The examples of ``config`` from ``data.offset`` on, parted at ``train.examples``.

    Each of the ``workers`` has all of them, in its part of the machine's memory.

    ``data.batch_size``, the batch of the other commands, is not looked at. Raises InputError
    if the configuration does not fit, or asks for more examples than there are.
    """
    workers = with_all_examples(workers)
    whole = replace(config, data=replace(config.data, batch_size="all"))
    everything = build_problem(whole, workers=workers)
    data = config.data
    has = f"{data.source} has {everything.examples} from data.offset {data.offset} on"
    parted = part_at(everything, config.train, has)
    if data.inputs is None and data.split == "train" and has_test_split(data.source):
        test = DataConfig(source=data.source, split="test", batch_size="all")
        test_config = replace(config, data=test)
        test_problem = build_problem(test_config, workers=workers)
        return TrainingData(parted.problem, test_problem, "test split")
    return parted


def part_at(everything: Problem, options: TrainConfig, has: str) -> TrainingData:
    """The examples of ``everything``, parted at ``train.examples``.

    ``has`` is how a message begins that says how many there are. Raises InputError if the
    options ask for more.
    """
    available = everything.examples
    examples = available if options.examples == "all" else options.examples
    if examples > available:
        raise InputError(
            f"train.examples: {examples}; {has}, so it must be 1 to {available}, or all"
        )
    size = options.batch_size
    if size != "all" and size > examples:
        raise InputError(
            f"train.batch_size: {size}; there are {examples} examples to train on, so it must be "
            f"1 to {examples}, or all"
        )
    held_out = None if examples == available else _part(everything, slice(examples, None))
    return TrainingData(_part(everything, slice(0, examples)), held_out, "held out")


def _part(problem: Problem, examples: slice) -> Problem:
    stored = problem.inputs
    part = stored.part(examples) if isinstance(stored, StoredInputs) else stored[examples].copy()
    original = problem.original
    if original is not None:
        original = replace(
            original,
            inputs=original.inputs.part(examples),
            targets=original.targets[examples],
        )
    weights = problem.sample_weight
    return replace(
        problem,
        inputs=part,
        targets=problem.targets[examples],
        original=original,
        sample_weight=None if weights is None else weights[examples],
    )
