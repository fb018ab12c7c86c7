"""Many curves in one picture: each told apart, and none under the legend."""

import io
import warnings

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import fastcurv as fc  # noqa: E402
from fastcurv.plots.style import CYCLE, new_axes, new_figure  # noqa: E402


def curves(n):
    x = np.arange(50.0)
    return {f"run {i}": (x, np.exp(-x * (i + 1) / 60)) for i in range(n)}


def looks(ax):
    return [
        (line.get_color(), line.get_linestyle()) for line in ax.lines if len(line.get_xdata()) > 1
    ]


def legend_is_beside(ax):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that collapses
        ax.figure.savefig(io.BytesIO())
    legend, lines = ax.get_legend().get_window_extent(), ax.get_window_extent()
    assert legend.x1 <= ax.figure.bbox.x1 + 1, "nothing is cut off"
    return legend.x0 >= lines.x1


@pytest.mark.parametrize("n", [8, 17, 28])
def test_many_runs_are_told_apart_beside_their_legend(n):
    names = dict.fromkeys(curves(n), "not critical")
    ax = fc.ConvergenceDisplay(curves(n), ends=names).plot().ax_
    assert len(set(looks(ax))) == n and legend_is_beside(ax)
    assert ax.get_window_extent().width / ax.figure.dpi >= 4
    assert ax.get_legend().get_window_extent().y0 >= 0


def test_few_runs_are_solid_and_have_their_legend_among_them():
    ax = fc.ConvergenceDisplay(curves(7)).plot().ax_
    assert looks(ax) == [(color, "-") for color in CYCLE]
    assert not legend_is_beside(ax) and tuple(ax.figure.get_size_inches()) == (6.4, 4.0)


def test_axes_that_are_given_have_the_legend_where_there_is_room():
    from matplotlib.figure import Figure

    assert legend_is_beside(fc.ConvergenceDisplay(curves(9)).plot(new_axes()).ax_)
    narrow = new_figure((5.0, 3.0)).subplots(1, 2)[0]
    assert not legend_is_beside(fc.ConvergenceDisplay(curves(9)).plot(narrow).ax_)
    plain = Figure().add_subplot()  # a figure that makes no room
    assert not legend_is_beside(fc.ConvergenceDisplay(curves(9)).plot(plain).ax_)


def test_runs_of_two_displays_on_one_axes_are_told_apart():
    first = fc.ConvergenceDisplay(curves(5)).plot()
    ax = fc.ConvergenceDisplay(curves(5)).plot(first.ax_).ax_
    assert len(set(looks(ax))) == 10


def test_single_curves_are_told_apart():
    ax = new_axes()
    for x, y in curves(10).values():
        fc.plots.curve(x, y, ax)
    assert len(set(looks(ax))) == 10
