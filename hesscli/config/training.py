"""A Config into what is trained on, and what is held out to judge the result by."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hesscli.config.build import build_problem
from hesscli.config.schema import Config, DataConfig
from hesscli.problem.data import has_test_split
from hesscli.problem.network import Problem
from hesscli.problem.stored import StoredInputs
from hesscli.system.errors import InputError
from hesscli.workers.share import ALONE, Workers, with_all_examples


@dataclass(frozen=True)
class TrainingData:
    """The network with all examples that it is trained on as its batch, and those held out.

    ``held_out`` is the source's test split where it has one, otherwise the examples that
    ``train.examples`` left; None where there are none. ``held_out_name`` says which.
    """

    problem: Problem
    held_out: Problem | None
    held_out_name: str


def build_training_data(config: Config, workers: Workers = ALONE) -> TrainingData:
    """The examples of ``config`` from ``data.offset`` on, parted at ``train.examples``.

    Each of the ``workers`` has all of them, in its part of the machine's memory.

    ``data.batch_size``, the batch of the other commands, is not looked at. Raises InputError
    where the configuration does not fit, or asks for more examples than there are.
    """
    workers = with_all_examples(workers)
    whole = replace(config, data=replace(config.data, batch_size="all"))
    everything = build_problem(whole, workers=workers)
    available, wanted = everything.examples, config.train.examples
    examples = available if wanted == "all" else wanted
    if examples > available:
        raise InputError(
            f"train.examples: {examples}; {config.data.source} has {available} from data.offset "
            f"{config.data.offset} on, so it must be 1 to {available}, or all"
        )
    size = config.train.batch_size
    if size != "all" and size > examples:
        raise InputError(
            f"train.batch_size: {size}; there are {examples} examples to train on, so it must be "
            f"1 to {examples}, or all"
        )
    problem = _part(everything, slice(0, examples))
    data = config.data
    if data.inputs is None and data.split == "train" and has_test_split(data.source):
        test = DataConfig(source=data.source, split="test", batch_size="all")
        test_config = replace(config, data=test)
        return TrainingData(problem, build_problem(test_config, workers=workers), "test split")
    held_out = None if examples == available else _part(everything, slice(examples, None))
    return TrainingData(problem, held_out, "held out")


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
