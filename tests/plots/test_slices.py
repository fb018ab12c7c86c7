"""Slices of losses that know no network, and directions there are none of."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import matplotlib  # noqa: E402

matplotlib.use("Agg")

from fastcurv.plots.landscape import LandscapeDisplay, filter_normalised  # noqa: E402
from fastcurv.testing import QuadraticObjective  # noqa: E402

BOWL = QuadraticObjective(np.diag([2.0, 6.0]))
AT = np.array([3.0, 4.0])


def test_a_slice_of_any_loss():
    shown = LandscapeDisplay.from_objective(BOWL, AT, n_grid=5, radius=0.5, seed=0)
    assert shown.losses.shape == (5,) and shown.losses[2] == BOWL.value(AT)
    if shown.taylor is not None:
        assert np.allclose(shown.taylor, shown.losses)
    direction = filter_normalised(BOWL, AT, np.random.default_rng(0))
    assert abs(np.linalg.norm(direction) - 5) <= 1e-12
    assert (
        abs(np.linalg.norm(filter_normalised(BOWL, 0 * AT, np.random.default_rng(0))) - 1) < 1e-12
    )


def test_a_slice_drawn_logarithmically():
    shown = LandscapeDisplay.from_objective(BOWL, AT, n_grid=5, radius=0.5, seed=0)
    assert shown.plot(log=True).ax_.get_yscale() == "log"
    assert shown.plot().ax_.get_yscale() == "linear"
    through = LandscapeDisplay.from_objective(BOWL, 0 * AT, n_grid=5, radius=0.5, seed=0)
    assert through.plot(log=True).ax_.get_yscale() == "linear", "the loss is 0 at its minimum"


def test_the_slice_along_the_gradient():
    down = LandscapeDisplay.from_objective(BOWL, AT, directions="gradient", n_grid=5, radius=0.1)
    assert (np.diff(down.losses) < 0).all()
    for theta, dims, words in [(AT, 2, "wanted 1 for"), (0 * AT, 1, "the gradient at theta is 0")]:
        with pytest.raises(ValueError, match=words):
            LandscapeDisplay.from_objective(BOWL, theta, directions="gradient", n_dims=dims)


def test_the_polynomial_is_drawn_up_to_a_third_beyond_the_losses():
    steps, losses = np.linspace(-1, 1, 5), np.array([6.0, 3.0, 2.0, 3.0, 6.0])
    taylor = np.array([7.1, 7.3, 2.0, 0.9, 0.7])  # the losses take 4, of which 1.2 is shown
    shown = LandscapeDisplay(steps, losses, np.eye(2)[:1], ("x",), taylor=taylor).plot()
    drawn = shown.ax_.lines[1].get_ydata()
    assert np.array_equal(drawn, [7.1, np.nan, 2.0, 0.9, np.nan], equal_nan=True)
