"""TensorFlow, imported on first use and in silence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

from hesscli.system.errors import InputError, reason
from hesscli.system.memory import out_of_address_space
from hesscli.system.quiet import silenced
from hesscli.system.threads import thread_count


def plain_tensorflow() -> ModuleType:
    """The tensorflow module as it is imported, nothing of it configured; raises ImportError."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silenced(), _keras_when_it_is_used():
        import tensorflow as tf
    module: ModuleType = tf
    return module


@cache
def load_tensorflow() -> ModuleType:
    """The tensorflow module, ready to be used; raises InputError if it is not installed."""
    try:
        tensorflow = plain_tensorflow()
        with silenced():
            _share_cores(tensorflow)
            # Hints on retracing are for authors of TensorFlow programs, not for users of this one.
            tensorflow.get_logger().setLevel("ERROR")
            # The first operation starts the runtime, which talks as well.
            tensorflow.constant(0)
    except ImportError as error:
        remedy = out_of_address_space(error) or "install it with: pip install tensorflow"
        raise InputError(
            f"autodiff needs TensorFlow, which cannot be imported ({reason(error)}); {remedy}"
        ) from error
    return tensorflow


@cache
def load_keras() -> ModuleType:
    """The keras module on TensorFlow; raises InputError if it is not, or runs on another."""
    load_tensorflow()
    with silenced():
        import keras
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"KERAS_BACKEND: {keras.backend.backend()}; Keras must run on tensorflow to be asked "
            "about a model here"
        )
    module: ModuleType = keras
    return module


@contextmanager
def _keras_when_it_is_used() -> Iterator[None]:
    """Makes ``import tensorflow`` import Keras only if ``tf.keras`` is used: a third of its time.

    TensorFlow imports Keras for what it registers with SavedModel, or with this variable the old
    Keras, if that is installed. ``tf.keras`` itself reads the variable when it is first used.
    """
    name = "TF_USE_LEGACY_KERAS"
    if name in os.environ:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]


def _share_cores(tensorflow: ModuleType) -> None:
    """Rows are shared out among our own threads: see hesscli.system.threads."""
    try:
        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        tensorflow.config.threading.set_inter_op_parallelism_threads(thread_count())
    except RuntimeError:
        # The program that calls us has used TensorFlow already: it keeps the threads it has.
        pass
