"""Displays on given axes, with few or many curves, and before they are drawn."""

import pickle

import numpy as np
import pytest

plt = pytest.importorskip("matplotlib.pyplot")

import fastcurv as fc  # noqa: E402
from fastcurv.applications.plots import plain_numbers, spectrum  # noqa: E402
from fastcurv.applications.plots.style import CYCLE, Display, new_axes  # noqa: E402
from fastcurv.spectrum.draw import reflect_density_at_bounds  # noqa: E402
from fastcurv.testing import PrescribedSpectrum  # noqa: E402


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


def test_densities_and_spectra_are_drawn_on_the_given_axes():
    H = PrescribedSpectrum(np.linspace(-1.0, 5.0, 30), rng=0)
    found, ax = fc.spectral_density(H, n_probes=1, n_steps=10, rng=0), new_axes()
    assert found.plot(ax=ax) is ax and len(ax.lines) == 2  # the density and the line at 0
    assert not ax.collections, "one probe has no band"
    assert np.array_equal(ax.lines[0].get_ydata(), found.density)


def test_spectrum_plot_shows_extreme_eigenvalues_of_a_large_matrix(monkeypatch):
    H = PrescribedSpectrum(np.linspace(-1.0, 5.0, 60), rng=0)
    dense = spectrum.extreme_eigenpairs(H, 2, 0).values
    monkeypatch.setattr(spectrum, "PLOT_DENSE_MAX_N", 10)
    assert np.allclose(spectrum.extreme_eigenpairs(H, 2, 0).values, dense, atol=1e-6)
    assert np.allclose(dense, [-1.0, -1.0 + 6 / 59, 5.0 - 6 / 59, 5.0], atol=1e-12)


def test_convergence_plots_accept_one_run_and_empty_curves():
    class Run:
        history = {"time": [0.0, 1.0], "loss": [2.0, 1.0]}
        method, message, stopped = "adam", "", "max_iter"

    shown = fc.ConvergenceDisplay.from_results(Run())
    assert list(shown.curves) == ["adam"] and np.array_equal(shown.curves["adam"][1], [2.0, 1.0])
    empty = fc.ConvergenceDisplay({"none": ([], []), "one": ([0.0, 1.0], [3.0, 2.0])}).plot()
    assert [line.get_label() for line in empty.ax_.lines][:2] == ["none", "one"]
    assert sum(line.get_marker() == "o" for line in empty.ax_.lines) == 1


def test_decision_regions_and_loss_surface_are_drawn():
    X = np.random.default_rng(0).standard_normal((20, 2))
    ax = fc.plots.decision_regions(lambda G: G[:, :1] - 0.5, X, (X[:, 0] > 0.5).astype(int), n=20)
    assert len(ax.lines) == 2 and ax.collections and ax.get_title() == ""
    y = np.arange(20) % 3
    three = fc.plots.decision_regions(lambda G: np.arange(len(G)) % 3, X, y, n=20, title="three")
    assert len(three.lines) == 3 and three.get_title() == "three"
    ax = fc.plots.surface(lambda a, b: a * a - b * b, (-1, 1), (-1, 1), n=11, log=False)
    assert ax.figure.axes[-1].get_ylabel() == "loss"


def test_decision_regions_evaluate_a_grid_beyond_the_samples():
    """The classifier is evaluated on a grid that extends 8% of the range beyond the samples on each
    side, with the first feature on the horizontal axis.
    """
    asked = []
    X = np.array([[0.0, 10.0], [1.0, 30.0], [0.5, 20.0]])
    ax = fc.plots.decision_regions(
        lambda G: asked.append(G) or (G[:, 1] > 20).astype(int), X, np.array([0, 1, 0]), n=7
    )
    x, y = np.linspace(-0.08, 1.08, 7), np.linspace(8.4, 31.6, 7)
    assert np.allclose(asked[0], [[a, b] for b in y for a in x])
    assert np.allclose([*ax.dataLim.intervalx, *ax.dataLim.intervaly], [x[0], x[-1], y[0], y[-1]])


def test_losses_have_a_logarithmic_axis_only_if_positive():
    assert fc.plots.curve([0, 1], [1.0, 2.0]).get_yscale() == "log"
    assert fc.plots.curve([0, 1], [-1.0, 2.0]).get_yscale() == "linear"
    assert fc.plots.curve([0, 1], [1.0, 2.0], log=False).get_yscale() == "linear"


def test_eigenvalues_of_different_signs_have_different_markers():
    ax = fc.plots.eigenvalues([3.0, -1.0, 2.0], residuals=[0.1, 0.2, 0.3])
    names = ax.get_legend_handles_labels()[1]
    assert names == ["negative", "positive"]


# --- many curves in one picture


def curves(n):
    x = np.arange(50.0)
    return {f"run {i}": (x, np.exp(-x * (i + 1) / 60)) for i in range(n)}


def line_styles(ax):
    return [
        (line.get_color(), line.get_linestyle()) for line in ax.lines if len(line.get_xdata()) > 1
    ]


def legend_overhang(ax):
    """Return how far the legend extends right of the axes, right of the figure, and below it."""
    ax.figure.canvas.draw()
    legend, lines, page = ax.get_legend().get_window_extent(), ax.bbox, ax.figure.bbox
    return legend.x0 - lines.x1, legend.x1 - page.x1, -legend.y0


def test_many_runs_have_distinct_styles_and_their_legend_is_beside_the_axes():
    few = fc.ConvergenceDisplay(curves(7)).plot()
    assert line_styles(few.ax_) == [(color, "-") for color in CYCLE]
    assert legend_overhang(few.ax_)[0] < 0
    ax = fc.ConvergenceDisplay(curves(21)).plot(few.ax_).ax_
    assert len(set(line_styles(ax))) == 28
    many = fc.ConvergenceDisplay(curves(28)).plot().ax_
    beside, right, below = legend_overhang(many)
    assert beside >= 0 and right <= 1 and below <= 0 and len(set(line_styles(many))) == 28
    ax = new_axes()
    for x, y in curves(10).values():
        fc.plots.curve(x, y, ax)
    assert len(set(line_styles(ax))) == 10


# --- densities: limits of the axis, and the width of smoothing


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
