"""Krylov spaces of a gradient: identities of their basis, and the subproblems solved in them
against their optimality conditions.
"""

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator

from fastcurv.common.vectors import solve_subproblem
from fastcurv.krylov.lanczos import Recurrence
from fastcurv.krylov.trust_region import (
    absolute_value_step,
    exhausted_miss_probability,
    lowest_ritz_pair,
    max_log_growth,
    new_krylov_space,
    shifted_solve,
    solve_trust_region,
)

from ..spectrum.spectra import Prescribed

pytestmark = pytest.mark.by_day(one_of="dtype")


@pytest.mark.parametrize("n_others, n, steps", [(0, 31, 31), (2, 31, 31), (1, 50_000, 25)])
def test_a_krylov_space_is_orthonormal_and_projects_exactly(n_others, n, steps, dtype):
    """At every dimension up to n, or for rows that are processed in parts, Q Q' = I and T = Q H Q'
    hold up to rounding, pending rows included, `combine` returns Q'y, and `residual_norm` the norm
    of H Q'y - Q'Ty. Memory is allocated as rows are added.
    """
    rng, slack = np.random.default_rng(1), 3e3 * np.finfo(dtype).eps
    op = Prescribed(rng.standard_normal(n), rng=2, dtype=dtype)
    exact = op.astype("float64")
    g, *others = rng.standard_normal((1 + n_others, n)).astype(dtype)
    space = new_krylov_space(n, dtype, n)
    assert space.ritz_pairs()[0].size == space.linear_term().size == 0
    assert n < 100 or space.rows.shape[0] <= 16
    space.start(lambda v, out: np.copyto(out, op @ v), g, others)
    for m in range(1, steps + 1):
        space.extend()
        if n > 100 and m < steps:
            continue
        Q = space.rows[: m + space.p].astype(np.float64)
        assert space.m == m and abs(Q @ Q.T - np.eye(len(Q))).max() <= slack
        products = np.array([exact @ q for q in Q[:m]])
        assert abs(space.T[: len(Q), :m] - Q @ products.T).max() <= slack
        T, Q = space.T[:m, :m], Q[:m]
        y = rng.standard_normal(m)
        assert abs(space.combine(y) - y @ Q).max() <= slack
        outside = exact @ (y @ Q) - (T @ y) @ Q
        assert abs(space.residual_norm(y) - np.linalg.norm(outside)) <= slack * np.linalg.norm(y)
    assert space.exhausted == (steps == n)
    assert n > 100 or np.allclose(space.ritz_pairs()[0], np.sort(op.values), atol=slack)


def test_a_good_start_vector_saves_products():
    """A space started from g and an approximate solution, and expanded by its residual, converges
    in fewer products than a space started from g alone.
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
        space = new_krylov_space(n, float, n)
        space.start(lambda v, out: np.matmul(A, v, out=out), g, others)
        residual = np.inf
        while residual > 1e-4 * np.linalg.norm(g):
            space.extend()
            ritz, vectors = space.ritz_pairs()
            y = vectors @ shifted_solve(ritz, space.linear_term(), 0.0)
            residual = space.residual_norm(y)
            assert abs(
                residual - np.linalg.norm(A @ space.combine(y) + g)
            ) <= 1e-9 * np.linalg.norm(g)
        spent[name] = space.m
    assert spent["warm"] < spent["cold"]


def test_a_krylov_space_is_exhausted_when_it_is_invariant():
    """The Krylov space of a gradient in the span of three eigenvectors is exhausted after three
    products, and a second start vector parallel to the gradient adds no dimension.
    """
    values = np.array([3.0, -1.0, 2.0, 5.0, 7.0])
    space = new_krylov_space(5, float, 5)
    g = np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    space.start(lambda v, out: np.multiply(values, v, out=out), g, [2 * g])
    while not space.exhausted:
        space.extend()
    assert space.m == 3 and np.allclose(space.ritz_pairs()[0], [-1, 2, 3])


@pytest.mark.parametrize("dtype, powers", [(np.float32, (-90, 90)), (float, (-900, 900))])
def test_krylov_spaces_scale_with_powers_of_two(dtype, powers):
    """If H and g are multiplied by a power of two whose square overflows or underflows, all results
    are multiplied by that power.
    """
    rng = np.random.default_rng(5)
    A = rng.standard_normal((12, 12))
    A, g = (A + A.T).astype(dtype), rng.standard_normal(12).astype(dtype)
    found = []
    for power in (0, *powers):
        H, space = np.ldexp(A, power).astype(dtype), new_krylov_space(12, dtype, 12)
        space.start(lambda v, out, H=H: np.matmul(H, v, out=out), g)
        for _ in range(6):
            space.extend()
        y = np.linspace(1, 2, 6)
        low, residual, _ = lowest_ritz_pair(space)
        numbers = [*space.ritz_pairs()[0], low, residual, space.residual_norm(y)]
        found.append(np.ldexp(numbers, -power))
    eps = np.finfo(dtype).eps
    assert np.allclose(found[0], found[1], rtol=0, atol=1e3 * eps)
    assert np.allclose(found[0], found[2], rtol=0, atol=1e3 * eps)


SPECTRA = {
    "positive": np.linspace(0.5, 9, 40),
    "indefinite": np.linspace(-1, 9, 40),
    "singular": np.r_[np.zeros(5), np.linspace(0.1, 9, 35)],
    "wide": np.geomspace(1e-9, 1e3, 40),
}
PARAMETERS = {
    "shifted": (0.0, 0.3),
    "clipped": (0.3, 1e-12),
    "absolute": (0.3, 1e-12),
    "trust-region": (1e-3, 1.0, 1e5),
    "cubic": (1e-3, 1.0, 1e3),
}


@pytest.mark.parametrize("power", [0, -200, 200])
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("problem", PARAMETERS)
def test_steps_solve_their_subproblem_within_the_space(problem, spectrum, power, rng):
    """The length, predicted decrease and residual of a step that solves a subproblem equal those
    from a full decomposition of T. The step is found from factors or eigenvectors of T, at the
    first or a later check, or after a change of the parameter.
    """
    values, n = SPECTRA[spectrum], 40
    P = np.linalg.qr(rng.standard_normal((n, n)))[0]
    H, g = np.ldexp((P * values) @ P.T, power), rng.standard_normal(n)
    out = np.empty(n)
    for wanted in (0.0, 1e-2):
        space = new_krylov_space(n, float, n)
        space.start(lambda v, out: np.matmul(H, v, out=out), np.ldexp(g, power))
        for parameter in PARAMETERS[problem] * 2:
            scale = 0 if problem == "trust-region" else power
            given = float(np.ldexp(parameter, scale))
            least = wanted * space.gamma
            length, gain, bounded, _ = space.solve(
                problem, given, least, 25, lambda: False, 0.0, 3.0, out
            )
            ritz, vectors = space.ritz_pairs()
            y, multiplier = solve_subproblem(problem, ritz, space.linear_term(), given)
            true = -(space.linear_term() @ y + 0.5 * y @ (ritz * y))
            slack = 1e-6 if spectrum in ("wide", "singular") else 1e-8
            assert length == pytest.approx(np.linalg.norm(y), rel=slack)
            assert gain == pytest.approx(true, rel=slack)
            assert np.linalg.norm(out - space.combine(vectors @ y)) <= slack * length
            assert bounded == (multiplier > 0)
            part = np.sign(ritz) * y if problem == "absolute" else y
            left = space.residual_norm(vectors @ part)
            assert space.m == 25 or left <= least * (1 + 1e-6) + 1e-15 * space.gamma


@pytest.mark.parametrize("n, risk, least", [(5, 0.2, 0.1), (60, 0.05, 0.1), (400, 0.05, 0.7)])
def test_random_starts_miss_a_direction_within_the_stated_risk(n, risk, least, rng):
    """Among 20 000 random start vectors, the fraction whose component along a given direction is
    too small for `max_log_growth` is at most the stated risk, up to sampling error.
    """
    V = rng.standard_normal((20_000, n))
    part = np.abs(V[:, 0]) / np.linalg.norm(V, axis=1)
    missed = np.mean(part <= np.exp(-max_log_growth(n, risk) / 2))
    assert least * risk < missed <= risk + 4 * (risk / 20_000) ** 0.5


# --- subproblems


def random_subproblems(count=400):
    """Yield `count` random subproblems (values, linear, parameter) of one to eight dimensions:
    sorted eigenvalues of any sign, linear terms with zero or tiny entries, and radii or weights
    over six decades.
    """
    rng = np.random.default_rng(7)
    for _ in range(count):
        m = int(rng.integers(1, 9))
        values = np.sort(rng.standard_normal(m)) + rng.choice([0.0, 3.0, -3.0])
        linear = rng.standard_normal(m) * 10.0 ** rng.integers(-8, 3)
        if rng.random() < 0.5:
            linear[: int(rng.integers(1, m + 1))] *= rng.choice([0.0, 1e-25, 1e-9])
        yield values, linear, 10.0 ** rng.uniform(-3, 3)


@pytest.mark.parametrize("size", [1.0, 1e-160, 1e160, 1e300])
@pytest.mark.parametrize("problem", ["trust-region", "cubic"])
def test_regularised_steps_meet_their_optimality_conditions(problem, size):
    """Trust-region and cubic subproblems are solved to their optimality conditions, without a
    gradient and in the hard case too, and if the squares of lengths overflow or underflow.
    """
    hard = 0
    for values, linear, parameter in random_subproblems():
        given = parameter * size if problem == "trust-region" else parameter / size
        y, lam = solve_subproblem(problem, values, linear * size, given)
        y = y / size
        length = np.linalg.norm(y)
        assert values[0] + lam >= -1e-12 and lam >= 0
        slack = 1e-12 * (lam + (parameter if problem == "trust-region" else 1))
        gap = np.linalg.norm((values + lam) * y + linear)
        assert gap <= 1e-9 * np.linalg.norm(linear) + slack
        if problem == "cubic":
            assert abs(lam - parameter * length) <= 1e-9 * lam + 1e-14
        else:
            assert length <= parameter * (1 + 1e-10)
            assert lam * (parameter - length) <= 1e-9 * parameter * max(lam, 1.0)
        hard += bool(values[0] < 0 and lam == -values[0])
    assert hard > 20


@pytest.mark.parametrize("radius", [0.0, 5e-324, 1e-310, 1e-301])
def test_steps_of_tiny_radius_follow_the_negative_gradient(radius):
    linear = np.array([1.0, -2.0, 2.0])
    y, multiplier = solve_trust_region(np.array([-1.0, 0.0, 3.0]), linear, radius)
    assert multiplier > 0 and np.isfinite(y).all()
    assert np.abs(y + linear * (radius / 3)).max() <= 1e-9 * radius + 5e-324
    y, multiplier = solve_trust_region(np.array([1.0, 2.0]), np.array([3e10, 4e10]), 1e-300)
    assert np.allclose(y, [-0.6e-300, -0.8e-300], rtol=1e-12) and multiplier == np.inf


@pytest.mark.parametrize("value", [1.0, 5e-324, 0.0])
@pytest.mark.parametrize("linear", [0.0, 5e-324, 1e-310, -2.0])
def test_one_dimensional_trust_region_matches_its_closed_form(value, linear):
    """In one dimension the trust-region step leads to the minimum if that is within the radius, and
    otherwise to the boundary, also for subnormal gradients and curvatures.
    """
    y, multiplier = solve_trust_region(np.array([value]), np.array([linear]), 1.0)
    inside = value > 0 and abs(linear) <= value
    assert y[0] == pytest.approx(-linear / value if inside else -np.sign(linear), abs=1e-9)
    assert multiplier == pytest.approx(0 if inside else abs(linear) - value, rel=1e-9, abs=1e-320)


def test_shifted_solve_ignores_null_directions_and_absolute_value_steps_descend():
    assert np.array_equal(
        shifted_solve(np.array([0.0, 2.0]), np.array([1.0, 1.0]), 0.0), [0.0, -0.5]
    )
    values, linear = np.array([-2.0, 4.0]), np.array([1.0, -1.0])
    assert np.all(absolute_value_step(values, linear, 0.5) * linear < 0)


def test_an_exhausted_space_reports_the_risk_due_to_rounding(rng):
    """For the identity matrix, whose Krylov space is exhausted after one step, a float32 run
    reports a risk of at least 1% that rounding hid an eigenvalue that differs by 5e-4. In float64,
    and for a start block of n vectors, the risk is negligible or 0.
    """
    n, eps = 20_000, 5e-4
    for dtype, least, most in (("float32", 1e-2, 1.0), ("float64", 0.0, 1e-6)):
        values = np.ones(n, dtype)
        op = LinearOperator((n, n), lambda v, values=values: values * v.reshape(-1), dtype=dtype)
        run = Recurrence(op, 40)
        run.insert_random(rng)
        run.extend(40)
        assert run.p == 0 and run.m == 1
        assert least <= exhausted_miss_probability(run, n, eps) <= most
        assert exhausted_miss_probability(run, n, 10 * eps) <= exhausted_miss_probability(
            run, n, eps
        )
    whole = Recurrence(LinearOperator((3, 3), lambda v: v.reshape(-1), dtype=float), 3)
    whole.insert_random(rng, 3)
    whole.step()
    assert exhausted_miss_probability(whole, 3, eps) == 0
