"""The HTML report on a saved run: the data of its charts, and its controls in a browser."""

import html
import re

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import plots
from fastcurv.applications.cli import report
from fastcurv.applications.cli.parser import main
from fastcurv.applications.cli.recipe import load_run
from fastcurv.applications.cli.report import Report

from ..browser import needs_chromium, reported

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return (run, page, figures): the paths of a saved run at a certified minimum and of its
    report, and the figures that the report draws.
    """
    folder, figures, draw = tmp_path_factory.mktemp("page"), [], report.svg_markup

    def watched(figure, *args, **options):
        figures.append(getattr(figure, "figure", figure))
        return draw(figure, *args, **options)

    common = ["--quiet", "--out"]
    arguments = ["iris", "--hidden", "4", "--l2", "1e-2", "--epochs", "5"]
    assert main(["train", *arguments, *common, str(folder / "n.npz")]) == 0
    page = folder / "sub" / "page.html"
    few = ["--probes", "3", "--steps", "20"]
    words = ["report", str(folder / "n.npz"), "--require-certified", *few, *common, str(page)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "svg_markup", watched)
        assert main(words) == 0
    return folder / "n.npz", page, figures


def test_the_report_has_training_spectrum_slices_layers_and_cost(made):
    run, page, _ = made
    text = page.read_text()
    heads = re.findall(r"<h2[^>]*>(.*?)</h2>", text)
    wanted = ["Verdict", "The end of training", "Training", "What would help", "Spectrum"]
    wanted += ["Landscape", "Layer by layer", "Cost"]
    assert heads == wanted and text.count("<svg") == text.count("<figcaption>") == 5
    assert text.startswith("<!doctype html>") and text.rstrip().endswith("</html>")
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=[\"']?(https?:|/|\.)", text)
    assert "default-src 'none'" in html.unescape(text) and "style=" not in text
    assert "#000000" not in text and "invert(" not in text  # readable on a dark background
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]
    recipe, theta = load_run(run)
    exact = fc.eigvalsh(recipe.build_objective().hessian(theta))
    assert exact[0] > 0 and f'<td class="number">{exact[0]:.6g}</td>' in text


def test_the_figures_show_the_numbers_of_the_run(made):
    run, _, figures = made
    saved = load_run(run)
    ob, theta, history = saved.recipe.build_objective(), saved.theta, saved.history
    values, vectors = np.linalg.eigh(ob.hessian(theta).to_dense())
    losses, norms, density, random, curves = (
        [line.get_xydata() for line in figure.axes[0].lines] for figure in figures
    )
    for phases, name in ((losses, "loss"), (norms, "gradient_norm")):
        records = np.concatenate([phases[0], *(phase[1:] for phase in phases[1:])])
        assert np.array_equal(records, np.stack([history["time"], history[name]], axis=1))
    assert any(len(line) == len(values) and np.allclose(line[:, 0], values) for line in density)
    assert random[0][30, 1] == ob.value(theta) == curves[0][30, 1]
    for line, v in zip(curves, (vectors[:, 0], vectors[:, -1]), strict=True):
        ends = [ob.value(theta + line[-1, 0] * sign * v) for sign in (1, -1)]
        assert sorted(line[[0, -1], 1]) == pytest.approx(sorted(ends), rel=1e-6)


SIZES = """(page) => ({
  wide: page.documentElement.scrollWidth,
  figures: [...page.querySelectorAll("svg")].map((svg) => svg.getBoundingClientRect().width),
  color: getComputedStyle(page.querySelector("svg path[stroke^=var]")).stroke,
})"""


@needs_chromium
@pytest.mark.parametrize("width", [390, 1200])
def test_the_report_fits_a_screen_under_its_content_policy(made, width, tmp_path):
    result = reported(made[1].read_text(), tmp_path, width, 3000, SIZES)
    assert result["wide"] <= width and len(result["figures"]) == 5
    assert all(200 < figure <= width for figure in result["figures"])
    assert result["color"].startswith("rgb")


def test_the_frame_of_a_notebook_is_a_sandbox():
    frame = Report("r").add_text("a").add_section("<b>")._repr_html_()
    assert 'sandbox="allow-scripts"' in frame and frame.count("<") == 2
    assert "&lt;h2 id=&quot;s1&quot;&gt;&amp;lt;b&amp;gt;&lt;/h2&gt;" in frame


def test_text_is_escaped_and_numbers_are_rounded():
    page = Report("a < b & c").add_text("<script>").add_table(["x"], [[1 / 3], [2]]).to_html()
    assert "a &lt; b &amp; c" in page and "&lt;script&gt;" in page and page.count("<script>") == 1
    assert '<td class="number">0.333333</td>' in page


def test_figures_in_a_report_are_inline_and_reproducible():
    pytest.importorskip("matplotlib")

    def page():
        ax = plots.curve([1, 2, 3], [1.0, 0.1, 0.01], label="loss", xlabel="step", ylabel="loss")
        return Report("r").add_figure(ax, "a curve").add_figure(ax, "again").to_html()

    assert page().count("<svg") == 2
    assert page() == page()
