"""What is asked of a shard where it is: the part that its rows have in a sum."""

from __future__ import annotations

from typing import Any

import numpy as np


def value_part(shard: Any, theta: np.ndarray) -> float:
    """The rows' part of the value."""
    with shard._lock:
        return float(shard._bound(theta, False).value)


def gradient_part(shard: Any, theta: np.ndarray) -> tuple[float, np.ndarray]:
    """The rows' part of the value and of the gradient."""
    with shard._lock:
        plan = shard._bound(theta, True)
        gradient = plan.gradient
        plan.forget_gradient()
        return float(plan.value), gradient


def product_part(
    shard: Any, theta: np.ndarray, Vt: np.ndarray, kind: str, active: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The rows' part of products with the rows of Vt (k, n), and their norms (k,)."""
    out = np.empty_like(Vt) if active is None else np.zeros_like(Vt)  # other layers stay
    with shard._lock:
        shard._bound(theta, False).multiply(Vt, out, kind, active, False)
    if kind == "fisher":
        out *= shard.dtype.type(shard.fisher_scale)
    return out, np.sqrt(np.einsum("ij,ij->i", out, out, dtype=np.float64))


def quadratic_part(
    shard: Any, theta: np.ndarray, Vt: np.ndarray, kind: str, active: Any
) -> np.ndarray:
    """The rows' part of quadratic forms of the rows of Vt."""
    with shard._lock:
        found = shard._bound(theta, False).quadratic(Vt, kind, active)
    return np.asarray(found * (shard.fisher_scale if kind == "fisher" else 1.0))


def jvp_part(shard: Any, theta: np.ndarray, v: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """[(number of the first output, the rows' outputs along v)]."""
    out = np.empty(shard.n_samples * shard.model.sizes[-1], shard.dtype)
    with shard._lock:
        shard._bound(theta, False).jacobian(v, out)
    return [(shard.first_output, out)]


def vjp_part(shard: Any, theta: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The rows' part of ``J' u`` for u over the outputs of all rows."""
    first, out = shard.first_output, np.empty(shard.n_params, shard.dtype)
    mine = np.ascontiguousarray(u[first : first + shard.n_samples * shard.model.sizes[-1]])
    with shard._lock:
        shard._bound(theta, False).jacobian(mine, out, True)
    return out
