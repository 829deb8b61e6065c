"""The Hessian of the user's own Keras model, differentiated as it is."""

from __future__ import annotations

import numpy as np

from hesscli.problem.graph import Array
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.twin import Differentiated


class KerasHessian(HessianBlock):
    """Products by nested tapes through Keras's own layers and loss, penalties included.

    Rows, of which there are many, are those of ``block``, the same Hessian by our functions.
    """

    in_threads = False

    def __init__(self, block: HessianBlock, own: Differentiated) -> None:
        super().__init__(block.parameter, block.layout, block.dtype)
        self.block = block
        self.own = own

    def _matmat(self, V: Array) -> Array:
        products = np.empty(V.shape, dtype=self.dtype)
        for column in range(V.shape[1]):
            products[:, column] = self._product(V[:, column])
        return products

    def _product(self, v: Array) -> Array:
        own, tensors = self.own, self.own.problem.graph.tensors
        parts = self.layout.split(np.asarray(v, dtype=self.dtype)[:, None])
        found = own.twin.product(
            own.batch, {own.paths[name]: part[0] for name, part in parts.items()}
        )
        by_tensor = {
            name: found[own.paths[name]].reshape(1, *tensors[name].shape) for name in parts
        }
        return np.asarray(self.layout.join(by_tensor)[:, 0])

    @property
    def row_bytes(self) -> int:
        return self.block.row_bytes

    def rows(self, start: int, stop: int) -> Array:
        return self.block.rows(start, stop)

    def panels(self, start: int, stop: int) -> tuple[Array, ...]:
        return self.block.panels(start, stop)
