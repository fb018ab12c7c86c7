"""Newton-CG with capped conjugate gradients: a step of descent, or proof of negative curvature, from products alone.

CG solves ``(H + 2 eps I) d = -g``. As long as all is convex this is a Newton step. The moment an iterate or a
direction shows curvature below -eps, or the residual falls slower than it could if there were none, CG stops and
returns a direction d with ``d'Hd <= -eps ||d||^2``. At a point of zero gradient a minimum-eigenvalue oracle takes
over (in `minimize`, for every method that leaves saddles).

References
----------
.. [1] C. W. Royer, M. O'Neill, S. J. Wright, A Newton-CG algorithm with complexity guarantees for smooth
   unconstrained optimization, Mathematical Programming 180 (2020), algorithms 1 and 3.
"""

from __future__ import annotations

import numpy as np

from .checks import check_positive, check_positive_int
from .descent import Method, Worth
from .downhill import first_length, line_minimum
from .sweeps import dot, norm

__all__ = ["NewtonCG", "capped_cg"]


class Workspace:
    """The vectors of CG, allocated once for a run."""

    def __init__(self, n, dtype):
        self.y, self.r, self.p, self.Hp, self.scratch = (np.empty(n, dtype) for _ in range(5))


def capped_cg(multiply, g, eps, tolerance, work, *, bound=0.0, max_iter=None, stop=None, worth=None):
    """CG on ``(H + 2 eps I) d = -g`` that ends with a solution or with negative curvature.

    Parameters
    ----------
    multiply : callable
        ``multiply(v, out)`` writes H v; one product per iteration.
    g : ndarray, shape (n,)
    eps : float
        Curvature below ``-eps`` is reported.
    tolerance : float
        Wanted residual, relative to ||g||.
    work : Workspace
        `d` is one of its vectors.
    bound : float
        A lower estimate of ||H||, raised as products show more.
    max_iter : int, optional
        Iterations after which the iterate is returned as it is (it is a descent direction); n by default.
    stop : callable, optional
        True ends CG as `max_iter` does.
    worth : Worth, optional
        Ends CG as `max_iter` does where a further product gains little.

    Returns
    -------
    d : ndarray, shape (n,)
    curvature : float or None
        ``d'Hd / ||d||^2 <= -eps`` where d shows negative curvature, None where d solves the system.
    bound : float
    """
    y, r, p, Hp, scratch = work.y, work.r, work.p, work.Hp, work.scratch
    kind = g.dtype.type
    y[:] = 0.0
    r[:] = g
    np.negative(g, out=p)
    rr = rr0 = dot(r, r)
    yHy = yy = 0.0
    for j in range(1, (max_iter or len(g)) + 1):
        multiply(p, Hp)
        pp, pHp = dot(p, p), dot(p, Hp)
        bound = max(bound, norm(Hp) / np.sqrt(pp))
        if pHp + eps * pp < 0:  # p'(H + 2 eps)p < eps p'p
            return p, pHp / pp, bound
        step = rr / (pHp + 2.0 * eps * pp)
        # y and its curvature: y'r = 0 in exact arithmetic, and (H + 2 eps) y = r - g
        np.multiply(p, kind(step), out=scratch)
        y += scratch
        np.multiply(p, kind(2.0 * eps), out=scratch)
        scratch += Hp
        scratch *= kind(step)
        r += scratch
        rr, before = dot(r, r), rr
        yy = dot(y, y)
        yHy = dot(y, r) - dot(y, g) - 2.0 * eps * yy
        if yHy + eps * yy < 0:
            return y, yHy / yy, bound
        if rr <= (tolerance * tolerance) * rr0:
            return y, None, bound
        if _too_slow(j, rr / rr0, bound, eps):
            return _slow_direction(multiply, g, eps, j, work) + (bound,)
        if stop is not None and stop():
            break
        if worth is not None and worth.spent(j, -0.5 * (dot(g, y) + dot(y, r))):
            break
        p *= kind(rr / before)
        p -= r
    return y, None, bound


def _too_slow(j, fallen, bound, eps):
    """Is the residual above what j iterations guarantee when H + 2 eps >= eps? Then somewhere it is not."""
    kappa = (bound + 2.0 * eps) / eps
    tau = np.sqrt(kappa) / (np.sqrt(kappa) + 1.0)
    log_guarantee = np.log(4.0) + 4.0 * np.log(kappa) - 2.0 * np.log1p(-np.sqrt(tau)) + j * np.log(tau)
    return fallen > 0 and np.log(fallen) > log_guarantee


def _slow_direction(multiply, g, eps, j, work):
    """The difference of two iterates along which curvature is lowest; CG is run again for it, j products more."""
    y, r, p, Hp, scratch = work.y, work.r, work.p, work.Hp, work.scratch
    kind = g.dtype.type
    last_y, last_r = y.copy(), r.copy()
    y[:] = 0.0
    r[:] = g
    np.negative(g, out=p)
    rr, lowest, found = dot(r, r), np.inf, None
    for _ in range(j):
        d = last_y - y
        dd = dot(d, d)
        np.subtract(last_r, r, out=scratch)
        curvature = dot(d, scratch) / dd - 2.0 * eps if dd > 0 else np.inf
        if curvature < lowest:
            lowest, found = curvature, d
        if lowest < -eps:
            return found, lowest
        multiply(p, Hp)
        pHp = dot(p, Hp) + 2.0 * eps * dot(p, p)
        y += p * kind(rr / pHp)
        Hp += p * kind(2.0 * eps)
        r += Hp * kind(rr / pHp)
        rr, before = dot(r, r), rr
        p *= kind(rr / before)
        p -= r
    return last_y, None


class NewtonCG(Method):
    """Capped CG, then a line search along what it found.

    The shift is ``eps = sqrt(weight ||g||)``, so that steps become Newton's as the gradient vanishes; `weight`
    falls after full steps and rises after shortened ones.
    """

    curvature = "hessian"
    leaves_saddles = True
    defaults = {"forcing": 0.5, "thrift": 0.5, "weight": None, "max_cg": None, "sample": None}
    kept_facts = ("weight", "bound", "reach")

    def prepare(self):
        check_positive(self.forcing, "forcing")
        check_positive(self.thrift, "thrift", zero=True)
        if self.weight is not None:
            self.weight = check_positive(self.weight, "weight")
        if self.max_cg is not None:
            check_positive_int(self.max_cg, "max_cg")
        self.bound = 0.0
        self.reach = None
        self.work = Workspace(len(self.run.theta), self.run.theta.dtype)

    def step(self):
        run = self.run
        if self.weight is None:
            self._first_weight()
        eps = np.sqrt(self.weight * run.gnorm)
        tolerance = min(self.forcing, np.sqrt(run.gnorm))
        d, curvature, self.bound = capped_cg(
            run.operator.product, run.g, eps, tolerance, self.work,
            bound=self.bound, max_iter=self.max_cg, stop=run.out_of_budget, worth=Worth(self.thrift, run.step_price()),
        )  # fmt: skip
        if curvature is not None:
            return self._follow(d)
        return self._descend(d)

    def _first_weight(self):
        """The shift of the first step is a hundredth of the curvature along the gradient."""
        run = self.run
        run.operator.product(run.g, self.work.Hp)
        self.bound = norm(self.work.Hp) / run.gnorm
        self.weight = max((0.01 * self.bound) ** 2, 1e-12) / run.gnorm

    def _descend(self, d):
        """Backtrack from the full step until the loss has fallen by a fraction of what the slope promises."""
        run = self.run
        t = self._backtrack(d)
        if t is None:
            return self._downhill()
        self.weight = self.weight * 4.0 if t < 1.0 else max(self.weight * 0.25, 1e-14 * max(self.bound, 1e-6) ** 2)
        run.arrive()
        return None

    def _backtrack(self, d):
        """The fraction of d that lowers the loss enough, left in `run.spare`; None where none does."""
        run, slope = self.run, dot(self.run.g, d)
        noise = 10.0 * run.eps * abs(run.f)
        t = 1.0
        for _ in range(60 if slope < 0 else 0):
            f = run.try_step(d, t)
            if f <= run.f + 1e-4 * t * slope + noise:
                return t
            fitted = -0.5 * slope * t * t / (f - run.f - slope * t) if np.isfinite(f) else 0.0
            t = min(max(fitted, 0.1 * t), 0.5 * t)
        return None

    def _follow(self, d):
        """Along negative curvature the best length is not Newton's: search for it, downhill side and other side."""
        run = self.run
        d /= d.dtype.type(np.linalg.norm(d))
        t, f = line_minimum(run.value, run.theta, d, run.f, self.reach or first_length(run.theta), refinements=3)
        if not f < run.f:
            return self._downhill()
        self.reach = abs(t)
        run.try_step(d, t)
        run.arrive()
        return None

    def _downhill(self):
        """Where the model misleads, at a kink for instance: a step along the gradient, as short as it takes."""
        run = self.run
        np.multiply(run.g, run.theta.dtype.type(-1.0 / max(self.bound, 1e-300)), out=self.work.scratch)
        if self._backtrack(self.work.scratch) is None:
            return "the line search found no lower value, along the Newton-CG step or the gradient"
        run.arrive()
        return None
