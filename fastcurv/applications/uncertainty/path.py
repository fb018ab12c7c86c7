"""Networks along a path of penalties, from large to small.

A large l2 keeps units at 0: with a smooth activation, such units have no incoming or outgoing
weights, so that their gradient is 0, and stays 0 when l2 decreases. A path that only starts each
fit at the previous minimum therefore ends at saddles. `regularization_path` classifies the point at
each penalty and escapes from saddles. Without a penalty on biases, the bias of an inactive unit is
free, and whether the point is a saddle depends on this bias. So units are also restarted if no
minimum is proved. `max_evidence_posterior`, for estimators, takes no verdicts, which costs less. It
restarts all inactive units with small random weights before a fit, and sets their weights to 0
after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...common.checks import check_array, check_rng, check_theta, short_repr
from ...common.html import html_table
from ...common.objectives import cast_to_float64
from ...common.protocols import Floats
from ...common.read_only import FrozenRecord
from ...common.runtime import raise_if_interrupted, with_nearest_rounding
from ...network.mlp import MLP
from ...network.objective import Objective
from ...optimize.minimize import minimize
from ...spectrum.results import format_number, to_json_value
from ..diagnosis.facts import constant_loss
from ..plots.band import plot_regularization_path
from .laplace import ExactFitError, LaplacePosterior, laplace_posterior
from .requirements import check_rows_in_memory

# minimum relative decrease of the objective for which restarted units are kept
MIN_RESTART_GAIN = 1e-6
# A unit is inactive if the product of the norms of its weights is below this fraction of the
# largest product in its layer.
MIN_UNIT_RATIO = 1e-3
# A unit is inactive if the norms of its incoming and outgoing weights have a product below this
# value.
MIN_UNIT_SIZE = 1e-10
# maximum product of the norms of incoming and outgoing weights of a unit that may be set to 0, if
# the objective does not increase
MAX_PRUNABLE_SIZE = 1e-6
# maximum relative increase of the objective when inactive units are set to 0
PRUNE_TOL = 1e-6
# maximum relative increase of the objective when inactive units of a fit in
# `max_evidence_posterior` are set to 0. These fits end while inactive units still shrink. The data
# hardly determine the biases of such units, and each would raise the evidence by minus half the
# logarithm of its small curvature.
PATH_PRUNE_TOL = 1e-4
MAX_L2 = 1.0  # first penalty of `max_evidence_posterior`
L2_RATIO = 10**-0.5  # ratio of each penalty to the previous one
MIN_L2 = 1e-8
# size of the weights of a restarted unit, relative to the weights of the unit at the start of the
# path
RESTART_SCALE = 0.1
# maximum number of penalties at which the evidence decreases, after which the path ends
MAX_EVIDENCE_DECREASES = 2
# Along the path the evidence may decrease for a while: where units become active, and, if the noise
# is small, before the fit reaches the noise level. So decreases are not counted while the loss is
# above this fraction of the loss of a constant prediction.
PATH_PLATEAU_LOSS_RATIO = 0.8
# Decreases of the evidence are not counted either while the squared errors decrease by at least
# this fraction from one penalty to the next.
MIN_LEARNING_DECREASE = 0.2


def active_units(model: Any, theta: Any, least: float = MIN_UNIT_SIZE) -> list[Any]:
    """Return a list with a mask (units,) for each hidden layer, True for the units that affect the
    outputs. A unit affects the outputs if the product of the norms of its incoming and outgoing
    weights is above `least` and above `MIN_UNIT_RATIO` times the largest product in the layer.
    """
    Ws = [layer[0] for layer in model.unflatten(np.asarray(theta, np.float64))]
    found = []
    for below, above in zip(Ws, Ws[1:]):
        size = np.linalg.norm(below, axis=1) * np.linalg.norm(above, axis=0)
        found.append(size > max(MIN_UNIT_RATIO * size.max(initial=0.0), least))
    return found


def _active_units_array(model: Any, theta: Any) -> Any:
    """Return the masks of `active_units` of all hidden layers as one array of bool (units,)."""
    return np.concatenate([np.zeros(0, bool), *active_units(model, theta)])


@dataclass(frozen=True, repr=False, eq=False)
class RegularizationPath(FrozenRecord):
    """One network for each penalty, as returned by `regularization_path`.

    Attributes
    ----------
    l2s : ndarray (K,)
        The penalties, from large to small.
    thetas : ndarray (K, n)
        The point that was reached with each penalty.
    values : ndarray (K,)
        The objective at each point, penalty included.
    kinds : tuple of str
        The verdict on each point, or why the run ended if there is none.
    active_units : ndarray of bool (K, units)
        True for the hidden units that affect the outputs, layer after layer.
    objective : Objective
        The objective that was given, in float64; `at` returns it with a penalty of the path.
    """

    l2s: np.ndarray
    thetas: np.ndarray
    values: np.ndarray
    kinds: tuple[str, ...]
    active_units: np.ndarray
    objective: Objective

    def __len__(self) -> int:
        return len(self.l2s)

    def at(self, i: int) -> tuple[Objective, Floats]:
        """Return an objective of the path and the point that was reached.

        Parameters
        ----------
        i : int
            The index of the penalty in `l2s`.

        Returns
        -------
        objective : Objective
            The objective with this penalty.
        theta : ndarray (n,)
            The point that was reached with this penalty.
        """
        return self.objective.with_l2(float(self.l2s[i])), self.thetas[i]

    @property
    def became_active(self) -> list[list[int]]:
        """For each penalty, the list of the indices of the units that are active at this penalty
        and were inactive at the previous one. At the first penalty, all active units are listed.
        """
        before = np.vstack(
            [np.zeros((1, self.active_units.shape[1]), bool), self.active_units[:-1]]
        )
        return [np.flatnonzero(new).tolist() for new in self.active_units & ~before]

    def _rows(self) -> list[list[str]]:
        return [
            [
                format_number(self.l2s[i]),
                f"{self.values[i]:.6g}",
                str(int(self.active_units[i].sum())),
                ", ".join(map(str, new)) if len(new) < 9 else f"{len(new)} units",
                self.kinds[i],
            ]
            for i, new in enumerate(self.became_active)
        ]

    def summary(self) -> str:
        """Return a table with one line for each penalty."""
        return repr(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the arrays of the path and the verdicts as a dict of values that JSON can
        represent.
        """
        names = "l2s thetas values kinds active_units became_active"
        return {name: to_json_value(getattr(self, name)) for name in names.split()}

    def __repr__(self) -> str:
        head = f"RegularizationPath: {len(self)} penalties, n = {self.thetas.shape[1]}"
        rows = [["l2", "value", "active", "new", "kind"], *self._rows()]
        widths = [max(len(row[j]) for row in rows) for j in range(5)]
        lines = ["  ".join(x.ljust(w) for x, w in zip(row, widths)).rstrip() for row in rows]
        return "\n".join([head, *("  " + line for line in lines)])

    def _repr_html_(self) -> str:
        head = ["l2", "value", "active units", "became active", "kind"]
        return html_table(f"RegularizationPath: {len(self)} penalties", head, self._rows())

    def plot(self, ax: Any = None) -> Any:
        """Draw the number of active units and the value over the penalty. This needs matplotlib.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default those of a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The Axes with the curves.
        """
        return plot_regularization_path(self, ax)


@with_nearest_rounding
def regularization_path(
    ob: Objective,
    l2s: Any,
    theta0: Any = None,
    *,
    rng: Any = 0,
) -> RegularizationPath:
    """Minimise an objective for each of several penalties, from large to small, each from the
    previous minimum.

    Each solution is classified, and the fit escapes from saddle points along negative curvature,
    because units that a large penalty has set to 0 otherwise remain 0 as the penalty decreases. If
    some units are inactive and no minimum is proved, a second fit is started with small random
    weights for these units, and the solution with the lower value is kept. All fits are in float64.

    Parameters
    ----------
    ob : Objective
        Its own l2 is not used.
    l2s : array_like (K,)
        Penalties >= 0, in any order.
    theta0 : array_like (n,), optional
        The start of the first fit; by default ``ob.model.init(rng)``.
    rng : None, int or Generator
        Seed of the start and of the searches for negative curvature.

    Returns
    -------
    RegularizationPath
        ``l2s``, ``thetas``, ``values``, ``kinds``, ``active_units``, ``became_active``, ``at(i)``,
        ``summary()``, ``plot()``.

    See Also
    --------
    laplace : the evidence, by which a network is chosen.
    minimize : a single fit.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> X = np.linspace(-2.0, 2.0, 40)[:, None]
    >>> ob = fc.Objective(fc.MLP([1, 4, 1]), X, np.sin(2 * X[:, 0]), loss="mse", l2_biases=False)
    >>> path = fc.regularization_path(ob, [1e-3, 1.0, 1e-1])
    >>> path.l2s.tolist(), bool((np.diff(path.values) < 0).all())
    ([1.0, 0.1, 0.001], True)
    >>> path.active_units.sum(axis=1).tolist()[0]
    0
    """
    check_rows_in_memory(ob, "regularization_path")
    given = check_array(l2s, "l2s", np.float64)
    if given.ndim != 1 or not len(given) or not (given >= 0).all():
        raise ValueError(
            f"l2s must be a list of at least one number >= 0, got {short_repr(l2s)}. Use for "
            "example np.logspace(0, -4, 9)."
        )
    seed = check_rng(rng)
    start = ob.model.init(rng=seed) if theta0 is None else check_theta(ob, theta0, "theta0")
    ob = cast_to_float64(ob)
    start = theta = np.asarray(start, np.float64)
    penalties = np.sort(given)[::-1]
    thetas = []
    values = []
    kinds = []
    active = []
    for l2 in penalties:
        one = ob.with_l2(float(l2))
        run: Any = raise_if_interrupted(minimize(one, theta, rng=seed))
        if run.kind != "minimum" and not _active_units_array(ob.model, run.x).all():
            restarted = with_units_restarted(ob.model, run.x, start)
            again: Any = raise_if_interrupted(minimize(one, restarted, rng=seed))
            if again.fun < run.fun - MIN_RESTART_GAIN * abs(run.fun):
                run = again
        theta = run.x
        thetas.append(theta)
        values.append(float(run.fun))
        kinds.append(run.stopped if run.report is None else run.report.kind)
        active.append(_active_units_array(ob.model, theta))
    return RegularizationPath(
        l2s=penalties,
        thetas=np.array(thetas),
        values=np.array(values),
        kinds=tuple(kinds),
        active_units=np.array(active),
        objective=ob,
    )


def with_units_restarted(model: Any, theta: Any, start: Any) -> Any:
    """Return a copy of theta in which inactive units are restarted: their weights are set to
    `RESTART_SCALE` times those of the point `start`, and their biases to those of `start`.
    """
    theta = theta.copy()
    layers = model.unflatten(start)
    mine = model.unflatten(theta)
    for l, on in enumerate(active_units(model, theta)):
        mine[l][0][~on] = RESTART_SCALE * layers[l][0][~on]
        if model.bias:
            mine[l][1][~on] = layers[l][1][~on]
        mine[l + 1][0][:, ~on] = RESTART_SCALE * layers[l + 1][0][:, ~on]
    return theta


def with_units_pruned(ob: Any, theta: Any, tol: float = PRUNE_TOL) -> Any:
    """Return theta with all weights and biases of inactive units set to 0, or theta unchanged if
    this would increase the objective by more than `tol`, relative to its value.
    """
    less = theta.copy()
    layers = ob.model.unflatten(less)
    for l, on in enumerate(active_units(ob.model, theta, MAX_PRUNABLE_SIZE)):
        layers[l][0][~on] = 0
        if ob.model.bias:
            layers[l][1][~on] = 0
        layers[l + 1][0][:, ~on] = 0
    before = ob.value(theta)
    return less if ob.value(less) <= before + tol * abs(before) else theta


def without_inactive_units(ob: Any, theta: Any) -> tuple[Any, Any]:
    """Return the objective of the network without its inactive units, and the point of the smaller
    network that corresponds to theta.

    `ob` and theta are returned unchanged if all units are active, if a layer has no active unit, if
    the objective would increase, or if the network has no biases, skip connections or batch
    normalisation. At a minimum, a unit without weights has a bias on which no output depends, so
    the Hessian has an eigenvalue 0. Without the unit the Hessian can be positive definite.
    """
    model = ob.model
    on = active_units(model, theta, MAX_PRUNABLE_SIZE)
    counts = [int(mask.sum()) for mask in on]
    plain = model.bias and not model.residual and not model.batch_norm
    if not plain or not all(counts) or all(mask.all() for mask in on):
        return ob, theta
    smaller = MLP(
        [model.sizes[0], *counts, model.sizes[-1]], list(model.activation), dtype=model.dtype
    )
    above = [*on, np.ones(model.sizes[-1], bool)]
    below = [np.ones(model.sizes[0], bool), *on]
    layers = [
        (W[np.ix_(rows, columns)], b[rows])
        for (W, b), rows, columns in zip(model.unflatten(theta), above, below)
    ]
    less = ob.with_model(smaller)
    found = smaller.flatten(layers)
    before = ob.value(theta)
    return (less, found) if less.value(found) <= before + PRUNE_TOL * abs(before) else (ob, theta)


def max_evidence_posterior(
    ob: Objective,
    start: Any,
    minimise: Callable[[Objective, Any], Any],
    *,
    curvature: str = "ggn",
    count: float | None = None,
) -> LaplacePosterior:
    """Return the posterior with the largest evidence on a path of penalties from large to small.
    For squared errors, the noise in the evidence is at least the root mean square residual of rows
    left out, to first order. Without this bound the evidence grows without end if the network can
    reproduce all targets.

    The path ends once the evidence has decreased at `MAX_EVIDENCE_DECREASES` penalties since its
    maximum, or at the penalty `MIN_L2`. If the maximum is inside the path, a penalty between its
    neighbours is tried too.

    Parameters
    ----------
    ob : Objective
        Its own l2 is not used.
    start : ndarray (n,)
        The start of the first fit, of each fit while the path predicts little more than a constant,
        and the weights from which inactive units are restarted.
    minimise : callable
        ``minimise(ob, theta)`` returns the point that a fit reaches.
    curvature, count
        As in `laplace_posterior`.

    Raises
    ------
    ExactFitError
        If no residual is left even with the first penalty.
    """

    def fit(l2: float, theta: Any) -> LaplacePosterior:
        one = ob.with_l2(l2)
        theta = minimise(one, with_units_restarted(ob.model, theta, start))
        pruned = with_units_pruned(one, theta, PATH_PRUNE_TOL)
        return laplace_posterior(one, pruned, curvature, count=count, bound_noise=True)

    found: list[LaplacePosterior] = []
    plain = ob.with_l2(0.0)
    constant = constant_loss(ob)
    l2 = MAX_L2
    decreases = 0
    best = 0
    theta = start
    loss = np.inf
    while l2 > MIN_L2 and decreases < MAX_EVIDENCE_DECREASES:
        try:
            found.append(fit(l2, theta))
        except ExactFitError:  # smaller penalties would also fit the rows exactly
            if not found:
                raise
            break
        theta = found[-1].theta.astype(ob.dtype)
        before = loss
        loss = plain.value(theta)
        falls = found[-1].noise_std is not None and loss < (1 - MIN_LEARNING_DECREASE) * before
        learns = falls
        if loss > constant - (1 - PATH_PLATEAU_LOSS_RATIO) * abs(constant):
            theta = start  # from a point near the saddle at zero weights a fit would not move
            learns = True
        if found[-1].log_evidence > found[best].log_evidence:
            best = len(found) - 1
            decreases = 0
        elif len(found) > 1 and not learns:
            decreases += 1
        l2 *= L2_RATIO
    last = found[best]
    # The last penalty tried is at the vertex of the parabola through the largest evidence and its
    # two neighbours.
    if 0 < best < len(found) - 1:
        a, b, c = (found[i].log_evidence for i in (best - 1, best, best + 1))
        shift = 0.5 * (c - a) / max(2 * b - a - c, 1e-12)
        refined = fit(last.objective.l2 * L2_RATIO**shift, found[best - 1].theta.astype(ob.dtype))
        last = max(last, refined, key=lambda post: post.log_evidence)
    return last
