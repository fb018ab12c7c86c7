"""Invalid options raise before the first step, and rarely used options work."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.common.objectives import budgeted_hessian
from fastcurv.krylov.solvers import CGWorkspace, capped_cg
from fastcurv.optimize.refine import _krylov_solve
from fastcurv.testing import FunctionObjective, QuadraticObjective

OBJECTIVE = fc.Objective(fc.MLP([2, 3, 1]), np.eye(2), [0.0, 1.0], "mse")
THETA = OBJECTIVE.model.init(rng=0)
INVALID_OPTIONS = {
    "method": ("newtn", {}, ValueError, "method must be .*got 'newtn'"),
    "a word misspelt": ("sgd", {"learning_rat": 1.0}, TypeError, "Did you mean 'learning_rate'"),
    "a word of others": ("adam", {"radius": 1.0}, TypeError, "no option 'radius'"),
    "max_iter": ("sgd", {"max_iter": 0}, ValueError, "max_iter"),
    "max_time": ("trust-region", {"max_time": -1}, ValueError, "max_time"),
    "rng": ("trust-region", {"rng": "a"}, TypeError, "rng"),
    "learning_rate": ("sgd", {"learning_rate": -1.0}, ValueError, "learning_rate"),
    "schedule of a word": ("sgd", {"schedule": "cosine"}, ValueError, "schedule"),
    "momentum": ("momentum", {"momentum": 1.0}, ValueError, "momentum"),
    "radius": ("trust-region", {"radius": 0.0}, ValueError, "radius"),
    "callback": ("trust-region", {"callback": 3}, TypeError, "callback"),
    "clip": ("adam", {"clip": -1.0}, ValueError, "clip"),
    "clip of a word": ("adam", {"clip": "a"}, TypeError, "clip must be .*got 'a'"),
    "eps": ("adam", {"eps": -1.0}, ValueError, "eps must be .*got -1.0"),
    "eps of None": ("rmsprop", {"eps": None}, TypeError, "eps must be .*got None"),
    "rate": (
        "sgd",
        {"learning_rate": lambda t: np.nan},
        ValueError,
        "of update 1 must be .*got nan",
    ),
    "rate None": (
        "sgd",
        {"schedule": lambda t: None},
        ValueError,
        "of update 1 must be .*got None",
    ),
    "record_every": ("adam", {"record_every": 1.5}, TypeError, "record_every"),
    "record_every True": ("adam", {"record_every": True}, TypeError, "record_every"),
    "batch_size": ("adam", {"batch_size": 0}, ValueError, "batch_size"),
    "batch_size True": ("adam", {"batch_size": True}, TypeError, "batch_size"),
    "weight": ("newton-cg", {"weight": -1.0}, ValueError, "weight"),
    "precondition": ("trust-region", {"precondition": 1}, TypeError, "precondition"),
    "damping": ("saddle-free-newton", {"damping": -1.0}, ValueError, "damping"),
    "schedule": ("adam", {"schedule": 3}, TypeError, "a name or a function"),
}


@pytest.mark.parametrize("name", INVALID_OPTIONS)
def test_invalid_options_raise_before_the_first_step(name):
    method, options, kind, words = INVALID_OPTIONS[name]
    with pytest.raises(kind, match=words) as error:
        fc.minimize(OBJECTIVE, THETA, method, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "method, options",
    [
        ("newton-cg", {"weight": 1e-3}),
        ("saddle-free-newton", {"damping": 0.1}),
        ("adam", {"clip": 1e-3}),
        ("adam", {"clip": 1e3}),
        ("adam", {"schedule": lambda t: 0.01 / (1 + t)}),
    ],
)
def test_rarely_used_options_lower_the_loss(method, options):
    found = fc.minimize(OBJECTIVE, THETA, method, max_iter=20, verdict=False, rng=0, **options)
    assert found.fun < OBJECTIVE.value(THETA)


# --- conjugate gradients that stop at negative curvature


def products_with(H):
    def multiply(v, out):
        out[:] = H @ v

    return multiply


def test_capped_cg_ends_when_stop_returns_true():
    rng = np.random.default_rng(0)
    H, g = np.diag(np.linspace(1, 100, 40)), rng.standard_normal(40)
    calls = []
    d, curvature, bound = capped_cg(
        products_with(H), g, 1e-3, 1e-10, CGWorkspace(40, np.dtype(float)),
        stop=lambda: calls.append(1) or len(calls) == 3,
    )  # fmt: skip
    assert len(calls) == 3 and curvature is None and d @ g < 0 and bound <= 100 * (1 + 1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_capped_cg_is_the_same_for_gradients_of_any_size(dtype):
    """If the gradient is multiplied by a power of two, the direction of capped CG is bitwise
    multiplied by a power of two and the curvature is unchanged, even if squares overflow.
    """
    rng, most = np.random.default_rng(0), np.finfo(dtype).maxexp - 20
    M = rng.standard_normal((12, 12))
    H, g = (M @ M.T + np.eye(12)).astype(dtype), rng.standard_normal(12).astype(dtype)
    for matrix in (H, H - dtype(20) * np.eye(12, dtype=dtype)):
        found = []
        for power in (0, 9, -most, most):
            start = np.ldexp(g, power).astype(dtype)
            d, curvature, _ = capped_cg(
                products_with(matrix), start, 1e-3, 1e-3, CGWorkspace(12, dtype), stop=lambda: False
            )
            own = power if curvature is None else np.frexp(np.abs(d).max())[1]
            found.append((np.ldexp(d, -own), curvature))
        for d, curvature in found[1:]:
            assert np.array_equal(d, found[0][0]) and curvature == found[0][1]


def test_capped_cg_finds_curvature_by_slow_convergence():
    """If the residual of CG decreases slowly although no step had small curvature, the returned
    difference of two iterates has curvature below -eps, confirmed by a product.
    """
    n, eps = 60, 1e-2
    values = np.concatenate([[-30 * eps], np.geomspace(1e-3, 1.0, n - 1)])
    rng = np.random.default_rng(3)
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    H = (Q * values) @ Q.T
    seen = 0
    for share in (1e-3, 1e-6, 1e-9, 1e-12):
        g = Q @ np.concatenate([[share], rng.standard_normal(n - 1)])
        work = CGWorkspace(n, np.dtype(float))
        d, curvature, _ = capped_cg(products_with(H), g, eps, 1e-14, work, max_iter=400)
        if curvature is not None:
            seen += 1
            true = float(d @ (H @ d)) / float(d @ d)
            assert true <= -eps and abs(true - curvature) <= 1e-8 * np.linalg.norm(H, 2)
    assert seen == 4


# --- final Newton steps for large n


@pytest.mark.parametrize("least, found", [(0.5, True), (-0.5, False)])
def test_refinement_solves_definite_systems_in_a_krylov_space(least, found):
    values = np.concatenate([[least], np.linspace(1, 2, 59)])
    ob = QuadraticObjective(np.diag(values))
    H = budgeted_hessian(ob, np.ones(60))
    step = _krylov_solve(H)(values.copy())
    assert H.count > 0
    assert (step is not None) == found
    if found:
        assert np.abs(step + 1).max() <= 1e-2


def test_a_loss_that_overflows_ends_a_run_with_a_finite_value():
    steep = FunctionObjective(
        2,
        lambda x: float(np.exp(x @ x) - x[0] ** 2),
        lambda x: 2 * x * np.exp(x @ x) - 2 * x * np.array([1.0, 0.0]),
        lambda x: np.diag(2 * np.exp(x @ x) * np.ones(2)) - np.diag([2.0, 0.0]),
    )
    with np.errstate(all="ignore"):
        found = fc.minimize(steep, np.array([3.0, 2.0]), "newton", max_iter=50, verdict=False)
    assert np.isfinite(found.fun)
