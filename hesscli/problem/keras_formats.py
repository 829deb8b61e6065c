"""Which file of a model is which; and how those that are not read become one that is."""

from __future__ import annotations

import os

from hesscli.system.errors import InputError
from hesscli.system.files import expanded, opened

_NEEDED = "a model that Keras saved as .keras, .h5 or .json is needed"
_WEIGHTS = (".weights.h5", "_weights.h5", ".h5")
# What other files begin with, and the two lines of Python that make a model of Keras's of them.
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def is_json(path: str) -> bool:
    """Whether a file is a description that ``model.to_json()`` wrote."""
    with opened(path, _NEEDED) as stream:
        return stream.read(64).lstrip()[:1] == b"{"


def weights_beside(path: str) -> str:
    """The HDF5 file with the numbers of the description ``path``; InputError if there is none.

    It is called as the description, but for the end: ``model.weights.h5`` for ``model.json``.
    """
    stem, _ = os.path.splitext(path)
    found = [stem + end for end in _WEIGHTS if os.path.isfile(expanded(stem + end))]
    if not found:
        raise InputError(
            f"{path}: it contains no numbers, and there is no {stem}{_WEIGHTS[0]} next to it; "
            f"save the weights there, with model.save_weights"
        )
    return found[0]


def require_keras_format(path: str) -> None:
    """Raises InputError for a SavedModel or a pickle, with the lines that convert it."""
    if os.path.isdir(expanded(path)):
        if os.path.isfile(expanded(os.path.join(path, "saved_model.pb"))):
            raise InputError(
                f"{path}: a SavedModel, which is a program and not read; convert it with: import "
                f"tf_keras; tf_keras.models.load_model({path!r}).save('model.h5')"
            )
        raise InputError(f"{path}: a folder; {_NEEDED}")
    with opened(path, _NEEDED) as stream:
        begins = stream.read(2)
    if begins in _PICKLES:
        raise InputError(
            f"{path}: a pickle, which can run anything when it is read; if you trust it, convert "
            f"it with: import pickle; pickle.load(open({path!r}, 'rb')).save('model.keras')"
        )
