"""How a problem is run, apart from the problem: chunks of examples, memory, workers, the device.

None of it changes what is computed, only the order in which the sum over the examples is added up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hesscli.problem.network import Problem
from hesscli.problem.stored import StoredInputs
from hesscli.system.devices import CPU, Device
from hesscli.workers.share import ALONE, Workers

# Larger chunks are no faster: what is computed of an example leaves the cache before it is used.
LARGEST_CHUNK = 8192
# What an example costs while it is looked at, measured as the peak of the checks: so many numbers
# of the problem's type for each input and each unit, and doubles for the rounding errors.
_NUMBERS_OF_AN_INPUT, _NUMBERS_OF_A_UNIT = 4, 16
_DOUBLES_OF_AN_INPUT, _DOUBLES_OF_A_UNIT = 3, 16
# Of narrow layers the Hessian S (units, units) of every example is held, with its terms' and its
# errors'; of wide ones never, because there entries are not compared.
_NARROW, _DOUBLES_OF_S = 64, 12
# The same for the chain rule's product with one vector, which has no S and no rounding errors.
_PRODUCT_OF_AN_INPUT, _PRODUCT_OF_A_UNIT = 4, 24


@dataclass(frozen=True)
class Execution:
    """How many examples are held at a time, which workers have the others, and on which device.

    ``chunk`` examples are held at a time; None is all of them. ``spare`` is how many bytes may be
    kept of other chunks while one is at work. ``workers`` have a part of the sum each.
    The chain rule computes on ``device``; the other witnesses do not.
    """

    chunk: int | None = None
    spare: int = 0
    workers: Workers = ALONE
    device: Device = CPU

    @property
    def summed(self) -> bool:
        """Whether what is computed is a sum over chunks or over workers."""
        return self.chunk is not None or self.workers.count > 1


# All examples at once, in one process.
HELD = Execution()


def execution_of(problem: Problem, workers: Workers = ALONE, device: Device = CPU) -> Execution:
    """How ``problem`` is run: inputs that are stored in chunks, as their memory allows."""
    inputs, of = problem.inputs, (problem.widths, problem.dtype.itemsize)
    if not isinstance(inputs, StoredInputs):
        return Execution(workers=workers, device=device)
    chunk = chunk_size(*of, inputs.memory)
    spare = max(0, inputs.memory - chunk * example_bytes(*of))
    return Execution(chunk, spare, workers, device)


def fits(examples: int, widths: Sequence[int], itemsize: int, memory: int) -> bool:
    """Whether so many examples of a network with ``widths`` may be held at once."""
    return examples * example_bytes(widths, itemsize) <= memory


def chunk_size(widths: Sequence[int], itemsize: int, memory: int) -> int:
    """How many examples of a network with ``widths`` to look at together.

    ``memory`` is what they may take in bytes. A chunk is a power of two, so that a little more or
    less free memory leaves the last digits as they are.
    """
    each = example_bytes(widths, itemsize)
    return min(LARGEST_CHUNK, 1 << max(0, (memory // each).bit_length() - 1))


def product_bytes(widths: Sequence[int], itemsize: int) -> int:
    """The bytes that an example takes while the chain rule multiplies one vector."""
    return itemsize * (_PRODUCT_OF_AN_INPUT * widths[0] + _PRODUCT_OF_A_UNIT * sum(widths[1:]))


def example_bytes(widths: Sequence[int], itemsize: int) -> int:
    """The bytes that an example of a network with ``widths`` takes while it is used."""
    inputs, units = widths[0], sum(widths[1:])
    each = itemsize * (_NUMBERS_OF_AN_INPUT * inputs + _NUMBERS_OF_A_UNIT * units)
    each += 8 * (_DOUBLES_OF_AN_INPUT * inputs + _DOUBLES_OF_A_UNIT * units)
    each += 8 * _DOUBLES_OF_S * max((w * w for w in widths[1:] if w <= _NARROW), default=0)
    return each
