"""Search for a minimum at active kinks near theta, by Newton's method in (theta, slopes) with
updates of the active set, and a proof of this minimum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.caches import cache_last_result
from ..common.checks import objective_dtype
from ..common.linalg import eigh
from ..common.objectives import call_certificate
from ..common.protocols import TwiceDifferentiable
from ..common.vectors import safe_norm
from .theorem import EPS, ComplementEigenpairs, check_kantorovich, newton_step_in_slice

if TYPE_CHECKING:
    from ..certify.kinks import ReluData, SmoothPieceObjective
    from ..network.objective import Objective


# --------------------------------------------------------------------------------------------------
# The proof that a point with active kinks is a minimum: Kantorovich's theorem for (theta, slopes).
#
# Phi is the loss as a smooth function of theta and of the slopes at the active kinks. A critical
# point of Phi is a strict local minimum of the loss under four hypotheses: the Hessian of Phi has
# as many negative eigenvalues as there are slopes, the slopes lie strictly inside their intervals,
# the signs of all other pre-activations do not change, and the loss increases on both sides of
# every active kink. `fastcurv.certify.kinks` gives the reason. The hypotheses are checked at a
# point near a critical point, as `fastcurv.critical.theorem` does for a smooth loss.

# norms, relative to the largest curvature, to which the columns of the slopes in the Hessian of Phi
# are scaled, one after the other
COLUMN_LENGTH_RATIOS = (1e-1, 1e-2, 1e-3, 1.0)
TARGET_KANTOROVICH_H = 1e-3  # No further units of the slopes are tried if h is below this value.


@dataclass(frozen=True)
class _KinkMinimumOutcome:
    """A proved minimum at active kinks, or the missing hypothesis.

    Attributes
    ----------
    certified : bool
        True if the minimum is proved.
    n_kinks : int
        Number of active kinks: pre-activations that are 0 at the minimum.
    n_collapsed : int
        Number of units whose weights are all 0 at the minimum.
    n_copies : int
        Number of units that are copies of others. If it is not 0, the minimum is one of a family
        with equal loss.
    radius : float
        Radius of the ball around theta that contains the exact minimum, which is the only critical
        point of Phi in the ball of this radius around (theta, slopes). Infinite if it is unknown.
    kantorovich : float
        h of the theorem, which is below 1/2 if the theorem holds.
    min_abs_eigenvalue_bound : float
        Smallest magnitude of the computed eigenvalues of the Hessian of Phi.
    missing : str
        The hypothesis that fails, as a key of the clauses "kink_missing", or "" if all hold.
    """

    certified: bool
    n_kinks: int
    n_collapsed: int
    n_copies: int
    radius: float
    kantorovich: float
    min_abs_eigenvalue_bound: float
    missing: str

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers of the sentences on this outcome, in `fastcurv.common.sentences`."""
        return {
            "n_active_kinks": self.n_kinks,
            "n_collapsed": self.n_collapsed,
            "n_copies": self.n_copies,
            "place": f"within {self.radius:.2g} of theta",
            "radius": self.radius,
            "h": self.kantorovich,
        }

    @property
    def clauses(self) -> dict[str, Any]:
        """The clauses of these sentences."""
        return {
            "strict": self.n_copies == 0,
            "at_kinks": self.n_kinks > 0,
            "collapsed": self.n_collapsed > 0,
            "kink_missing": self.missing,
        }


def prove_kink_minimum(phi: SmoothPieceObjective, point: np.ndarray) -> _KinkMinimumOutcome:
    """Check every hypothesis at (theta, slopes) in several units of the slopes. Return the proof
    with the smallest h or, if there is no proof, the result with the smallest h.

    Parameters
    ----------
    phi : SmoothPieceObjective
        The loss as a smooth function Phi of theta and the slopes.
    point : ndarray, shape (n + m,)
        theta (n,), then the slopes (m,) at the active kinks.
    """
    K = phi.hessian(point)
    g, g_errors = phi.precise_gradient(point)
    if not (np.isfinite(K).all() and np.isfinite(g_errors).all()):
        return _kink_certificate(phi, "not_finite")
    found: list[_KinkMinimumOutcome] = []
    for units in _candidate_slope_units(K, phi.n_theta):
        found.append(_check_hypotheses(phi.with_slope_units(units), point, K, g, g_errors, units))
        best = max(found, key=lambda one: (one.certified, -one.kantorovich))
        if best.kantorovich < TARGET_KANTOROVICH_H:
            break
    return best


def _candidate_slope_units(K: np.ndarray, n: int) -> list[np.ndarray]:
    """Return a list of units (m,) of the slopes to try. Each makes all slope columns of the Hessian
    K (n + m, n + m) equal in norm, to a fraction of the largest curvature; the last one is 1 for
    all slopes.
    """
    sizes = np.linalg.norm(K[:n, n:], axis=0)
    ones = np.ones(sizes.size)
    if not sizes.size or not (sizes > 0).all():
        return [ones]
    top = float(np.linalg.norm(K[:n, :n], 2))
    return [*(share * top / sizes for share in COLUMN_LENGTH_RATIOS), ones]


def _kink_certificate(
    phi: SmoothPieceObjective,
    missing: str,
    radius: float = np.inf,
    h: float = np.inf,
    least: float = 0.0,
) -> _KinkMinimumOutcome:
    counts = phi.n_kinks, phi.n_collapsed, phi.n_copies
    return _KinkMinimumOutcome(not missing, *counts, radius, h, least, missing)


def _check_hypotheses(
    phi: SmoothPieceObjective,
    point: np.ndarray,
    K: np.ndarray,
    g: np.ndarray,
    g_errors: np.ndarray,
    units: np.ndarray,
) -> _KinkMinimumOutcome:
    """Check every hypothesis of the theorem in the given units (m,) of the slopes. K is the Hessian
    of Phi at `point`, g its gradient, and `g_errors` holds bounds on the errors of the entries of
    g. Return the proof, or a result that names the missing hypothesis.
    """
    c = np.concatenate([np.ones(phi.n_theta), units])
    scaled = c[:, None] * K * c
    values, vectors, errors = eigh(scaled)
    # Scaling by the units of the slopes adds rounding errors.
    off = phi.hessian_error(point) + 2 * EPS * safe_norm(scaled)
    cut = ComplementEigenpairs(values, vectors, float(errors.max(initial=0.0)) + off, c, K[:, :0])
    least = float(np.abs(values).min(initial=np.inf))
    if not cut.min_abs_eigenvalue_bound > 0:
        return _kink_certificate(phi, "zero", least=least)
    if int((values < 0).sum()) != phi.n_slopes:
        return _kink_certificate(phi, "negative", least=least)
    beta, eta, _ = newton_step_in_slice(K, off, cut, g, safe_norm(c * g_errors))
    theorem = check_kantorovich(beta, eta, partial(phi.third_bound, point))
    h = theorem.h
    radius = theorem.radius
    if not theorem.holds:
        return _kink_certificate(phi, "h", h=h, least=least)
    margins = phi.hypothesis_margins(point, radius)
    for missing in ("signs", "slopes", "upward", "collapsed", "copies"):
        if not getattr(margins, missing) > 0:
            return _kink_certificate(phi, missing, radius, h, least)
    return _kink_certificate(phi, "", radius, h, least)


MAX_KINK_PARAMS = 600  # maximum number of parameters, because each step forms dense matrices
# maximum number of parameters times samples times units
MAX_HESSIAN_OPERATIONS = 5e7
MAX_ACTIVE_SET_UPDATES = 12  # maximum number of updates of the active set
MAX_STEPS_PER_ACTIVE_SET = 12  # maximum number of Newton steps between updates
# minimum magnitude to which pre-activations are compared, for a theta that is almost 0
MIN_PREACTIVATION_SCALE = 1e-100
# A pre-activation that has no effect on the outputs keeps its side of the kink if its magnitude is
# at most this.
INEFFECTIVE_PREACTIVATION_TOL = 1e-13
# Pre-activations count as 0 if their magnitudes are at most this fraction of the largest magnitude
# in the layer: several times the square root of the unit roundoff.
ZERO_PREACTIVATION_TOL = 1e-7
# If an estimated slope is within this distance of the slope on one side of the kink, the kink is
# not active.
KINK_SLOPE_TOL = 1e-3
# A verdict on theta covers a minimum at active kinks within this distance, relative to ||theta||.
MAX_RELATIVE_KINK_DISTANCE = 1e-7


@dataclass(frozen=True)
class KinkPoint:
    """A point theta (n,) with active kinks, the slopes (m,) at these kinks, and the proof or
    missing hypothesis from which `classify` derives a verdict.
    """

    theta: np.ndarray
    slopes: np.ndarray
    _proof: _KinkMinimumOutcome

    @property
    def certified(self) -> bool:
        """True if a minimum near this point is proved."""
        return self._proof.certified

    @property
    def is_smooth(self) -> bool:
        """True if no kink is active, no unit has collapsed and no unit is a copy of another."""
        return not (self._proof.n_kinks or self._proof.n_collapsed or self._proof.n_copies)

    @property
    def note_numbers(self) -> dict[str, Any]:
        """The numbers and clauses of the note on this point in `fastcurv.common.sentences`."""
        return self._proof.numbers | self._proof.clauses


def small_relu_data(ob: TwiceDifferentiable) -> ReluData | None:
    """Return the `ReluData` of an objective, from its certificate `relu_rows`. Return None if it
    has no such certificate or the network is too large for the proof.
    """
    rows = call_certificate(ob, "relu_rows")
    if rows is None or len(rows.l2) > MAX_KINK_PARAMS:
        return None
    operations = len(rows.l2) * len(rows.X) * sum(rows.sizes)
    return rows if 0 < operations <= MAX_HESSIAN_OPERATIONS else None


def certify_kink_minimum(ob: Objective, theta: np.ndarray) -> _KinkMinimumOutcome | None:
    """Return the proof that a minimum at active kinks lies near theta, with a radius measured from
    theta. Return None if no minimum is proved, if the proved minimum is farther from theta than
    `MAX_RELATIVE_KINK_DISTANCE` allows, or if the objective has no kinks or is not in float64.
    """
    if objective_dtype(ob) != np.float64 or small_relu_data(ob) is None:
        return None
    found = find_kink_point(ob, theta)
    if found is None or not found.certified:
        return None
    far = float(np.linalg.norm(found.theta - theta)) * (1 + 4 * EPS)
    proof = replace(found._proof, radius=found._proof.radius + far)
    return (
        proof
        if far <= MAX_RELATIVE_KINK_DISTANCE * max(1.0, float(np.linalg.norm(theta)))
        else None
    )


@cache_last_result
def _cached_kink_point(ob: TwiceDifferentiable, theta: np.ndarray) -> KinkPoint | None:
    return run_newton_on_kinks(call_certificate(ob, "relu_rows"), theta, initial_slopes(ob, theta))


def find_kink_point(ob: TwiceDifferentiable, theta: np.ndarray) -> KinkPoint | None:
    """Return the `KinkPoint` that `run_newton_on_kinks` finds from theta and the slopes returned by
    `initial_slopes`, or None if the iteration does not converge.

    The last result is cached, because a verdict and the search after this verdict use the same
    point. It is cached for the objective whose rows are used, which `ob` may wrap.
    """
    found = _cached_kink_point(call_certificate(ob, "relu_rows").objective, theta)
    return found and replace(found, theta=found.theta.copy(), slopes=found.slopes.copy())


def initial_slopes(ob: Any, theta: np.ndarray) -> list[np.ndarray]:
    """Return a list of the slopes phi' (N, units) of each hidden layer at theta. If a
    pre-activation is near 0, its slope is the mean of the slopes on both sides.
    """
    rows = call_certificate(ob, "relu_rows")
    zs = ob.model.preactivations(theta, rows.X)[:-1]
    size = max(1e-3 * float(np.abs(theta).max()), MIN_PREACTIVATION_SCALE)
    found = []
    for z, leak in zip(zs, rows.leaks):
        near = np.abs(z) <= ZERO_PREACTIVATION_TOL * max(float(np.abs(z).max()), size)
        found.append(np.where(near, 0.5 * (1 + leak), np.where(z > 0, 1.0, leak)))
    return found


def run_newton_on_kinks(
    rows: ReluData, theta: np.ndarray, slopes: list[np.ndarray]
) -> KinkPoint | None:
    """Run Newton's method in (theta, slopes) from the given estimates, with updates of the active
    set. `slopes` holds the slopes (N, units) of each hidden layer. Return the `KinkPoint` that is
    found, or None if the active set or the steps do not converge.
    """
    gates: list[np.ndarray] = []
    collapsed: list[np.ndarray] = []
    for s, leak in zip(slopes, rows.leaks):
        between = (s > leak + KINK_SLOPE_TOL) & (s < 1 - KINK_SLOPE_TOL)
        gone = np.all(between, axis=0)
        gate = np.where(between & ~gone, np.nan, np.where(s > 0.5 * (1 + leak), 1.0, leak))
        gates.append(gate)
        collapsed.append(gone)
    for _ in range(MAX_ACTIVE_SET_UPDATES):
        collapsed = _collapsed_unit_masks(rows, gates, collapsed)
        parents = rows.find_unit_copies(theta, gates, collapsed)
        phi = rows.smooth_piece_objective(gates, collapsed, parents)
        first = phi.copies.merge_copies(theta)
        at_kinks = [s[phi.rows.first][:, k] for s, k in zip(slopes, phi.copies.keep)]
        start = [s[active] for s, active in zip(at_kinks, phi.active)]
        solved = _solve_critical_point(phi, np.concatenate([first, *start]))
        if solved is None:
            return None
        theta = phi.copies.split_copies(solved[: phi.n_theta], theta)
        gates = phi.copies.expand_columns(phi.gates)
        collapsed = phi.copies.expand_columns(phi.collapsed)
        slopes = phi.copies.expand_columns(phi.split_by_layer(solved[phi.n_theta :]))
        zs = phi.copies.expand_columns(phi.forward_backward(solved)[2][:-1])
        changed = _update_active_set(rows, gates, slopes, zs, collapsed)
        again = rows.find_unit_copies(theta, gates, collapsed)
        if not changed and all(np.array_equal(p, q) for p, q in zip(again, parents)):
            proof = prove_kink_minimum(phi, solved)
            rounding = 16 * EPS * float(np.linalg.norm(theta)) * (phi.n_copies > 0)
            proof = replace(proof, radius=proof.radius + rounding)
            return KinkPoint(theta, solved[phi.n_theta :], proof)
    return None


def _collapsed_unit_masks(
    rows: ReluData, gates: list[np.ndarray], collapsed: list[np.ndarray]
) -> list[np.ndarray]:
    """Return masks (units,) of collapsed units for each hidden layer: those already known, and relu
    units that are off for all rows, whose weights decay to 0.

    The gates of collapsed units, and of active kinks that have no effect on the outputs, are set in
    place to the slope below 0.
    """
    found = []
    for gate, gone, leak in zip(gates, collapsed, rows.leaks):
        found.append(gone | ((gate == leak).all(axis=0) & (leak == 0)))
        gate[:, found[-1]] = leak
    for gate, leak, effective in zip(gates, rows.leaks, rows.effective_unit_masks(gates)):
        gate[~effective & np.isnan(gate)] = leak
    return found


def _solve_critical_point(phi: SmoothPieceObjective, point: np.ndarray) -> np.ndarray | None:
    """Return a critical point (n + m,) of Phi found by Newton's method from `point`, with the
    precise gradient in the last step. Return None if the steps do not converge.
    """
    size = np.inf
    for _ in range(MAX_STEPS_PER_ACTIVE_SET):
        last = size <= 1e-9 * max(1.0, float(np.linalg.norm(point)))
        g = phi.precise_gradient(point)[0] if last else phi.gradient(point)
        try:
            step = np.linalg.solve(phi.hessian(point), -g)
        except np.linalg.LinAlgError:
            return None
        size = float(np.linalg.norm(step))
        length = float(np.linalg.norm(point))
        if not size <= 10 * max(1.0, length):
            return None
        point = point + step
        if last:
            break
    return point if size <= 1e-9 * max(1.0, length) else None


def _update_active_set(
    rows: ReluData,
    gates: list[np.ndarray],
    slopes: list[np.ndarray],
    zs: list[np.ndarray],
    collapsed: list[np.ndarray],
) -> bool:
    """Update the active set in `gates` in place: kinks whose slopes lie outside their interval
    leave the set, and pre-activations that changed sign enter it. Return True if a gate changed.
    """
    changed = False
    for l, effective in enumerate(rows.effective_unit_masks(gates)):
        gate = gates[l]
        leak = rows.leaks[l]
        z = zs[l]
        s = slopes[l]
        active = np.isnan(gate)
        side = np.where(z > 0, 1.0, leak)
        above = active & (s >= 1)
        beneath = active & (s <= leak)
        crossed = ~active & ~collapsed[l] & (gate != side)
        enter = crossed & effective
        idle = crossed & ~effective & (np.abs(z) > INEFFECTIVE_PREACTIVATION_TOL)
        changed |= bool((above | beneath | enter | idle).any())
        gate[above] = 1.0
        gate[beneath] = leak
        gate[enter] = np.nan
        gate[idle] = side[idle]
        s[enter] = 0.5 * (1 + leak)
    return changed
