"""Pages and pictures: escaped, whole, and drawn on what they are given."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from fastcurv import plots
from fastcurv.cli.data import load_dataset
from fastcurv.cli.report import Report


def test_text_is_escaped_and_numbers_are_short():
    page = Report("a < b & c").text("<script>").table(["x"], [[1 / 3], [2]]).to_html()
    assert "a &lt; b &amp; c" in page and "&lt;script&gt;" in page and "<script>" not in page
    assert '<td class="number">0.333333</td>' in page


def test_pictures_are_inline_and_repeatable():
    pytest.importorskip("matplotlib")

    def page():
        ax = plots.curve([1, 2, 3], [1.0, 0.1, 0.01], label="loss", xlabel="step", ylabel="loss")
        return Report("r").figure(ax, "a curve").figure(ax, "again").to_html()

    assert page().count("<svg") == 2
    assert page() == page()


def test_curves_are_logarithmic_only_where_they_can_be():
    pytest.importorskip("matplotlib")
    assert plots.curve([0, 1], [1.0, 2.0]).get_yscale() == "log"
    assert plots.curve([0, 1], [-1.0, 2.0]).get_yscale() == "linear"
    assert plots.curve([0, 1], [1.0, 2.0], log=False).get_yscale() == "linear"


def test_eigenvalues_are_told_apart_by_sign():
    pytest.importorskip("matplotlib")
    ax = plots.eigenvalues([3.0, -1.0, 2.0], residuals=[0.1, 0.2, 0.3])
    names = ax.get_legend_handles_labels()[1]
    assert names == ["negative", "positive"]


def test_surfaces_and_slices_evaluate_the_function_where_they_say():
    pytest.importorskip("matplotlib")
    seen = []

    def value(theta):
        seen.append(theta)
        return float(theta @ theta)

    theta = np.array([1.0, 2.0, 3.0])
    shown = plots.LandscapeDisplay.from_objective(
        SimpleNamespace(value=value), theta, directions=[[1, 0, 0], [0, 2, 0]], n_grid=3
    )
    corners = {tuple(np.round(t, 12)) for t in seen}
    assert len(seen) == 9 and (0.0, 0.0, 3.0) in corners and (2.0, 4.0, 3.0) in corners
    assert np.allclose([*shown.ax_.get_xlim(), *shown.ax_.get_ylim()], [-1, 1, -1, 1])


def test_decision_regions_take_classes_and_signs():
    pytest.importorskip("matplotlib")
    X = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    y = np.array([0, 1, 0, 1])
    for predict in (lambda P: P[:, 0] - 0.5, lambda P: (P[:, 0] > 0.5).astype(int)):
        ax = plots.decision_regions(predict, X, y, n=11)
        assert len(ax.lines) == 2 and len(ax.collections) == 1


def test_held_out_samples_keep_the_shares_of_classes():
    pytest.importorskip("sklearn")
    data = load_dataset("iris", test_fraction=0.2, seed=1)
    assert np.array_equal(np.bincount(data.y_test), [10, 10, 10])
    assert np.allclose(data.X.mean(axis=0), 0, atol=1e-12) and np.allclose(data.X.std(axis=0), 1)
    again = load_dataset("iris", test_fraction=0.2, seed=1)
    assert np.array_equal(again.X, data.X) and not np.array_equal(
        load_dataset("iris", seed=2).X, data.X
    )


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"X": np.ones((4, 2))}, "wanted arrays X and y"),
        ({"X": np.ones((4, 2)), "y": np.ones(3)}, "X has shape"),
        ({"X": np.ones(4), "y": np.ones(4)}, "X has shape"),
        ({"X": np.full((4, 2), np.nan), "y": np.arange(4.0)}, "finite"),
        ({"X": np.ones((4, 2)), "y": np.zeros(4, int)}, "single class"),
    ],
)
def test_bad_files_are_one_clear_sentence(arrays, words, tmp_path):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=words) as error:
        load_dataset(path)
    assert re.fullmatch(r"[^\n]+", str(error.value))
    with pytest.raises(ValueError, match="test_fraction"):
        load_dataset(path, test_fraction=1.5)
