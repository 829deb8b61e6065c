"""The files that a configuration reads: a result depends on them and on the configuration."""

from __future__ import annotations

from collections.abc import Iterator

from hesscli.config.schema import Config
from hesscli.problem.data import dataset_files, has_test_split
from hesscli.problem.keras_model import model_files
from hesscli.problem.weights import weights_file


def files_read(config: Config, *, held_out: bool = False) -> Iterator[tuple[str, str]]:
    """The key of the configuration and the path of each file, as given where it was given.

    With ``held_out`` the test split of the data is among them, if there is one. Raises
    InputError if the data has no files.
    """
    model, data = config.model, config.data
    if model.weights is not None:
        yield "model.weights", model.weights
    if model.keras is not None:
        for path in model_files(model.keras):
            yield "model.keras", path
    if data.inputs is not None:
        return
    files = dataset_files(data.source, data.split)
    if held_out and data.split == "train" and has_test_split(data.source):
        files = (*files, *dataset_files(data.source, "test"))
    for path in dict.fromkeys(files):
        yield "data.source", path
    of = weights_file(data.source, data.sample_weight)
    if of is not None:
        yield "data.sample_weight", of
