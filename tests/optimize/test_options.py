"""Invalid options raise before the first step, and rarely used options work."""

from dataclasses import fields

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.krylov.solvers import CGWorkspace, capped_cg
from fastcurv.optimize.minimize import METHODS

OBJECTIVE = fc.Objective(fc.MLP([2, 3, 1]), np.eye(2), [0.0, 1.0], "mse")
THETA = OBJECTIVE.model.init(rng=0)
INVALID_OPTIONS = {
    "method": ("newtn", {}, ValueError, "method must be .*got 'newtn'"),
    "a word misspelt": ("sgd", {"learning_rat": 1.0}, TypeError, "Did you mean 'learning_rate'"),
    "a word of others": ("adam", {"radius": 1.0}, TypeError, "no argument 'radius'"),
    "max_iter": ("sgd", {"max_iter": 0}, ValueError, "max_iter"),
    "max_time": ("trust-region", {"max_time": -1}, ValueError, "max_time"),
    "rng": ("trust-region", {"rng": "a"}, TypeError, "rng"),
    "learning_rate": ("sgd", {"learning_rate": -1.0}, ValueError, "learning_rate"),
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
        {"learning_rate": lambda t: None},
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
    "learning_rate of a word": ("adam", {"learning_rate": "a"}, TypeError, "learning_rate"),
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
        ("adam", {"learning_rate": lambda t: 0.01 / (1 + t)}),
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


@pytest.mark.parametrize("name", METHODS)
def test_every_option_is_described_for_the_api_reference(name):
    assert all(entry.metadata["doc"] for entry in fields(METHODS[name]))
    assert METHODS[name].__doc__
