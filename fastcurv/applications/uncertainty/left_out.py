"""Leave-one-out predictions and jackknife+ intervals of a network at a minimum.

Let ``L = (1/N) sum l_i + l2/2 ||theta||^2``, J_i the Jacobian of the outputs of row i, r_i and S_i
the first and second derivatives of l_i with respect to these outputs, and H the Hessian of L at its
minimum theta. Without row i the objective is ``L_-i = L - l_i / N``. The divisor remains N, so that
the strength of l2 relative to a row does not change. One Newton step of L_-i from theta, with the
curvature ``J_i' S_i J_i / N`` of the row removed from H by Woodbury's formula, is

    d_i = H^-1 J_i' a_i,    a_i = (I - S_i M_i / N)^-1 r_i / N,    M_i = J_i H^-1 J_i'

The prediction is that of the network at ``theta + d_i``. All predictions need one Cholesky factor
of H and d_out solves for each row. They are exact for a network without hidden layers and squared
errors, where the residual of the row becomes ``r / (1 - h)``, with h the leverage. The influence
function omits S_i M_i, so it explains only the fraction 1 - h of the change at the row itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...common.checks import (
    MatrixOperator,
    check_bool,
    check_real_number,
    is_sparse,
)
from ...common.errors import warn_caller
from ...common.linalg import UNIT_ROUNDOFF, eigvalsh, multiply_by_lower_triangular
from ...common.objectives import call_certificate, cast_to_float64, sample_weights
from ...common.protocols import Floats
from ...common.read_only import FrozenRecord
from ...common.runtime import raise_if_interrupted, serial_blas_context, with_nearest_rounding
from ...common.vectors import safe_norm
from ...critical.classify import classify
from ...critical.nearness import assess_nearness_by_decrement, gradient_and_error
from ...network.factor import CholeskyFactor, NotPositiveDefiniteError
from ...network.objective import Objective
from ...optimize.minimize import minimize
from ...spectrum.results import format_number, to_json_value
from ...structure.parameters import has_kinks, l2_diagonal, n_terms_per_row
from ...structure.tables import loss_spec, one_hot
from .requirements import check_no_batch_norm, check_rows_in_memory, dense_rows
from .without_rows import (
    JACOBIAN_BLOCK_ENTRIES,
    FactoredMinimum,
    is_convex_on_line,
    jacobian_blocks,
    minimum_by_newton,
    newton_steps,
    objective_without_rows,
    outputs_of_networks,
)

# minimum eigenvalue of I - S_i M_i / N at which the curvature of row i is removed
MIN_REMAINING_EIGENVALUE = 1e-10
# maximum product of corresponding diagonal entries of H and H^-1, which is 1 for parameters that do
# not interact and usually below 1000 at minima; if it is larger, `classify` checks the signs of all
# eigenvalues
MAX_VARIANCE_INFLATION = 1e6
# number of Newton steps with one Cholesky factor that refine a minimum of a float32 objective in
# float64; each step multiplies the error by about the accuracy of float32
N_REFINEMENTS = 3
# maximum number of second-order steps from the end of a fit to a minimum
MAX_STEPS_AFTER_FIT = 2000
# maximum number of effective parameters per target; with more, intervals were found to cover as
# little as 67% instead of 90% with tanh, and to be many times too wide with relu
MAX_INTERVAL_PARAMS_PER_TARGET = 0.5


class Interval(NamedTuple):
    """Lower bounds `low` and upper bounds `high` of prediction intervals, two arrays of equal
    shape. The bounds are infinite if there are too few training rows.
    """

    low: Floats
    high: Floats


def _factored_minimum(ob: Any, theta: Any, call: str) -> FactoredMinimum:
    """Return theta, in float64, as a `FactoredMinimum` of `ob`, after checking that the Hessian at
    theta is positive definite and the gradient within its tolerance. Raise ValueError otherwise.
    `call` is the name of the public function, for error messages.
    """
    check_rows_in_memory(ob, call)
    check_no_batch_norm(ob, call)
    theta = ob.model.check_theta(theta)
    kinks = has_kinks(ob.model) and int(call_certificate(ob, "kinks", theta, default=0))
    if kinks:
        raise ValueError(
            f"theta must have no pre-activation at a kink, got {kinks}. Use a smooth activation "
            "such as activation='tanh'."
        )
    own = ob
    ob = cast_to_float64(ob)
    theta = theta.astype(np.float64)
    H = ob.hessian(theta)
    if not math.isfinite(H.value):
        raise ValueError(
            f"ob must have a finite value at theta, got {H.value}. Rescale the targets."
        )
    shift = _unpenalised_shift(ob)
    try:
        factor = H.factor() if shift is None else CholeskyFactor(_add_shift_curvature(H, shift))
    except NotPositiveDefiniteError as error:
        raise _no_minimum_error(ob, H, shift, error.eigenvalue) from None
    why = call_certificate(ob, "why_no_minimum", theta, default=None)
    if why is not None:
        raise ValueError(f"ob must have a minimum, got a loss without a minimum: {why}.")
    g = H.gradient
    decrement = 0.5 * float(g @ factor.solve(g))
    size = safe_norm(np.abs(factor.lower).T @ np.abs(theta))  # size^2 >= |theta|' |H| |theta|
    near = assess_nearness_by_decrement(own, theta, safe_norm(g), decrement, size * size)
    if not near.near:
        # The decrement may consist of rounding errors alone, for example if every loss is nearly 0.
        g, gradient_error = gradient_and_error(ob, theta)
        length = safe_norm(factor.inverse_lower @ g)
        length -= gradient_error * math.sqrt(float(factor.inverse_diagonal.sum()))
        decrement = 0.5 * max(length, 0.0) ** 2
        near = assess_nearness_by_decrement(own, theta, safe_norm(g), decrement, size * size)
    if not near.near:
        got = format_number(safe_norm(g))
        tol = format_number(near.gradient_tol)
        raise ValueError(
            f"theta must be a minimum, got a gradient norm of {got}, above its tolerance of {tol}. "
            "Use fastcurv.minimize(ob, theta) first."
        )
    if own.dtype == np.float32:
        # The float64 objective has a minimum near that of the float32 objective.
        for _ in range(N_REFINEMENTS):
            theta = theta - factor.solve(ob.gradient(theta))
        return _factored_minimum(ob, theta, call)
    _warn_of_unknown_sign(ob, theta, factor)
    return FactoredMinimum(ob, theta, factor)


def _no_minimum_error(ob: Any, H: Any, shift: Any, eigenvalue: float) -> NotPositiveDefiniteError:
    """Return the exception for a theta at which the Hessian H is not positive definite. Its message
    has the smallest eigenvalue and the number of eigenvalues that are not positive. `shift` is the
    result of `_unpenalised_shift`.
    """
    values = eigvalsh(H.to_dense() if shift is None else _add_shift_curvature(H, shift).to_dense())
    some = int((values <= len(values) * 2 * UNIT_ROUNDOFF * np.abs(values).max()).sum())
    penalty = "l2_biases=True" if ob.l2 > 0 and not ob.l2_biases else "l2 > 0"
    return NotPositiveDefiniteError(
        f"theta must be a minimum with a positive definite Hessian, got {some} of {len(values)} "
        f"eigenvalues that are not positive, the smallest {values[0]:.6g}. Use fastcurv.minimize "
        f"to find one, with {penalty} if parameters are redundant.",
        eigenvalue,
    )


def _warn_of_unknown_sign(ob: Any, theta: Floats, factor: CholeskyFactor) -> None:
    """Issue a UserWarning if H is ill-conditioned and `classify` does not find that theta is a
    minimum.
    """
    inflation = np.einsum("ij,ij->i", factor.lower, factor.lower) * factor.inverse_diagonal
    if not inflation.max(initial=0.0) > MAX_VARIANCE_INFLATION:
        return
    point = classify(ob, theta, progress=False)
    if point.kind != "minimum":
        warn_caller(
            "The Hessian at theta is nearly singular, and rounding errors may determine the "
            "results. Use a stronger penalty or features of similar scale. The verdict of classify "
            f"is: {point.sentence}",
            UserWarning,
        )


def _unpenalised_shift(ob: Any) -> Any:
    """Return the slice of theta that holds the biases of the last layer if adding one number to all
    of these biases changes neither a probability nor the penalty. This is so if the outputs pass
    through a softmax and the biases have no penalty. Otherwise return None.
    """
    model = ob.model
    if loss_spec(ob.loss).link != "softmax" or not model.bias:
        return None
    last = slice(model.n_params - model.sizes[-1], model.n_params)
    return None if np.any((l2_diagonal(ob) * np.ones(model.n_params))[last]) else last


def _add_shift_curvature(H: Any, shift: slice) -> MatrixOperator:
    """Return H as a matrix with curvature added along the direction that shifts all biases of the
    last layer. H and the derivatives of the rows' losses are 0 along this direction, so the added
    curvature changes no prediction.
    """
    A = H.to_dense()
    A[shift, shift] += float(np.diagonal(A)[shift].mean()) or 1.0
    return MatrixOperator(A)


def _output_hessians(second: Floats) -> Floats:
    """Return second derivatives with respect to the outputs, (N, d_out) or (N, d_out, d_out), as
    matrices (N, d_out, d_out).
    """
    return second if second.ndim == 3 else second[:, :, None] * np.eye(second.shape[1])


def _row_losses(ob: Any, z: Floats) -> Floats:
    """Return the loss (N,) of each row at the outputs z (N, d_out), without weights."""
    y = one_hot(ob.y, z.shape[1]) if ob.y.ndim == 1 else np.asarray(ob.y, float)
    with np.errstate(all="ignore"):
        terms = np.asarray(loss_spec(ob.loss).terms(z, y)[0], float)
    return np.asarray(terms.sum(axis=1) / n_terms_per_row(ob))


def _score_of_outputs(ob: Any, z: Floats) -> float:
    """Return the score that belongs to the loss, such as R^2 or the accuracy, of the outputs z (N,
    d_out) over the rows of nonzero weight whose outputs are not NaN. Return NaN without such rows.
    """
    counts = ~np.isnan(z).any(axis=1)
    if ob.sample_weight is not None:
        counts &= ob.sample_weight > 0
    score = loss_spec(ob.loss).score[1]
    return float(score(z[counts], ob.y[counts])) if counts.any() else math.nan


@dataclass(frozen=True, repr=False, eq=False)
class LeftOut(FrozenRecord):
    """Predictions of each row by the network trained without that row, as returned by
    `leave_one_out`.

    Attributes
    ----------
    predictions : ndarray (N, d_out)
        The outputs for each row of the network trained without this row, before any softmax or
        sigmoid. NaN, as are the losses and Cook's distances, for rows without which the network is
        not determined, because they alone determine a parameter (leverage 1). With ``exact=True``
        only if the Hessian at the point reached is singular, too.
    losses : ndarray (N,)
        The loss of each row at its prediction, without its weight.
    score : float
        The score of these predictions, without NaN and rows of weight 0, such as R^2 for regression
        or the accuracy for classification. It applies to the minima near theta. If `in_same_basin`
        is False for more than a hundredth of the rows, refits from scratch may end in other minima
        and predict worse than this score.
    training_score : float
        The score of the outputs at theta.
    score_name : str
        The name of the score.
    hat_matrix_diag : ndarray (N,)
        Leverages, the traces of ``S_i J_i H^-1 J_i' / N``, with S_i the second derivatives of the
        row's loss with respect to its outputs, and J_i the Jacobian of these outputs. The sum of
        the leverages is the effective number of parameters.
    cooks_distance : ndarray (N,)
        ``d' H d``, with d the change of the parameters without the row, times the number of terms
        in the loss (N, or N times the number of targets for means over targets). It is divided by
        the sum of `hat_matrix_diag` and, for squared errors, by twice the variance of the
        residuals. For a linear model without l2 these are the distances that statsmodels returns.
        NaN if every residual is 0 or no row determines a parameter.
    at_minimum, in_same_basin : ndarray (N,) of bool, or None
        Whether the Hessian without the row is positive definite at the point reached, and whether
        the objective without the row is also convex at 9 points of the line from
        theta to that point, so that no barrier was measured. Otherwise the point may be a saddle.
        None unless `exact` is True.
    exact : bool
        True if predictions are those of the points that further steps reach, which `at_minimum`
        describes, False if they are those of one Newton step.
    n_approximate : int
        Number of rows without which H is not positive definite to first order. In
        `output_changes`, the change of the parameters without such a row is estimated with the
        curvature of the row or, if `exact` is True, is that to the point reached from theta.
    rows_without_minimum : ndarray of int
        Indices of rows without which the objective is proved to have no minimum, such as the only
        row of a class whose bias has no penalty. The predictions of these rows are those of a
        finite step towards an infimum at infinity, and their losses are too small.

    See Also
    --------
    leave_one_out : The function that computes these predictions.
    """

    predictions: Floats
    losses: Floats
    score: float
    training_score: float
    score_name: str
    hat_matrix_diag: Floats
    cooks_distance: Floats
    at_minimum: Any
    in_same_basin: Any
    exact: bool
    n_approximate: int
    rows_without_minimum: Any
    _at: FactoredMinimum
    _coefficients: Floats  # coefficients a_i of each row (N, d_out)
    # True for rows without which H is not positive definite (N,)
    _undetermined: Any
    _thetas: Any = None  # parameters without each row (N, n), if `exact` is True

    @with_nearest_rounding
    def output_changes(self, X_new: Any) -> Floats:
        """Return the change of the outputs of new rows if each training row is removed.

        Parameters
        ----------
        X_new : array_like (M, k)
            The new rows.

        Returns
        -------
        ndarray (M, d_out, N)
            The entry ``[j, c, i]`` is the change of output c of new row j if training row i is
            removed.

        Examples
        --------
        >>> import numpy as np, fastcurv as fc
        >>> X, y = np.arange(5.0)[:, None], np.array([0.0, 1.0, 2.0, 3.0, 9.0])
        >>> ob = fc.Objective(fc.MLP([1, 1]), X, y, loss="mse")
        >>> theta = np.array([2.0, -1.0])  # least squares
        >>> fc.leave_one_out(ob, theta).output_changes([[4.0]])[0, 0].round(2)
        array([ 0.5 ,  0.  ,  0.25,  1.14, -3.  ])
        """
        at = self._at
        model = self._at.ob.model
        X = dense_rows(model, X_new)
        z = outputs_of_networks(model, at.theta[None], X)[0]
        found = np.empty((*z.shape, at.ob.n_samples))
        for rows, thetas in self._iter_networks(len(X)):
            found[:, :, rows] = (
                outputs_of_networks(model, thetas, X).transpose(1, 2, 0) - z[:, :, None]
            )
        return found

    def _iter_networks(self, n_new: int) -> Iterator[tuple[slice, Floats]]:
        """Yield pairs of a slice of the training rows and the parameters (rows, n) of the networks
        trained without each of these rows. The blocks are small enough that each network can
        predict `n_new` rows.
        """
        at = self._at
        N = self._at.ob.n_samples
        most = max(1, JACOBIAN_BLOCK_ENTRIES // (max(at.ob.model.sizes) * max(1, n_new)))
        blocks: Any = [(slice(0, N), self._thetas)]
        if self._thetas is None:
            blocks = (
                (rows, at.theta + newton_steps(at, J, self._coefficients[rows]))
                for rows, J in jacobian_blocks(at.ob, at.theta)
            )
        for rows, thetas in blocks:
            for start in range(0, len(thetas), most):
                part = thetas[start : start + most]
                yield slice(rows.start + start, rows.start + start + len(part)), part

    @with_nearest_rounding
    def interval(self, X_new: Any, confidence_level: float = 0.9) -> Interval:
        """Return jackknife+ prediction intervals of new rows.

        Let R_i be the absolute residual of row i for the network trained without this row, and
        mu_i(x) the prediction of x by this network. The lower bound is a quantile of ``mu_i(x) -
        R_i`` over the rows, and the upper bound a quantile of ``mu_i(x) + R_i``, at
        `confidence_level` each [1]_. The interval contains a new target with probability at least
        ``2 confidence_level - 1`` for any distribution of exchangeable rows, and nearly
        `confidence_level` if leaving out a row changes little. The prediction of the network itself
        may lie outside the interval. A row of weight 2 counts twice. If
        the Hessian without a row is not positive definite, the network without this row is not
        determined, and the residual of the row counts as infinite.

        Parameters
        ----------
        X_new : array_like (M, k)
            The new rows.
        confidence_level : float
            A number between 0 and 1.

        Returns
        -------
        Interval
            The arrays `low` and `high`, each (M, number of targets), in units of y. For ``poisson``
            and ``gamma`` they are bounds on the mean, the exponential of the output. They are
            infinite if there are fewer than about ``1 / (1 - confidence_level)`` rows.

        Raises
        ------
        ValueError
            If the loss is a classification loss, or y does not have one column for each target that
            the outputs predict.

        Warns
        -----
        UserWarning
            If the fit has more than half as many effective parameters as there are targets.

        References
        ----------
        .. [1] R. F. Barber, E. J. Candes, A. Ramdas and R. J. Tibshirani, Predictive inference with
               the jackknife+, Annals of Statistics 49, 2021.

        Examples
        --------
        >>> import numpy as np, fastcurv as fc
        >>> rng = np.random.default_rng(0)
        >>> X = rng.standard_normal((60, 1))
        >>> y = np.sin(X[:, 0]) + 0.1 * rng.standard_normal(60)
        >>> ob = fc.Objective(fc.MLP([1, 4, 1], "tanh"), X, y, loss="mse", l2=1e-3)
        >>> run = fc.minimize(ob, ob.model.init(rng=0), rng=0)
        >>> low, high = fc.leave_one_out(ob, run.x).interval([[0.0], [1.0]])
        >>> bool((low[:, 0] < np.sin([0.0, 1.0])).all() and (high[:, 0] > np.sin([0.0, 1.0])).all())
        True
        """
        ob = self._at.ob
        level = check_real_number(confidence_level, "confidence_level")
        if not 0 < level < 1:
            raise ValueError(
                f"confidence_level must be a number between 0 and 1, got {confidence_level!r}."
            )
        given = loss_spec(ob.loss).given
        width = ob.model.sizes[-1] // (given.per_target or 1 if given else 1)
        if loss_spec(ob.loss).targets != "numbers" or ob.y.shape[1:] != (width,):
            raise ValueError(
                f"loss must be a regression loss whose outputs predict the targets for intervals, "
                f"got {ob.loss!r}. For classification, use out.predictions and out.losses."
            )
        self._warn_of_few_targets()
        inverse = np.exp if given is not None and given.exponential else np.asarray
        z = outputs_of_networks(ob.model, self._at.theta[None], dense_rows(ob.model, X_new))[0]
        weight = sample_weights(ob)
        # The exponentials of outputs may be infinite.
        with np.errstate(over="ignore", invalid="ignore"):
            moved = inverse((z[:, :, None] + self.output_changes(X_new))[:, :width])
            own = np.abs(ob.y - inverse(self.predictions[:, :width])).T  # absolute errors
            own[:, self._undetermined] = np.inf  # shape (targets, N)
            below = np.where(np.isinf(own), np.inf, own - moved)
        high = _upper_quantile(moved + own, weight, level)
        low = -_upper_quantile(below, weight, level)
        return Interval(low, high)

    def _warn_of_few_targets(self) -> None:
        """Issue a UserWarning if the fit has more than `MAX_INTERVAL_PARAMS_PER_TARGET` effective
        parameters for each target.
        """
        ob = self._at.ob
        effective = float(self.hat_matrix_diag.sum())
        rows = ob.n_samples if ob.sample_weight is None else np.count_nonzero(ob.sample_weight)
        count = int(rows) * int(ob.model.sizes[-1])
        if effective > MAX_INTERVAL_PARAMS_PER_TARGET * count:
            warn_caller(
                f"The fit has {format_number(effective)} effective parameters for {count} targets, "
                "more than half as many. Intervals then tend to cover too little, or with relu to "
                "be far too wide. Use a stronger penalty, fewer units or more rows.",
                UserWarning,
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of the public attributes, as values that JSON can represent."""
        names = (
            "predictions losses score training_score score_name hat_matrix_diag cooks_distance "
            "at_minimum in_same_basin exact n_approximate rows_without_minimum"
        )
        return {name: to_json_value(getattr(self, name)) for name in names.split()}

    def _facts(self) -> list[tuple[str, str]]:
        """Return the rows of the summary as pairs of strings, ``[(name, value), ...]``."""
        N = len(self.losses)
        n = self._at.ob.n_params
        how = "refits without each row" if self.exact else "one Newton step for each row"
        most = np.argsort(-self.cooks_distance, kind="stable")[:3]
        rows = ", ".join(f"{i} ({format_number(self.cooks_distance[i])})" for i in most)
        facts = [
            (
                self.score_name,
                f"{format_number(self.score)} left out, {format_number(self.training_score)} "
                f"fitted",
            ),
            ("mean loss", f"{format_number(_mean_of_defined(self.losses))} left out, by {how}"),
            ("parameters", f"{format_number(float(self.hat_matrix_diag.sum()))} effective of {n}"),
            ("influential", f"rows {rows} by Cook's distance"),
        ]
        if self.exact:
            count = int(self.in_same_basin.sum())
            facts.append(("same basin", f"{count} of {N} rows, without a measured barrier"))
            lost = int(N - self.at_minimum.sum())
            if lost:
                facts.append(("no minimum", f"reached for {lost} of {N} rows, see at_minimum"))
        n_undefined = int(np.isnan(self.losses).sum())
        if n_undefined:
            text = f"{n_undefined} rows, which alone determine a parameter; not in the score"
            facts.append(("undefined", text))
        if len(self.rows_without_minimum):
            rows = ", ".join(map(str, self.rows_without_minimum[:5]))
            facts.append(("no minimum", f"without row {rows}: its loss is larger than stated"))
        return facts

    def __repr__(self) -> str:
        N = len(self.losses)
        lines = [f"LeftOut: {N} rows, each predicted by the network trained without it"]
        lines += [f"  {name:<11} {text}" for name, text in self._facts()]
        if self.in_same_basin is not None and self.in_same_basin.mean() < 0.99:
            lines.append("  Other rows may move to other minima, and refits may then score worse.")
        return "\n".join(lines)


def _mean_of_defined(losses: Floats) -> float:
    """Return the mean of the entries that are not NaN, or NaN if there are none."""
    defined = losses[~np.isnan(losses)]
    return float(defined.mean()) if len(defined) else math.nan


def _upper_quantile(x: Floats, weight: Floats, level: float) -> Floats:
    """Return the weighted upper quantile along the last axis of x, whose entries have the weights
    `weight` (N,). It is the smallest entry such that all entries up to it have a total weight of at
    least ``level (total + 1)``, or infinity if there is no such entry. The 1 is the weight of the
    new row.
    """
    order = np.argsort(x, axis=-1, kind="stable")
    total = float(weight.sum())
    reached = np.cumsum(weight[order], axis=-1) >= level * (total + 1) - 1e-9 * (total + 1)
    at = reached.argmax(axis=-1)[..., None]
    found = np.take_along_axis(np.take_along_axis(x, order, axis=-1), at, axis=-1)[..., 0]
    return np.where(reached.any(axis=-1), found, np.inf)


@with_nearest_rounding
def leave_one_out(ob: Any, theta: Any, *, exact: bool | None = None, groups: Any = None) -> LeftOut:
    """Predict each row by the network trained without that row, or without its group, from one
    factor of the Hessian at a minimum.

    Parameters
    ----------
    ob : Objective
        An objective whose rows are in memory, dense or sparse, without batch normalisation.
    theta : array_like (n,)
        A minimum at which the Hessian is positive definite, such as `minimize` finds with l2 > 0.
        For an objective in float32, theta is refined in float64.
    exact : bool, optional
        If False, take one Newton step for each row. If True, take further steps towards the minimum
        of the objective without the row, and measure whether it lies in the same basin. By default
        True with `groups`, and False otherwise.
    groups : array_like (N,), optional
        Labels, such as the patient, batch or day of each row. Rows with one label are left out
        together, because rows that depend on each other predict each other too well. Each group
        costs a run of `minimize` from theta.

    Returns
    -------
    LeftOut
        The predictions, with the attributes `predictions`, `losses`, `score`, `hat_matrix_diag`,
        `cooks_distance`, `at_minimum` and `in_same_basin`, and the methods
        ``output_changes(X_new)`` and ``interval(X_new)``.

    Raises
    ------
    ValueError
        If `exact` is False with `groups`: one Newton step is too rough for the removal of many
        rows. If theta is not a minimum (the message has the smallest eigenvalue of the Hessian if
        it is not positive), the network has batch normalisation, the rows are not in memory, or a
        pre-activation lies at a kink of relu, leaky_relu or elu.

    See Also
    --------
    MLPRegressor.predict_interval : Intervals from an estimator.

    Notes
    -----
    The divisor of the objective remains N, so that the strength of l2 relative to a row does not
    change. A row of weight 2 is removed with both copies. The cost is the Hessian, ``n^3 / 3``
    flops for its factor and ``n^2`` flops for each row and output.

    Adding one number to the biases of all classes changes no probability. If these biases have no
    penalty, H is 0 along this direction. The direction is ignored in the test of whether H is
    positive definite.

    The score belongs to minima near theta. Refits from scratch may end in other minima and then
    predict worse than the score. Wrong labels are not found better by the losses of left-out rows
    than by training losses.

    With `exact`, a search without a row or group may end at a saddle instead of a minimum.
    `at_minimum` says so for each row, and its repr counts these rows.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> X, y = np.arange(5.0)[:, None], np.array([0.0, 1.0, 2.0, 3.0, 9.0])
    >>> ob = fc.Objective(fc.MLP([1, 1]), X, y, loss="mse")
    >>> out = fc.leave_one_out(ob, np.array([2.0, -1.0]))  # least squares
    >>> out.predictions[:, 0].round(2), out.hat_matrix_diag.round(2)
    (array([-2.5 ,  1.  ,  3.25,  5.86,  4.  ]), array([0.6, 0.3, 0.2, 0.3, 0.6]))
    """
    exact = groups is not None if exact is None else check_bool(exact, "exact")
    if exact and isinstance(ob, Objective) and is_sparse(ob.X):
        # The searches without rows need dense rows.
        settings = ob.loss, ob.l2, ob.sample_weight, ob.n_threads, ob.memory
        X = dense_rows(ob.model, ob.X)
        ob = Objective(ob.model, X, ob.y, *settings, l2_biases=ob.l2_biases)
    at = _factored_minimum(ob, theta, "leave_one_out")
    if groups is None:
        return _leave_one_out_at_minimum(at, exact)
    if not exact:
        raise ValueError(
            "exact must be True with groups, got False. One Newton step is too rough for the "
            "removal of a whole group: it can predict worse than the mean where refits predict "
            "well."
        )
    return _leave_one_out_at_minimum(at, exact, _group_codes(at.ob, groups))


def _group_codes(ob: Any, groups: Any) -> Any:
    """Return the number (N,) of each row's group, for labels of any type that can be sorted."""
    labels = np.asarray(groups)
    if labels.shape != (ob.n_samples,):
        raise ValueError(
            f"groups must have one label for each of the {ob.n_samples} rows, got an array of "
            f"shape {labels.shape}."
        )
    names, codes = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ValueError("groups must have at least two labels, got one for all rows.")
    return codes


def minimum_after_fit(ob: Any, theta: Any) -> Floats:
    """Return the minimum (n,), in float64, that `minimize` reaches from theta, the end of a fit. If
    an activation has kinks, return theta, because the gradient need not vanish at a minimum.
    """
    start: Floats = np.asarray(theta, float)
    if has_kinks(ob.model):
        return start
    options: Any = {"max_iter": MAX_STEPS_AFTER_FIT, "verdict": False, "progress": False}
    run: Any = raise_if_interrupted(minimize(cast_to_float64(ob), start, rng=0, **options))
    return np.asarray(run.x)


def leave_one_out_of_fit(ob: Any, theta: Any) -> LeftOut:
    """Return the `LeftOut` of a fit that ended at theta. If all activations are smooth, it is
    computed at the minimum that `minimize` reaches from theta. If the Hessian is not positive
    definite at this minimum, or an activation has kinks, the Gauss-Newton matrix replaces the
    Hessian. Raise ValueError if this matrix is not positive definite either.
    """
    ob, theta = cast_to_float64(ob), minimum_after_fit(ob, theta)
    if not has_kinks(ob.model):
        with suppress(ValueError):
            return _leave_one_out_at_minimum(
                _factored_minimum(ob, theta, "predict_interval"), False
            )
    try:
        # The biases of units that are active on the same rows, or on no rows, are linearly
        # dependent, so biases without decay get the decay of the weights.
        A = ob.ggn(theta).to_dense()
        A[np.diag_indices(len(A))] += ob.l2 - l2_diagonal(ob)
        return _leave_one_out_at_minimum(
            FactoredMinimum(ob, theta, CholeskyFactor(MatrixOperator(A))), False
        )
    except ValueError as error:
        raise ValueError(
            "predict_interval requires a fit with a positive definite Hessian or Gauss-Newton "
            f"matrix. Use activation='tanh' and a larger alpha. {error}"
        ) from None


def _leave_one_out_at_minimum(at: FactoredMinimum, exact: bool, groups: Any = None) -> LeftOut:
    """Return the `LeftOut` at a minimum, from the Cholesky factor of the curvature at this minimum.
    `exact` is the option of `leave_one_out`, and `groups` (N,) the number of each row's group.
    """
    ob = at.ob
    model = ob.model
    N = ob.n_samples
    d = ob.model.sizes[-1]
    z, first, second = ob.outputs(at.theta)
    S = _output_hessians(second)
    hat = np.empty(N)
    squares = np.empty(N)
    a = np.empty((N, d))
    alone = np.zeros(N, bool)
    predictions = np.empty((N, d))
    starts = np.tile(at.theta, (N if exact else 1, 1))
    inverse = at.factor.inverse_lower
    with serial_blas_context():
        for rows, J in jacobian_blocks(ob, at.theta):
            flat = J.reshape(-1, J.shape[2])
            Y = multiply_by_lower_triangular(flat, inverse, True).reshape(J.shape)
            M = Y @ Y.transpose(0, 2, 1)
            removed = S[rows] @ M / N
            hat[rows] = np.trace(removed, axis1=1, axis2=2)
            remainder = np.eye(d) - removed
            alone[rows] = ~_is_definite_without_row(removed)
            remainder[alone[rows]] = np.eye(d)
            a[rows] = np.linalg.solve(remainder, first[rows][:, :, None])[:, :, 0] / N
            squares[rows] = np.einsum("ni,nij,nj->n", a[rows], M, a[rows])  # d' H d
            if groups is None:
                X = dense_rows(ob.model, ob.X[rows])
                steps = np.einsum("nd,ndp->np", a[rows], Y)
                moved = at.theta + multiply_by_lower_triangular(steps, inverse)
                predictions[rows] = outputs_of_networks(ob.model, moved, X[:, None])[:, 0]
                starts[rows] = moved if exact else 0.0
    thetas: Any = None
    minimum: Any = None
    basin: Any = None
    undetermined = alone.copy()
    unbounded = _rows_without_minimum(ob, at.theta, z)
    if exact:
        alone = alone if groups is None else np.zeros(N, bool)
        thetas, minimum, basin, singular = _refits(at, starts, groups)
        if groups is not None:
            with serial_blas_context():
                squares = np.sum(((thetas - at.theta) @ at.factor.lower) ** 2, axis=1)
        minimum[unbounded] = basin[unbounded] = False
        undetermined = singular if groups is not None else alone & ~minimum
        predictions = outputs_of_networks(model, thetas, dense_rows(model, ob.X)[:, None])[:, 0]
    cooks = _cooks_distances(ob, z, hat, squares)
    predictions[undetermined] = cooks[undetermined] = math.nan
    undetermined[unbounded] = True
    return LeftOut(
        predictions=predictions,
        losses=_row_losses(ob, predictions),
        score=_score_of_outputs(ob, predictions),
        training_score=_score_of_outputs(ob, z),
        score_name=loss_spec(ob.loss).score[0],
        hat_matrix_diag=hat,
        cooks_distance=cooks,
        at_minimum=minimum,
        in_same_basin=basin,
        exact=exact,
        n_approximate=int(alone.sum()),
        rows_without_minimum=unbounded,
        _at=at,
        _coefficients=a,
        _undetermined=undetermined,
        _thetas=thetas,
    )


def _refits(at: FactoredMinimum, starts: Floats, groups: Any) -> tuple[Floats, Any, Any, Any]:
    """Return the points (N, n) that Newton steps reach from `starts` (N, n) without each row, or
    without the rows of the same number in `groups` (N,), and three masks (N,): of the points with a
    positive definite Hessian, of those among them without a barrier on the line from theta, and of
    those with a singular Hessian.
    """
    ob = at.ob
    labels = np.arange(ob.n_samples) if groups is None else groups
    weight = sample_weights(ob)
    thetas = np.tile(at.theta, (len(labels), 1))
    minimum, basin, singular = np.zeros((3, len(labels)), bool)
    shift = _unpenalised_shift(ob)
    for label in range(labels.max() + 1):
        rows = labels == label
        if groups is not None and not np.any(weight[~rows]):
            raise ValueError("groups must leave rows of positive weight when one is left out.")
        without = objective_without_rows(ob, rows)
        end = at.theta
        if weight[rows].any():
            end = minimum_by_newton(without, starts[np.argmax(rows)])
        H = without.hessian(end)
        values = eigvalsh((H if shift is None else _add_shift_curvature(H, shift)).to_dense())
        sizes = np.abs(values)
        thetas[rows] = end
        minimum[rows] = values[0] > MIN_REMAINING_EIGENVALUE * sizes.max()
        basin[rows] = minimum[rows] & is_convex_on_line(without, at.theta, end)
        singular[rows] = not sizes.min() > MIN_REMAINING_EIGENVALUE * sizes.max()
    return thetas, minimum, basin, singular


def _rows_without_minimum(ob: Any, theta: Floats, z: Floats) -> Any:
    """Return the indices of the rows without which the objective is proved to have no minimum, and
    issue a UserWarning if there are any.

    Candidates exist for classification losses and losses of counts: the only row with a target
    above 0, or below 1, at some output, and the only row that is misclassified at theta. z (N,
    d_out) holds the outputs.
    """
    loss = loss_spec(ob.loss)
    up, down = loss.pulls(ob.y, z.shape[1])
    if not (np.any(up) or np.any(down)):
        return np.zeros(0, int)
    counts = sample_weights(ob) > 0
    y = one_hot(ob.y, z.shape[1]).reshape(z.shape)
    masks = [*(y > 0).T, *(y < 1).T]
    if loss.targets == "classes":
        masks.append(z.argmax(axis=1) != y.argmax(axis=1))
    elif loss.targets == "labels":
        masks.append(((z > 0) != (y > 0.5)).any(axis=1))
    alone = [np.flatnonzero(mask & counts) for mask in masks]
    candidates = np.unique([rows[0] for rows in alone if len(rows) == 1]).astype(int)
    found = list[int]()
    reason = ""
    for i in candidates.tolist():
        why = call_certificate(objective_without_rows(ob, i), "why_no_minimum", theta, default=None)
        if why is not None:
            found.append(i)
            reason = reason or why
    if found:
        rows = f"row {found[0]}" + f" and {len(found) - 1} more rows" * (len(found) > 1)
        warn_caller(
            f"The objective has no minimum without {rows}: {reason.partition(';')[0]}. The "
            "prediction of the row is that of a finite step, and its loss is too small. Use l2 on "
            "all parameters.",
            UserWarning,
        )
    return np.array(found, int)


def _is_definite_without_row(removed: Floats) -> Any:
    """Return a mask (rows,) of the rows for which all eigenvalues of ``I - removed`` are above
    `MIN_REMAINING_EIGENVALUE`, for `removed` (rows, d_out, d_out). These are the eigenvalues of the
    Hessian without the row, relative to the Hessian.
    """
    # If the Frobenius norm of `removed` is below 1, all its eigenvalues are below 1.
    above = np.linalg.norm(removed, axis=(1, 2)) < 1 - MIN_REMAINING_EIGENVALUE
    if not above.all():
        remainder = np.eye(removed.shape[1]) - removed[~above]
        least = np.linalg.eigvals(remainder).real.min(axis=1)
        above[~above] = least > MIN_REMAINING_EIGENVALUE
    return above


def _cooks_distances(ob: Any, z: Floats, hat: Floats, squares: Floats) -> Floats:
    """Return Cook's distances (N,), from the outputs z (N, d_out), the leverages `hat` (N,) and the
    values (N,) of ``d' H d`` in `squares`.
    """
    count = ob.n_samples * n_terms_per_row(ob)
    effective = float(hat.sum())
    scale = effective
    if loss_spec(ob.loss).link == "identity":
        weight = sample_weights(ob)
        left = float(np.sum(weight > 0)) * z.shape[1] - effective
        squared = float((weight[:, None] * (z - ob.y) ** 2).sum())
        scale *= 2 * squared / left if left > 0 else math.nan
    with np.errstate(all="ignore"):
        return np.asarray(squares * np.divide(count, scale))
