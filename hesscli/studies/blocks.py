"""Which blocks of a problem the options ``--block`` and ``--layer`` mean."""

from __future__ import annotations

from collections.abc import Sequence

from hesscli.problem.network import Problem
from hesscli.system.errors import InputError
from hesscli.witnesses.layout import INPUT, NETWORK


def chosen(problem: Problem, block: str, layers: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(layer, block's name) of every block that is meant; no layers mean all trainable ones.

    The inputs and the network belong to no layer and are named for themselves. Raises InputError
    if no block is meant, or a layer is not there.
    """
    for name in layers:
        if name not in problem.layer_names:
            raise InputError(
                f"--layer: {name!r} is unknown; choose {', '.join(problem.layer_names)}"
            )
    if block in (INPUT, NETWORK):
        if layers:
            raise InputError(f"--layer: the block {block} has no layers to choose from")
        if block == NETWORK and not problem.trainable_layers:
            raise InputError(f"--block {block}: every layer is frozen; name one with --layer")
        return [(block, block)]
    meant = layers or problem.trainable_layers or problem.layer_names
    names = [
        layer
        for layer, tensors in problem.graph.layer_tensors.items()
        if layer in meant and (block == "layer" or f"{layer}/{block}" in tensors)
    ]
    if not names:
        whose = f"{', '.join(layers)} has" if layers else "the network has"
        raise InputError(f"--block {block}: {whose} none; choose another block")
    return [(name, name if block == "layer" else f"{name}/{block}") for name in names]
