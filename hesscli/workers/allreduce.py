"""Sums over workers by TensorFlow's all-reduce, tf.distribute.MultiWorkerMirroredStrategy."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hesscli.system.errors import InputError, NumericalError, reason
from hesscli.system.quiet import silenced
from hesscli.system.tensorflow import import_tensorflow
from hesscli.workers.cluster import Cluster

Sum = Callable[[NDArray[Any]], NDArray[Any]]


def all_reduce(cluster: Cluster) -> Sum:
    """What adds up the arrays (float64) that the workers of ``cluster`` give, for each of them.

    It waits until all workers are there. The ring adds every number in one place and passes the
    sum on, so that all workers get the same bits. Raises InputError where TensorFlow cannot make
    the cluster.
    """
    tensorflow = import_tensorflow()
    distribute = tensorflow.distribute
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        with silenced():
            # One replica a worker: with GPUs there would be one for each of them.
            tensorflow.config.set_visible_devices([], "GPU")
            strategy = distribute.MultiWorkerMirroredStrategy(
                cluster_resolver=distribute.cluster_resolver.SimpleClusterResolver(
                    tensorflow.train.ClusterSpec({"worker": list(cluster.addresses)}),
                    task_type="worker",
                    task_id=cluster.index,
                    rpc_layer="grpc",
                )
            )
        _restore(terminated)
    # Of several kinds, from a port that is taken to a runtime that has started already.
    except Exception as error:
        raise InputError(
            f"{cluster.origin}: TensorFlow cannot start {cluster.name_of(cluster.index)} "
            f"({reason(error)})"
        ) from error

    def of_replica(values: Any) -> Any:
        context = distribute.get_replica_context()
        # The strategy asks where a tensor is; an argument is nowhere yet.
        return context.all_reduce(distribute.ReduceOp.SUM, tensorflow.identity(values))

    reduced = tensorflow.function(
        lambda values: strategy.run(of_replica, args=(values,)),
        input_signature=[tensorflow.TensorSpec([None], tensorflow.float64)],
        autograph=False,
    )

    def add_up(values: NDArray[Any]) -> NDArray[Any]:
        flat = np.ascontiguousarray(values, dtype=np.float64).reshape(-1)
        try:
            total: NDArray[Any] = reduced(tensorflow.constant(flat)).numpy()
        except tensorflow.errors.OpError as error:
            what, _, _ = error.message.partition("\n")
            raise NumericalError(f"the workers' sum failed ({what})") from error
        return total.reshape(values.shape)

    return add_up


def _restore(handler: Any) -> None:
    """TensorFlow waits to be told of preemption, and SIGTERM would no longer end the process."""
    # Only the main thread may listen to signals.
    with suppress(ValueError):
        signal.signal(signal.SIGTERM, handler)
