"""The command `demo` in its small form: a network trained on real data and classified, and its
escape from a saddle.
"""

import re

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


@pytest.mark.usefixtures("undrawn")
def test_demo_trains_classifies_and_escapes_a_saddle(tmp_path, capsys):
    from fastcurv.applications.cli.demo import run_demo

    facts = run_demo(
        tmp_path / "demo.html", picture=tmp_path / "demo.png", quick=True, progress=False
    )
    text = capsys.readouterr().out
    assert facts["accuracy"] >= 0.85
    assert facts["verdict"].kind == "minimum" and facts["verdict"].certified
    assert facts["verdict"].gradient_norm <= 1e-6
    assert facts["saddle"].kind == "saddle" and facts["saddle"].certified
    falls = re.search(
        r"loss falls from (\d\.\d+) to (\d\.\d+); from there newton-cg continues down to (\d\.\d+)",
        text,
    )
    before, after, further = map(float, falls.groups())
    assert further < after < before
    assert facts["escaped"].fun == pytest.approx(after, abs=1e-6)
    failed = facts["failed"].causes[0]
    page = re.sub("</?code>", "`", facts["report"].read_text())
    assert failed.name == "initial weights too large" and failed.sentence in page
    assert failed.call in text
    first, second = page.split("A second network: did it end")
    assert second.count("<figure") == 3 and second.count('class="verdict"') == 2
    # Three of the five figures are spectra.
    assert len(re.findall('<svg [^>]*role="img" aria-label="', second)) == 5
    # The first half is the report on a fit, whose first screen is also printed.
    trusted = facts["trusted"]
    assert 2 <= len(trusted["first_screen"]) <= 5 and trusted["left_out_by"] == "rows"
    assert all(sentence in first and sentence in text for sentence in trusted["first_screen"])
    # The second half begins with the verdict on the final point, without a figure. The saddle has
    # a heading and a figure, which names the escape direction.
    saddle = second.index("Another point: a saddle")
    assert second.index(facts["verdict"].sentence.split(":")[0]) < second.index("<h2")
    assert second.index("<figure") > second.index("<h2")
    escape = second.index("along its escape direction")
    assert saddle < escape < second.index("A training run that fails")
    # Each eigenvalue has its own table cell.
    assert "second lowest" in page and not re.search(r"<td[^>]*>[-\d.e]+ +[-\d.e]+ +[-\d.e]+", page)
    assert not re.search(r"(src|href)=[\"']?https?:", page)
    assert str(facts["report"]) in text
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_added_zero_units_leave_the_networks_outputs_unchanged():
    from fastcurv.applications.cli.demo import N_NARROW_UNITS, find_saddle
    from fastcurv.applications.cli.recipe import TrainingRecipe

    recipe = TrainingRecipe("iris", hidden=(N_NARROW_UNITS + 2,), l2=1e-2)
    data = recipe.load_dataset()
    objective = recipe.build_objective(data)
    theta = find_saddle(recipe, objective, data, seed=0, progress=False)
    (W, b), (W_out, _) = objective.model.unflatten(theta)
    assert (
        np.all(W[N_NARROW_UNITS:] == 0)
        and np.all(b[N_NARROW_UNITS:] == 0)
        and np.all(W_out[:, N_NARROW_UNITS:] == 0)
    )
    assert np.all(W[:N_NARROW_UNITS] != 0)
    assert np.linalg.norm(objective.gradient(theta)) <= 1e-6


def test_the_figure_shows_the_whole_escape_from_a_saddle():
    """The figure shows losses and their quadratic model from half a step before the saddle to half
    a step beyond the end of the escape. The losses fill more than half of the figure's height.
    """
    import fastcurv as fc
    from fastcurv.applications.cli.demo import plot_loss_along_step

    X, y = np.cos(np.arange(10.0)).reshape(5, 2), np.ones((5, 1))
    ob = fc.Objective(fc.MLP((2, 3, 1), "tanh"), X, y, "mse")
    theta = ob.model.init(seed=0)
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
