"""Pieces of `minimize`, each against a definition written another way."""

import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.common.vectors import reduction_ratio
from fastcurv.critical.evidence import hessian_products
from fastcurv.optimize import checkpoint
from fastcurv.optimize.finish import (
    STATUS,
    Finisher,
    Rest,
    _factor,
    directions,
    falls_for_ever,
    flat_space,
    lower_along,
    polish,
)  # fmt: skip
from fastcurv.optimize.minimize import METHODS
from fastcurv.optimize.run import Run
from fastcurv.testing import FunctionObjective, PrescribedSpectrum, QuadraticObjective


class Bowl:
    """``theta'diag(values) theta / 2`` by products."""

    def __init__(self, values):
        self.n_params, self.values = len(values), np.asarray(values)

    def value(self, theta):
        return 0.5 * float(self.values @ theta**2)

    def gradient(self, theta):
        return self.values * theta

    def hessian(self, theta):
        return PrescribedSpectrum(self.values, 0)


def test_the_flat_space_is_that_of_the_weakest_eigenvalues():
    """At most 1e-5 of the largest, weakest first; where n is at the limit or above it, nothing."""
    ob = Bowl([4.0, 3e-5, -1e-6, 5e-5, -2.0, 0.0])
    flat, n_products = flat_space(ob, np.zeros(6), 7)
    assert n_products == 6 and flat.shape == (6, 3)
    assert np.array_equal(np.abs(flat).argmax(axis=0), [5, 2, 1])
    assert np.allclose(np.abs(flat).max(axis=0), 1)
    none, n_products = flat_space(ob, np.zeros(6), 6)
    assert none.shape == (6, 0) and n_products == 0


@pytest.mark.parametrize("dense_below", [0, 100])
def test_steps_at_the_end_say_what_they_cost(dense_below):
    """One Newton step solves a quadratic: n products by a factor, a Krylov space's else. Steps go
    on while they halve the gradient, down to where its squares are no numbers.
    """
    ob = Bowl(np.linspace(1, 2, 9))
    at = np.full(9, 1e-3)
    theta, n_steps, n_products, n_gradients = polish(ob, at, dense_below, lambda: False)
    assert n_steps >= 1 and np.abs(theta).max() < 1e-8 and (at == 1e-3).all()
    if dense_below:
        assert n_products % 9 == 0
    assert n_products >= 9 and n_gradients > n_steps
    theta, n_steps, n_products, _ = polish(ob, at, dense_below, lambda: True)
    assert n_steps == n_products == 0 and (theta == at).all()


@pytest.mark.parametrize(
    ("kind", "certified", "value", "dtype", "taken"),
    [
        ("minimum", True, 1.0, "float64", True),
        ("minimum", True, 0.5, "float64", True),
        ("minimum", True, 1.1, "float64", False),
        ("minimum", False, 0.5, "float64", False),
        ("saddle", True, 0.5, "float64", False),
        ("minimum", True, 0.5, "float32", False),
    ],
)
def test_a_run_ends_at_the_certified_minimum_near_it_if_that_is_no_higher(
    kind, certified, value, dtype, taken
):
    at = SimpleNamespace(kind=kind, certified=certified, reason="It is.")
    report = SimpleNamespace(at_nearest=at, nearest=np.ones(2))
    point = Rest(np.zeros(2, dtype), moves=False, report=report)
    run = SimpleNamespace(value=lambda theta: value if theta[0] else 1.0)
    found = Finisher._nearest(SimpleNamespace(run=run), point)
    assert (found is not None) == taken
    if taken:
        assert found.kind == "minimum" and (found.theta == 1).all()


def test_without_a_word_a_run_is_saved_twice_a_minute_at_most(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "perf_counter", lambda: now[0])
    saver = checkpoint.Saver("there", None)
    wrote = []
    saver.take = lambda loop: None
    saver.write = lambda loop: wrote.append(now[0])
    loop = SimpleNamespace(run=SimpleNamespace(cut=False, iteration=3, f=1.0))
    for now[0] in (1.0, 29.0, 31.0):
        saver.now_and_then(loop)
    assert wrote == [31.0]
    often = checkpoint.Saver("there", 3)
    often.take, often.write = saver.take, saver.write
    often.now_and_then(loop)
    assert len(wrote) == 2


def test_the_default_of_epochs_and_of_iterations(problem, rng):
    """100 epochs where rows are taken some at a time, 1000 iterations else."""
    p = problem(rng, (2, 2, 1), N=4)
    words = {"gradient_tol": 1e-300, "verdict": False}
    run = fc.minimize(p.ob, p.theta, "sgd", batch_size=4, learning_rate=1e-6, **words)
    assert run.nit == 100
    run = fc.minimize(p.ob, p.theta, "sgd", learning_rate=1e-9, **words)
    assert run.nit == 1000


def test_patience_ends_where_a_loss_only_stays(problem, rng):
    """As low as before is no progress: the best point is the first of its score."""
    p = problem(rng, (2, 2, 1), N=4)
    flat = SimpleNamespace(value=lambda theta: 3.0, n_params=p.n)
    words = {"learning_rate": 1e-3, "gradient_tol": 1e-300, "verdict": False}
    run = fc.minimize(p.ob, p.theta, "sgd", validation=flat, patience=4, max_iter=30, **words)
    assert run.nit == 4 and np.array_equal(run.x, p.theta) and "patience" in run.message


def test_statuses_are_numbered_as_minimize_lists_them():
    listed = re.search(r"``stopped``: (.*?)`status` is its number", fc.minimize.__doc__, re.S)[1]
    names = [name for part in re.findall(r"``(.*?)``", listed, re.S) for name in part.split()]
    assert {name: i for i, name in enumerate(names)} == STATUS


@pytest.mark.parametrize(
    ("shape", "free", "walled"),
    [
        (lambda t: t**2, False, False),
        (lambda t: t**2 + 0.1 * t, True, True),
        (lambda t: t**2 - 0.1 * t, True, True),
        (lambda t: t**2 - 2 * t**4, True, False),
        (lambda t: 1.0 + 1e-16 * np.sign(t), False, False),
    ],
    ids=["bowl", "to the left", "to the right", "over a wall", "lost in rounding"],
)
def test_a_lower_point_on_a_line_is_lower(shape, free, walled):
    """Where there is one, on either side; one that lies over a wall is none with `barrier`."""
    for barrier, there in ((False, free), (True, walled)):
        start, along = np.zeros(2), np.array([1.0, 0.0])
        found = lower_along(lambda at: shape(at[0]), start, shape(0.0), along, barrier)
        assert (found is not None) == there
        if there:
            assert found[1] == shape(found[0][0]) < shape(0.0) and found[0][1] == 0


@pytest.mark.parametrize("elapsed, limit", [(0.01, None), (50.0, None), (200.0, 210.0), (2.0, 2.5)])
def test_checks_take_no_longer_than_the_run_and_end_with_its_time(elapsed, limit):
    """Or a second, where the run has taken less; nothing is over at first."""
    run = SimpleNamespace(
        n_products=10, n_gradients=5, theta=np.zeros(2000), elapsed=lambda: elapsed, max_time=limit
    )
    run.left = partial(Run.left, run)
    end = Finisher(run, None, METHODS["trust-region"], {})
    assert not end.over() and end.price() == elapsed / 25
    room = max(elapsed, 1.0) if limit is None else min(max(elapsed, 1.0), limit - elapsed)
    assert end.left(1.0) == pytest.approx(room)
    end.spent = elapsed / 2
    assert end.training() == elapsed / 2
    assert end.over() == (elapsed >= 2 or end.left(1.0) <= 0)


# --- where gradients lie, numbers end or nothing falls

BOWL = QuadraticObjective(np.diag([1.0, 2.0]))


def line(value, slope=1.0, curvature=1.0):
    """A function of one number whose gradient and curvature are said to be constant."""
    return FunctionObjective(
        1,
        lambda x: float(value(x[0])),
        lambda x: np.array([slope]),
        lambda x: np.eye(1) * curvature,
    )


# --- methods on functions whose derivatives lie


@pytest.mark.parametrize(
    "method, words",
    [
        ("newton-cg", "no lower value, along the Newton-CG step or the gradient"),
        ("trust-region", "as short as rounding without lowering the loss"),
        ("l-bfgs", "no lower value along the gradient"),
        ("newton-mr", "no smaller gradient along the Newton-MR step"),
    ],
)
def test_a_gradient_that_lies_stalls_the_run_where_it_began(method, words):
    found = fc.minimize(line(abs), np.zeros(1), method, max_iter=50, verdict=False)
    assert not found.success and found.stopped == "stalled" and words in found.message
    assert np.array_equal(found.x, [0.0]) and found.fun == 0


def test_newton_mr_on_a_slope_without_curvature():
    found = fc.minimize(line(lambda x: x, curvature=0.0), np.zeros(1), "newton-mr", verdict=False)
    assert not found.success and "orthogonal to the range of the Hessian" in found.message


def test_newtons_step_out_of_the_numbers():
    wall = FunctionObjective(
        1,
        lambda x: float(x[0] - np.log(x[0])) if x[0] > 0 else np.inf,
        lambda x: 1 - 1 / x,
        lambda x: np.diag(1 / x**2),
    )
    found = fc.minimize(wall, np.full(1, 3.0), "newton", max_iter=5, verdict=False)
    assert found.stopped == "stalled" and "a loss that is not finite" in found.message
    assert np.array_equal(found.x, [3.0])


def test_a_ratio_counts_rounding_as_nothing():
    eps = 2.0**-52
    assert reduction_ratio(2.0, 1.0, 0.5, eps) == pytest.approx(2, rel=1e-13)
    assert reduction_ratio(1.0, 1.0 + eps, eps / 10, eps) == pytest.approx(1, rel=0.2)
    assert (
        reduction_ratio(1.0, np.inf, 1.0, eps) == reduction_ratio(1.0, np.nan, 1.0, eps) == -np.inf
    )
    assert reduction_ratio(0.0, 0.0, 0.0, eps) == -np.inf


# --- the end of a run


def test_rays_along_which_the_value_falls():
    falling = FunctionObjective(
        1, lambda x: np.exp(-x[0]), lambda x: -np.exp(-x), lambda x: np.diag(np.exp(-x))
    )
    at = np.zeros(1)
    assert falls_for_ever(falling, falling.value, at, 1.0, np.ones(1))
    assert not falls_for_ever(falling, falling.value, at, 1.0, -np.ones(1))
    assert not falls_for_ever(falling, falling.value, at, 1.0, np.zeros(1))
    assert not falls_for_ever(falling, falling.value, at, 1.0, np.full(1, np.inf))
    assert not falls_for_ever(BOWL, BOWL.value, np.ones(2), 1.5, -np.ones(2))


def test_probes_that_are_nothing_are_no_directions(rng):
    probed = SimpleNamespace(probes=lambda theta: np.array([[0.0, 3.0], [0.0, 4.0]]))
    flat = np.eye(2)[:, 1:]
    found = list(directions(probed, np.zeros(2), flat, rng))
    assert np.allclose(found[-1], [0.6, 0.8]) and np.array_equal(found[-2], flat[:, 0])
    assert all(np.linalg.norm(v) == pytest.approx(1) for v in found)


def test_polish_keeps_to_what_is_no_higher():
    """Newton's step halves the gradient of x^3/3 - x beside its maximum, and climbs."""
    top = FunctionObjective(
        1, lambda x: x[0] ** 3 / 3 - x[0], lambda x: x**2 - 1, lambda x: np.diag(2 * x)
    )
    start, never = np.full(1, -0.95), lambda: False
    assert np.array_equal(polish(top, start, 100, never)[0], start)
    low, n_steps, *_ = polish(top, np.full(1, 1.02), 100, never)
    assert abs(low[0] - 1) <= 1e-15 and n_steps >= 2
    assert _factor(hessian_products(line(lambda x: x, curvature=0.0), np.zeros(1))) is None
    climbs = FunctionObjective(1, lambda x: -float(x @ x), lambda x: 2 * x, lambda x: 2 * np.eye(1))
    assert np.array_equal(polish(climbs, np.full(1, 1e-3), 100, never)[0], [1e-3])
