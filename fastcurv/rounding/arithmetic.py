"""What one step of the passes can do by rounding: sums and activations as the kernels make them,
and how errors go on.

All arrays here are float64, (rows, m), bounds are elementwise and >= 0. `Err` carries a matrix of
errors through the passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from scipy.special import expit, ndtr

from .. import _engine
from ..eigensolver import eigh, gamma_of
from ..protocols import Floats
from ..structure.activations import LEAK

# roundings that phi, phi', phi'' and the terms of a loss row are worth: 10 were measured at most
ELEMENTARY = 16.0
# smallest normal numbers that saturated phi, phi', phi'' may be flushed by (gelu: n(t) t^2 at its
# end)
FLOOR = 4096.0
TINY, ETA = float(np.finfo(float).tiny), float(np.finfo(float).smallest_subnormal)
VANISHING = 1e-290  # no product of sizes above that has lost anything, nor has u times it


def flushes() -> bool:
    """Whether this thread's arithmetic takes subnormal numbers for 0, against the model."""
    return TINY * 0.5 == 0


def scaled(x: Any, y: Any) -> Any:
    """``x * y`` of sizes x, y >= 0, never less for underflow: 0 only where one of them is."""
    found = np.asarray(x * y)
    if found.min(initial=1.0) >= VANISHING:
        return found
    return found + ETA * ((x > 0) & (y > 0))


def product(X: Floats, Y: Floats) -> Floats:
    """``X @ Y`` of sizes, never less for underflow: 0 only where no factors above 0 meet."""
    found = X @ Y
    if _least(X) * _least(Y) >= VANISHING:
        return found
    return np.asarray(found + ETA * ((X > 0).astype(float) @ (Y > 0).astype(float)))


def _least(X: Floats) -> float:
    """The smallest number of X above 0."""
    least = X.min(initial=np.inf)
    return float(least if least > 0 else X.min(where=X > 0, initial=np.inf))


def norms(E: Floats) -> Floats:
    """Norms of the rows of E >= 0, (rows, 1), safe from underflow and overflow of the squares."""
    found: Floats = np.sqrt(np.einsum("ij,ij->i", E, E))[:, None]
    odd = ~((found > 1e-140) & (found < np.inf))[:, 0]
    if odd.any():
        scale = E[odd].max(axis=1, initial=0.0)[:, None]
        scale[~((scale > 0) & (scale < np.inf))] = 1.0
        found[odd] = scaled(np.sqrt(np.sum((E[odd] / scale) ** 2, axis=1))[:, None], scale)
    return found


def norm(x: ArrayLike) -> float:
    """Euclidean norm of all of x, in float64, safe from underflow and overflow of the squares."""
    return float(norms(np.abs(np.asarray(x, dtype=float)).reshape(1, -1))[0, 0])


def spectral_bound(A: Floats) -> float:
    """An upper bound on ``||A||_2``, from the smaller Gram matrix; exact to rounding up to 256 rows
    or columns.

    Above that ``||G^16||_F^(1/16)``, at most ``k^(1/32)`` too large (k the smaller side).
    """
    size = float(np.abs(A).max(initial=0.0))
    if not 0 < size < np.inf:
        return size
    A = A / size
    return size * math.sqrt(gram_bound(A @ A.T if A.shape[0] <= A.shape[1] else A.T @ A)) + ETA


def gram_bound(G: Floats) -> float:
    """An upper bound on the largest eigenvalue of a positive semidefinite G."""
    size = float(np.abs(G).max(initial=0.0))
    if not 0 < size < np.inf:
        return size
    G = G / size
    slack = 1 + 4 * len(G) * np.finfo(float).eps
    if len(G) <= 256:
        values, _, errors = eigh(G)
        return size * (float(values[-1] + errors[-1]) * slack)
    scale, power = 0.0, 1.0
    for _ in range(4):
        frobenius = float(np.linalg.norm(G))
        scale, power = scale + math.log(frobenius) * power, power / 2
        G = (G / frobenius) @ (G / frobenius)
    return size * slack * math.exp(scale + power * math.log(float(np.linalg.norm(G))))


def stack_norms(K: Floats) -> Floats:
    """Upper bounds ``(rows, 1)`` on the spectral norms of a stack of matrices (rows, m, k);
    ``min(m, k)^(1/32)`` times at most.
    """
    size = np.abs(K).max(axis=(1, 2), keepdims=True)
    K = K / np.where((size > 0) & (size < np.inf), size, 1.0)
    Kt, log, power = K.transpose(0, 2, 1), 0.0, 1.0
    G = K @ Kt if K.shape[1] <= K.shape[2] else Kt @ K
    for squaring in range(4):
        frobenius = np.maximum(np.sqrt(np.einsum("nij,nij->n", G, G)), 1e-300)[:, None, None]
        log, power = log + power * np.log(frobenius), power / 2
        if squaring < 3:
            G = (G / frobenius) @ (G / frobenius)
    return np.asarray((size * np.exp(0.5 * log))[:, :, 0] * (1 + 1e-10))


class Chain:
    """Errors carried over several layers at once: ``||dx_m|| <= sum over i of ||K_im|| fresh_i``
    for every row.

    `kappa` is ``{(i, m): (rows, 1)}``, bounds on the norms of the products of the layers from i to
    m; fresh is what comes in at a layer, by rounding or from other errors. Without `kappa` nothing
    is known. `grown` multiplies what is fresh by kappa.
    """

    def __init__(
        self, kappa: dict[tuple[int, int], Floats] | None, grown: Callable[..., Any] = scaled
    ) -> None:
        self.kappa, self.grown = kappa, grown
        self.fresh: dict[int, Any] = {}

    def cap(self, m: int, error: Any, fresh: Any) -> Any:
        """`error` at layer m, an `Err` or what else has `held`, its norms held below what the chain
        allows.
        """
        if self.kappa is None:
            return error
        total = fresh
        for i, before in self.fresh.items():
            total = total + self.grown(before, self.kappa[min(i, m), max(i, m)])
        self.fresh[m] = fresh
        return error.held(total)


class Operand:
    """A matrix A (m, k) that errors pass through: ``x A'`` is `across`, ``x A`` is `back`."""

    def __init__(self, A: Floats) -> None:
        self.A, self.abs, self.norm = A, np.abs(A), spectral_bound(A)
        self.rows, self.cols = norms(self.abs)[:, 0], norms(self.abs.T)[:, 0]


class Err:
    """Bounds on a matrix of errors: `E` on each entry, `nu` (rows, 1) on the norm of each row.

    The smaller one counts.
    """

    def __init__(self, E: Floats, nu: Floats | None = None) -> None:
        rows = norms(E)
        self.nu = rows if nu is None else np.minimum(rows, nu)
        self.E = E if nu is None else np.minimum(E, self.nu)

    def __add__(self, other: Err) -> Err:
        return Err(self.E + other.E, self.nu + other.nu)

    def held(self, nu: Floats) -> Err:
        """The same, its norms `nu` at most."""
        return Err(self.E, np.minimum(self.nu, nu))

    def times(self, x: Floats) -> Err:
        """Of the error times x elementwise, x >= 0."""
        return Err(scaled(self.E, x), scaled(self.nu, x.max(axis=1, keepdims=True)))

    def across(self, A: Operand) -> Err:
        """Of (the error) A'."""
        E = np.minimum(product(self.E, A.abs.T), scaled(self.nu, A.rows))
        return Err(E, scaled(self.nu, A.norm))

    def back(self, A: Operand) -> Err:
        """Of (the error) A."""
        E = np.minimum(product(self.E, A.abs), scaled(self.nu, A.cols))
        return Err(E, scaled(self.nu, A.norm))


def at_most(x: Floats, dx: Err | None) -> Floats:
    """|x| and its error; None: x is exact."""
    return np.abs(x) if dx is None else np.abs(x) + dx.E


class Arithmetic:
    """Roundings of a dtype by a choice of kernels: how long their chains of additions are.

    The kernels tell how they cut their sums: see `fastcurv._engine.summation`. "numpy" is the
    arithmetic of these bounds' own passes, whose products are BLAS's: in any order.

    Parameters
    ----------
    dtype : numpy.dtype
    layout : dict
        `Curvature.layout`: rows of a chunk and of a panel (0: wide), groups of panels, kernels;
        "rows" where these are some of as many, whose sums are made together.
    N : int
        Rows in all.
    """

    def __init__(self, dtype: DTypeLike, layout: Mapping[str, Any], N: int) -> None:
        info = np.finfo(dtype)
        self.u, self.eta = float(info.eps) / 2, float(info.smallest_subnormal)
        self.tiny, self.max = float(info.tiny), float(info.max)
        self.kernels, self.own = layout["arch"], layout["arch"] == "numpy"
        self.sums = _engine.summation("blas" if self.own else self.kernels, np.dtype(dtype).name)
        self.N, self.chunk = N, min(int(layout["chunk"]), max(N, int(layout.get("rows", 0))))
        self.panel, self.groups = int(layout["panel"]), int(layout["groups"])
        self.elementary = self.u * (4 if self.own else 1) * ELEMENTARY
        # of means over all rows: set where there are any
        self.rows_gamma = self.mean_gamma = np.inf

    def gamma(self, k: float) -> float:
        """``k u / (1 - k u)``: k roundings in a row, in any order."""
        return gamma_of(k, self.u)

    def depth(self, k: int, terms: int) -> int:
        """Roundings on the way of a number through a sum of `terms` products of inner dimension k,
        one more for a number that the sum is added to.
        """
        if self.own:  # a product each, and their sum
            return k + terms + 2
        most = int(self.sums["slice"])
        if not most:
            return terms * k + 1
        return min(terms * k, most) + terms * -(-k // most) + 1

    def _partial_sums(self) -> int:
        """Additions of partial sums over rows: panels of a group, groups, chunks, and l2's part."""
        chunks = -(-self.N // self.chunk)
        if not self.panel:
            return chunks + 1
        panels = -(-self.chunk // self.panel)
        groups = max(1, min(self.groups, panels))
        return chunks + 1 + groups + -(-panels // groups)

    def over_rows(self, terms: int) -> int:
        """Of the weights' parts of gradient and product, ``rdelta' a + delta' ra``."""
        if self.sums["from_c"] and not self.own:  # a sum goes on where the last one ended
            return terms * self.N + self._partial_sums() + 1
        return self.depth(self.panel or self.chunk, terms) + self._partial_sums()

    def over_columns(self) -> int:
        """Of the biases' parts: rows of a panel are one chain, or one product; where served wide,
        those of an item (hidden layers) or of a block (the last).
        """
        rows, s = self.panel or self.chunk, self.sums
        if s["from_c"]:
            return self.N + self._partial_sums() + 1
        if not self.panel and not self.own:
            item = min(rows, int(s["item_rows"]) or rows)
            items = -(-rows // int(s["items_of"])) if s["items_of"] else 1
            blocks = int(s["block_rows"]) - (-rows // int(s["block_rows"]))
            rows = max(item + items, blocks)
        return rows + self._partial_sums() + 1


# --- activations
# --------------------------------------------------------------------------------------------------

KINKED = {"relu": 1.0, "leaky_relu": 0.99, "elu": 1.0}  # the jump at 0: of phi', for elu of phi''


class Phi:
    """phi, phi', phi'' at z with their errors, z itself being off by at most `dz` (an `Err`).

    Attributes
    ----------
    a, p, q : ndarray
        Values; p None where phi' is 1, q None where phi'' is 0.
    fresh : ndarray (rows, 1)
        Of da, what is not phi' times the carried error of z: what the `local` part of dz, rounding
        and bending add.
    da, dp, dq : Err
        By the mean value theorem: ``|da| <= |p| dz + S2 dz^2 / 2``, ``|dp| <= |q| dz + S3 dz^2 /
        2``, ``|dq| <= S3 dz``, S2 and S3 bounds on phi'' and phi''' over z +- dz, so that saturated
        units stay saturated. Where z may lie on the other side of a kink, the jump is added.
    derived : bool
        Whether phi' and e phi'' are made from a and delta: tanh ``1 - a^2`` and ``-2 a delta``,
        sigmoid ``a - a^2`` and ``(1 - 2 a) delta``. Then the error of a is in phi' too, and phi' is
        right to u only, however small it is.
    """

    a: Floats
    p: Any
    q: Any
    da: Err
    dp: Any
    dq: Any
    fresh: Floats

    def __init__(
        self,
        name: str,
        z: Floats,
        dz: Err,
        arithmetic: Arithmetic,
        skip: bool = False,
        local: Err | None = None,
    ) -> None:
        u, t = arithmetic.u, dz.E
        first = t if local is None else local.E
        self.name, own = name, arithmetic.own
        self.derived = name in ("tanh", "sigmoid") and not skip and not own
        self.a, self.p, self.q, sizes = _derivatives(name, z)
        if name == "identity":
            self.da, self.dp, self.dq, self.fresh = dz, None, None, norms(first)
            return
        crossing = (np.abs(z) <= t) & (t > 0) if name in KINKED else False
        slope = np.where(crossing, 1.0, np.abs(self.p))
        if self.q is None:
            bent = self.p != 1
            rest = 2 * u * np.abs(self.a) * bent
            rest = rest + arithmetic.eta * (bent & (self.p > 0) & ((z != 0) | (t > 0)))
            self.da, self.fresh = (
                dz.times(slope) + Err(rest),
                norms(scaled(self.p, first)) + norms(rest + scaled(slope - self.p, t)),
            )
            self.dp, self.dq = Err(crossing * KINKED[name] + 2 * u * self.p * bent), None
            return
        S2, S3 = _largest(name, z, t)
        floor = np.where(np.abs(z) > 1, FLOOR * arithmetic.tiny, arithmetic.eta)
        bend = np.where(crossing, 1.0, np.abs(self.q))
        # exp(-z z / 2) as it stands
        plain = name == "gelu" and arithmetic.kernels in ("reference", "numpy")
        c = arithmetic.elementary * (1 + z * z if plain else 1)
        here: Any = (c * sizes[0] + floor) * ((z != 0) | (self.a != 0) | (t > 0))
        self.da = dz.times(slope + 0.5 * t * S2) + Err(here)
        self.fresh = norms(scaled(np.abs(self.p), first)) + norms(
            here + scaled(slope - np.abs(self.p) + 0.5 * t * S2, t)
        )
        if self.derived:
            here = here * (2 * sizes[0] + (name == "sigmoid") + here) + 2 * u * (self.a**2 + self.p)
        else:
            here = c * sizes[1]
        self.dp = dz.times(bend + 0.5 * t * S3) + Err(here + floor)
        self.dq = dz.times(S3) + Err(c * sizes[2] + floor + crossing * KINKED.get(name, 0.0))

    def bent(self, d: Floats, dd: Err, r: Arithmetic) -> tuple[Floats, Err]:
        """(e phi'', its Err) as made from delta."""
        factor = -2 * self.a if self.name == "tanh" else 1 - 2 * self.a
        eq, da = factor * d, self.da.E
        error = dd.times(np.abs(factor) + 2 * da) + self.da.times(2 * np.abs(d))
        size = at_most(d, dd)
        rounding = 3 * r.u * (2 * (np.abs(self.a) + da) * size + np.abs(eq))
        return eq, error + Err(rounding + 2 * r.eta * (size > 0))

    def curvature(self, R: Any, e: Floats, de: Err, d: Floats, dd: Err) -> tuple[Any, Any]:
        """(e phi'', its Err), from delta where that is how it is made; None where phi'' is 0."""
        if self.derived:
            return self.bent(d, dd, R.arithmetic)
        if self.q is None:
            return None, None
        eq, deq, _ = R.times(e, de, self.q, self.dq)
        return eq, deq


def normal(t: Floats) -> Floats:
    return np.exp(-0.5 * t * t) / math.sqrt(2 * math.pi)


def bell(t: Floats) -> Floats:
    """S (1 - s), s the sigmoid of t >= 0."""
    e = np.exp(-t)
    return np.asarray(e / (1 + e) ** 2)


def _derivatives(name: str, z: Floats) -> tuple[Any, Any, Any, Any]:
    """phi, phi', phi'', and the sizes of their terms before they cancel."""
    if name == "identity":
        return z, None, None, None
    if name in LEAK:
        p = np.where(z > 0, 1.0, LEAK[name])
        return z * p, p, None, None
    if name == "tanh":
        a, p = np.tanh(z), 4 * bell(2 * np.abs(z))
        return a, p, -2 * a * p, (np.abs(a), p, 2 * np.abs(a) * p)
    if name == "elu":
        low = np.minimum(z, 0)
        e, q = np.exp(low), np.where(z > 0, 0.0, np.exp(low))
        return np.where(z > 0, z, np.expm1(low)), e, q, (-np.expm1(low), e, q)
    t, both = np.minimum(np.abs(z), 1e3), np.clip(z, -1e3, 1e3)  # no infinity times 0
    if name == "gelu":
        cdf, n = ndtr(z), normal(t)
        sizes = np.abs(z) * cdf, cdf + t * n, n * (2 + t * t)
        return z * cdf, cdf + both * n, n * (2 - t * t), sizes
    s, d = expit(z), bell(np.abs(z))
    if name == "sigmoid":
        q = -d * np.tanh(z / 2)
        return s, d, q, (s, d, np.abs(q))
    if name == "softplus":
        a = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))
        return a, s, d, (a, s, d)
    return (
        z * s,
        s + both * d,
        d * (2 - t * np.tanh(t / 2)),
        (np.abs(z) * s, s + t * d, d * (2 + t)),
    )


def _largest(name: str, z: Floats, t: Floats) -> tuple[Floats, Floats]:
    """Bounds on |phi''| and |phi'''| over z +- t: majorants that fall with |z|, taken where the
    interval is nearest to 0.
    """
    if name == "elu":
        e = np.where(z <= t, np.exp(np.minimum(z + t, 0)), 0.0)
        return e, e
    x = np.minimum(np.maximum(np.abs(z) - t, 0), 1e3)
    if name == "tanh":  # phi''' = p (4 a^2 - 2 p) with p = 1 - a^2
        p = 4 * bell(2 * x)
        return 2 * p, 2 * p * (2 - p)
    if name == "gelu":  # phi'' = n (2 - z^2), phi''' = n (z^3 - 4 z)
        n = normal(x)
        return n * (2 + x * x), np.where(x < 1.25, 1.28, n * x * (x * x + 4))
    d = bell(x)
    if name in ("sigmoid", "softplus"):  # phi''' of the sigmoid is d (1 - 6 d)
        return d, d
    return np.where(x < 0.86, 0.6, d * (2 + x)), np.where(x < 0.86, 0.9, d * (3 + 1.5 * x))
