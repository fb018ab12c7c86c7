"""The Laplace approximation: a Gaussian over the parameters around a fitted network, with standard
deviations of its outputs, and the evidence by which penalties and networks are compared.

The data term of an objective L is a negative log likelihood up to a factor, and l2 is a Gaussian
prior. Let N be the number of samples, by which L divides the weighted sum of the losses, c the sum
of the weights, t the number of terms of a sample (the number of targets for losses that are means
over targets, else 1) and T = N t. The negative log posterior is

    T L(theta) + constant,          and for ``mse``  T L(theta) / (2 s^2) + constant,

where s is the standard deviation of the noise, the same for all outputs. So the prior precision is
``tau = T l2``, or ``T l2 / (2 s^2)`` for ``mse``, on parameters with a penalty. Parameters without
a penalty have a flat prior of precision 0. The precision of the posterior is T times (``T / (2
s^2)`` times) the matrix M of the objective, its Gauss-Newton matrix or its Hessian.

Let p denote the parameters with a penalty and f the others, which are eliminated first. With
``M_ff^+ = R R'`` and ``B = R' M_fp``,

    S = M_pp - B'B = L L',          M^-1 = C C',          C = [L^-T, 0; -R B L^-T, R].

The eigenvalues of S are at least l2. Directions of f that change no output on any sample have no
curvature and no prior. Examples are the bias of a unit without weights, or of a unit that is
saturated on all samples. R leaves out these directions, so they are held at theta.

By MacKay (Bayesian interpolation, 1992), the samples determine ``gamma = k - l2 tr S^-1`` of the k
parameters that have a penalty. The noise is ``s^2 = SSE / (c d_out - gamma - rank R)``, and the
fixed point of the evidence is ``tau = gamma / ||theta_p||^2``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import expit, gammaln, ndtr, ndtri, softmax, xlogy

from ...common.checks import (
    as_rng,
    check_bool,
    check_choice,
    check_positive,
    check_positive_int,
    check_theta,
)
from ...common.errors import warn_caller
from ...common.linalg import NotConvexError, cholesky, eigh, eigvalsh
from ...common.objectives import cast_to_float64, sample_weights
from ...common.protocols import Floats
from ...common.read_only import FrozenRecord
from ...common.runtime import serial_blas_context, with_nearest_rounding
from ...network.factor import NotPositiveDefiniteError
from ...network.mlp import MLP
from ...network.objective import Objective
from ...spectrum.results import format_number, to_json_value
from ...structure.parameters import (
    has_kinks,
    l2_diagonal,
    n_terms_per_row,
)
from ...structure.tables import activation_spec, loss_spec
from .requirements import check_no_batch_norm, check_rows_in_memory, dense_rows

# minimum ratio of samples to parameters; with fewer samples, intervals were found to cover too
# little
MIN_ROWS_PER_PARAMETER = 2.0
# Maximum number x of effective parameters per target at which the noise of a network with hidden
# layers is considered known. If the fit uses twice as many degrees of freedom as the linearised
# network has, new errors have the variance (1 + 2 x) s^2, while the interval assumes the variance
# (1 + x) (1 - 2 x) / (1 - x) s^2. At x = 0.2, intervals of 95% then cover 88%.
MAX_POSTERIOR_PARAMS_PER_TARGET = 0.2
# maximum number of entries in a block of the Jacobian of new samples
PREDICTION_JACOBIAN_BLOCK_ENTRIES = 1 << 22
# maximum number of entries of a Jacobian (128 kB) that is computed by one thread, in less time than
# counting the CPUs takes
ONE_THREAD_MAX_ENTRIES = 1 << 14
# Eigenvalues of a matrix (n, n) with unit diagonal count as 0 up to n times this number, which is
# about the square root of the rounding error.
ZERO_EIGENVALUE_TOL = 1.5e-8
# Maximum posterior standard deviation of a bias without penalty, in units of the pre-activation. A
# bias with a larger one belongs to a saturated unit and is held at theta, because the Gaussian
# would extend far beyond the interval (about 1 for tanh) in which the output is linear in the bias.
MAX_BIAS_STD = 1e4
# fraction of new rows, from the distribution of the known ones, that lie inside the domain of a fit
DOMAIN_QUANTILE = 0.95
# losses whose second derivatives with respect to the outputs do not depend on the target
LOSSES_OF_KNOWN_INFORMATION = ("mse", "cross_entropy", "binary_cross_entropy", "poisson")
N_QMC_POINTS = 1024  # number of low-discrepancy points for the mean of a softmax
# maximum ratio of the penalty to the data term at which their sum determines the data term
MAX_PENALTY_RATIO = 1e6
# minimum degrees of freedom, as a fraction of the number of targets; smaller differences are
# rounding errors
MIN_DEGREES_OF_FREEDOM_RATIO = 1e-8
# minimum standard deviation of the noise, so that its square and quotients by it do not underflow
# or overflow
MIN_NOISE_STD = 1e-140
# maximum leverage with which the residual of a row left out is estimated
MAX_LEVERAGE = 0.999
# maximum decrement of the log posterior at which theta is at most one standard deviation from the
# mode
MAX_NEWTON_DECREMENT = 0.5

# Losses that are negative log likelihoods up to a function of y. Each value is this function, whose
# value must be added to the loss of each entry of y.
_MISSING_LOG_TERMS: dict[str, Any] = {
    "mse": lambda y: 0 * y,
    "cross_entropy": lambda y: 0 * y,
    "binary_cross_entropy": lambda y: 0 * y,
    "poisson": lambda y: gammaln(y + 1) - xlogy(y, y) + y,
    "gamma": lambda y: np.log(y) + 1,
    "gaussian_nll": lambda y: 0 * y + 0.5 * math.log(2 * math.pi),
}


class ExactFitError(ValueError):
    """Error raised if the network fits the rows so well that the noise cannot be estimated."""


@dataclass(frozen=True, repr=False, eq=False)
class LaplacePosterior(FrozenRecord):
    """A Gaussian over the parameters of a network, as returned by `laplace`.

    Attributes
    ----------
    theta : ndarray (n,)
        The mean of the Gaussian.
    log_evidence : float
        The logarithm of the marginal likelihood of the targets. Parameters with a flat prior are
        integrated with a prior density of 1. Only compare evidences of networks with the same
        number of such parameters, on the same samples.
    n_effective : float
        The number of parameters that the samples determine: MacKay's gamma for the parameters with
        a penalty, plus the number of the others that are determined. If `curvature` is "hessian",
        it is the sum of the leverages of `leave_one_out`.
    noise_std : float or None
        The standard deviation s of the noise for ``mse``, or None for other losses.
    prior_precision : float
        The precision of the Gaussian prior of parameters with a penalty.
    next_l2 : float
        The penalty that MacKay's fixed-point equation gives at this theta. Training with `next_l2`
        and repeating the computation leads to a maximum of the evidence. NaN without a penalty, or
        if the samples determine no parameter that has a penalty.
    n_undetermined : int
        The number of directions, among parameters without a penalty, that change no output on any
        sample, including biases of saturated units. The posterior has no variance along these
        directions.
    rows_per_parameter : float
        The number of samples divided by n. If it is below 2, intervals tend to cover too little.
    decrement : float
        The increase of the log posterior that a Newton step is predicted to give. It is 0 at a
        stationary point.
    curvature : str
        The matrix used: "ggn" or "hessian".
    objective : Objective
        The objective in float64.
    covariance_root : ndarray (n, rank)
        A root of the covariance: ``covariance = covariance_root @ covariance_root.T``.
    """

    theta: np.ndarray
    log_evidence: float
    n_effective: float
    noise_std: float | None
    prior_precision: float
    next_l2: float
    n_undetermined: int
    rows_per_parameter: float
    decrement: float
    curvature: str
    objective: Objective
    covariance_root: np.ndarray

    @property
    def covariance(self) -> Floats:
        """The covariance (n, n) of the parameters."""
        return np.asarray(self.covariance_root @ self.covariance_root.T)

    @with_nearest_rounding
    def std(self, X: Any, *, observations: bool = False) -> Floats:
        """Return the standard deviation of each output.

        Parameters
        ----------
        X : array_like (N, sizes[0])
            The samples.
        observations : bool
            If True, include the noise, so that the result is the standard deviation of a new
            observation and not of the network's output. Only for ``mse``.

        Returns
        -------
        ndarray (N,) for one output, or (N, d_out)
            The standard deviations.

        Raises
        ------
        ValueError
            If `observations` is True and the loss is not ``mse``.

        Examples
        --------
        >>> import numpy as np, fastcurv as fc
        >>> X = np.array([[1.0], [2.0], [3.0], [4.0]])
        >>> ob = fc.Objective(fc.MLP([1, 1]), X, [1.0, 2.0, 2.0, 3.0], loss="mse")
        >>> post = fc.laplace(ob, fc.minimize(ob, rng=0).x, noise_std=1.0)
        >>> bool(np.allclose(post.std([[2.5], [7.5]]), [1 / 2, (1 / 4 + 5**2 / 5) ** 0.5]))
        True
        """
        if check_bool(observations, "observations") and self.noise_std is None:
            raise ValueError(
                f"observations must be False for loss={self.objective.loss!r}, got True. Only "
                "'mse' has noise with one standard deviation."
            )
        found = output_std(self.objective.model, self.theta, self.covariance_root, X)
        if observations:
            found = np.hypot(found, float(self.noise_std or 0.0))
        return np.asarray(found[:, 0] if found.shape[1] == 1 else found)

    @with_nearest_rounding
    def predict_proba(self, X: Any) -> Floats:
        """Return the predicted probability of each class or label for each row of X, averaged over
        the posterior of the outputs.

        The outputs are Gaussian to first order. The mean of a sigmoid is computed by quadrature
        (absolute error below 1e-11), and the mean of a softmax from 1024 fixed points (error about
        1e-3 up to a standard deviation of 1, and up to 0.02 for larger ones).

        Parameters
        ----------
        X : array_like (N, sizes[0])
            The samples.

        Returns
        -------
        ndarray (N, n_classes), or (N, d_out) for several binary outputs
            The probabilities. A single binary output gives two columns, one for each class.

        Raises
        ------
        ValueError
            If the loss is neither ``cross_entropy`` nor ``binary_cross_entropy``.
        """
        link = loss_spec(self.objective.loss).link
        if link not in ("sigmoid", "softmax"):
            raise ValueError(
                f"loss must be 'cross_entropy' or 'binary_cross_entropy' for predict_proba, got "
                f"{self.objective.loss!r}. For regression, use std(X)."
            )
        mean = _mean_sigmoid if link == "sigmoid" else _mean_softmax
        model = self.objective.model
        blocks = output_covariance_roots(model, self.theta, self.covariance_root, X)
        return np.concatenate(
            [mean(model.predict(self.theta, rows), part) for rows, part in blocks]
        )

    @with_nearest_rounding
    def leverage(self, X: Any) -> Floats:
        """Return the leverage of each row: the variance of its outputs, in units of the variance of
        one new target there.

        The leverages of the rows of the fit add up to the number of parameters that they determine.
        A large leverage says that the known rows say little about the row: its prediction is an
        extrapolation of the network.

        Parameters
        ----------
        X : array_like (N, sizes[0])
            The rows.

        Returns
        -------
        ndarray (N,)
            The leverages, for a linear network without penalty the diagonal of the hat matrix.

        Raises
        ------
        ValueError
            If the information of a target depends on its value. It does not for ``mse``,
            ``cross_entropy``, ``binary_cross_entropy`` and ``poisson``.

        Examples
        --------
        >>> import numpy as np, fastcurv as fc
        >>> X = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])
        >>> ob = fc.Objective(fc.MLP([1, 1]), X, [0.0, 1.0, 2.0, 3.0, 9.0], loss="mse")
        >>> fc.laplace(ob, [2.0, -1.0], noise_std=1.0).leverage(X).round(2)
        array([0.6, 0.3, 0.2, 0.3, 0.6])
        """
        return leverages(self.information_roots(X))

    def information_roots(self, X: Any) -> Iterator[Floats]:
        """Yield ``W^(1/2) J C`` (rows, d_out, rank) by blocks of rows of X (N, k), where J is the
        Jacobian of the outputs, C is `covariance_root`, and W is the information of a new target.
        """
        ob = self.objective
        return information_roots(
            ob.model, ob.loss, self.theta, self.covariance_root, self.noise_std, X
        )

    @property
    def leverage_limit(self) -> float:
        """The leverage above which a row is outside the domain of the fit: 95% of new rows from the
        distribution of the known ones lie below.

        It is the quantile of the leverages that each known row would have without itself. These
        come from the linearised network, without refits, so 95% is nominal.
        """
        leverages = np.sort(self.left_out_leverages()[sample_weights(self.objective) > 0])
        rank = math.ceil(DOMAIN_QUANTILE * (len(leverages) + 1))
        return float(leverages[min(rank, len(leverages)) - 1])

    def left_out_leverages(self) -> Floats:
        """Return the leverage (N,) that each row of the fit would have without itself, by the
        linearised network.
        """
        roots = np.concatenate(list(self.information_roots(self.objective.X)))
        # eigenvalues (N, d_out) of the leverages by outputs, which are below 1 / weight
        values = np.linalg.eigvalsh(roots @ roots.transpose(0, 2, 1))
        remainder = 1 - sample_weights(self.objective)[:, None] * values
        with np.errstate(all="ignore"):
            without = np.where(remainder > ZERO_EIGENVALUE_TOL, values / remainder, np.inf)
        return np.asarray(without.sum(axis=1))

    def in_domain(self, X: Any) -> Any:
        """Return a mask (N,): True for rows of X (N, sizes[0]) inside the domain of the fit, whose
        leverage is at most `leverage_limit`.

        A row outside is an extrapolation, and its error can be many times that of the others. The
        converse is not certain: leverages do not see a gap between known rows that a smooth network
        bridges, nor a law that has changed since.
        """
        return np.asarray(self.leverage(X) <= self.leverage_limit)

    @property
    def standard_errors(self) -> Floats:
        """The standard deviation (n,) of each parameter."""
        return np.asarray(
            np.sqrt(np.einsum("ij,ij->i", self.covariance_root, self.covariance_root))
        )

    @property
    def dispersion(self) -> float:
        """The dispersion of the targets: for ``gamma`` the sum of the squared relative residuals
        over the degrees of freedom, as R and statsmodels estimate it, and 1 for other losses. The
        posterior takes 1. Multiply `std` and `standard_errors` by the square root of the dispersion
        to include it. NaN without degrees of freedom.
        """
        ob = self.objective
        if ob.loss != "gamma":
            return 1.0
        weight = sample_weights(self.objective)
        residuals = ob.y * np.exp(-ob.model.predict(self.theta, ob.X)) - 1
        left = weight.sum() * n_terms_per_row(ob) - self.n_effective
        return float(weight @ (residuals**2).sum(axis=1) / left) if left > 0 else math.nan

    def sample(self, k: int = 1, rng: Any = 0) -> Floats:
        """Draw parameters from the posterior.

        Parameters
        ----------
        k : int
            The number of draws.
        rng : None, int or numpy.random.Generator
            The random numbers of the draws.

        Returns
        -------
        ndarray (k, n)
            The draws as rows.
        """
        k = check_positive_int(k, "k")
        generator = as_rng(rng)
        draws = generator.standard_normal((k, self.covariance_root.shape[1]))
        return np.asarray(self.theta + draws @ self.covariance_root.T)

    def facts(self) -> list[tuple[str, str]]:
        """Return the rows of the summary as pairs of strings, ``[(name, value), ...]``."""
        ob = self.objective
        n = len(self.theta)
        flat = n - int(np.count_nonzero(l2_diagonal(ob) * np.ones(n)))
        left = f", without the prior of {flat} parameters that have no penalty" * (flat > 0)
        rows = [
            ("evidence", f"{self.log_evidence:.6g}{left}"),
            ("parameters", f"{self.n_effective:.4g} effective of {n}"),
            (
                "prior",
                f"precision {format_number(self.prior_precision)}, l2 = {format_number(ob.l2)}",
            ),
            ("rows", f"{format_number(self.rows_per_parameter)} for each parameter"),
        ]
        if self.noise_std is not None:
            rows.insert(2, ("noise", f"standard deviation {format_number(self.noise_std)}"))
        if self.objective.loss == "gamma":
            rows.insert(2, ("dispersion", f"1, estimated {format_number(self.dispersion)}"))
        if self.rows_per_parameter < MIN_ROWS_PER_PARAMETER:
            rows.append(("caution", "with fewer than 2, intervals tend to cover too little"))
        if self.n_undetermined:
            count = self.n_undetermined
            held = f"{count} directions change no output on any row, and are held at theta"
            rows.append(("undetermined", held))
        if not self.decrement <= MAX_NEWTON_DECREMENT:
            gain = f"a Newton step would raise the log posterior by {format_number(self.decrement)}"
            rows.append(("caution", f"{gain}; train on to a minimum"))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of all attributes except `objective` and `covariance_root`, as values that
        JSON can represent.
        """
        names = (
            "theta log_evidence n_effective noise_std prior_precision next_l2 n_undetermined "
            "rows_per_parameter decrement curvature"
        )
        return {name: to_json_value(getattr(self, name)) for name in names.split()}

    def __repr__(self) -> str:
        matrix = {"ggn": "Gauss-Newton matrix", "hessian": "Hessian"}[self.curvature]
        title = f"LaplacePosterior: n = {len(self.theta)}, {self.objective.loss}, by the {matrix}"
        return "\n".join([title, *(f"  {name:<12} {value}" for name, value in self.facts())])


def output_covariance_roots(
    model: MLP, theta: Any, root: Any, X: Any
) -> Iterator[tuple[Any, Floats]]:
    """Yield pairs of a block of rows of X (N, k) and the products J C (rows, d_out, rank). J is the
    Jacobian of the outputs of these rows, and C, passed as `root` (n, rank), is a root of the
    covariance of the parameters.
    """
    X = dense_rows(model, X)
    d = model.sizes[-1]
    step = max(1, PREDICTION_JACOBIAN_BLOCK_ENTRIES // (d * model.n_params))
    for start in range(0, len(X), step):
        rows = X[start : start + step]
        y = np.zeros((len(rows), d), model.dtype)
        threads = 1 if y.size * model.n_params <= ONE_THREAD_MAX_ENTRIES else None
        J = Objective(model, rows, y, "mse", n_threads=threads).jacobian(theta).to_dense()
        J = J.astype(np.float64, copy=False).reshape(len(rows), d, -1)
        with serial_blas_context():
            part = np.matmul(J, root)
        yield rows, part


def information_roots(
    model: MLP, loss: Any, theta: Any, root: Any, noise_std: float | None, X: Any
) -> Iterator[Floats]:
    """Yield ``W^(1/2) J C`` (rows, d_out, rank) by blocks of rows of X (N, k). J is the Jacobian of
    the outputs, C, passed as `root` (n, rank), a root of the covariance of the parameters, and W
    the second derivative of the negative log likelihood of a row with respect to its outputs.
    """
    if loss not in LOSSES_OF_KNOWN_INFORMATION:
        raise ValueError(
            f"loss must be one of {', '.join(LOSSES_OF_KNOWN_INFORMATION)} for leverages, got "
            f"{str(loss)!r}. With other losses the information of a target depends on its value."
        )
    for rows, spread in output_covariance_roots(model, theta, root, X):
        z = model.predict(theta, rows).astype(float)
        if loss == "mse":
            yield spread / float(noise_std or 1.0)
        elif loss == "cross_entropy":
            # With s = p^(1/2), diag(p) - p p' = S S' for S = diag(s) - p s'.
            p = softmax(z, axis=1)
            s = np.sqrt(p)
            S = s[:, :, None] * np.eye(p.shape[1]) - p[:, :, None] * s[:, None, :]
            yield S.transpose(0, 2, 1) @ spread
        elif loss == "binary_cross_entropy":
            yield np.sqrt(expit(z) * expit(-z))[:, :, None] * spread
        else:
            yield np.exp(0.5 * z)[:, :, None] * spread


def leverages(information: Iterator[Floats]) -> Floats:
    """Return the leverages (N,) of rows from their `information_roots`."""
    return np.concatenate([np.einsum("ijk,ijk->i", root, root) for root in information])


def output_std(model: MLP, theta: Any, root: Any, X: Any) -> Floats:
    """Return the standard deviations (N, d_out) of the outputs for the rows of X (N, k), given a
    root (n, rank) of the covariance of the parameters.
    """
    blocks = output_covariance_roots(model, theta, root, X)
    squares = np.concatenate([np.einsum("ijk,ijk->ij", part, part) for _, part in blocks])
    return np.asarray(np.sqrt(squares))


def _mean_sigmoid(z: Floats, root: Floats) -> Floats:
    """Return the mean of a sigmoid of Gaussian outputs with means z (N, d_out) and covariance roots
    (N, d_out, rank). The result has shape (N, d_out) or, for one output, (N, 2) with the
    probabilities of both classes.
    """
    spread = np.sqrt(np.einsum("ijk,ijk->ij", root, root))
    # The mean is the probability that the output exceeds a number with a logistic distribution. It
    # is an integral over the output or, for wide Gaussians, over that number. Trapezoidal rules of
    # both have errors of 1e-12, because the integrands are analytic in a strip.
    p = np.zeros(spread.shape)
    narrow = spread <= 1
    for x in np.arange(-8.4, 8.5, 0.4):
        p[narrow] += 0.4 * np.exp(-0.5 * x * x) * expit(z[narrow] + spread[narrow] * x)
    p[narrow] /= math.sqrt(2 * math.pi)
    for u in np.arange(-36, 36.5, 0.6):
        density = expit(u) * expit(-u)
        p[~narrow] += 0.6 * density * ndtr((z[~narrow] - u) / spread[~narrow])
    return np.concatenate([1 - p, p], axis=1) if p.shape[1] == 1 else p


def _mean_softmax(z: Floats, root: Floats) -> Floats:
    """Return the mean (N, d_out) of a softmax of Gaussian outputs with means z (N, d_out) and
    covariance roots (N, d_out, rank). It is computed over the points of an additive recurrence
    (Kronecker) sequence and their negatives.
    """
    N, d, _ = root.shape
    rates = np.sqrt([p for p in range(2, 12 * d + 12) if all(p % k for k in range(2, p))][:d])
    points = ndtri((np.arange(1, N_QMC_POINTS // 2 + 1)[:, None] * rates + 0.5) % 1)
    points = np.concatenate([points, -points])
    probabilities = np.empty((N, d))
    for i, R in enumerate(root):
        values, vectors = np.linalg.eigh(R @ R.T)
        covariance_root = vectors * np.sqrt(np.maximum(values, 0))
        probabilities[i] = softmax(z[i] + points @ covariance_root.T, axis=1).mean(axis=0)
    return probabilities


@with_nearest_rounding
def laplace(
    ob: Objective,
    theta: Any,
    curvature: Literal["ggn", "hessian"] = "ggn",
    noise_std: float | None = None,
) -> LaplacePosterior:
    """Approximate the posterior of a network's parameters by a Gaussian around theta.

    Parameters
    ----------
    ob : Objective
        The objective. Its loss must be a negative log likelihood: ``mse``, ``cross_entropy``,
        ``binary_cross_entropy``, ``poisson``, ``gamma``, ``gaussian_nll`` or a user-defined `Loss`,
        which is assumed to be one. Its l2 is a Gaussian prior, and parameters without a penalty
        have a flat prior. A sample whose `sample_weight` is w counts as w samples. The dispersion
        of ``poisson`` and ``gamma`` is taken as 1 (for ``gamma``, exponentially distributed
        targets); `dispersion` estimates that of ``gamma``.
    theta : array_like (n,)
        A minimum of the objective, or a point near a minimum.
    curvature : {"ggn", "hessian"}
        The Gauss-Newton matrix, which is positive semidefinite everywhere and suits relu networks,
        or the Hessian, which must be positive definite at theta. ``gaussian_nll`` needs the
        Hessian, because the second derivatives of this loss are negative on some samples.
    noise_std : float, optional
        The standard deviation of the noise, only for ``mse``. By default it is estimated from the
        residuals, with degrees of freedom reduced by `n_effective`.

    Returns
    -------
    LaplacePosterior
        The Gaussian, with the attributes `log_evidence` and `n_effective` and the methods
        ``std(X)``, ``sample(k)`` and ``predict_proba(X)``.

    Raises
    ------
    ValueError
        If the matrix is not positive definite (the message has its smallest eigenvalue), kinks are
        active at theta and `curvature` is "hessian", the loss is not a negative log likelihood, or
        the noise cannot be estimated because the network fits the samples exactly.

    Warns
    -----
    UserWarning
        If there are fewer than two samples for each parameter, or, for ``mse`` with estimated noise
        and hidden layers, more than 0.2 effective parameters for each target.

    See Also
    --------
    MLPRegressor : Has ``alpha="evidence"`` and ``predict(X, return_std=True)``.

    Notes
    -----
    The cost is the matrix and ``n^3`` flops, and ``2 n^2`` flops for each output of a new sample.

    References
    ----------
    .. [1] D. J. C. MacKay, Bayesian interpolation, Neural Computation 4, 1992.
    .. [2] E. Daxberger et al., Laplace redux, NeurIPS 2021.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> X = np.linspace(-2.0, 2.0, 60)[:, None]
    >>> y = np.sin(2 * X[:, 0]) + 0.1 * np.random.default_rng(0).standard_normal(60)
    >>> ob = fc.Objective(fc.MLP([1, 8, 1]), X, y, loss="mse", l2=1e-4, l2_biases=False)
    >>> post = fc.laplace(ob, fc.minimize(ob, rng=0).x)
    >>> inside, outside = post.std([[0.0], [5.0]])
    >>> bool(0.07 < post.noise_std < 0.14), bool(outside > 3 * inside)
    (True, True)
    """
    return laplace_posterior(ob, theta, curvature, noise_std, warn=True)


def laplace_posterior(
    ob: Any,
    theta: Any,
    curvature: str = "ggn",
    noise_std: float | None = None,
    *,
    count: float | None = None,
    warn: bool = False,
    bound_noise: bool = False,
) -> LaplacePosterior:
    """Return the `LaplacePosterior` for the arguments of `laplace`. `count` is the number of
    samples if it is not the sum of their weights. If `warn` is True, warnings are issued as by
    `laplace`. If `bound_noise` is True, the noise is at least the root mean square residual of rows
    left out, to first order.
    """
    ob, theta = _check_laplace_input(ob, theta, curvature)
    n = len(theta)
    l2 = float(ob.l2)
    total = _sum_of_weights(ob)
    count = total if count is None else count
    op = getattr(ob, curvature)(theta)
    if not math.isfinite(op.value):
        raise ValueError(
            f"ob must have a finite value at theta, got {op.value}. Rescale the targets."
        )
    M = op.to_dense()
    penalised = l2_diagonal(ob) * np.ones(n) > 0
    squares = float(theta[penalised] @ theta[penalised])
    n_terms = count * n_terms_per_row(ob)
    estimated = noise_std is None
    # factor from the objective, which divides by N, to the log likelihood
    factor = n_terms * ob.n_samples / total
    data = _data_term(ob, theta, op.value, 0.5 * l2 * squares) * factor
    if curvature == "ggn":
        half_unit = (data / n_terms if ob.loss == "mse" else 0.5) / factor
        _zero_rows_of_saturated_biases(ob, M, penalised, half_unit)
    with serial_blas_context():
        root, logdet, trace, rank = _inverse_root(M, penalised, l2, curvature)
    k = int(penalised.sum())
    effective = rank - l2 * trace
    if curvature == "hessian":
        effective = _sum_of_leverages(ob, theta, root, effective)
    gamma = effective - (rank - k)
    noise = _noise_std(ob, noise_std, data, n_terms, effective)
    if noise and bound_noise:
        noise = max(noise, _left_out_noise(ob, theta, root * math.sqrt(2 / factor)))
    T = factor / (2 * noise**2) if noise else factor
    tau = T * l2
    decrement = 0.5 * T * float(np.sum((op.gradient @ root) ** 2))
    log_likelihood = -data / (2 * noise**2) if noise else -data
    log_likelihood -= (count / total) * _missing_log_likelihood(ob)
    if noise:
        log_likelihood -= n_terms * math.log(noise * math.sqrt(2 * math.pi))
    prior = 0.5 * k * math.log(tau) - 0.5 * tau * squares if k else 0.0
    integral = 0.5 * (rank - k) * math.log(2 * math.pi) - 0.5 * (logdet + rank * math.log(T))
    if warn:
        _warn_of_few_rows(ob, count, effective if estimated else 0.0)
    return LaplacePosterior(
        theta=theta,
        log_evidence=log_likelihood + prior + integral,
        n_effective=effective,
        noise_std=noise,
        prior_precision=tau,
        next_l2=gamma / squares / T if k and squares > 0 and gamma > 0 else math.nan,
        n_undetermined=n - rank,
        rows_per_parameter=count / n,
        decrement=decrement,
        curvature=curvature,
        objective=ob,
        covariance_root=root / math.sqrt(T),
    )


def _data_term(ob: Any, theta: Floats, value: float, penalty: float) -> float:
    """Return the objective `value` at theta without the penalty, which is included in it."""
    if penalty > MAX_PENALTY_RATIO * abs(value - penalty):
        how = ob.loss, 0.0, ob.sample_weight, ob.n_threads, ob.memory
        return Objective(ob.model, ob.X, ob.y, *how).value(theta)
    return value - penalty


def _sum_of_weights(ob: Any) -> float:
    """Return the sum of the weights of all samples. Raise ValueError if it is 0."""
    weight = ob.sample_weight
    total = float(ob.n_samples if weight is None else weight.sum(dtype=float))
    if not total > 0:
        raise ValueError("sample_weight must have a positive sum, got 0.")
    return total


def _sum_of_leverages(ob: Any, theta: Floats, root: Floats, default: float) -> float:
    """Return the trace of ``H^-1 G`` for the Gauss-Newton matrix G without l2, where ``H^-1 = root
    root'`` with `root` (n, rank). Return `default` if the loss is not convex, so that it has no
    Gauss-Newton matrix.

    For linear outputs the trace is equal to ``tr H^-1 (H - l2)``. The latter can be far below 0 at
    a minimum where an eigenvalue of H is smaller than l2.
    """
    try:
        G = ob.ggn(theta).to_dense()
    except NotConvexError:
        return default
    G[np.diag_indices(len(G))] -= l2_diagonal(ob)
    with serial_blas_context():
        return float(np.vdot(root, G @ root))


def _warn_of_few_rows(ob: Any, count: float, effective: float) -> None:
    """Issue a UserWarning if there are fewer than `MIN_ROWS_PER_PARAMETER` samples for each
    parameter. For ``mse`` and a network with hidden layers, also warn of more than
    `MAX_POSTERIOR_PARAMS_PER_TARGET` effective parameters for each target. `count` is the number of
    samples.
    """
    n = ob.n_params
    n_targets = count * n_terms_per_row(ob)
    noisy = ob.loss == "mse" and len(ob.model.sizes) > 2
    if count / n < MIN_ROWS_PER_PARAMETER:
        found = (
            f"ob has {format_number(count / n)} rows for each parameter, {format_number(count)} "
            f"for {n}. With fewer than 2, intervals tend to cover too little. Use a smaller "
            "network or more rows."
        )
    elif noisy and effective > MAX_POSTERIOR_PARAMS_PER_TARGET * n_targets:
        found = (
            f"The fit has {format_number(effective)} effective parameters for "
            f"{format_number(n_targets)} targets. With more than "
            f"{MAX_POSTERIOR_PARAMS_PER_TARGET:g} for each target, intervals tend to cover too "
            "little. Use a stronger penalty, fewer units or more rows."
        )
    else:
        return
    warn_caller(found, UserWarning)


def _check_laplace_input(ob: Any, theta: Any, curvature: str) -> tuple[Any, Floats]:
    """Return the objective and theta in float64, after checking that the Laplace approximation is
    defined for them. Raise ValueError or TypeError if it is not.
    """
    check_choice(curvature, ("ggn", "hessian"), "curvature")
    check_rows_in_memory(ob, "laplace")
    check_no_batch_norm(ob, "laplace")
    _check_negative_log_likelihood(ob.loss)
    theta = np.array(check_theta(ob, theta), np.float64)
    ob = cast_to_float64(ob)
    if curvature == "hessian" and has_kinks(ob.model):
        kinks = ob.certificates.kinks(theta)
        if kinks:
            raise ValueError(
                f"theta must have no pre-activation at a kink with curvature='hessian', got "
                f"{kinks}. Use curvature='ggn', or activation='tanh'."
            )
    return ob, theta


def is_negative_log_likelihood(loss: Any) -> bool:
    """Return True if a loss is one of `_MISSING_LOG_TERMS` or user-defined. User-defined losses are
    assumed to be negative log likelihoods.
    """
    given = loss_spec(loss).given
    return loss in _MISSING_LOG_TERMS or given is not None and not given.built_in


def _check_negative_log_likelihood(loss: Any) -> None:
    """Raise ValueError if a loss is not a negative log likelihood."""
    if not is_negative_log_likelihood(loss):
        raise ValueError(
            f"loss must be a negative log likelihood, got {str(loss)!r}. Use one of "
            f"{', '.join(_MISSING_LOG_TERMS)}, or a user-defined fc.Loss."
        )


def _missing_log_likelihood(ob: Any) -> float:
    """Return the weighted sum, over all samples, of the functions of y that must be added to their
    losses to obtain negative log likelihoods. It is 0 for user-defined losses.
    """
    given = loss_spec(ob.loss).given
    if given is not None and not given.built_in:
        return 0.0
    y = np.asarray(ob.y, np.float64).reshape(ob.n_samples, -1)
    terms = _MISSING_LOG_TERMS[ob.loss](y).sum(axis=1)
    return float(terms.sum() if ob.sample_weight is None else terms @ ob.sample_weight)


def _noise_std(
    ob: Any, noise_std: Any, data: float, n_terms: float, effective: float
) -> float | None:
    """Return the standard deviation of the noise: the given one, or an estimate from the sum of
    squared residuals `data` and the ``n_terms - effective`` degrees of freedom. Return None if the
    loss is not ``mse``. Raise ExactFitError if the noise cannot be estimated.
    """
    freedom = n_terms - effective
    if ob.loss != "mse":
        if noise_std is not None:
            raise ValueError(
                f"noise_std must be None for loss={str(ob.loss)!r}, got {noise_std!r}. Only 'mse' "
                "has noise with one standard deviation."
            )
        return None
    if noise_std is None and not freedom > MIN_DEGREES_OF_FREEDOM_RATIO * n_terms:
        raise ExactFitError(
            "noise_std must be given if the rows determine as many parameters as there are "
            "targets, got None. Pass noise_std, or use a larger l2."
        )
    if noise_std is None and not data > 0:
        raise ExactFitError(
            "noise_std must be given if the network fits every row exactly, got None. Pass "
            "noise_std, or use a larger l2."
        )
    found = (
        math.sqrt(data / freedom)
        if noise_std is None
        else float(check_positive(noise_std, "noise_std"))
    )
    if not MIN_NOISE_STD <= found <= 1 / MIN_NOISE_STD:
        raise ValueError(
            f"noise_std must lie between {MIN_NOISE_STD:g} and {1 / MIN_NOISE_STD:g}, got "
            f"{found!r}. Rescale the targets."
        )
    return found


def _left_out_noise(ob: Any, theta: Floats, root: Floats) -> float:
    """Return the root mean square residual of rows left out from a fit with squared errors, by the
    linearised network. `root` is a root of the covariance of the parameters for unit noise.
    """
    residuals = ob.model.predict(theta, ob.X) - ob.y
    start = 0
    total = 0.0
    weight = sample_weights(ob)
    for rows, spread in output_covariance_roots(ob.model, theta, root, ob.X):
        some = slice(start, start + len(rows))
        start += len(rows)
        leverages, axes = np.linalg.eigh(spread @ spread.transpose(0, 2, 1))
        remainder = 1 - np.minimum(weight[some, None] * leverages, MAX_LEVERAGE)
        squares = (np.einsum("nji,nj->ni", axes, residuals[some]) / remainder) ** 2
        total += float(weight[some] @ squares.sum(axis=1))
    return math.sqrt(total / (weight.sum() * residuals.shape[1]))


def _inverse_root(
    M: Floats, penalised: Any, l2: float, curvature: str
) -> tuple[Floats, float, float, int]:
    """Return a tuple: C (n, rank) with ``M^-1 = C C'`` on the directions that M determines, the
    logarithm of the determinant of M on these directions, the trace of the inverse over the
    penalised parameters, and the rank. `penalised` (n,) is a mask. Raise NotPositiveDefiniteError
    if M is not positive definite although `curvature` is "hessian" or no parameter has a penalty.
    """
    n = len(M)
    p = np.flatnonzero(penalised)
    f = np.flatnonzero(~penalised)
    R, logdet_flat = _pseudo_inverse_root(M[np.ix_(f, f)])
    if (curvature == "hessian" or not len(p)) and R.shape[1] < len(f):
        raise _not_positive_definite_error(M, curvature)
    B = R.T @ M[np.ix_(f, p)]
    S = M[np.ix_(p, p)] - B.T @ B
    L = cholesky(S) if len(p) else np.zeros((0, 0))
    if L is not None:
        upper = solve_triangular(L, np.eye(len(p)), lower=True, trans="T") if len(p) else L
        logdet = 2 * float(np.log(np.diagonal(L)).sum())
    elif curvature == "hessian":
        raise _not_positive_definite_error(M, curvature)
    else:
        # The exact eigenvalues are at least l2, but rounding may reduce them.
        known = eigh(S)
        clipped = np.maximum(known.values, l2)
        upper = known.vectors / np.sqrt(clipped)
        logdet = float(np.log(clipped).sum())
    root = np.zeros((n, len(p) + R.shape[1]))
    root[p, : len(p)] = upper
    root[f, : len(p)] = -R @ (B @ upper)
    root[f, len(p) :] = R
    return root, logdet + logdet_flat, float(np.sum(upper**2)), root.shape[1]


def _zero_rows_of_saturated_biases(ob: Any, M: Floats, penalised: Any, half_unit: float) -> None:
    """Set to 0 the rows and columns of M that belong to biases of saturated hidden units. These
    biases have no penalty and, with the posterior precision ``M / (2 half_unit)``, a standard
    deviation above `MAX_BIAS_STD`.

    The bias shifts the pre-activation directly, so the Gaussian would extend far beyond the
    interval in which the output is linear in the bias. Biases of relu, leaky_relu and identity
    units are kept, because these activations have no scale of their own.
    """
    model = ob.model
    least = 2 * half_unit / MAX_BIAS_STD**2
    if not model.bias:
        return
    for (m, k), start, name in zip(model.shapes, model.starts, model.activation):
        biases = np.arange(start + m * k, start + m * k + m)
        held = biases[~penalised[biases] & (np.diagonal(M)[biases] < least)]
        if len(held) and not activation_spec(name).homogeneous:
            M[held] = M[:, held] = 0


def _pseudo_inverse_root(M: Floats) -> tuple[Floats, float]:
    """Return R (n, rank) with ``M^+ = R R'`` for a positive semidefinite M (n, n), and the
    logarithm of the determinant of M on its range. The threshold for zero eigenvalues applies to M
    scaled to a unit diagonal, so that it does not depend on the units of the parameters.
    """
    if not len(M):
        return np.zeros((0, 0)), 0.0
    diagonal = np.diagonal(M)
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    values, vectors = np.linalg.eigh(scale[:, None] * M * scale)  # error bounds are not needed
    keep = values > len(M) * ZERO_EIGENVALUE_TOL
    R = scale[:, None] * vectors[:, keep] / np.sqrt(values[keep])
    if keep.all():
        return R, float(np.log(values).sum() - 2 * np.log(scale).sum())
    null = np.linalg.qr(scale[:, None] * vectors[:, ~keep])[0]
    R -= null @ (null.T @ R)
    return R, -float(np.linalg.slogdet(R.T @ R)[1]) if R.shape[1] else 0.0


def _not_positive_definite_error(M: Floats, curvature: str) -> NotPositiveDefiniteError:
    """Return the exception for a matrix M that is not positive definite. Its message has the
    smallest eigenvalue of M.
    """
    matrix = {"ggn": "Gauss-Newton matrix", "hessian": "Hessian"}[curvature]
    cure = (
        "Find a minimum first, or use curvature='ggn'"
        if curvature == "hessian"
        else "Use an objective with l2 > 0"
    )
    least = float(eigvalsh(M)[0])
    return NotPositiveDefiniteError(
        f"theta must be a point with a positive definite {matrix}, got a smallest eigenvalue of "
        f"{least:.6g}. {cure}.",
        least,
    )
