"""The chain rule on a device: its products, its rows and its gradients are computed there."""

from __future__ import annotations

from functools import cached_property, partial

from hesscli.nodes.passes import HESSIAN, Term
from hesscli.problem.graph import Array, Graph
from hesscli.problem.network import Problem
from hesscli.problem.placed import placed
from hesscli.system.devices import Device
from hesscli.witnesses.block import HessianBlock
from hesscli.witnesses.chain_rule.engine import ChainRule
from hesscli.witnesses.ondevice import DeviceBlock


class ChainRuleOn(ChainRule):
    """The chain rule of a problem whose arrays are NumPy's, computed on ``device``.

    The problem goes there once; ``graph`` is its own if that is there already. What it gives is on
    the host, and so is what it makes of the structure of a layer: of S, computed on the device, and
    of the layer's input.
    """

    def __init__(self, problem: Problem, device: Device, graph: Graph | None = None) -> None:
        super().__init__(problem)
        self.device = device
        self._graph = graph

    @cached_property
    def there(self) -> ChainRule:
        """The engine of the same problem, on the device."""
        return ChainRule(placed(self.problem, self.device, self._graph))

    def hessian(self, parameter: str) -> HessianBlock:
        held = partial(super().hessian, parameter)
        return DeviceBlock(self.there.hessian(parameter), self.device, held)

    def gauss_newton(self, parameter: str) -> HessianBlock:
        held = partial(super().gauss_newton, parameter)
        return DeviceBlock(self.there.gauss_newton(parameter), self.device, held)

    def curvature(self, parameter: str) -> HessianBlock:
        held = partial(super().curvature, parameter)
        return DeviceBlock(self.there.curvature(parameter), self.device, held)

    def gradient(self, parameter: str) -> Array:
        gradient: Array = self.device.fetch(self.there.gradient(parameter))
        return gradient

    def second(self, value: str, term: Term = HESSIAN) -> Array:
        if (term, value) not in self._kept:
            self._kept[term, value] = self.device.fetch(self.there.second(value, term))
        return self._kept[term, value]


def chain_rule_on(problem: Problem, device: Device) -> ChainRule:
    """The chain rule of ``problem``, computed on ``device``."""
    return ChainRule(problem) if device.is_cpu else ChainRuleOn(problem, device)
