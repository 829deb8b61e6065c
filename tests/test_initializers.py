"""Initializers: the distributions, defaults and names are Keras's, and a seed fixes the draw.

Expected values are closed forms of the distributions (Glorot and Bengio 2010, He et al. 2015,
LeCun et al. 1998; scipy.stats for the truncated normal). Statistics are held to five standard
errors of a sample of that size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hesscli.problem.initializers import (
    MATRIX_ONLY,
    NAMES,
    Draws,
    Initializer,
    parameter_defaults,
)
from hesscli.system.tensorflow import load_tensorflow

load_tensorflow()
keras = pytest.importorskip("keras")

SHAPE = (300, 200)
FAN_IN, FAN_AVERAGE = 300, 250
# The standard deviation of a standard normal cut off at ±2:  √(1 − 4 φ(2) / (Φ(2) − Φ(−2))).
TRUNCATED = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))


def drawn(name: str, shape: tuple[int, ...] = SHAPE, seed: int = 0, **parameters: float) -> Draws:
    initializer = Initializer(name, tuple(parameters.items()))
    return initializer.draw(shape, np.random.default_rng(seed))


def uniform(low: float, high: float) -> Any:
    return stats.uniform(low, high - low)


def truncated(mean: float, stddev: float) -> Any:
    return stats.truncnorm(-2, 2, loc=mean, scale=stddev)


def scaled_uniform(scale: float, fan: float) -> Any:
    return uniform(-math.sqrt(3 * scale / fan), math.sqrt(3 * scale / fan))


def scaled_normal(scale: float, fan: float) -> Any:
    return truncated(0, math.sqrt(scale / fan) / TRUNCATED)


DISTRIBUTIONS: tuple[tuple[str, dict[str, float], Any], ...] = (
    ("random_normal", {}, stats.norm(0, 0.05)),
    ("random_normal", {"mean": 1.5, "stddev": 0.01}, stats.norm(1.5, 0.01)),
    ("random_uniform", {}, uniform(-0.05, 0.05)),
    ("random_uniform", {"minval": 1.0, "maxval": 3.0}, uniform(1, 3)),
    ("truncated_normal", {}, truncated(0, 0.05)),
    ("truncated_normal", {"mean": -2.0, "stddev": 0.5}, truncated(-2, 0.5)),
    ("glorot_uniform", {}, scaled_uniform(1, FAN_AVERAGE)),
    ("glorot_normal", {}, scaled_normal(1, FAN_AVERAGE)),
    ("he_uniform", {}, scaled_uniform(2, FAN_IN)),
    ("he_normal", {}, scaled_normal(2, FAN_IN)),
    ("lecun_uniform", {}, scaled_uniform(1, FAN_IN)),
    ("lecun_normal", {}, scaled_normal(1, FAN_IN)),
)


@pytest.mark.parametrize(("name", "parameters", "expected"), DISTRIBUTIONS)
def test_draws_follow_the_closed_form_distribution(
    name: str, parameters: dict[str, float], expected: Any
) -> None:
    values = drawn(name, SHAPE, 0, **parameters)
    assert values.shape == SHAPE
    assert values.dtype == np.float64
    mean, variance, excess = (float(moment) for moment in expected.stats("mvk"))
    count, stddev = values.size, math.sqrt(variance)
    assert abs(values.mean() - mean) <= 5 * stddev / math.sqrt(count)
    # The variance of a sample's standard deviation is σ² (kurtosis − 1) / 4n.
    assert abs(values.std() - stddev) <= 5 * stddev * math.sqrt((excess + 2) / (4 * count))
    low, high = expected.support()
    assert low <= values.min()
    assert values.max() <= high
    # The whole shape: Kolmogorov's distance is above 2.5/√n once in 100,000 samples.
    assert stats.kstest(values.ravel(), expected.cdf).statistic <= 2.5 / math.sqrt(count)


@pytest.mark.parametrize(
    ("name", "variance"),
    [("glorot", 1 / FAN_AVERAGE), ("he", 2 / FAN_IN), ("lecun", 1 / FAN_IN)],
)
def test_scaled_initializers_have_the_variance_of_their_papers(name: str, variance: float) -> None:
    for shape in ("uniform", "normal"):
        # No kurtosis here is above the normal's 3, which gives this standard error.
        allowed = 5 * variance * math.sqrt(2 / (SHAPE[0] * SHAPE[1]))
        assert abs(drawn(f"{name}_{shape}").var() - variance) <= allowed


def test_truncated_normals_end_at_two_standard_deviations() -> None:
    for name, stddev in (
        ("truncated_normal", 0.05),
        ("he_normal", math.sqrt(2 / 1000) / TRUNCATED),
    ):
        # Of 600,000 draws about 14 are this near to the ends.
        largest = np.abs(drawn(name, (1000, 600))).max()
        assert 1 - 1e-4 < largest / (2 * stddev) <= 1 + 1e-12


def test_a_bias_counts_its_length_as_both_fans() -> None:
    """As Keras does for a tensor of rank one."""
    for name in ("glorot_uniform", "he_uniform", "lecun_uniform"):
        limit = math.sqrt((6 if name == "he_uniform" else 3) / 5000)
        assert 0.99 * limit < np.abs(drawn(name, (5000,))).max() <= limit
        theirs = np.asarray(keras.initializers.get(name)((5000,)))
        assert 0.99 * limit < np.abs(theirs).max() <= limit * (1 + 1e-6)


@pytest.mark.parametrize("gain", [1.0, 2.5])
@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (50, 50)])
def test_orthogonal_draws_are_gain_times_orthonormal(shape: tuple[int, int], gain: float) -> None:
    q = drawn("orthogonal", shape, gain=gain)
    assert q.shape == shape
    products = q.T @ q if shape[0] >= shape[1] else q @ q.T
    np.testing.assert_allclose(products, gain**2 * np.eye(min(shape)), rtol=0, atol=1e-13)


def test_orthogonal_draws_are_uniform_among_orthogonal_matrices() -> None:
    """Without the signs of R's diagonal, QR gives Q a diagonal that is mostly negative."""
    # The trace of a uniform orthogonal matrix has mean 0 and variance 1.
    traces = [np.trace(drawn("orthogonal", (5, 5), seed=seed)) for seed in range(400)]
    assert abs(np.mean(traces)) <= 5 / math.sqrt(400)


def test_zeros_and_ones_are_constant() -> None:
    np.testing.assert_array_equal(drawn("zeros"), np.zeros(SHAPE))
    np.testing.assert_array_equal(drawn("ones", (7,)), np.ones(7))


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"zeros", "ones"}))
def test_the_seed_alone_decides_the_draw(name: str) -> None:
    shape = (6, 4)
    np.testing.assert_array_equal(drawn(name, shape, seed=3), drawn(name, shape, seed=3))
    assert (drawn(name, shape, seed=3) != drawn(name, shape, seed=4)).any()


@pytest.mark.parametrize("name", NAMES)
def test_names_and_defaults_are_keras_own(name: str) -> None:
    theirs = keras.initializers.get(name)
    assert theirs.__class__.__name__.lower() == name.replace("_", "")
    configuration = theirs.get_config()
    # Keras's remaining settings say how it draws, not what.
    for aside in ("seed", "input_axes", "output_axes"):
        configuration.pop(aside, None)
    assert dict(parameter_defaults(name)) == configuration


def test_keras_refuses_for_a_bias_what_is_for_matrices_only() -> None:
    for name in NAMES:
        initializer = keras.initializers.get(name)
        if name in MATRIX_ONLY:
            with pytest.raises(ValueError, match="two"):
                initializer((5,))
        else:
            assert initializer((5,)).shape == drawn(name, (5,)).shape == (5,)
