"""The command `demo` in its small form: a network trained on real data and classified, and its
escape from a saddle.
"""

import re

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

import fastcurv as fc  # noqa: E402
from fastcurv.applications.cli.demo import (  # noqa: E402
    escape_saddle,
    plot_loss_along_step,
    run_demo,
)
from fastcurv.testing import QuadraticObjective  # noqa: E402


@pytest.mark.usefixtures("undrawn")
def test_demo_trains_classifies_and_escapes_a_saddle(tmp_path, capsys):
    facts = run_demo(
        tmp_path / "demo.html", picture=tmp_path / "demo.png", quick=True, progress=False
    )
    text = capsys.readouterr().out
    assert facts["verdict"].kind == "minimum" and facts["verdict"].certified
    assert facts["saddle"].kind == "saddle" and facts["saddle"].certified
    falls = re.search(
        r"loss falls from (\d\.\d+) to (\d\.\d+); from there newton-cg continues down to (\d\.\d+)",
        text,
    )
    before, after, further = map(float, falls.groups())
    assert further < after < before
    assert facts["escaped"].fun == pytest.approx(after, abs=1e-6)
    page = re.sub("</?code>", "`", facts["report"].read_text())
    assert page.count("<figure") == 1 and page.count('class="verdict"') == 2
    assert len(re.findall('<svg [^>]*role="img" aria-label="', page)) == 1
    assert text.count("  lowest ") == 3 and "Left: density" in page
    assert not re.search(r"(src|href)=[\"']?https?:", page)
    assert str(facts["report"]) in text
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_the_figure_shows_the_whole_escape_from_a_saddle():
    """The figure shows losses and their quadratic model from half a step before the saddle to half
    a step beyond the end of the escape. The losses fill more than half of the figure's height.
    """
    X, y = np.cos(np.arange(10.0)).reshape(5, 2), np.ones((5, 1))
    ob = fc.Objective(fc.MLP((2, 3, 1), "tanh"), X, y, "mse")
    theta = ob.model.init()
    for size in (1e-3, 1.0, 50.0):
        step = size * np.cos(np.arange(theta.size))
        length = np.linalg.norm(step)
        ax = plot_loss_along_step(ob, theta, step)
        t = np.linspace(-0.5, 1.5, 101)
        losses = np.array([ob.value(theta + s * step) for s in t])
        low, high = losses.min(), losses.max()
        bottom, top = ax.get_ylim()
        assert bottom < low and high < top and top - bottom < 2 * (high - low)
        drawn, model = ax.get_lines()[:2]
        assert np.allclose(drawn.get_xdata(), t * length) and np.allclose(drawn.get_ydata(), losses)
        slope, bend = ob.gradient(theta) @ step, step @ (ob.hessian(theta) @ step)
        assert np.allclose(model.get_ydata(), ob.value(theta) + t * slope + t**2 / 2 * bend)


def test_escape_saddle_needs_negative_curvature():
    bowl = QuadraticObjective(np.diag([1.0, 2.0]))
    point = fc.classify(bowl, np.zeros(2))
    step, sentence = escape_saddle(bowl, np.zeros(2), point, False)
    assert step is None and sentence == "No direction of negative curvature was found."
