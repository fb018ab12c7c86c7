"""Displays on axes that are given, without curves, and before they are drawn."""

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")

import fastcurv as fc  # noqa: E402
from fastcurv.plots import plain_numbers, spectrum  # noqa: E402
from fastcurv.plots.style import Display, new_axes  # noqa: E402
from fastcurv.testing import PrescribedSpectrum  # noqa: E402


class Line(Display):
    def plot(self, ax=None):
        self.n_drawn = getattr(self, "n_drawn", 0) + 1
        self._axes(ax).plot([0, 1], [1, 0])
        return self


def test_a_picture_is_drawn_when_it_is_asked_for_and_once():
    shown = Line()
    assert shown._repr_png_() == shown._repr_png_() and shown.n_drawn == 1
    assert shown._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(NotImplementedError):
        Display()._repr_png_()


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
def test_numbers_of_logarithmic_axes_are_written_plainly(limits, wanted):
    ax = new_axes()
    ax.set_yscale("log")
    ax.set_ylim(limits)
    for _ in range(2):  # and again, as a second line on the same axes does
        plain_numbers(ax.yaxis)
    seen = {}
    for minor in (False, True):
        ticks = zip(ax.get_yticks(minor=minor), ax.get_yticklabels(minor=minor))
        seen |= {x: tick.get_text() for x, tick in ticks if limits[0] <= x <= limits[1]}
    assert [seen[x] for x in sorted(seen) if seen[x]] == wanted


def test_numbers_that_were_chosen_and_even_axes_stay():
    ax = new_axes()
    ax.set_xscale("log")
    ax.set_xticks([3, 30], labels=["three", "thirty"])
    even = ax.yaxis.get_major_formatter()
    plain_numbers(ax.xaxis, ax.yaxis)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["three", "thirty"]
    assert ax.yaxis.get_major_formatter() is even


def test_densities_and_spectra_go_where_they_are_told():
    H = PrescribedSpectrum(np.linspace(-1.0, 5.0, 30), seed=0)
    found, ax = fc.spectral_density(H, n_probes=1, n_steps=10, seed=0), new_axes()
    assert found.plot(ax=ax) is ax and len(ax.lines) == 2  # and that of 0
    assert not ax.collections, "one probe has no band"
    assert np.array_equal(ax.lines[0].get_ydata(), found.density)


def test_extremes_of_what_is_too_large_to_be_written_down(monkeypatch):
    H = PrescribedSpectrum(np.linspace(-1.0, 5.0, 60), seed=0)
    dense = spectrum.extremes(H, 2, 0).values
    monkeypatch.setattr(spectrum, "DENSE_BELOW", 10)
    assert np.allclose(spectrum.extremes(H, 2, 0).values, dense, atol=1e-6)
    assert np.allclose(dense, [-1.0, -1.0 + 6 / 59, 5.0 - 6 / 59, 5.0], atol=1e-12)


def test_curves_of_one_run_and_of_none():
    class Run:
        history = {"time": [0.0, 1.0], "loss": [2.0, 1.0]}
        method, message, stopped = "adam", "", "max_iter"

    shown = fc.ConvergenceDisplay.from_results(Run())
    assert list(shown.curves) == ["adam"] and np.array_equal(shown.curves["adam"][1], [2.0, 1.0])
    empty = fc.ConvergenceDisplay({"none": ([], []), "one": ([0.0, 1.0], [3.0, 2.0])}).plot()
    assert [line.get_label() for line in empty.ax_.lines][:2] == ["none", "one"]
    assert sum(line.get_marker() == "o" for line in empty.ax_.lines) == 1


def test_regions_by_outputs_and_surfaces_as_they_are():
    X = np.random.default_rng(0).standard_normal((20, 2))
    ax = fc.plots.decision_regions(lambda G: G[:, :1] - 0.5, X, (X[:, 0] > 0.5).astype(int), n=20)
    assert len(ax.lines) == 2 and ax.collections
    ax = fc.plots.surface(lambda a, b: a * a - b * b, (-1, 1), (-1, 1), n=11, log=False)
    assert ax.figure.axes[-1].get_ylabel() == "loss"


def test_a_classifier_is_asked_at_every_place_of_the_picture():
    """A little beyond the samples on each side, the first feature to the right."""
    asked = []
    X = np.array([[0.0, 10.0], [1.0, 30.0], [0.5, 20.0]])
    ax = fc.plots.decision_regions(
        lambda G: asked.append(G) or (G[:, 1] > 20).astype(int), X, np.array([0, 1, 0]), n=7
    )
    x, y = np.linspace(-0.08, 1.08, 7), np.linspace(8.4, 31.6, 7)
    assert np.allclose(asked[0], [[a, b] for b in y for a in x])
    assert np.allclose([*ax.dataLim.intervalx, *ax.dataLim.intervaly], [x[0], x[-1], y[0], y[-1]])


def found(**facts):
    from scipy.optimize import OptimizeResult

    return OptimizeResult(x=np.zeros(1), fun=0.0, **facts)


RUN = found(history={"time": [0.0], "loss": [1.0]}, kind="saddle")


@pytest.mark.parametrize(
    "call, kind, words",
    [
        (lambda: fc.ConvergenceDisplay({"mine": [3.0, 2.0, 1.0]}), TypeError, "'mine' is a list; "),
        (lambda: fc.ConvergenceDisplay({"mine": 3.0}), TypeError, r"wanted .* \(range\(len\(loss"),
        (lambda: fc.ConvergenceDisplay([3.0, 2.0]), TypeError, "curves is a list; wanted a dict"),
        (lambda: fc.ConvergenceDisplay.from_results([RUN, RUN]), TypeError, "results is a list; "),
        (lambda: fc.ConvergenceDisplay.from_results(found()), TypeError, "OptimizeResult without"),
        (
            lambda: fc.ConvergenceDisplay.from_results({"a": found(history=np.ones(3))}),
            TypeError,
            "'a' is an OptimizeResult without .* wanted what fastcurv.minimize returned",
        ),
        (
            lambda: fc.ConvergenceDisplay.from_results({"a": RUN}, y="validation"),
            ValueError,
            r"'a' has no 'validation' .* minimize\(..., validation=ob\)",
        ),
        (
            lambda: fc.plots.mark(new_axes(), 0, 0, "Sattel"),
            ValueError,
            "kind is 'Sattel'; wanted one of minimum, maximum, saddle",
        ),
    ],
)
def test_what_is_no_curve_run_or_kind_is_refused(call, kind, words):
    with pytest.raises(kind, match=words):
        call()
    assert list(fc.ConvergenceDisplay.from_results(RUN).curves) == ["loss"]
