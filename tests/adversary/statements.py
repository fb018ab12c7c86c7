"""Statements that must hold for every case: one for each claim of the library, tested against a
known truth.
"""

import warnings

import numpy as np
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.testing import QuadraticObjective

from . import conditions, consistency, networks, spaces, truths

EPS = np.finfo(float).eps
TRUTHS = (*truths.TRUTHS, networks.convex, networks.split_unit)


def pick(draw):
    return TRUTHS[int(draw.integers(len(TRUTHS)))](draw)


def classify_names_no_false_kind(draw, **how):
    """`classify` reports only kinds that are true of the point, and certifies only kinds that can
    be proved there.
    """
    truth = pick(draw)
    said = fc.classify(truth.ob, truth.theta, rng=int(draw.integers(2**31)), **how)
    words = f"{truth.name}: {said.kind}, certified {said.certified}: {said.reason}"
    assert said.kind in truth.allowed, words
    assert not said.certified or said.kind in truth.certain, words
    return said.kind


def verdicts_from_products_hold(draw):
    """Verdicts from products alone (`dense_below=1`), with a requested risk, name no false kind."""
    return classify_names_no_false_kind(draw, dense_below=1, failure_probability=1e-6)


def a_weak_eigenvalue_is_not_overlooked(draw):
    """If all eigenvalues but one are positive, the verdict follows from the sign of the remaining
    eigenvalue, or is degenerate or undecided. Only a verdict with the right sign is certified.
    """
    n = int(draw.integers(2, 40))
    values = np.abs(draw.standard_normal(n)) + 0.05
    values[0] = draw.choice([-1, 1]) * 10.0 ** draw.uniform(-11, 0)
    Q = np.linalg.qr(draw.standard_normal((n, n)))[0]
    A = (Q * values) @ Q.T
    said = fc.classify(QuadraticObjective((A + A.T) / 2), np.zeros(n))
    wanted = "minimum" if values[0] > 0 else "saddle"
    assert said.kind in {wanted, "degenerate", "undecided"}, (values[0], said.reason)
    assert not said.certified or said.kind == wanted, (values[0], said.reason)
    return said.kind


def asymmetric_matrices_certify_nothing(draw):
    """If a matrix is not symmetric, no verdict is certified that its asymmetric part could
    change.
    """
    n = int(draw.integers(2, 12))
    A = draw.standard_normal((n, n))
    A = (A + A.T) / 2 + n * np.eye(n) * (draw.random() < 0.5)
    E = draw.standard_normal((n, n)) * 10.0 ** draw.uniform(-9, 1)
    M = A + (E - E.T) / 2
    said = fc.classify(
        QuadraticObjective(LinearOperator((n, n), M.dot, rmatvec=M.dot)), np.zeros(n)
    )
    weakest = np.abs(np.linalg.eigvalsh(A)).min()
    if np.linalg.norm((E - E.T) / 2, 2) > weakest:
        assert not said.certified or said.kind == "saddle", said.reason
        if said.certified:
            values = np.linalg.eigvalsh(A)
            gap = np.linalg.norm((E - E.T) / 2, 2)
            assert values[0] < -gap / 2 and values[-1] > gap / 2, said.reason
    # no eigenvalue of the symmetric part is 0, so only the asymmetry hides signs
    if weakest > 1e-9:
        assert said.kind != "degenerate", said.reason
    return said.kind


def minimize_succeeds_at_no_degenerate_saddle(draw):
    """From a degenerate saddle, or a point near one, `minimize` does not report success at the
    saddle.
    """
    truth = (truths.bounded_saddle, truths.powers)[int(draw.integers(2))](draw)
    start = truth.theta + (draw.random() < 0.5) * 1e-3 * draw.standard_normal(len(truth.theta))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = fc.minimize(truth.ob, start, max_iter=200, max_time=2.0, rng=0)
    if result.success:
        for point in truth.bad:
            size = 1 + np.linalg.norm(point)
            far = np.linalg.norm(result.x - point)
            assert far > 1e-4 * size, f"{truth.name}: {result.message}"
    assert np.isfinite(result.fun) or not result.success
    return "success" if result.success else "no success"


def minimize_leaves_zero_starts(draw):
    """From theta = 0, `minimize` reports no success unless it lowered the loss."""
    sizes = [int(draw.integers(1, 5)) for _ in range(int(draw.integers(3, 5)))]
    model = fc.MLP(sizes, str(draw.choice(["identity", "tanh"])), bias=False)
    X = draw.standard_normal((20, sizes[0]))
    y = X @ draw.standard_normal((sizes[0], sizes[-1]))
    ob = fc.Objective(model, X, y, loss="mse")
    zero = np.zeros(model.n_params)
    result = fc.minimize(ob, zero, max_iter=100, max_time=2.0, rng=0)
    assert not result.success or result.fun < ob.value(zero) * (1 - 1e-6), result.message
    return "success" if result.success else "no success"


def find_succeeds_only_at_critical_points(draw):
    """A point for which `find_critical_point` reports success is not classified as not critical."""
    truth = pick(draw)
    start = truth.theta + 0.01 * draw.standard_normal(len(truth.theta))
    result = fc.find_critical_point(truth.ob, start, max_iter=50)
    if result.success:
        said = fc.classify(truth.ob, result.x)
        assert said.kind != "not_critical", f"{truth.name}: {result.message}; {said.reason}"
    return "success" if result.success else "no success"


def escape_lowers_the_loss_or_reports_failure(draw):
    """If `escape` reports success, the loss is lower by more than its rounding error. At a minimum
    `escape` reports failure.
    """
    n = int(draw.integers(2, 20))
    values = draw.standard_normal(n)
    inside = draw.random() < 0.5
    if inside:
        values = np.abs(values) + 1e-6
    Q = np.linalg.qr(draw.standard_normal((n, n)))[0]
    A = (Q * values) @ Q.T
    A = (A + A.T) / 2
    offset = 10.0 ** draw.uniform(-3, 3)
    base = QuadraticObjective(A, offset=offset)
    result = fc.escape(base, np.zeros(n), rng=0)
    if np.linalg.eigvalsh(A)[0] > 1e-12:
        assert not result.success, result.message
    if result.success:
        assert result.fun < offset - 4 * EPS * offset, result.message
    return "success" if result.success else "no success"


def nan_of_an_operator_raises(draw):
    """An operator whose products are NaN or infinite makes estimates and eigenvalue searches raise
    ValueError.
    """
    n = int(draw.integers(2, 30))
    bad = np.full((n, n), np.nan) if draw.random() < 0.5 else np.diag(np.r_[np.inf, np.ones(n - 1)])
    H = LinearOperator((n, n), bad.dot, rmatvec=bad.dot, matmat=bad.dot, dtype=float)
    calls = (fc.trace, fc.diagonal, fc.frobenius_norm, fc.inertia, fc.eigvalsh, fc.eigsh)
    call = calls[int(draw.integers(len(calls)))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = call(H)
        except ValueError:
            return "refused"
    raise AssertionError(f"{call.__name__} answered {result!r}")


STATEMENTS = (
    classify_names_no_false_kind,
    verdicts_from_products_hold,
    a_weak_eigenvalue_is_not_overlooked,
    asymmetric_matrices_certify_nothing,
    minimize_succeeds_at_no_degenerate_saddle,
    minimize_leaves_zero_starts,
    find_succeeds_only_at_critical_points,
    escape_lowers_the_loss_or_reports_failure,
    nan_of_an_operator_raises,
    networks.certified_points_exist,
    networks.success_has_nothing_lower_nearby,
    conditions.verdicts_from_products_hold_for_networks,
    conditions.batch_normalisation_is_never_certified,
    conditions.threads_change_no_bit_of_a_verdict,
    conditions.the_unit_of_the_loss_changes_no_verdict,
    conditions.measured_saddles_at_large_n_hold,
    conditions.near_a_measured_minimum_nothing_is_lower,
    networks.products_agree_with_long_double,
    *consistency.STATEMENTS,
    spaces.spectra_agree_with_the_matrix,
    networks.products_of_user_losses_agree_with_long_double,
    networks.certified_points_of_user_losses_exist,
    networks.success_of_user_losses_has_nothing_lower_nearby,
    networks.success_of_user_activations_has_nothing_lower_nearby,
)


def run(statement, seed):
    """Return the outcome, a string, of one statement for the random case of a seed: an integer, or
    a list of integers for the generator.
    """
    named = [seed, *statement.__name__.encode()]
    return statement(np.random.default_rng(seed if isinstance(seed, list) else named))
