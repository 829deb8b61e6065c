"""Small networks for tests: one as it is asked for, and random ones for properties."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from hesscli.problem.data import Dataset, labels, select_order
from hesscli.problem.graph import Activation, Layer, chain
from hesscli.problem.names import ACTIVATIONS, LOSSES
from hesscli.problem.network import Loss, Problem, Targets
from hesscli.problem.stored import places
from hesscli.problem.targets import fit_targets

# Tiny weights make every activation nearly linear, large ones saturate it or overflow float32.
SCALES = (1e-20, 1e-3, 0.3, 1.0, 3.0, 30.0)


# The activations of old, which the recorded seeds choose from.
SIXTEEN = ACTIVATIONS[:16]


def make_problem(
    widths: tuple[int, ...],
    activation: str,
    *,
    examples: int = 4,
    scale: float = 1.0,
    seed: int = 0,
    dtype: str = "float64",
) -> Problem:
    """A network with biases and normal parameters of standard deviation scale / √inputs."""
    generator = np.random.default_rng(seed)
    layers = tuple(
        Layer(
            name=f"dense{index + 1}",
            kernel=(scale / np.sqrt(n) * generator.standard_normal((n, m))).astype(dtype),
            bias=(0.1 * scale * generator.standard_normal(m)).astype(dtype),
            activation=Activation(activation if index < len(widths) - 2 else "linear"),
        )
        for index, (n, m) in enumerate(pairwise(widths))
    )
    return Problem(
        graph=chain(layers),
        inputs=generator.standard_normal((examples, widths[0])).astype(dtype),
        targets=generator.integers(0, widths[-1], examples),
    )


@st.composite
def problems(draw: st.DrawFn, dtype: str = "float64") -> Problem:
    """Networks of 1 to 4 layers and widths 1 to 7 on batches of 1 to 5, in ``dtype``.

    Every loss, hidden activation and output activation, with and without biases, both reductions.
    """
    widths = draw(st.lists(st.integers(1, 7), min_size=2, max_size=5))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from(SCALES))
    hidden = Activation(draw(st.sampled_from(ACTIVATIONS)))
    output = Activation(draw(st.sampled_from(("linear", *ACTIVATIONS))))
    loss = Loss(draw(st.sampled_from(LOSSES)), draw(st.sampled_from(("mean", "sum"))))
    if loss.name == "poisson":
        # It takes no negative outputs.
        output = Activation("softplus")
    bias = draw(st.booleans())
    examples = draw(st.integers(1, 5))
    layers = tuple(
        Layer(
            name=f"dense{index + 1}",
            kernel=(scale * generator.standard_normal((inputs, units))).astype(dtype),
            bias=(scale * generator.standard_normal(units)).astype(dtype) if bias else None,
            activation=hidden if index < len(widths) - 2 else output,
        )
        for index, (inputs, units) in enumerate(pairwise(widths))
    )
    inputs = generator.standard_normal((examples, widths[0])).astype(dtype)
    # MNIST's border pixels are exactly zero, and so are their derivatives.
    inputs[generator.random(inputs.shape) < 0.2] = 0
    targets = random_targets(loss.name, examples, widths[-1], generator)
    return Problem(
        graph=chain(layers),
        inputs=inputs,
        targets=fit_targets(targets, loss.name, widths[-1], np.dtype(dtype), "drawn"),
        loss=loss,
    )


def random_targets(loss: str, examples: int, units: int, generator: np.random.Generator) -> Targets:
    """Targets of the kind that ``loss`` is most general for."""
    if loss in ("categorical_crossentropy", "categorical_focal_crossentropy"):
        return generator.dirichlet(np.ones(units), examples)
    if loss in ("binary_crossentropy", "kl_divergence", "poisson"):
        return generator.random((examples, units))
    if loss in ("mean_squared_error", "mean_absolute_error", "huber", "log_cosh"):
        return generator.standard_normal((examples, units))
    return generator.integers(0, units, examples)


def select_batch(
    dataset: Dataset, batch_size: int | None, offset: int, shuffle: bool, seed: int
) -> tuple[Any, Targets]:
    """The examples of a batch as stored: inputs (N, d) and their targets."""
    selected = places(select_order(dataset, batch_size, offset, shuffle, seed))
    return np.array(dataset.inputs[selected]), labels(dataset.targets[selected])
