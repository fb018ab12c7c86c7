"""Displays of spectra and loss landscapes show the numbers that were computed, on given axes or on
new ones.
"""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest

plt = pytest.importorskip("matplotlib.pyplot")

import fastcurv as fc  # noqa: E402
from fastcurv.applications.plots import plain_numbers  # noqa: E402
from fastcurv.applications.plots.landscape import filter_normalised_direction  # noqa: E402
from fastcurv.applications.plots.style import Display, new_axes  # noqa: E402
from fastcurv.spectrum.draw import reflect_density_at_bounds  # noqa: E402
from fastcurv.testing import QuadraticObjective  # noqa: E402

from ...spectrum.spectra import density_of_matrix_eigenvalues  # noqa: E402
from ...spectrum.test_zeros import VALUES  # noqa: E402

BOWL = QuadraticObjective(np.diag([2.0, 6.0]))
LINE = QuadraticObjective(np.diag([2.0]))
AT = np.array([3.0, 4.0])


@pytest.fixture(scope="module")
def net():
    """Return (ob, theta): a small network, and a critical point found by Newton-CG."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 4)), rng.integers(3, size=40)
    ob = fc.Objective(fc.MLP([4, 5, 3]), X, y, loss="cross_entropy", l2=1e-2)
    return ob, fc.minimize(ob, ob.model.init(rng=0), "newton-cg", rng=0).x


# --- figures and axes


class Line(Display):
    def plot(self, ax=None):
        self.n_drawn = getattr(self, "n_drawn", 0) + 1
        self._create_axes(ax).plot([0, 1], [1, 0])
        return self


def test_a_display_draws_its_figure_on_first_access_only():
    shown = Line()
    assert shown._repr_png_() == shown._repr_png_() and shown.n_drawn == 1
    assert shown._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(NotImplementedError):
        Display()._repr_png_()


def test_a_notebook_shows_a_display_once():
    """A display's `_repr_png_` is None exactly if pyplot created its figure, which the inline
    backend shows at the end of the cell, so that a notebook shows each display once.
    """
    plt.close("all")
    never_plotted, plotted, on_axes, own = Line(), Line(), Line(), Line()
    plotted.plot()
    on_axes.plot(plt.figure().add_subplot())
    own.plot(new_axes())
    current = plt.gcf()
    for shown in (never_plotted, plotted, on_axes, own):
        picture = shown._repr_png_()
        held = [plt.figure(number) for number in plt.get_fignums()]
        assert (picture is None) == any(figure is shown.figure_ for figure in held)
        plt.figure(current)
    assert plotted._repr_png_() is None and own._repr_png_() is not None
    plt.close("all")  # as the inline backend does after each cell
    assert never_plotted._repr_png_() is not None and own._repr_png_() is not None


def test_pyplot_shows_a_plot_that_was_made_before_it_was_imported(python):
    python(
        "import sys, threading, fastcurv as fc\n"
        "fc.SpectrumDisplay; assert 'matplotlib' not in sys.modules\n"
        "import matplotlib; matplotlib.use('agg')\n"
        "import numpy as np\n"
        "shown = fc.SpectrumDisplay(fc.spectral_density(np.eye(2), n_probes=1))\n"
        "thread = threading.Thread(target=shown.plot); thread.start(); thread.join()\n"
        "assert 'matplotlib.pyplot' not in sys.modules and shown.figure_.axes\n"
        "shown.plot()\n"
        "import matplotlib.pyplot as plt\n"
        "assert plt.get_fignums() == [1] and shown.figure_ is plt.gcf()\n"
    )


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ((0.02, 0.7), ["0.02", "0.05", "0.1", "0.2", "0.5"]),
        ((1, 3), ["1", "2", "3"]),
        ((0.3, 4e4), ["1", "10", "100", "1000", "10000"]),
        ((3e-6, 2.0), ["$10^{-5}$", "$10^{-4}$", "$10^{-3}$", "$10^{-2}$", "$10^{-1}$", "1"]),
        ((2e-7, 4e-7), [rf"${digit}\times10^{{-7}}$" for digit in (2, 3, 4)]),
    ],
)
def test_logarithmic_axes_have_plain_tick_labels(limits, wanted):
    ax = new_axes()
    ax.set_yscale("log")
    ax.set_ylim(limits)
    for _ in range(2):  # a second line on the axes repeats the call
        plain_numbers(ax.yaxis)
    seen = {}
    for minor in (False, True):
        ticks = zip(ax.get_yticks(minor=minor), ax.get_yticklabels(minor=minor))
        seen |= {x: tick.get_text() for x, tick in ticks if limits[0] <= x <= limits[1]}
    assert [seen[x] for x in sorted(seen) if seen[x]] == wanted


def test_plain_tick_labels_leave_chosen_labels_and_linear_axes():
    ax = new_axes()
    ax.set_xscale("log")
    ax.set_xticks([3, 30], labels=["three", "thirty"])
    even = ax.yaxis.get_major_formatter()
    plain_numbers(ax.xaxis, ax.yaxis)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["three", "thirty"]
    assert ax.yaxis.get_major_formatter() is even


def test_curves_and_surfaces_are_drawn_with_their_scale():
    for y, log, scale in (([1.0, 2.0], True, "log"), ([-1.0, 2.0], True, "linear"),
                          ([1.0, 2.0], False, "linear")):  # fmt: skip
        assert fc.plots.curve([0, 1], y, log=log).get_yscale() == scale
    ax = fc.plots.surface(lambda a, b: a * a - b * b, (-1, 1), (-1, 1), n=11)
    assert ax.figure.axes[-1].get_ylabel() == "loss"


# --- spectra


def test_a_spectrum_shows_density_error_band_and_eigenvalues(net):
    ob, theta = net
    shown = fc.SpectrumDisplay.from_operator(ob.hessian(theta), k=3, n_probes=3, n_steps=8, rng=0)
    exact = fc.eigvalsh(ob.hessian(theta))
    assert np.allclose(shown.eigenvalues, [*exact[:3], *exact[-3:]], atol=1e-5)
    ax = shown.ax_
    assert np.array_equal(ax.lines[0].get_ydata(), shown.density.density)
    names = ax.get_legend_handles_labels()[1]
    assert any("2 standard errors of 3 probes" in name for name in names)
    assert any("6 positive eigenvalues" in name for name in names)
    assert shown.figure_ is ax.figure
    plt.close(shown.figure_)
    assert fc.SpectrumDisplay(shown.density)._repr_png_().startswith(b"\x89PNG")


def test_error_bands_always_show_two_standard_errors(net):
    ob, theta = net
    density = fc.spectral_density(ob.hessian(theta), n_probes=3, n_steps=10, rng=0)
    for ax in (density.plot(), fc.SpectrumDisplay(density).plot().ax_):
        names = ax.get_legend_handles_labels()[1]
        assert sum("2 standard errors" in name for name in names) == 1
        points = ax.collections[0].get_paths()[0].vertices
        assert points[:, 1].max() == pytest.approx((density.density + 2 * density.stderr).max())


@pytest.mark.parametrize("axis", ["linear", "log"])
def test_densities_are_restricted_to_proved_bounds_without_loss_of_mass(axis):
    H = np.diag(np.concatenate([np.full(30, 0.5), np.linspace(0.6, 3.0, 20)]))
    density = fc.spectral_density(H, n_probes=4, n_steps=30, axis=axis, rng=0)
    assert density.grid[0] < 0.5
    inside = reflect_density_at_bounds(density, 0.5, 3.0)
    assert inside.grid[0] == pytest.approx(0.5) and inside.grid[-1] == pytest.approx(3.0)
    assert inside.integral() == pytest.approx(density.integral(), abs=2e-3)
    assert reflect_density_at_bounds(density) is density
    shown = fc.SpectrumDisplay(density, bounds=(0.5, np.inf))
    assert shown.density.grid[0] == pytest.approx(0.5)


def test_the_plot_of_a_definite_spectrum_ends_at_0_and_has_a_title():
    for sign in (1, -1):
        shown = fc.SpectrumDisplay(density_of_matrix_eigenvalues(sign * np.abs(VALUES))).plot()
        x = sign * shown.ax_.lines[0].get_xdata()
        assert x.min() >= 0 and "22 zero within rounding" in shown.ax_.get_title()
    both = fc.SpectrumDisplay(density_of_matrix_eigenvalues(VALUES), eigenvalues=VALUES).plot()
    assert both.ax_.lines[0].get_xdata().min() < -1
    names = both.ax_.get_legend_handles_labels()[1]
    assert names[1:] == [f"{n} {sign} eigenvalues" for n, sign in
                         ((16, "negative"), (22, "zero"), (60, "positive"))]  # fmt: skip


SPECTRA = {
    "a decade": np.linspace(0.5, 3.0, 30),
    "positive": np.geomspace(1e-3, 3.0, 30),
    "negative": -np.geomspace(1e-2, 3.0, 30),
    "both": np.concatenate([[-1.0], np.geomspace(1e-3, 30.0, 29)]),
    "narrow": np.linspace(100.0, 101.0, 30),
}


def density(values, axis="log", **options):
    A = np.diag(values)
    return fc.spectral_density(A, n_probes=3, n_steps=20, axis=axis, rng=0, **options)


def decades(ax, *values):
    """Return an array of the positions of values on the x axis of `ax`, in decades."""
    return ax.xaxis.get_transform().transform(np.array(values, dtype=float))


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA)
def test_a_logarithmic_axis_spans_the_density(values, bounded):
    """The limits of a logarithmic axis are at most a twentieth of its length outside the density's
    grid. A line marks 0 if the grid contains it.
    """
    shown = density(values)
    if bounded:
        shown = reflect_density_at_bounds(shown, values.min(), values.max())
    ax = shown.plot()
    ends, limits = decades(ax, *shown.grid[[0, -1]]), decades(ax, *ax.get_xlim())
    margin = 0.051 * np.ptp(ends)
    assert ends[0] - margin <= limits[0] <= ends[0]
    assert ends[1] <= limits[1] <= ends[1] + margin
    at_zero = [line for line in ax.lines if not np.any(line.get_xdata())]
    assert bool(at_zero) == (shown.grid[0] <= 0 <= shown.grid[-1])
    assert pickle.loads(pickle.dumps(ax.figure)).axes


def test_axis_limits_include_a_second_density_and_its_eigenvalues():
    first, second = density(SPECTRA["a decade"]), density(SPECTRA["both"])
    ax = second.plot(ax=first.plot())
    low, high = ax.get_xlim()
    assert low <= second.grid[0] and high >= max(first.grid[-1], second.grid[-1])
    shown = fc.SpectrumDisplay(first, eigenvalues=[0.02, 90.0]).plot()
    low, high = shown.ax_.get_xlim()
    assert low <= 0.02 and high >= 90.0


@pytest.mark.parametrize(("axis", "unit"), [("linear", ""), ("log", " decades")])
def test_the_legend_gives_the_width_of_smoothing(axis, unit):
    shown = density(SPECTRA["positive"], axis, width=0.0312)
    name = f"density (smoothed over 0.031{unit})"
    for ax in (shown.plot(), fc.SpectrumDisplay(shown).plot().ax_):
        assert name in [text.get_text() for text in ax.get_legend().get_texts()]
    assert shown.plot(label="mine").lines[0].get_label() == "mine"


# --- slices


def test_losses_of_a_slice_are_those_at_its_points(net):
    ob, theta = net
    shown = fc.LandscapeDisplay.from_objective(ob, theta, n_grid=5, radius=0.5, rng=3)
    assert shown.losses[2] == ob.value(theta) and shown.losses.shape == (5,)
    assert shown.losses[4] == ob.value(theta + 0.5 * shown.directions[0])
    plane = fc.LandscapeDisplay.from_objective(ob, theta, n_dims=2, n_grid=3, rng=3)
    first, second = plane.directions
    assert plane.losses[0, 2] == ob.value(theta + first - second)
    assert plane.losses[2, 1] == ob.value(theta + 0 * first + second)


def test_random_directions_have_the_norm_of_each_units_weights(net):
    ob, theta = net
    direction = filter_normalised_direction(ob, theta, np.random.default_rng(0))
    for (W, _), (D, d) in zip(ob.model.unflatten(theta), ob.model.unflatten(direction)):
        assert np.allclose(np.linalg.norm(W, axis=1), np.linalg.norm(D, axis=1), rtol=1e-12)
        assert not d.any() and not np.allclose(W, D)


def test_eigenvector_slices_follow_the_extreme_eigenvectors(net):
    ob, theta = net
    H = ob.hessian(theta).to_dense()
    values = np.linalg.eigvalsh(H)
    one = fc.LandscapeDisplay.from_objective(ob, theta, directions="eigenvectors", n_grid=3)
    two = fc.LandscapeDisplay.from_objective(
        ob, theta, directions="eigenvectors", n_dims=2, n_grid=3
    )
    for v, value in ((one.directions[0], values[0]), *zip(two.directions, values[[0, -1]])):
        assert v @ H @ v == pytest.approx(value, rel=1e-6)
        assert f"{value:.3g}" in one.names[0] + two.names[1]


def test_the_error_of_the_taylor_polynomial_is_of_third_order(net):
    ob, theta = net
    shown = fc.LandscapeDisplay.from_objective(ob, theta, n_grid=9, radius=0.01, rng=0)
    error = np.abs(shown.taylor - shown.losses)
    assert 0.1 * error[0] <= error[2] <= 0.16 * error[0]  # the error is cubic in the distance
    names = shown.ax_.get_legend_handles_labels()[1]
    assert names == ["loss", "second-order Taylor"]


def test_slices_support_user_defined_losses():
    shown = fc.LandscapeDisplay.from_objective(BOWL, AT, n_grid=5, radius=0.5, rng=0)
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
    shown = fc.LandscapeDisplay.from_objective(BOWL, AT, n_grid=5, radius=0.5, rng=0)
    assert shown.plot(log=True).ax_.get_yscale() == "log"
    assert shown.plot().ax_.get_yscale() == "linear"
    through = fc.LandscapeDisplay.from_objective(BOWL, 0 * AT, n_grid=5, radius=0.5, rng=0)
    assert through.plot(log=True).ax_.get_yscale() == "linear", "the loss is 0 at its minimum"


@pytest.mark.parametrize("log", [True, False])
def test_infinite_losses_do_not_set_the_scale(log):
    steps = np.linspace(-1, 1, 9)
    losses = steps[:, None] ** 2 + steps**2 + 0.1
    losses[0, 0], losses[8, 8] = np.inf, np.nan
    shown = fc.LandscapeDisplay(steps, losses, np.eye(2), ("a", "b")).plot(log=log)
    low, high = shown.ax_.collections[0].get_clim()
    ends = np.array([0.1, 1.6])  # smallest and largest finite loss
    ends = np.log10(ends) if log else ends
    assert abs(low - ends[0]) <= 0.5 and abs(high - ends[1]) <= 0.5
    line = fc.LandscapeDisplay(steps, losses[0], np.eye(2)[:1], ("a",), taylor=1e9 * steps)
    assert line.plot(log=log).ax_.get_ylim()[1] < 10


def test_slices_can_follow_the_gradient():
    down = fc.LandscapeDisplay.from_objective(BOWL, AT, directions="gradient", n_grid=5, radius=0.1)
    assert (np.diff(down.losses) < 0).all()
    for theta, dims, words in [
        (AT, 2, "must be 1 for"),
        (0 * AT, 1, "at a theta whose gradient is 0"),
    ]:
        with pytest.raises(ValueError, match=words):
            fc.LandscapeDisplay.from_objective(BOWL, theta, directions="gradient", n_dims=dims)


def test_the_taylor_polynomial_is_cut_a_third_beyond_the_losses():
    steps, losses = np.linspace(-1, 1, 5), np.array([6.0, 3.0, 2.0, 3.0, 6.0])
    taylor = np.array([7.1, 7.3, 2.0, 0.9, 0.7])  # the losses span 4, of which 1.2 is shown
    shown = fc.LandscapeDisplay(steps, losses, np.eye(2)[:1], ("x",), taylor=taylor).plot()
    drawn = shown.ax_.lines[1].get_ydata()
    assert np.array_equal(drawn, [7.1, np.nan, 2.0, 0.9, np.nan], equal_nan=True)


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


def test_the_default_slice_shows_the_descent_from_a_saddle():
    saddle = fc.testing.lecture_toy()
    X = np.random.default_rng(0).standard_normal((20, 3))
    wide = fc.Objective(fc.MLP([3, 5, 4, 1]), X, X[:, :1], loss="mse", l2=1e-3)
    for ob, theta in ((saddle, np.zeros(2)), (wide, np.zeros(wide.n_params))):
        assert np.linalg.norm(ob.gradient(theta)) < 1 and fc.eigvalsh(ob.hessian(theta))[0] < 1e-3
        line = fc.LandscapeDisplay.slice(ob, theta, n_grid=5, radius=0.1)
        again = fc.LandscapeDisplay.slice(ob, theta, n_grid=5, radius=0.1)
        assert np.array_equal(line.losses, again.losses) and "eigenvector" in line.names[0]
    line = fc.LandscapeDisplay.slice(saddle, np.zeros(2), n_grid=5)
    assert line.losses[2] > max(line.losses[0], line.losses[-1])
    plane = fc.LandscapeDisplay.slice(saddle, np.zeros(2), n_dims=2, n_grid=5)
    assert plane.losses[2, 2] > plane.losses[2, 0] and plane.losses[2, 2] < plane.losses[0, 2]
    bowl = SimpleNamespace(value=BOWL.value)  # an objective without a Hessian
    bare = fc.LandscapeDisplay.slice(bowl, AT, n_grid=3)
    same = fc.LandscapeDisplay.slice(bowl, AT, directions="random", n_grid=3)
    assert np.array_equal(bare.directions, same.directions) and "random" in bare.names[0]
    other = fc.LandscapeDisplay.slice(bowl, AT, n_grid=3, rng=1)
    assert not np.array_equal(other.directions, bare.directions)


def test_titles_of_random_slices_say_what_they_may_hide():
    for dims in (1, 2):
        shown = fc.LandscapeDisplay.slice(
            BOWL, AT, directions="random", n_dims=dims, n_grid=3
        ).plot()
        assert "saddle often looks like a minimum" in shown.ax_.get_title()
    toy = fc.testing.lecture_toy()
    assert not fc.LandscapeDisplay.from_objective(toy, np.zeros(2), n_grid=3).ax_.get_title()


def test_a_line_to_another_point_joins_theta_and_that_point():
    end = np.array(AT) + [2.0, -1.0]
    line = fc.LandscapeDisplay.slice(BOWL, AT, to=end, n_grid=5)
    assert line.steps.tolist() == [0, 0.25, 0.5, 0.75, 1]
    points = np.array(AT) + line.steps[:, None] * (end - AT)
    assert np.allclose(line.losses, [BOWL.value(t) for t in points], rtol=1e-14)
    shown = fc.LandscapeDisplay.from_objective(BOWL, AT, to=end, n_grid=5)
    assert "the other point" in shown.ax_.get_xlabel()
    for given in ({"directions": "gradient"}, {"n_dims": 2}):
        with pytest.raises(ValueError, match="if to is given"):
            fc.LandscapeDisplay.slice(BOWL, AT, to=end, **given)
    with pytest.raises(ValueError, match="differs from theta"):
        fc.LandscapeDisplay.slice(BOWL, AT, to=AT)


# Calls that raise, and a part of the error. `at` is [3, 4], and `ob` and `t` are those of `net`.
REFUSED = [
    ("Landscape.from_objective(ob, t, directions='up')", "directions must be one of"),
    ("Landscape.from_objective(ob, t, directions=[1.0])", "directions must have shape"),
    ("Landscape.from_objective(ob, t, n_dims=3)", "n_dims must be .*got 3"),
    ("Landscape.slice(ob, t, radius='a')", "radius must be .*got 'a'"),
    ("Landscape.slice(ob, t, radius=np.nan)", "radius must be .*got nan"),
    ("Landscape.slice(ob, t, n_dims=[1])", "n_dims must be an.*got .1."),
    ("Landscape.slice(BOWL, at, directions=[0, 0])", "got a row of zeros"),
    ("Landscape.slice(BOWL, at, directions=[[1, 2], [0, 0]])", "a row of zeros"),
    ("Landscape.slice(BOWL, at, directions=[[0, 0], [1, 0]])", "a row of zeros"),
    ("Landscape.slice(BOWL, at, directions=[[0.1, 0.3], [-1, -3]])", "one line"),
    ("Landscape.slice(BOWL, at, directions=[np.nan, 1])", "must hold finite numbers, got NaN"),
    ("Landscape.slice(BOWL, at, directions=np.ones((3, 2)))", "must have shape"),
    ("Landscape.slice(BOWL, at, directions=[[1, 0, 0]])", "must have shape"),
    ("Landscape.slice(LINE, [2.0], n_dims=2)", "n_dims must be 1 where"),
    ("fc.SpectrumDisplay.from_operator(ob.hessian(t), k=1.5)", "k must be an int >= 0.*got 1.5"),
    ("fc.SpectrumDisplay.from_operator(ob.hessian(t), k=-1)", "k must be an int >= 0.*got -1"),
    ("fc.SpectrumDisplay(density([1.0, 2.0]), eigenvalues=1j)", "eigenvalues must hold real"),
    ("fc.SpectrumDisplay(density([1.0, 2.0]), eigenvalues=[np.nan])", "eigenvalues must .*finite"),
    ("fc.plots.mark(fc.plots.new_axes(), 0, 0, 'Sattel')", "kind must be one of.*got 'Sattel'"),
]


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_displays_reject_invalid_arguments(call, words, net):
    names = {"Landscape": fc.LandscapeDisplay, "ob": net[0], "t": net[1], "at": [3.0, 4.0]}
    with pytest.raises((TypeError, ValueError), match=words):
        eval(call, globals() | names)
