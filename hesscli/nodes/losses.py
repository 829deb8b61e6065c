"""Losses with their first two derivatives with respect to the network output.

Each is a record of functions of the network's output f (N, c) and the targets: ℓ per example,
∂ℓ/∂f, ∂²ℓ/∂f² and products with it. The factor of the reduction is the caller's. Names and
definitions are Keras's, from logits where Keras has ``from_logits``; ``sum_of_squares``, ``sum``
and ``output`` look at no targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from hesscli.nodes.node import Wanted
from hesscli.nodes.softmax import Softmax, SoftmaxAt, logsumexp, softmax
from hesscli.problem.graph import Array
from hesscli.problem.names import FOCAL, OUTPUT
from hesscli.problem.network import Loss, Targets
from hesscli.problem.registry import loss_names
from hesscli.system import xp
from hesscli.system.errors import InputError

# (chosen examples, v (n, k, c)) → ∂²ℓ/∂f² of each example times its k vectors, (n, k, c).
HessianProduct = Callable[[slice, Array], Array]
_OfNumbers = Callable[[Array, Targets], Array]
# Keras's ``keras.config.epsilon()``, below which it lets no probability go.
EPSILON = 1e-7


@dataclass(frozen=True)
class LossDerivatives:
    """ℓ (N,), ∂ℓ/∂f (N, c) and ∂²ℓ/∂f² (N, c, c) of one loss, as functions of f and targets.

    ``hessian_product`` gives products with ∂²ℓ/∂f² that never form c × c.
    """

    value: Callable[[Array, Targets], Array]
    gradient: Callable[[Array, Targets], Array]
    hessian: Callable[[Array, Targets], Array]
    hessian_product: Callable[[Array, Targets], HessianProduct]


def _softmax_hessian(f: Array) -> Array:
    # diag(p) − p pᵀ,  p = softmax(f)
    p = softmax(f)
    h: Array = -p[:, :, None] * p[:, None, :]
    # p_h (1 − p_h) through the other classes: it has no digits where p_h is nearly 1.
    h = xp.with_diagonal(h, 0.0)
    return xp.with_diagonal(h, -xp.sum(h, axis=-1))


def _softmax_hessian_product(f: Array) -> HessianProduct:
    p = softmax(f)
    likeliest = xp.argmax(p, axis=-1)

    def product(chosen: slice, v: Array) -> Array:
        # H does not see a constant added to v. With v = 0 at the likeliest class nothing is
        # subtracted from 1, so that the digits stay where p is nearly 1.
        w = v - xp.of_each(v, likeliest[chosen])
        chosen_p = p[chosen, None, :]
        pw = chosen_p * w
        pw -= chosen_p * xp.sum(pw, axis=-1, keepdims=True)
        return pw

    return product


def _diagonal_product(diagonal: Array) -> HessianProduct:
    return lambda chosen, v: diagonal[chosen, None, :] * v


def _is_label(f: Array, targets: Targets) -> Array:
    """Which of an example's c outputs is that of its label, (N, c)."""
    mask: Array = targets[:, None] == xp.arange(f.shape[-1], like=f)
    return mask


def _others(f: Array) -> Array:
    """1 − I (c, c): a product with it is the sum over the other classes."""
    others: Array = 1 - xp.eye(f.shape[-1], like=f)
    return others


def _sparse_categorical_crossentropy(_: Loss) -> LossDerivatives:
    # On logits f with label y:  ℓ = log Σ exp f − f_y,   ∂ℓ = p − e_y,   ∂²ℓ = diag(p) − p pᵀ.
    def value(f: Array, targets: Targets) -> Array:
        return logsumexp(f)[:, 0] - xp.take_along_axis(f, targets[:, None], axis=-1)[:, 0]

    def gradient(f: Array, targets: Targets) -> Array:
        # p_y − 1 through the other classes, for the same reason.
        label = _is_label(f, targets)
        g = xp.where(label, 0.0, softmax(f))
        return xp.where(label, -xp.sum(g, axis=-1, keepdims=True), g)

    return LossDerivatives(
        value,
        gradient,
        hessian=lambda f, _: _softmax_hessian(f),
        hessian_product=lambda f, _: _softmax_hessian_product(f),
    )


def _categorical_crossentropy(_: Loss) -> LossDerivatives:
    # On logits f with class probabilities t:  ℓ = log Σ exp f − tᵀf,   ∂ℓ = p − t.
    def gradient(f: Array, targets: Targets) -> Array:
        # p_h − t_h = p_h Σ_{i≠h} t_i − t_h Σ_{i≠h} p_i, because both sum to one.
        p, others = softmax(f), _others(f)
        return p * (targets @ others) - targets * (p @ others)

    return LossDerivatives(
        value=lambda f, t: logsumexp(f)[:, 0] - xp.sum(t * f, axis=-1),
        gradient=gradient,
        hessian=lambda f, _: _softmax_hessian(f),
        hessian_product=lambda f, _: _softmax_hessian_product(f),
    )


def _diagonal(values: Array) -> Array:
    return values[:, :, None] * xp.eye(values.shape[-1], like=values)


def _binary_crossentropy(_: Loss) -> LossDerivatives:
    # On c logits f with probabilities t:  ℓ = 1/c Σ_h (max(f, 0) − f t + log(1 + exp(−|f|))),
    # ∂ℓ = (s(f) − t)/c,   ∂²ℓ = diag(s (1 − s))/c.
    def value(f: Array, t: Targets) -> Array:
        each = xp.maximum(f, 0) - f * t + xp.log1p(xp.exp(-xp.abs(f)))
        return xp.mean(each, axis=-1)

    def gradient(f: Array, t: Targets) -> Array:
        # s − t = s (1 − t) − t (1 − s): it has no digits where s is nearly t = 1.
        slope: Array = (xp.expit(f) * (1 - t) - t * xp.expit(-f)) / f.shape[-1]
        return slope

    def slope(f: Array) -> Array:
        each: Array = xp.expit(f) * xp.expit(-f) / f.shape[-1]
        return each

    return LossDerivatives(
        value,
        gradient,
        hessian=lambda f, _: _diagonal(slope(f)),
        hessian_product=lambda f, _: _diagonal_product(slope(f)),
    )


def _categorical_focal_crossentropy(loss: Loss) -> LossDerivatives:
    # With p = softmax(f) limited to [ε, 1 − ε], r = 1 − p, J = ∂p/∂f and a = αt:
    # ℓ = −Σ a r^γ log p,   ∂ℓ = J u,   ∂²ℓ v = J (w ⊙ Jv) + ∂J/∂f·v u,
    # u = a (γ r^(γ−1) log p − r^γ/p),   w = a (r^γ/p² + 2γ r^(γ−1)/p − γ(γ−1) r^(γ−2) log p),
    # both 0 where p is beyond.
    gamma, node, below = loss.gamma, Softmax(), Wanted((True,))

    def limited(f: Array) -> tuple[SoftmaxAt, Array, Array, Array]:
        _, at = node.forward([f], {})
        # 1 − p through the other classes: it has no digits where p is nearly 1.
        r = at.p @ _others(f)
        inside = xp.astype((at.p >= EPSILON) & (r >= EPSILON), f.dtype)
        return at, xp.clip(at.p, EPSILON, 1 - EPSILON), xp.clip(r, EPSILON, 1 - EPSILON), inside

    def value(f: Array, t: Targets) -> Array:
        _, p, r, _ = limited(f)
        return -xp.sum(loss.alpha * t * r**gamma * xp.log(p), axis=-1)

    def slope(f: Array, t: Targets) -> tuple[SoftmaxAt, Array]:
        at, p, r, inside = limited(f)
        u = gamma * r ** (gamma - 1) * xp.log(p) - r**gamma / p
        return at, loss.alpha * t * inside * u

    def gradient(f: Array, t: Targets) -> Array:
        at, u = slope(f, t)
        return node.push(at, [u[:, None, :]], {})[:, 0, :]

    def product(f: Array, t: Targets) -> HessianProduct:
        at, u = slope(f, t)
        _, p, r, inside = limited(f)
        w = r**gamma / p**2 + 2 * gamma * r ** (gamma - 1) / p
        w = loss.alpha * t * inside * (w - gamma * (gamma - 1) * r ** (gamma - 2) * xp.log(p))
        curved = node.curved(at, u)

        def of_some(chosen: slice, v: Array) -> Array:
            here = curved.part(chosen)
            Jv = node.push(here, [v], {})
            into = node.pull(here, w[chosen, None, :] * Jv, below)
            node.bend(here, [v], {}, into)
            (found,) = into.inputs
            assert found is not None  # it was wanted
            return found

        return of_some

    return LossDerivatives(value, gradient, _dense(product), product)


def _dense(product: Callable[[Array, Targets], HessianProduct]) -> _OfNumbers:
    """∂²ℓ/∂f² (N, c, c) by products with the unit vectors."""

    def hessian(f: Array, targets: Targets) -> Array:
        units = xp.broadcast_to(xp.eye(f.shape[1], like=f), (*f.shape, f.shape[1]))
        return product(f, targets)(slice(None), units)

    return hessian


def _numberwise(value: _OfNumbers, first: _OfNumbers, second: _OfNumbers) -> LossDerivatives:
    """ℓ = 1/c Σ_h v(f_h, t_h), from v, ∂v/∂f and ∂²v/∂f²."""

    def curvature(f: Array, t: Targets) -> Array:
        mean: Array = second(f, t) / f.shape[-1]
        return mean

    return LossDerivatives(
        value=lambda f, t: xp.mean(value(f, t), axis=-1),
        gradient=lambda f, t: first(f, t) / f.shape[-1],
        hessian=lambda f, t: _diagonal(curvature(f, t)),
        hessian_product=lambda f, t: _diagonal_product(curvature(f, t)),
    )


def _mean_squared_error(_: Loss) -> LossDerivatives:
    # v = (f − t)²,   v′ = 2 (f − t),   v″ = 2.
    return _numberwise(
        lambda f, t: xp.square(f - t),
        lambda f, t: 2 * (f - t),
        lambda f, _: xp.full_like(f, 2),
    )


def _mean_absolute_error(_: Loss) -> LossDerivatives:
    # v = |f − t|,   v′ = sign(f − t), 0 at f = t as in TensorFlow,   v″ = 0.
    return _numberwise(
        lambda f, t: xp.abs(f - t),
        lambda f, t: xp.sign(f - t),
        lambda f, _: xp.zeros_like(f),
    )


def _huber(loss: Loss) -> LossDerivatives:
    # With e = f − t:  v = e²/2, v′ = e, v″ = 1 where |e| ≤ δ, else
    # v = δ|e| − δ²/2, v′ = δ sign e, v″ = 0.
    delta = loss.delta

    def value(f: Array, t: Targets) -> Array:
        size = xp.abs(f - t)
        inside = xp.minimum(size, delta)
        return inside * (size - inside / 2)

    return _numberwise(
        value,
        lambda f, t: xp.clip(f - t, -delta, delta),
        lambda f, t: xp.astype(xp.abs(f - t) <= delta, f.dtype),
    )


def _log_cosh(_: Loss) -> LossDerivatives:
    # With e = f − t:  v = log cosh e = |e| + log(1 + exp(−2|e|)) − log 2,   v′ = tanh e,
    # v″ = 1 − tanh² e = 4 s(2e) s(−2e).
    def value(f: Array, t: Targets) -> Array:
        size = xp.abs(f - t)
        return size + xp.log1p(xp.exp(-2 * size)) - math.log(2)

    return _numberwise(
        value,
        lambda f, t: xp.tanh(f - t),
        lambda f, t: 4 * xp.expit(2 * (f - t)) * xp.expit(-2 * (f - t)),
    )


def _poisson(_: Loss) -> LossDerivatives:
    # v = f − t log(f + ε),   v′ = 1 − t/(f + ε),   v″ = t/(f + ε)².
    def slope(f: Array, t: Targets) -> Array:
        below = f <= -EPSILON
        if xp.any(below):
            first = int(xp.argmax(xp.reshape(xp.astype(below, f.dtype), (-1,))))
            n, h = divmod(first, f.shape[1])
            raise InputError(
                f"loss.name: poisson: the output {float(f[n, h]):g} of example {n} is below 0; end "
                "the network in an activation that is not, such as softplus or exponential"
            )
        slope: Array = 1 - t / (f + EPSILON)
        return slope

    return _numberwise(
        lambda f, t: f - t * xp.log(f + EPSILON),
        slope,
        lambda f, t: t / xp.square(f + EPSILON),
    )


def _kl_divergence(_: Loss) -> LossDerivatives:
    # With f and t limited to [ε, 1]:  ℓ = Σ t log(t/f),   ∂ℓ = −t/f,   ∂²ℓ = diag(t/f²), both 0
    # where f is beyond.
    def limited(f: Array, t: Targets) -> tuple[Array, Array, Array]:
        inside = xp.astype((f >= EPSILON) & (f <= 1), f.dtype)
        return xp.clip(f, EPSILON, 1), xp.clip(t, EPSILON, 1), inside

    def value(f: Array, t: Targets) -> Array:
        q, p, _ = limited(f, t)
        return xp.sum(p * xp.log(p / q), axis=-1)

    def gradient(f: Array, t: Targets) -> Array:
        q, p, inside = limited(f, t)
        return -p / q * inside

    def curvature(f: Array, t: Targets) -> Array:
        q, p, inside = limited(f, t)
        return p / xp.square(q) * inside

    return LossDerivatives(
        value,
        gradient,
        hessian=lambda f, t: _diagonal(curvature(f, t)),
        hessian_product=lambda f, t: _diagonal_product(curvature(f, t)),
    )


def _sum_of_squares(_: Loss) -> LossDerivatives:
    # ℓ = Σ f²,   ∂ℓ = 2 f,   ∂²ℓ = 2 I.
    return LossDerivatives(
        value=lambda f, _: xp.sum(xp.square(f), axis=-1),
        gradient=lambda f, _: 2 * f,
        hessian=lambda f, _: _diagonal(xp.full_like(f, 2)),
        hessian_product=lambda f, _: _diagonal_product(xp.full_like(f, 2)),
    )


def _sum(_: Loss) -> LossDerivatives:
    # ℓ = Σ f,   ∂ℓ = 1,   ∂²ℓ = 0.
    return LossDerivatives(
        value=lambda f, _: xp.sum(f, axis=-1),
        gradient=lambda f, _: xp.ones_like(f),
        hessian=lambda f, _: _diagonal(xp.zeros_like(f)),
        hessian_product=lambda f, _: _diagonal_product(xp.zeros_like(f)),
    )


def _output(loss: Loss) -> LossDerivatives:
    # ℓ = f_K,   ∂ℓ = e_K,   ∂²ℓ = 0.
    def gradient(f: Array, _: Targets) -> Array:
        g = xp.zeros_like(f)
        g[:, loss.index] = 1
        return g

    return replace(_sum(loss), value=lambda f, _: f[:, loss.index], gradient=gradient)


_LOSSES: Mapping[str, Callable[[Loss], LossDerivatives]] = MappingProxyType(
    {
        "sparse_categorical_crossentropy": _sparse_categorical_crossentropy,
        "categorical_crossentropy": _categorical_crossentropy,
        "binary_crossentropy": _binary_crossentropy,
        FOCAL: _categorical_focal_crossentropy,
        "mean_squared_error": _mean_squared_error,
        "mean_absolute_error": _mean_absolute_error,
        "huber": _huber,
        "log_cosh": _log_cosh,
        "kl_divergence": _kl_divergence,
        "poisson": _poisson,
        "sum_of_squares": _sum_of_squares,
        "sum": _sum,
        OUTPUT: _output,
    }
)


# Losses from plugins.
_registered: dict[str, LossDerivatives] = {}


def register(name: str, loss: LossDerivatives) -> None:
    """Adds a loss that has no arguments, under a name that is not taken."""
    _registered[name] = loss


def forget(name: str) -> None:
    """Takes a loss that was registered out again."""
    _registered.pop(name, None)


def of_product(
    product: Callable[[Array, Targets, Array], Array],
) -> tuple[Callable[[Array, Targets], Array], Callable[[Array, Targets], HessianProduct]]:
    """``hessian`` and ``hessian_product`` out of (∂²ℓ/∂f²) v for v like f (N, c)."""

    def hessian_product(f: Array, targets: Targets) -> HessianProduct:
        def of_some(chosen: slice, v: Array) -> Array:
            k = v.shape[1]
            at, t = (xp.repeat(of[chosen, ...], k, axis=0) for of in (f, targets))
            return xp.reshape(product(at, t, xp.reshape(v, at.shape)), v.shape)

        return of_some

    return _dense(hessian_product), hessian_product


def _beyond(p: Array) -> Array:
    return xp.sign(p - EPSILON) + xp.sign(p - (1 - EPSILON))


def loss_pieces(loss: Loss) -> _OfNumbers | None:
    """On which of its smooth pieces a loss is at each output, as numbers like f; None for one."""
    pieces: Mapping[str, _OfNumbers] = {
        "mean_absolute_error": lambda f, t: xp.sign(f - t),
        "huber": lambda f, t: xp.sign(f - t) * (xp.abs(f - t) > loss.delta),
        "kl_divergence": lambda f, _: xp.sign(f - EPSILON) + xp.sign(f - 1),
        FOCAL: lambda f, _: _beyond(softmax(f)),
    }
    return pieces.get(loss.name)


def loss_derivatives(loss: Loss) -> LossDerivatives:
    """ℓ, ∂ℓ/∂f, ∂²ℓ/∂f² of ``loss``; raises InputError for a name that is not in LOSSES."""
    if loss.name in _registered:
        return _registered[loss.name]
    if loss.name not in _LOSSES:
        raise InputError(f"unknown loss {loss.name!r}; choose {', '.join(loss_names())}")
    return _LOSSES[loss.name](loss)
