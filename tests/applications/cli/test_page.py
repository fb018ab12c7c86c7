"""The HTML report on a saved run: the data of its charts, and its controls in a browser."""

import json
import re

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import plots
from fastcurv.applications.cli.parser import main
from fastcurv.applications.cli.recipe import load_run
from fastcurv.applications.cli.report import Report

from ..browser import needs_chromium, reported

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return (run, page): the paths of a saved run at a certified minimum and of its report."""
    folder = tmp_path_factory.mktemp("page")
    common = ["--quiet", "--out"]
    arguments = ["iris", "--hidden", "4", "--l2", "1e-2", "--epochs", "5"]
    assert main(["train", *arguments, *common, str(folder / "n.npz")]) == 0
    page = folder / "sub" / "page.html"
    few = ["--probes", "3", "--steps", "20"]
    assert (
        main(["report", str(folder / "n.npz"), "--require-certified", *few, *common, str(page)])
        == 0
    )
    return folder / "n.npz", page


def charts(page):
    found = re.findall(r'<script type="application/json">(.*?)</script>', page.read_text())
    return [json.loads(text) for text in found]


def test_the_report_has_training_spectrum_slices_layers_and_cost(made):
    run, page = made
    text = page.read_text()
    heads = re.findall(r"<h2[^>]*>(.*?)</h2>", text)
    wanted = ["Verdict", "The end of training", "Training", "What would help", "Spectrum"]
    wanted += ["Landscape", "Layer by layer", "Cost"]
    assert heads == wanted and len(charts(page)) == 5
    assert text.startswith("<!doctype html>") and text.rstrip().endswith("</html>")
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=[\"']?(https?:|/|\.)", text)
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]
    saved = load_run(run)
    losses = [y for line in charts(page)[0]["views"][0]["lines"] for y in line["y"]]
    assert losses[0] == saved.history["loss"][0] and losses[-1] == saved.history["loss"][-1]


def test_density_at_a_proved_minimum_is_positive_only_and_eigenvalues_are_marked(made):
    run, page = made
    recipe, theta = load_run(run)
    exact = fc.eigvalsh(recipe.build_objective().hessian(theta))
    assert exact[0] > 0
    for view in charts(page)[2]["views"]:
        assert np.allclose(view["ticks"], exact, rtol=1e-6)
        assert min(view["lines"][0]["x"]) > 0


def test_slices_show_the_loss_at_their_points(made):
    run, page = made
    recipe, theta = load_run(run)
    ob = recipe.build_objective()
    for chart in charts(page)[3:]:
        for line in chart["views"][0]["lines"]:
            at = line["x"].index(0.0)
            assert line["y"][at] == pytest.approx(ob.value(theta), rel=1e-12)
            assert min(line["y"]) >= line["y"][at] * (1 - 1e-12)  # theta is a minimum


def test_text_in_a_chart_cannot_end_its_script():
    lines = [{"name": "</script><b>", "x": [0.0, 1.0], "y": [1.0, np.nan]}]
    view = {"lines": lines, "x": "linear", "y": "linear", "xlabel": "x", "ylabel": "</script>"}
    text = Report("r").add_chart([view], "a caption").to_html()
    assert text.count("</script>") == 2


CLICKS = """
<script>
const faults = [];
window.addEventListener("error", (event) => faults.push(event.message));
window.addEventListener("load", () => {
  const seen = [...document.querySelectorAll(".chart")].map((box) => {
    const first = box.dataset.view, views = {};
    for (const button of box.querySelectorAll("button")) {
      if (button.title !== "show all") button.click();
      views[button.title] = box.dataset.view;
      if (button.title !== "other axis") box.querySelector("[title='show all']").click();
    }
    const svg = box.querySelector("svg"), r = svg.getBoundingClientRect();
    const at = { clientX: r.left + r.width / 2, clientY: r.top + r.height / 2, cancelable: true };
    const before = box.dataset.view;
    svg.dispatchEvent(new WheelEvent("wheel", { ...at, deltaY: -100, ctrlKey: true }));
    views.wheel = box.dataset.view;
    svg.dispatchEvent(new MouseEvent("dblclick"));
    const labels = [...svg.querySelectorAll("text")].map((text) => text.textContent);
    return { labels, first, before, after: box.dataset.view, views, ready: box.dataset.ready,
             lines: box.querySelectorAll("polyline").length, wide: r.width };
  });
  const page = document.documentElement;
  const result = { seen, faults, wide: page.scrollWidth, room: window.innerWidth };
  const pre = top.document.createElement("pre");
  pre.id = "result";
  pre.textContent = JSON.stringify(result);
  top.document.body.appendChild(pre);
});
</script>
"""


@needs_chromium
@pytest.mark.parametrize("width", [390, 1200])
def test_report_controls_work_in_a_browser_without_errors(made, width, tmp_path):
    """In a browser, every button changes the window of its chart along one axis only, and "show
    all" restores the first window. No script fails, for a narrow and a wide page.
    """
    text = made[1].read_text().replace("<head>", "<head>" + CLICKS)
    result = reported(text, tmp_path, width, 3000)
    assert result["faults"] == [] and result["wide"] <= result["room"] == width
    assert len(result["seen"]) == 5
    for chart in result["seen"]:
        assert chart["ready"] == "yes" and chart["lines"] >= 1 and chart["wide"] <= width
        numbers = [text for text in chart["labels"] if re.fullmatch(r"-?[\d.]+(e-?\d+)?", text)]
        assert len(numbers) >= 4 and max(map(len, numbers)) <= len("-1.23456e-10"), numbers
        resets = chart["views"].pop("show all")
        assert resets == chart["first"]
        for name, view in chart["views"].items():
            numbers, whole = (np.array(v.split(), dtype=float) for v in (view, chart["first"]))
            moved = numbers != whole
            if " x" in name or name in ("left", "right"):
                assert moved[:2].all() and not moved[2:].any()
            elif " y" in name or name in ("up", "down"):
                assert moved[2:].all() and not moved[:2].any()
        assert chart["views"]["wheel"] != chart["before"] == chart["after"]


def test_text_is_escaped_and_numbers_are_rounded():
    page = Report("a < b & c").add_text("<script>").add_table(["x"], [[1 / 3], [2]]).to_html()
    assert "a &lt; b &amp; c" in page and "&lt;script&gt;" in page and "<script>" not in page
    assert '<td class="number">0.333333</td>' in page


def test_figures_in_a_report_are_inline_and_reproducible():
    pytest.importorskip("matplotlib")

    def page():
        ax = plots.curve([1, 2, 3], [1.0, 0.1, 0.01], label="loss", xlabel="step", ylabel="loss")
        return Report("r").add_figure(ax, "a curve").add_figure(ax, "again").to_html()

    assert page().count("<svg") == 2
    assert page() == page()
