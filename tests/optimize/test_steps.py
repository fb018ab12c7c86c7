"""Single steps: the Krylov space and its small problems, Newton's step, the saddle-free one, and
escape.
"""

import warnings

import numpy as np
import pytest
import scipy.linalg

from fastcurv.common.vectors import small_problem
from fastcurv.krylov.solvers import Workspace
from fastcurv.krylov.trust_region import KrylovSpace, absolute, shifted, trust_region
from fastcurv.optimize.escape import escape, lowest_curvature
from fastcurv.optimize.line_search import line_minimum
from fastcurv.optimize.steps import IndefiniteHessianWarning, newton_step, saddle_free_newton_step
from fastcurv.testing import (
    FunctionObjective,
    LinearAutoencoder,
    PrescribedSpectrum,
    QuadraticObjective,
    lecture_toy,
)


def symmetric(n, rng, dtype=np.float64):
    A = rng.standard_normal((n, n))
    return ((A + A.T) / 2).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_others", [0, 1, 2])
def test_a_krylov_space_is_orthonormal_and_projects_exactly(n_others, dtype):
    """Q Q' = I, T = Q H Q', and H Q'y - Q'Ty is what `residual` says, at every dimension up to
    n.
    """
    rng = np.random.default_rng(1)
    n, slack = 31, 3e3 * np.finfo(dtype).eps
    A = symmetric(n, rng, dtype)
    space = KrylovSpace(n, dtype, n)
    space.start(
        lambda v, out: np.matmul(A, v, out=out),
        *[rng.standard_normal(n).astype(dtype)],
        rng.standard_normal((n_others, n)).astype(dtype),
    )
    sizes = []
    while not space.exhausted:
        space.extend()
        Q = space.rows[: space.m + space.p].astype(np.float64)
        assert abs(Q @ Q.T - np.eye(len(Q))).max() <= slack
        T = space.T[: space.m, : space.m]
        assert abs(T - Q[: space.m] @ A @ Q[: space.m].T).max() <= slack
        y = rng.standard_normal(space.m)
        outside = A @ (Q[: space.m].T @ y) - Q[: space.m].T @ (T @ y)
        assert abs(space.residual(y) - np.linalg.norm(outside)) <= slack * np.linalg.norm(y)
        sizes.append(space.m)
    assert sizes == list(range(1, n + 1))
    assert np.allclose(space.ritz()[0], np.linalg.eigvalsh(A.astype(float)), atol=slack)


def test_with_two_starts_the_residual_leads_the_way():
    """Starts g and a guess: expanded by its residual the space solves as conjugate gradients from
    that guess would.
    """
    rng = np.random.default_rng(3)
    n = 60
    values = np.concatenate([np.linspace(1.0, 2.0, n - 4), [50.0, 60.0, 70.0, 80.0]])
    P = np.linalg.qr(rng.standard_normal((n, n)))[0]
    A = (P * values) @ P.T
    g = rng.standard_normal(n)
    exact = -np.linalg.solve(A, g)
    spent = {}
    for name, others in (("cold", []), ("warm", [exact + 1e-3 * rng.standard_normal(n)])):
        space = KrylovSpace(n, float, n)
        space.start(lambda v, out: np.matmul(A, v, out=out), g, others)
        residual = np.inf
        while residual > 1e-4 * np.linalg.norm(g):
            space.extend()
            ritz, vectors = space.ritz()
            y = vectors @ shifted(ritz, space.linear_term(), 0.0)
            residual = space.residual(y)
            assert abs(
                residual - np.linalg.norm(A @ space.combine(y) + g)
            ) <= 1e-9 * np.linalg.norm(g)
        spent[name] = space.m
    assert spent["warm"] < spent["cold"]


def test_a_krylov_space_ends_where_the_gradient_sees_no_more():
    """Three eigenvectors in g, three products, then exhausted; a start vector twice is one start
    vector.
    """
    values = np.array([3.0, -1.0, 2.0, 5.0, 7.0])
    space = KrylovSpace(5, float, 5)
    g = np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    space.start(lambda v, out: np.multiply(values, v, out=out), g, [2 * g])
    while not space.exhausted:
        space.extend()
    assert space.m == 3 and np.allclose(space.ritz()[0], [-1, 2, 3])


@pytest.mark.parametrize("dtype, powers", [(np.float32, (-90, 90)), (float, (-900, 900))])
def test_a_krylov_space_of_any_size_is_that_of_size_one(dtype, powers):
    """Times a power of two, whose squares are no numbers, everything is that power of what it
    was.
    """
    rng = np.random.default_rng(5)
    A = rng.standard_normal((12, 12))
    A, g = (A + A.T).astype(dtype), rng.standard_normal(12).astype(dtype)
    found = []
    for power in (0, *powers):
        H, space = np.ldexp(A, power).astype(dtype), KrylovSpace(12, dtype, 12)
        space.start(lambda v, out, H=H: np.matmul(H, v, out=out), g)
        for _ in range(6):
            space.extend()
        y = np.linspace(1, 2, 6)
        low, residual, _ = space.lowest()
        numbers = [*space.ritz()[0], low, residual, space.residual(y)]
        found.append(np.ldexp(numbers, -power))
    eps = np.finfo(dtype).eps
    assert np.allclose(found[0], found[1], rtol=0, atol=1e3 * eps)
    assert np.allclose(found[0], found[2], rtol=0, atol=1e3 * eps)


def problems(count=400):
    """Random small problems: signs, zero parts of the gradient, tiny parts, radii over six
    decades.
    """
    rng = np.random.default_rng(7)
    for _ in range(count):
        m = int(rng.integers(1, 9))
        values = np.sort(rng.standard_normal(m)) + rng.choice([0.0, 3.0, -3.0])
        linear = rng.standard_normal(m) * 10.0 ** rng.integers(-8, 3)
        if m > 1 and rng.random() < 0.5:
            linear[: int(rng.integers(1, m))] *= rng.choice([0.0, 1e-25, 1e-9])
        yield values, linear, 10.0 ** rng.uniform(-3, 3)


def test_trust_region_meets_the_optimality_conditions_hard_case_included():
    hard = 0
    for values, linear, radius in problems():
        y, lam = trust_region(values, linear, radius)
        length = np.linalg.norm(y)
        assert length <= radius * (1 + 1e-10)
        assert values[0] + lam >= -1e-12 and lam >= 0
        assert np.linalg.norm((values + lam) * y + linear) <= 1e-9 * np.linalg.norm(
            linear
        ) + 1e-12 * (radius + lam)
        assert lam * (radius - length) <= 1e-9 * radius * max(lam, 1.0)
        hard += bool(values[0] < 0 and lam == -values[0])
    assert hard > 20


def test_cubic_meets_the_optimality_conditions_hard_case_included():
    for values, linear, weight in problems():
        y, lam = small_problem("cubic", values, linear, weight)
        assert values[0] + lam >= -1e-12
        assert abs(lam - weight * np.linalg.norm(y)) <= 1e-9 * lam + 1e-14
        assert np.linalg.norm((values + lam) * y + linear) <= 1e-9 * np.linalg.norm(
            linear
        ) + 1e-12 * (lam + 1)


def test_without_a_gradient_steps_are_along_negative_curvature():
    y, lam = trust_region(np.array([-2.0, 1.0]), np.zeros(2), 0.5)
    assert np.allclose(np.abs(y), [0.5, 0.0]) and lam == 2.0
    y, lam = small_problem("cubic", np.array([-1.0, 2.0]), np.zeros(2), 0.5)
    assert np.allclose(np.abs(y), [2.0, 0.0]) and lam == 1.0
    y, lam = small_problem("cubic", np.array([1.0, 2.0]), np.zeros(2), 1.0)
    assert not y.any() and lam == 0


@pytest.mark.parametrize("radius", [0.0, 5e-324, 1e-310, 1e-301])
def test_a_radius_so_short_that_curvature_is_nothing_to_it(radius):
    linear = np.array([1.0, -2.0, 2.0])
    y, multiplier = trust_region(np.array([-1.0, 0.0, 3.0]), linear, radius)
    assert multiplier > 0 and np.isfinite(y).all()
    assert np.abs(y + linear * (radius / 3)).max() <= 1e-9 * radius + 5e-324
    y, multiplier = trust_region(np.array([1.0, 2.0]), np.array([3e10, 4e10]), 1e-300)
    assert np.allclose(y, [-0.6e-300, -0.8e-300], rtol=1e-12) and multiplier == np.inf


def test_shifted_leaves_singular_directions_alone_and_absolute_turns_none_uphill():
    assert np.array_equal(shifted(np.array([0.0, 2.0]), np.array([1.0, 1.0]), 0.0), [0.0, -0.5])
    values, linear = np.array([-2.0, 4.0]), np.array([1.0, -1.0])
    assert np.all(absolute(values, linear, 0.5) * linear < 0)


@pytest.mark.parametrize("n", [1, 2, 7, 64])
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_newton_step_solves_the_damped_system(n, damping):
    rng = np.random.default_rng(n)
    A = symmetric(n, rng)
    A = A @ A + np.eye(n)
    g = rng.standard_normal(n)
    p = newton_step(A, g, damping)
    assert np.linalg.norm((A + damping * np.eye(n)) @ p + g) <= 1e-10 * np.linalg.norm(g)


@pytest.mark.parametrize("step", [newton_step, saddle_free_newton_step])
def test_the_krylov_step_agrees_with_the_dense_one(step):
    """n = 600 is past the dense limit; the spectrum is benign, so a hundred products settle it."""
    values = np.concatenate([[-3.0, -2.0], np.linspace(1.0, 4.0, 598)])
    H = PrescribedSpectrum(values, seed=3)
    g = np.random.default_rng(4).standard_normal(600)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IndefiniteHessianWarning)
        p = step(H, g, 0.1)
    spent = H.n_products
    w, U = np.linalg.eigh(H @ np.eye(600))
    curvature = np.abs(w) + 0.1 if step is saddle_free_newton_step else w + 0.1
    exact = -U @ ((U.T @ g) / curvature)
    assert np.linalg.norm(p - exact) <= 5e-3 * np.linalg.norm(exact)
    assert spent < 200


def test_newton_step_says_when_the_hessian_is_indefinite():
    H = np.diag([1.0, -2.0])
    with pytest.warns(IndefiniteHessianWarning, match="curvature -2"):
        assert np.allclose(newton_step(H, np.array([1.0, 1.0])), [-1.0, 0.5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        newton_step(H, np.array([1.0, 1.0]), damping=3.0)
        newton_step(np.diag([1.0, 2.0]), np.array([1.0, 1.0]))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_saddle_free_step_is_the_inverse_of_the_matrix_absolute_value(dtype):
    rng = np.random.default_rng(5)
    A, g = symmetric(20, rng, dtype), rng.standard_normal(20).astype(dtype)
    p = saddle_free_newton_step(A, g, damping=0.05)
    modulus = scipy.linalg.sqrtm(A.astype(float) @ A.astype(float)).real
    assert p.dtype == dtype
    assert np.linalg.norm((modulus + 0.05 * np.eye(20)) @ p + g) <= 1e4 * np.finfo(
        dtype
    ).eps * np.linalg.norm(g)
    assert p @ g < 0


def test_a_step_from_zero_gradient_is_zero():
    assert not newton_step(np.eye(3), np.zeros(3)).any()
    assert not saddle_free_newton_step(np.eye(3), np.zeros(3)).any()


def test_escape_follows_the_lecture_toy_along_its_diagonal():
    ob, theta = lecture_toy(), np.zeros(2)
    found = escape(ob, theta)
    assert found.success and not theta.any()
    assert found.fun == ob.value(found.x) and found.fun <= 1e-6
    assert np.allclose(np.abs(found.direction), 2**-0.5, atol=1e-6)
    assert found.curvature == pytest.approx(-2.0)
    assert np.allclose(found.x, found.step * found.direction)
    assert (
        abs(abs(found.step) - 2**0.5) <= 1e-2
    )  # the valley w1 w2 = 1; Newton's length would be 1/2


def test_escape_finds_the_better_of_the_two_ways():
    """x^4 - x^2 + x^3/2: both ways lead down, the negative one further."""

    def hessian(t):
        return np.array([[12 * t[0] ** 2 - 2 + 3 * t[0], 0.0], [0.0, 2.0]])

    ob = FunctionObjective(
        2,
        lambda t: t[0] ** 4 - t[0] ** 2 + t[0] ** 3 / 2 + t[1] ** 2,
        lambda t: np.array([4 * t[0] ** 3 - 2 * t[0] + 1.5 * t[0] ** 2, 2 * t[1]]),
        hessian,
    )
    for direction in (None, np.array([1.0, 0.0]), np.array([-3.0, 0.0])):
        found = escape(ob, np.zeros(2), direction)
        assert found.success and found.x[0] < -0.8
        assert found.fun == pytest.approx(-0.51936, abs=1e-3)


def test_escape_leaves_every_saddle_of_an_autoencoder():
    net = LinearAutoencoder([5.0, 3.0, 2.0, 1.0], 2, seed=0)
    cases = net.cases()
    assert len(cases) == 11
    for case in cases:
        found = escape(net.objective, case.theta)
        assert found.success == (case.kind == "saddle")
        assert (
            (found.fun < case.value - 1e-3)
            if found.success
            else np.array_equal(found.x, case.theta)
        )


def test_escape_at_a_minimum_says_so_and_stays():
    found = escape(QuadraticObjective(np.diag([1.0, 2.0])), np.zeros(2))
    assert not found.success and "No negative curvature" in found.message
    found = escape(QuadraticObjective(np.diag([1.0, 2.0])), np.zeros(2), np.array([1.0, 0.0]))
    assert not found.success and found.step == 0.0 and not found.x.any()


def test_line_minimum_finds_a_minimum_far_beyond_and_far_below_its_first_length():
    for scale in (1e-5, 1.0, 1e5):
        t, f = line_minimum(
            lambda x, scale=scale: float((x[0] / scale - 1) ** 2),
            np.zeros(1),
            np.ones(1),
            1.0,
            1.0,
            refinements=30,
        )
        assert abs(t / scale - 1) <= 1e-3 and f <= 1e-5


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: newton_step(np.ones((2, 3)), np.ones(2)), ValueError, r"wanted \(n, n\)"),
        (lambda: newton_step(np.eye(2), np.ones(3)), ValueError, "g has shape"),
        (lambda: newton_step(np.eye(2), np.array([1.0, np.nan])), ValueError, "NaN"),
        (lambda: newton_step(np.eye(2), np.ones(2) * 1j), TypeError, "real"),
        (lambda: newton_step(np.eye(2), np.ones(2), damping=-1.0), ValueError, "damping"),
        (lambda: saddle_free_newton_step(np.eye(2), np.ones(2), k=0), ValueError, "k is 0"),
        (lambda: escape(lecture_toy(), np.zeros(3)), ValueError, "theta"),
        (lambda: escape(lecture_toy(), np.zeros(2), np.zeros(2)), ValueError, "direction is zero"),
    ],
)
def test_bad_input_is_one_clear_sentence(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_the_lowest_curvature_is_found_where_the_gradient_has_no_part_of_it():
    """n = 5000, one eigenvalue -1e-2 under a bulk in [0, 1]: a random start finds it, a start along
    it at once.
    """
    values = np.concatenate([[-1e-2], np.linspace(0.0, 1.0, 4999)])
    H = PrescribedSpectrum(values, seed=1)
    lowest = H.eigenvector(0)
    for starts, most in (((), 150), ([lowest], 12)):
        curvature, v, rounding, spent = lowest_curvature(
            H, np.random.default_rng(0), starts, max_products=300
        )
        assert curvature < -rounding < 0 and spent <= most
        assert (
            curvature == pytest.approx(v @ (H @ v), abs=1e-12)
            and -1e-2 - 1e-12 <= curvature < -5e-3
        )


def test_a_bounded_search_without_negative_curvature_says_what_is_lowest():
    H = PrescribedSpectrum(np.linspace(1.0, 2.0, 300), seed=1)
    curvature, _, rounding, spent = lowest_curvature(H, np.random.default_rng(0), max_products=25)
    assert spent == 25 and 1.0 - 1e-12 <= curvature < 1.05 and rounding < 1e-10


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
def test_subproblems_of_any_size_are_solved(size):
    """Radii and weights whose squares no float holds: the solution scales with them."""
    values, linear = np.array([-1.0, 0.5, 2.0]), np.array([0.3, -0.2, 0.1])
    y, multiplier = trust_region(values, linear, size)
    assert np.isclose(np.linalg.norm(y / size), 1.0, rtol=1e-9) and multiplier >= 1.0
    kkt = (values / multiplier + 1.0) * (y / size) + linear / size / multiplier
    assert np.linalg.norm(kkt) <= 1e-9
    y, multiplier = small_problem("cubic", values, linear, size)
    largest = abs(y).max()
    assert multiplier >= 1.0
    assert np.isclose(multiplier / size / largest, np.linalg.norm(y / largest), rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("start", [1.0, "tiny"])
def test_the_lowest_curvature_of_what_underflows_is_a_number(dtype, start):
    """Where every sample is as good as certain, products are of the smallest numbers there are:
    their reciprocals are infinite.
    """
    tiny = float(np.finfo(dtype).smallest_subnormal)
    H = np.diag(np.array([64.0, 9.0, 1.0, 0.0, -1.0]) * tiny).astype(dtype)
    begin = np.full(5, tiny * 50 if start == "tiny" else start, dtype)
    curvature, v, rounding, _ = lowest_curvature(H, np.random.default_rng(0), [begin])
    assert abs(curvature) <= 64 * tiny and rounding >= 0
    assert abs(np.linalg.norm(v) - 1) <= 1e-5


@pytest.mark.parametrize("value", [1.0, 5e-324, 0.0])
@pytest.mark.parametrize("linear", [0.0, 5e-324, 1e-310, -2.0])
def test_a_trust_region_of_one_number_is_its_closed_form(value, linear):
    """The smallest numbers there are included: down to the wall or to the minimum before it."""
    y, multiplier = trust_region(np.array([value]), np.array([linear]), 1.0)
    inside = value > 0 and abs(linear) <= value
    assert y[0] == pytest.approx(-linear / value if inside else -np.sign(linear), abs=1e-9)
    assert multiplier == pytest.approx(0 if inside else abs(linear) - value, rel=1e-9, abs=1e-320)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n", [1, 100, 8193, 20_000, 300_000])
def test_vectors_of_conjugate_gradients_of_any_length(n, dtype):
    """Long ones are swept in parts over the team: the sums are those of all parts, every time."""
    rng, work = np.random.default_rng(n), Workspace(n, dtype)
    slack = 20 * float(np.finfo(dtype).eps)
    g = rng.standard_normal(n).astype(dtype)
    assert work.begin(g, 0.5) == pytest.approx(0.25 * (g.astype(float) @ g), rel=slack)
    y, r = np.zeros(n), 0.5 * g.astype(float)
    p = work.p.astype(float)
    for step in (0.25, -1.5):
        Hp = rng.standard_normal(n).astype(dtype)
        work.Hp[:] = Hp
        wanted = p @ p, p @ Hp, float(Hp.astype(float) @ Hp)
        size = np.linalg.norm(p) * np.linalg.norm(Hp.astype(float))
        assert np.abs(np.subtract(work.curvature(), wanted)).max() <= slack * max(*wanted, size)
        found = work.move(step, 0.125)
        y, r = y + step * p, r + step * (Hp + 0.125 * p)
        assert np.abs(work.y - y).max() <= slack * np.abs(y).max()
        assert np.abs(work.r - r).max() <= slack * np.abs(r).max() * 4
        wanted = r @ r, y @ y, float(y @ g), y @ r
        size = max(r @ r, y @ y, float(np.linalg.norm(g.astype(float))) ** 2)
        assert np.abs(np.subtract(found, wanted)).max() <= slack * size
        work.turn(0.5)
        p = 0.5 * p - r
        assert np.abs(work.p - p).max() <= slack * np.abs(p).max() * 4


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_krylov_space_of_long_rows_is_orthonormal(dtype):
    """The rows are swept in parts; what a step combines is Q'y."""
    rng, n, slack = np.random.default_rng(3), 50_000, 1e2 * np.finfo(dtype).eps
    diagonal = np.linspace(-1, 3, n).astype(dtype)
    space = KrylovSpace(n, dtype, 20)
    assert space.ritz()[0].size == space.linear_term().size == 0  # nothing is known yet
    space.start(
        lambda v, out: np.multiply(diagonal, v, out=out),
        rng.standard_normal(n).astype(dtype),
        rng.standard_normal((1, n)).astype(dtype),
    )
    for _ in range(12):
        space.extend()
    Q = space.rows[: space.m].astype(np.float64)
    assert abs(Q @ Q.T - np.eye(12)).max() <= slack
    assert abs(space.T[:12, :12] - Q * diagonal @ Q.T).max() <= slack
    y = rng.standard_normal(12)
    assert abs(space.combine(y) - y @ Q).max() <= slack
