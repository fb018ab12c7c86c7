"""Pictures of densities: as far as they reach, and over what they are smoothed."""

import io
import pickle

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import fastcurv as fc  # noqa: E402
from fastcurv.spectrum.density_curve import within  # noqa: E402

SPECTRA = {
    "a decade": np.linspace(0.5, 3.0, 30),
    "positive": np.geomspace(1e-3, 3.0, 30),
    "negative": -np.geomspace(1e-2, 3.0, 30),
    "both": np.concatenate([[-1.0], np.geomspace(1e-3, 30.0, 29)]),
    "narrow": np.linspace(100.0, 101.0, 30),
}


def density(values, axis="log"):
    return fc.spectral_density(np.diag(values), n_probes=3, n_steps=20, axis=axis, seed=0)


def decades(ax, *values):
    """Where values lie on the axis, whose unit is a decade."""
    return ax.xaxis.get_transform().transform(np.array(values, dtype=float))


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA)
def test_a_logarithmic_axis_reaches_as_far_as_the_density(values, bounded):
    """Its margins are a twentieth of the picture and not decades of nothing."""
    shown = density(values)
    if bounded:
        shown = within(shown, values.min(), values.max())
    ax = shown.plot()
    ends, limits = decades(ax, *shown.grid[[0, -1]]), decades(ax, *ax.get_xlim())
    margin = 0.051 * np.ptp(ends)
    assert ends[0] - margin <= limits[0] <= ends[0]
    assert ends[1] <= limits[1] <= ends[1] + margin
    at_zero = [line for line in ax.lines if not np.any(line.get_xdata())]
    assert bool(at_zero) == (shown.grid[0] <= 0 <= shown.grid[-1])


def test_a_second_density_and_eigenvalues_beyond_the_first_are_seen():
    first, second = density(SPECTRA["a decade"]), density(SPECTRA["both"])
    ax = second.plot(ax=first.plot())
    low, high = ax.get_xlim()
    assert low <= second.grid[0] and high >= max(first.grid[-1], second.grid[-1])
    shown = fc.SpectrumDisplay(first, eigenvalues=[0.02, 90.0]).plot()
    low, high = shown.ax_.get_xlim()
    assert low <= 0.02 and high >= 90.0


def test_the_legend_of_two_densities_lies_above_them():
    ax = density(SPECTRA["a decade"]).plot(label="one")
    density(SPECTRA["both"]).plot(ax, label="another", color="C1")
    ax.figure.savefig(io.BytesIO())
    box = ax.get_legend().get_window_extent()
    for line in ax.lines[:1] + ax.lines[2:3]:
        at = line.get_transform().transform(line.get_xydata())
        assert at[:, 1].max() < box.ymin or at[:, 0].max() < box.xmin


def test_the_legend_of_eigenvalues_lies_above_the_density():
    shown = fc.SpectrumDisplay(density(SPECTRA["both"]), eigenvalues=[-1.0, 30.0]).plot()
    shown.figure_.savefig(io.BytesIO())
    box = shown.ax_.get_legend().get_window_extent()
    at = shown.ax_.transData.transform(shown.ax_.lines[0].get_xydata())
    assert not np.any((at > box.min).all(axis=1) & (at < box.max).all(axis=1))


@pytest.mark.parametrize(
    ("name", "wanted"), [("narrow", ["50", "200"]), ("a decade", ["0.5", "2", "5"]), ("both", [])]
)
def test_an_axis_of_few_decades_has_numbers_between_them(name, wanted):
    ax = density(SPECTRA[name]).plot()
    ax.figure.savefig(io.BytesIO())
    low, high = ax.get_xlim()
    ticks = zip(ax.get_xticks(minor=True), ax.get_xticklabels(minor=True))
    assert [t.get_text() for x, t in ticks if low <= x <= high and t.get_text()] == wanted
    assert pickle.loads(pickle.dumps(ax.figure)).axes


@pytest.mark.parametrize(("axis", "unit"), [("linear", ""), ("log", " decades")])
def test_the_legend_says_how_wide_the_density_is_smoothed(axis, unit):
    shown = density(SPECTRA["positive"], axis).regrid(width=0.0312)
    name = f"density (smoothed over 0.031{unit})"
    for ax in (shown.plot(), fc.SpectrumDisplay(shown).plot().ax_):
        assert name in [text.get_text() for text in ax.get_legend().get_texts()]
    assert shown.plot(label="mine").lines[0].get_label() == "mine"
