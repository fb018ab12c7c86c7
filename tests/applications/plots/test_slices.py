"""Slices of losses along given, random and eigenvector directions, also of objectives that are not
networks.
"""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import matplotlib  # noqa: E402

matplotlib.use("Agg")

import fastcurv as fc  # noqa: E402
from fastcurv.applications.plots.landscape import LandscapeDisplay, filter_normalised_direction  # noqa: E402
from fastcurv.testing import QuadraticObjective  # noqa: E402

BOWL = QuadraticObjective(np.diag([2.0, 6.0]))
AT = np.array([3.0, 4.0])


def test_slices_support_user_defined_losses():
    shown = LandscapeDisplay.from_objective(BOWL, AT, n_grid=5, radius=0.5, rng=0)
    assert shown.losses.shape == (5,) and shown.losses[2] == BOWL.value(AT)
    if shown.taylor is not None:
        assert np.allclose(shown.taylor, shown.losses)
    direction = filter_normalised_direction(BOWL, AT, np.random.default_rng(0))
    assert abs(np.linalg.norm(direction) - 5) <= 1e-12
    assert (
        abs(np.linalg.norm(filter_normalised_direction(BOWL, 0 * AT, np.random.default_rng(0))) - 1)
        < 1e-12
    )


def test_slices_draw_losses_on_a_logarithmic_axis():
    shown = LandscapeDisplay.from_objective(BOWL, AT, n_grid=5, radius=0.5, rng=0)
    assert shown.plot(log=True).ax_.get_yscale() == "log"
    assert shown.plot().ax_.get_yscale() == "linear"
    through = LandscapeDisplay.from_objective(BOWL, 0 * AT, n_grid=5, radius=0.5, rng=0)
    assert through.plot(log=True).ax_.get_yscale() == "linear", "the loss is 0 at its minimum"


@pytest.mark.parametrize("log", [True, False])
def test_infinite_losses_do_not_set_the_scale(log):
    steps = np.linspace(-1, 1, 9)
    losses = steps[:, None] ** 2 + steps**2 + 0.1
    losses[0, 0], losses[8, 8] = np.inf, np.nan
    shown = LandscapeDisplay(steps, losses, np.eye(2), ("a", "b")).plot(log=log)
    low, high = shown.ax_.collections[0].get_clim()
    ends = np.array([0.1, 1.6])  # smallest and largest finite loss
    ends = np.log10(ends) if log else ends
    assert abs(low - ends[0]) <= 0.5 and abs(high - ends[1]) <= 0.5
    line = LandscapeDisplay(steps, losses[0], np.eye(2)[:1], ("a",), taylor=1e9 * steps)
    assert line.plot(log=log).ax_.get_ylim()[1] < 10


def test_slices_can_follow_the_gradient():
    down = LandscapeDisplay.from_objective(BOWL, AT, directions="gradient", n_grid=5, radius=0.1)
    assert (np.diff(down.losses) < 0).all()
    for theta, dims, words in [
        (AT, 2, "must be 1 for"),
        (0 * AT, 1, "at a theta whose gradient is 0"),
    ]:
        with pytest.raises(ValueError, match=words):
            LandscapeDisplay.from_objective(BOWL, theta, directions="gradient", n_dims=dims)


def test_the_taylor_polynomial_is_cut_a_third_beyond_the_losses():
    steps, losses = np.linspace(-1, 1, 5), np.array([6.0, 3.0, 2.0, 3.0, 6.0])
    taylor = np.array([7.1, 7.3, 2.0, 0.9, 0.7])  # the losses span 4, of which 1.2 is shown
    shown = LandscapeDisplay(steps, losses, np.eye(2)[:1], ("x",), taylor=taylor).plot()
    drawn = shown.ax_.lines[1].get_ydata()
    assert np.array_equal(drawn, [7.1, np.nan, 2.0, 0.9, np.nan], equal_nan=True)


def saddle():
    """Return the objective (1 - a b)^2 of a linear network with two weights a and b, which has a
    saddle at the origin.
    """
    x = np.array([[-1.0], [1.0]])
    return fc.Objective(fc.MLP([1, 1, 1], activation="identity", bias=False), x, x, loss="mse")


@pytest.mark.parametrize("seed", range(8))
def test_random_slices_show_the_saddle_at_the_origin(seed):
    """At the origin, where the weights have no norm to scale by, two random directions have an
    angle of at least 30 degrees, and the slice has lower and higher losses than the origin.
    """
    at = np.zeros(2)
    shown = LandscapeDisplay.from_objective(
        saddle(), at, n_dims=2, n_grid=21, rng=seed, directions="random"
    )
    u, w = (v / np.linalg.norm(v) for v in shown.directions)
    assert abs(u @ w) <= 0.75**0.5, "30 degrees"
    middle = shown.losses[10, 10]
    assert shown.losses.min() < middle < shown.losses.max()
    line = LandscapeDisplay.slice(saddle(), at, n_grid=5, rng=seed, directions="random")
    assert line.directions.all() and np.ptp(line.losses) > 0


def test_units_of_zero_weights_move_as_far_as_others_of_their_layer():
    model = fc.MLP([400, 30, 20], activation="tanh")
    ob = fc.Objective(model, np.zeros((1, 400)), np.zeros((1, 20)), loss="mse")
    W = np.zeros((30, 400))
    W[:10, 0] = 0.01
    theta = model.flatten([(W, np.ones(30)), (np.zeros((20, 30)), np.ones(20))])
    direction = filter_normalised_direction(ob, theta, np.random.default_rng(0))
    (D, d), (E, e) = model.unflatten(direction)
    lengths = np.linalg.norm(D, axis=1)
    assert np.allclose(lengths[:10], 0.01, rtol=1e-12) and not d.any() and not e.any()
    # the root mean square of 400 normal numbers is off by 1/sqrt(800), of 30 by 1/sqrt(60)
    assert (abs(lengths[10:] / 0.01 - 1) <= 5 / 800**0.5).all()
    assert (abs(np.linalg.norm(E, axis=1) - 1) <= 5 / 60**0.5).all()


@pytest.mark.parametrize("seed", range(8))
def test_two_random_directions_span_a_plane(seed):
    """Two random directions are linearly independent, even for units of one weight, for which only
    the sign is random.
    """
    plane = LandscapeDisplay.slice(saddle(), AT, n_dims=2, n_grid=3, rng=seed, directions="random")
    assert np.allclose(abs(plane.directions), [AT, AT], rtol=1e-12)
    assert np.linalg.matrix_rank(plane.directions) == 2
    thin = LandscapeDisplay.slice(
        saddle(), [1e-3, 1.0], n_dims=2, n_grid=3, rng=seed, directions="random"
    )
    assert abs(np.linalg.det(thin.directions)) == pytest.approx(2e-3), "the best there is"


def test_the_default_slice_shows_the_descent_from_a_saddle():
    saddle = fc.testing.lecture_toy()
    X = np.random.default_rng(0).standard_normal((20, 3))
    wide = fc.Objective(fc.MLP([3, 5, 4, 1]), X, X[:, :1], loss="mse", l2=1e-3)
    for ob, theta in ((saddle, np.zeros(2)), (wide, np.zeros(wide.n_params))):
        assert np.linalg.norm(ob.gradient(theta)) < 1 and fc.eigvalsh(ob.hessian(theta))[0] < 1e-3
        line = LandscapeDisplay.slice(ob, theta, n_grid=5, radius=0.1)
        again = LandscapeDisplay.slice(ob, theta, n_grid=5, radius=0.1)
        assert np.array_equal(line.losses, again.losses) and "eigenvector" in line.names[0]
    line = LandscapeDisplay.slice(saddle, np.zeros(2), n_grid=5)
    assert line.losses[2] > max(line.losses[0], line.losses[-1])
    plane = LandscapeDisplay.slice(saddle, np.zeros(2), n_dims=2, n_grid=5)
    assert plane.losses[2, 2] > plane.losses[2, 0] and plane.losses[2, 2] < plane.losses[0, 2]
    bowl = SimpleNamespace(value=BOWL.value)  # an objective without a Hessian
    bare = LandscapeDisplay.slice(bowl, AT, n_grid=3)
    same = LandscapeDisplay.slice(bowl, AT, directions="random", n_grid=3)
    assert np.array_equal(bare.directions, same.directions) and "random" in bare.names[0]
    other = LandscapeDisplay.slice(bowl, AT, n_grid=3, rng=1)
    assert not np.array_equal(other.directions, bare.directions)


def test_titles_of_random_slices_say_what_they_may_hide():
    pytest.importorskip("matplotlib")
    for dims in (1, 2):
        shown = LandscapeDisplay.slice(BOWL, AT, directions="random", n_dims=dims, n_grid=3).plot()
        assert "saddle often looks like a minimum" in shown.ax_.get_title()
    toy = fc.testing.lecture_toy()
    assert not LandscapeDisplay.from_objective(toy, np.zeros(2), n_grid=3).ax_.get_title()


def test_a_line_to_another_point_joins_theta_and_that_point():
    end = np.array(AT) + [2.0, -1.0]
    line = LandscapeDisplay.slice(BOWL, AT, to=end, n_grid=5)
    assert line.steps.tolist() == [0, 0.25, 0.5, 0.75, 1]
    points = np.array(AT) + line.steps[:, None] * (end - AT)
    assert np.allclose(line.losses, [BOWL.value(t) for t in points], rtol=1e-14)
    shown = LandscapeDisplay.from_objective(BOWL, AT, to=end, n_grid=5)
    assert "the other point" in shown.ax_.get_xlabel()
    for given in ({"directions": "gradient"}, {"n_dims": 2}):
        with pytest.raises(ValueError, match="if to is given"):
            LandscapeDisplay.slice(BOWL, AT, to=end, **given)
    with pytest.raises(ValueError, match="differs from theta"):
        LandscapeDisplay.slice(BOWL, AT, to=AT)
