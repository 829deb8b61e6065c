"""A block that computes on a device, for those whose arrays are NumPy's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from hesscli.problem.graph import Array
from hesscli.system.arrays import is_numpy
from hesscli.system.devices import Device
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.solution import Exact


class DeviceBlock(HessianBlock):
    """``block``, whose arrays are on ``device``.

    A vector of NumPy's is moved there, and the product back; one that is there stays, and so does
    its product. Rows and the diagonal are moved back. ``held`` makes the same block with its arrays
    on the host, for what follows from the structure of a dense layer (``on_host``).
    """

    # The device computes one thing after the other.
    in_threads = False

    def __init__(
        self, block: HessianBlock, device: Device, held: Callable[[], HessianBlock]
    ) -> None:
        super().__init__(block.parameter, block.layout, block.dtype)
        self.semidefinite, self.most_eigenvalues = block.semidefinite, block.most_eigenvalues
        self.block, self.device, self._held = block, device, held

    @cached_property
    def held(self) -> HessianBlock:
        return self._held()

    def _matmat(self, V: Array) -> Array:
        if not is_numpy(V):
            return self.block.matmat(V)
        moved = self.device.put(V.astype(self.dtype, copy=False))
        product: Array = self.device.fetch(self.block.matmat(moved))
        return product

    @property
    def operand(self) -> Array:
        return self.block.operand

    @property
    def row_bytes(self) -> int:
        return self.block.row_bytes

    def rows(self, start: int, stop: int) -> Array:
        rows: Array = self.device.fetch(self.block.rows(start, stop))
        return rows

    def diagonal(self) -> Array:
        diagonal: Array = self.device.fetch(self.block.diagonal())
        return diagonal

    def exactly(self, v: Array, damping: float) -> Exact | None:
        return self.held.exactly(v, damping)


def on_host(block: HessianBlock) -> HessianBlock:
    """The block with its arrays on the host: itself, unless it computes on a device."""
    return block.held if isinstance(block, DeviceBlock) else block
