"""Every example, in its quick form or from its stored table: its picture exists and the numbers of
its sentence hold.

If an example has a table, its quick form, which takes seconds, is tested nightly.
"""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from fastcurv import plots
from fastcurv._engine import chosen_arch

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

FOLDER = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture
def module(monkeypatch):
    """Import a module of the examples."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in [m for m in sys.modules if getattr(sys.modules[m], "__file__", None)]:
        if str(FOLDER) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def run(tmp_path, monkeypatch, module):
    """Run an example quickly and return its outcome."""
    from matplotlib.figure import Figure

    drawn, write = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *a, **k: (drawn.append(figure), write(figure, *a, **k))
    )

    def run(name, scale="quick"):
        outcome = module(name).main(scale, tmp_path)
        figure = drawn.pop()
        check_look(figure)
        assert outcome.picture.read_bytes().startswith(b"\x89PNG")
        assert outcome.sentence.endswith(".") and re.search(r"\d", outcome.sentence)
        return outcome.numbers

    return run


def check_look(figure):
    """Check text of at least 8 points at a page width of 742 pixels, equal sizes of adjacent
    titles, no ASCII mathematics, and no legend over data.
    """
    from matplotlib.text import Text

    shrunk = min(1.0, 742 / 96 / figure.get_size_inches()[0])
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip():
            assert text.get_fontsize() * shrunk >= 8, text
            prose = re.sub(r"\$.*?\$", "", text.get_text())
            assert not re.search(r"[\^|`_]|w1 |\btheta\b|\b[A-Z]?[a-z]'[A-Z]", prose), prose
    assert len({ax.title.get_fontsize() for ax in figure.axes if ax.get_title()}) <= 1
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            labels = [label.get_text() for label in axis.get_ticklabels(which="both")]
            assert not any("10^{0}" in label or "mathdefault" in label for label in labels)
        if ax.get_legend() is not None:
            box = ax.get_legend().get_window_extent()
            for line in ax.lines:
                at = line.get_transform().transform(line.get_xydata())
                between = np.linspace(at[:-1], at[1:], 9).reshape(-1, 2)
                points = at if line.get_linestyle() == "None" else np.vstack([at, between])
                inside = np.all((points > box.min) & (points < box.max), axis=1)
                assert not inside.any(), (ax, line)


def test_every_example_is_in_the_gallery_and_names_its_lecture_row(module):
    gallery = module("gallery")
    scripts = {path.stem for path in FOLDER.glob("*.py")} - {
        "common",
        "critical",
        "experiments",
        "gallery",
        "notebooks",
        "playground",
        "story",
    }
    assert scripts == set(gallery.ORDER)
    rows = " ".join(gallery.docstring(name)[0] for name in gallery.ORDER)
    assert {f"L{i}" for i in range(1, 19)} <= set(re.findall(r"L\d+", rows))
    for name in gallery.ORDER:
        assert gallery.docstring(name)[-1].startswith("Not shown: "), name


def test_the_gallery_has_chapters_and_stable_addresses(module, tmp_path):
    """The address of an example is its name, independent of others, and no numbers of claims are
    shown.
    """
    gallery, story = module("gallery"), module("story")
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"PNG")

    def built(names):
        page = gallery.begin(names)
        for chapter, own in story.STORY.items():
            page.chapter(chapter)
            for name in own:
                if name in names:
                    gallery.show(page, name, picture, "A sentence.", 1)
        return page.to_html()

    text = built(gallery.ORDER)
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", text)
    assert headings == ["Claims that are wrong, or half right", *story.STORY]
    addresses = re.findall(r'<h3 id="(.*?)">', text)
    assert addresses == [name.replace("_", "-") for name in gallery.ORDER]
    links = re.findall(r'href="#(.*?)"', text)
    assert set(links) == set(addresses) and len(links) > len(addresses)
    some = re.findall(r'<h3 id="(.*?)">', built(gallery.ORDER[3:]))
    assert some == addresses[3:]
    shown = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
    assert not re.search(r"\bL\d+\b", shown) and shown.count("Lecture: ") >= 27
    assert 'href="playground.html"' in text


def test_a_slide_has_one_sentence_at_24_points_above_its_picture(module, tmp_path):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    common, story, gallery = module("common"), module("story"), module("gallery")
    for name in gallery.ORDER:
        lines = common.slide_lines(story.claim(name))
        assert 1 <= len(lines) <= 3 and " ".join(lines).count(". ") == 0, name
        assert lines[-1].endswith((".", "?", ":")) and "`" not in lines[0], name
    for name, size in (("wide", (7.6, 3.8)), ("tall", (5.0, 6.0))):
        figure = plots.new_figure(size)
        figure.subplots(1, 2)
        path = tmp_path / f"{name}.png"
        title = common.save_slide(figure, "First sentence, " * 11 + "its end. Second.", path)
        FigureCanvasAgg(figure).draw()
        width, height = figure.get_size_inches()
        assert width / height == pytest.approx(16 / 9, rel=1e-3)
        assert title.get_fontsize() * 13.333 / width == pytest.approx(24)
        assert "Second" not in title.get_text() and title.get_text().count("\n") == 2
        box = title.get_window_extent()
        assert box.x1 < figure.bbox.x1
        assert all(ax.get_tightbbox().y1 < box.y0 for ax in figure.axes)
        shown = [ax.get_position() for ax in figure.axes]
        assert max(p.x1 for p in shown) - min(p.x0 for p in shown) > 0.3
        svg, pdf = (path.with_suffix(suffix).read_bytes() for suffix in (".svg", ".pdf"))
        assert b"its end." in svg and pdf.startswith(b"%PDF")


def test_stored_tables_belong_to_experiments(module):
    experiments = module("experiments").EXPERIMENTS
    kept = {path.stem: path for path in (FOLDER / "data").glob("*.csv")}
    assert set(kept) == set(experiments) and sorted(experiments) == list(experiments)
    for name, path in kept.items():
        assert f"--only {name}:" in path.read_text().splitlines()[0]
        assert path.stat().st_size < 100_000 and callable(module(name).experiment)


def test_help_says_how_long_the_full_size_takes(module):
    gallery, common = module("gallery"), module("common")
    assert set(common.FULL_MINUTES) < set(gallery.ORDER)
    for name, words in (
        ("minimum_ratio", f"about {common.FULL_MINUTES['minimum_ratio']} minutes"),
        ("toy_surface", "three minutes"),
    ):
        shown = subprocess.run(
            [sys.executable, str(FOLDER / f"{name}.py"), "--help"],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(FOLDER.parent)},
        )
        assert shown.returncode == 0 and words in " ".join(shown.stdout.split())


def test_papers_are_reproduced_in_twenty_lines(module):
    """Each example names its paper, and everything except `main`, which draws, has at most 20
    lines.
    """
    story = module("story")
    for name in story.STORY["Papers, seen"]:
        assert story.docstring(name)[-2].startswith("Paper: "), name
        tree = ast.parse((FOLDER / f"{name}.py").read_text())
        drawn = {"main", "draw_plane", "measure", "barrier", "pixels"}
        own = [node for node in tree.body if getattr(node, "name", "main") not in drawn]
        for node in ast.walk(ast.Module(own, [])):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
                del node.body[0]
        lines = [line for node in own for line in ast.unparse(node).splitlines() if line]
        assert 5 <= len(lines) <= 20, (name, len(lines))


def test_edge_of_stability(run, module):
    """The heading holds for every training, except at a rate so small that 2/rate is
    not reached.
    """
    numbers = run("edge_of_stability")
    assert np.all((numbers["first"] > 5) & (numbers["first"] < 7))
    for rate, facts in numbers["facts"].items():
        for fact in facts:
            assert fact["reached"] and abs(fact["mean"] - 1) < 0.06, rate
            assert fact["rises_before"] == 0 and fact["rises_after"] > 0.02
            assert fact["fall"] < 0.95
    example = module("edge_of_stability")
    assert not example.measure(0.05, *example.reproduce(0.05, 0, time=100))["reached"]


def test_straight_line(run):
    """The loss has no barrier between a start and its own end, and always one to another end."""
    numbers = run("straight_line")
    assert not numbers["rises"].any() and numbers["barriers"].min() > 2
    assert numbers["lengths"].min() > 1.02


def test_bent_path(run):
    numbers = run("bent_path")
    assert np.all(numbers["bent"] < 1.5 * numbers["ends"])
    assert np.all(numbers["straight"] > 10 * numbers["ends"])


def test_matched_units(run):
    """The heading holds for every pair, and random copies have barriers like those of trained
    networks.
    """
    numbers = run("matched_units")
    trained, drawn, matched = (
        numbers["barriers"][name] for name in ("as trained", "at random", "matched")
    )
    for width in trained:
        assert np.all(matched[width] < 0.9 * trained[width])
        assert np.median(drawn[width]) > 0.5 * np.median(trained[width])
    shares = list(numbers["shares"].values())
    assert all(2 * np.median(b) < np.median(a) for a, b in zip(shares, shares[1:]))
    for own in (trained, matched):
        medians = [np.median(own[width]) for width in own]
        assert all(later < sooner for sooner, later in zip(medians, medians[1:]))


@pytest.mark.nightly
def test_index_against_loss(run):
    """The correlation exceeds those of a thousand random orders."""
    numbers = run("index_against_loss")
    rng = np.random.default_rng(0)
    for kind, (losses, index, _) in numbers["runs"].items():
        drawn = max(spearmanr(rng.permutation(losses), index)[0] for _ in range(200))
        assert losses.size >= 7 and numbers["ranks"][kind] > max(0.8, drawn)
        assert losses[index == 0].max() < losses[index == index.max()].min()


@pytest.mark.nightly
def test_spread_by_width(run):
    """The spread decreases by far more than it differs between halves of the starts."""
    numbers = run("spread_by_width")
    for name, spread in numbers["spread"].items():
        values = list(spread.values())
        assert values == sorted(values, reverse=True) and values[0] > 20 * values[-1]
        for losses in numbers["losses"][name].values():
            halves = np.std(losses[::2]), np.std(losses[1::2])
            assert max(halves) < 4 * min(halves)


@pytest.mark.nightly
def test_best_steps(run):
    numbers = run("best_steps")
    up, down = (numbers["ratio"][name] for name in ("positive", "negative"))
    assert np.mean(abs(up - 1) < 0.1) > 0.9 and down.min() > 2 and np.median(down) > 10
    assert all(negative > 30 * positive for positive, negative in numbers["gain"].values())


@pytest.mark.nightly
def test_gradient_flat(run):
    """For a linear network the searches end at critical points, and for a tanh network at none."""
    numbers = run("gradient_flat")
    (linear, _), (size, ratio) = (numbers["ends"][name] for name in ("identity", "tanh"))
    assert linear.max() < 1e-10 and set(numbers["kinds"]["identity"]) == {"saddle"}
    assert size.min() > 1e-4 and ratio.max() < 1e-5 and numbers["flat"] == size.size
    assert set(numbers["kinds"]["tanh"]) == {"not_critical"}


@pytest.mark.nightly
def test_outliers(run):
    """With relu the outliers occur in every network at every moment, and with tanh in none."""
    ratios = run("outliers")["ratios"]
    plain, norm = ratios["relu", False], ratios["relu", True]
    assert np.all(plain > 1.2 * norm) and np.median(plain) > 2 * np.median(norm)
    assert norm.max() < 3.5 and max(ratios["tanh", norm].max() for norm in (False, True)) < 4.5


def test_input_covariance(run):
    numbers = run("input_covariance")
    raw, centred = numbers["largest"].values()
    assert np.all(raw > 8 * centred) and numbers["gap"] < 1e-12
    assert np.all(6 * numbers["sooner"] < numbers["n_steps"])


def check_heading(facts):
    """Check the facts that the heading of `where_training_stops` states."""
    assert facts["critical"] == 0 and facts["least"] > 100
    assert facts["with negative"] == facts["trainings"] - 2
    assert facts["minima"] == facts["penalised"] and facts["apart"][0] > 0.05
    assert facts["infinity"] >= 0.9 * facts["plain"]


def test_where_training_stops(run, module):
    """The heading holds for the end points, and fails for the points at which descent
    continues to.
    """
    facts = run("where_training_stops", "normal")
    check_heading(facts)
    assert facts["trainings"] == 216 and facts["saddles nearer"] == 28
    example, table = module("where_training_stops"), facts["table"]
    ended = table | {"gradient": table["end_gradient"], "tolerance": table["end_tolerance"]}
    control = example.facts_of(ended, example.nearest_points(table))
    assert control["critical"] >= facts["penalised"]
    with pytest.raises(AssertionError):
        check_heading(control)


@pytest.mark.nightly
def test_where_training_stops_again(run):
    facts = run("where_training_stops")
    assert facts["trainings"] == 12 and facts["critical"] == 0
    assert facts["with negative"] == 12 and facts["minima"] == facts["penalised"] == 6


def test_sudden_drop(run):
    """The smaller the perturbation, the later the drop, and without a perturbation
    there is none.
    """
    numbers = run("sudden_drop")
    drops = [numbers["drops"][size] for size in sorted(numbers["drops"], reverse=True)]
    assert numbers["kind"] == "saddle" and 0 < drops[0] < drops[1] < drops[2]
    for losses in (numbers["still"], numbers["batches"]):
        assert losses.min() > 0.9 * losses[0]
    right, wrong = numbers["check"].values()
    assert right < 1e-5 and wrong > 1e-3


def test_running_average(run):
    numbers = run("running_average")
    assert 2 * numbers["late"][0] < numbers["late"][1]
    assert numbers["early"][0] < 0.5 and abs(numbers["early"][1] - 1) < 0.3


@pytest.mark.nightly
def test_constant_rate(run):
    gaps = run("constant_rate")["gaps"]
    for name in ("1/t", "power 0.6"):
        assert 5 * gaps[0.05, "constant"] < gaps[0.05, name]
    assert 5 * gaps[0.5, "1/t"] < gaps[0.5, "constant"]


def test_flat_and_steep(run):
    numbers = run("flat_and_steep")
    flat, steep = zip(*numbers["lengths"].values())
    assert flat[1] > 100 * flat[0] and steep[1] < steep[0]
    assert numbers["newton"] < 1e-20 < 0.01 < numbers["descent"]


def test_toy_surface(run):
    numbers = run("toy_surface")
    assert np.array_equal(numbers["hessian"], [[0, -2], [-2, 0]])
    assert numbers["kind"] == "saddle" and numbers["certified"]
    assert np.allclose(numbers["direction"], np.sqrt(0.5), atol=1e-12)
    assert numbers["loss"] < 1 and numbers["valley_zero"] == 1


def test_taylor_error(run):
    numbers = run("taylor_error")
    assert np.allclose(numbers["with_hessian"], 3, atol=0.15)
    assert np.allclose(numbers["without"], 2, atol=0.15)


SIGNS = {"minimum": (True, True), "saddle": (False, True), "maximum": (False, False)}


def test_eigenvalues_tell(run):
    numbers = run("eigenvalues_tell")
    assert numbers["minima"] == 1
    assert numbers["right"] == numbers["points"] == 11
    assert numbers["saddles"] == 10
    for kind, (found, (low, high)) in numbers["signs"].items():
        assert found == kind and (low > 0, high > 0) == SIGNS[kind]


def test_slopes(run):
    """For most inputs slopes differ in sign between patients, and they equal finite differences."""
    numbers = run("slopes")
    assert numbers["both"] >= 6 and numbers["agreement"] > 0.6
    assert numbers["slopes"].shape == (442, 10) and np.ptp(numbers["slopes"], axis=0).min() > 5


@pytest.mark.nightly
def test_left_out(run):
    """One Newton step explains most of the effect of removing a sample, and the influence function
    less.
    """
    shares = run("left_out")["shares"]
    assert 0.7 < shares["one"] < 1.2 and shares["influence"] < shares["one"] - 0.1


def test_data_gap(run):
    numbers = run("data_gap")
    assert numbers["ratio"] > 3 and 0.07 < numbers["noise"] < 0.14 and numbers["covered"] > 0.85


def test_escape_step(run):
    numbers = run("escape_step")
    assert numbers["saddles"] >= 2
    assert numbers["fallen"].min() > 0 and numbers["escaped"].min() > 0
    assert np.ptp(np.log10(numbers["ratio"])) > 0.2
    factors = numbers["factors"]
    right = {sign: np.mean(abs(np.log(found)) < 0.06) for sign, found in factors.items()}
    assert right["positive"] > 0.8 and right["negative"] < 0.4


def test_minimum_ratio(run):
    numbers = run("minimum_ratio", "normal")
    assert numbers["networks"] >= 200 and numbers["certified"] > 0.75 * numbers["networks"]
    assert numbers["kinds"] == {"minimum"}
    wide = numbers["wide"]
    for name in ("wide", "narrow", "with l2"):
        points = numbers[name]
        assert np.unique(points["seed"]).size >= 5 and not points["negative"].any()
        assert np.all(points["positive"] + points["zero"] == points["n"])
    assert not numbers["narrow"]["zero"].any() and not numbers["with l2"]["zero"].any()
    assert wide["loss"].max() < 1e-20 and np.all(wide["positive"] == 40)
    assert wide["negative_signs"].min() >= 5
    half = (1 + 40 / wide["n"]) / 2  # where rounding gives half of the zeros a sign
    assert abs(wide["positive_signs"] / wide["n"] - half).max() < 0.08


@pytest.mark.nightly
def test_minimum_ratio_again(run):
    """Networks of the table, trained again, have its counts."""
    kept = run("minimum_ratio", "normal")
    numbers = run("minimum_ratio")
    assert numbers["certified"] >= 10 and np.all(numbers["wide"]["positive"] == 40)
    loss = numbers["with l2"]["loss"]
    assert all(np.isclose(kept["with l2"]["loss"], value, rtol=1e-5).any() for value in loss)


def test_saddles_against_size(run):
    """The share of searches that end at a minimum decreases with size beyond the 95% intervals,
    while all descents end at one.
    """
    numbers = run("saddles_against_size", "normal")
    common = importlib.import_module("common")
    shares = {n: k / of for n, (k, of) in numbers["minima"].items()}
    assert sorted(shares.values(), reverse=True) == list(shares.values())
    intervals = [common.binomial_interval(*counts) for counts in numbers["minima"].values()]
    assert all(later[1] < intervals[0][0] for later in intervals[1:])
    assert set(numbers["descents"]) == set(shares) and len(shares) == 7
    assert all(k == of == 10 for k, of in numbers["descents"].values())
    assert min(shares[n] / 0.5**n for n in shares) > 10
    table = numbers["table"]
    assert set(table["kind"]) == {"minimum", "saddle"}
    for teacher in range(5):
        for n in (13, 33):
            mine = common.select(table, teacher=teacher, n=n)
            assert np.mean(mine["kind"] == "saddle") > 0.75
            assert spearmanr(mine["loss"], mine["negative"])[0] > 0.5


@pytest.mark.nightly
def test_saddles_against_size_again(run):
    shares = {n: k / of for n, (k, of) in run("saddles_against_size")["minima"].items()}
    assert shares[5] == 1 and shares[17] < 0.5


def test_the_chance_of_a_random_matrix(module):
    """Probabilities of orders 1 to 3 equal closed forms, and that of order 4 a simulation within
    five standard errors.
    """
    chance = module("saddles_against_size").chance_random_matrix
    exact = [1 / 2, (2 - 2**0.5) / 4, (np.pi - 2 * 2**0.5) / (4 * np.pi)]
    assert np.allclose([chance(n) for n in (1, 2, 3)], exact, rtol=1e-10)
    A = np.random.default_rng(0).standard_normal((200_000, 4, 4))
    seen = np.mean(np.linalg.eigvalsh(A + A.transpose(0, 2, 1))[:, 0] > 0)
    assert abs(seen - chance(4)) < 5 * np.sqrt(chance(4) / len(A))
    ratio = np.log([chance(n) for n in (10, 20)]) / np.log(3)
    assert np.allclose(ratio / [-25, -100], 1, atol=0.2)  # Dean and Majumdar's leading term


def test_poor_minima(run):
    """For twenty starts on each of five data sets, few networks of intermediate width end well, and
    nearly all of width 32.
    """
    numbers = run("poor_minima", "normal")
    interval = importlib.import_module("common").binomial_interval
    assert len(numbers["shares"]) == 5
    for by in numbers["shares"].values():
        assert {of for _, of in by["width"].values()} == {20}
        assert by["width"][32][0] >= 17
    hard = [by["width"] for name, by in numbers["shares"].items() if name != "two moons"]
    for counts in hard:
        fewest = min(counts.values())
        assert interval(*fewest)[1] < interval(*counts[32])[0]
    deep = [by["depth"][4][0] for by in numbers["shares"].values()]
    assert sum(k <= 10 for k in deep) >= 3  # depth alone does not do it
    assert numbers["table"]["proved"].mean() > 0.9


@pytest.mark.nightly
def test_poor_minima_again(run):
    counts = run("poor_minima")["shares"]["two spirals"]["width"]
    assert counts[16][0] >= 18


def test_ten_million(run):
    table = run("ten_million", "normal")["table"]
    assert table["n"].max() > 0.99e7 and np.all(np.isfinite(table["product"]))
    assert table["memory"].max() < 1e-3 * 8 * table["n"].max() ** 2 / 2**30
    assert set(table["kind"]) == {"saddle"} and table["certified"].all()
    assert table["verdict_memory"][-1] < 1e-3 * 8 * table["n"].max() ** 2 / 2**30
    growth = np.polyfit(np.log(table["n"]), np.log(table["product"]), 1)[0]
    assert 0.7 < growth < 1.4


def test_failed_training(run):
    """From each of five starts the deep sigmoid network stays at ln 10, where a linear
    one learns.
    """
    numbers = run("failed_training", "normal")
    ends = numbers["ends"]
    assert {losses.size for losses in ends.values()} == {5}
    assert abs(ends["20 layers, sigmoid"] - np.log(10)).max() < 0.05
    for name in ("linear", "1 hidden layer"):
        assert 10 * ends[name].max() < ends["20 layers, sigmoid"].min()
    assert 2 * ends["1 hidden layer"].max() < ends["20 layers, tanh"].min()


def test_initial_scale(run):
    """For five starts at each factor, only factors near 1 learn."""
    numbers = run("initial_scale", "normal")
    tanh, relu = numbers["tanh"], numbers["relu"]
    assert {losses.size for losses in tanh["ends"].values()} == {5}
    assert 5 * max(tanh["ends"][1.0].max(), tanh["ends"][2.0].max()) < 1
    for losses in (tanh["ends"], relu["ends"]):
        assert min(losses[0.125].min(), losses[0.25].min()) > 2  # ln 10 is 2.3: nothing is learnt
        assert losses[4.0].min() > 1 and losses[8.0].min() > 1
    assert relu["ends"][1.0].max() < 1
    assert tanh["saturated"][1.0].max() < 0.01 and tanh["saturated"][8.0].min() > 0.6
    growth = np.log2(np.median(relu["gradient"][2.0]) / np.median(relu["gradient"][1.0]))
    assert 9 < growth < 13  # by ten layers


@pytest.mark.nightly
def test_escape_times(run):
    numbers = run("escape_times")
    for name, ratio in numbers["ratio"].items():
        assert ratio.size >= 4 and np.all(abs(ratio - 1) <= 0.1), name
    select, table = importlib.import_module("common").select, numbers["table"]
    assert set(table["source"]) == {"narrower", "index"}
    for saddle in np.unique(table["saddle"]):
        seen = {
            name: select(table, saddle=saddle, method=name)["seen"] for name in set(table["method"])
        }
        for name, steps in seen.items():
            assert (steps.max() < 1.3 * steps.min()) == name.startswith("Adam"), (saddle, name)


@pytest.mark.nightly
def test_wider_net(run):
    """From each of five starts a minimum becomes a saddle of the wider network, and leaving it
    lowers the loss.
    """
    numbers = run("wider_net")
    assert numbers["stuck"].size == 10 and set(numbers["stuck"]) == {"minimum"}
    assert set(numbers["opened"]) == {"saddle"} and max(numbers["lowest"]) < -1e-3
    assert np.all(numbers["after"] < numbers["escaped"])
    assert np.all(numbers["escaped"] < numbers["before"])
    assert np.all(numbers["after"] < 0.95 * numbers["before"])
    kinds = numbers["kinds"]
    assert set(kinds["tanh"]) == {"saddle"} and "saddle" not in kinds["relu"]
    assert "not_critical" in kinds["sigmoid"] + kinds["softplus"]


def test_plateaus(run):
    """The headings hold for each of ten starts, not only for their median."""
    numbers = run("plateaus", "normal")
    work, table = numbers["work"], numbers["table"]
    select = importlib.import_module("common").select
    assert numbers["plateau"].all()
    assert all(times.size == 10 and np.isfinite(times).all() for times in work.values())
    for stand in ("saddle", "saturated"):
        for scaled in ("rmsprop", "adam"):
            assert 2.5 * work[stand, scaled].max() < work[stand, "momentum"].min()
            assert 2.5 * work[stand, scaled].max() < work[stand, "l-bfgs"].min()
    falls = numbers["falls"]
    assert 0 < max(falls["rmsprop"], falls["adam"]) < falls["momentum"] < falls["sgd"]
    assert 1.1 * work["saddle", "momentum"].max() < work["saddle", "sgd"].min()
    assert 2 * np.median(work["saturated", "l-bfgs"]) < np.median(work["saturated", "momentum"])
    saddle = select(table, stand="saddle")
    for small, large in ((0.0316228, 0.316228), (0.1, 1.0), (0.316228, 3.16228)):
        momentum = select(saddle, method="momentum", rate=small)["work"]
        sgd = select(saddle, method="sgd", rate=large)["work"]  # the same effective rate
        assert np.all(1.1 * sgd < momentum) and momentum.size == 10


def test_newton_steps(run):
    numbers = run("newton_steps")
    reached = numbers["reached"]
    assert {
        reached[name] for name in ("saddle-free-newton", "newton-cg", "trust-region", "cubic")
    } == {numbers["starts"]}
    assert {numbers["drawn"][name] for name in ("newton", "damped-newton", "newton-mr")} == {
        numbers["starts"]
    }
    for name in ("saddle-free-newton", "newton-cg", "trust-region", "cubic"):
        assert numbers["usual"][name] == numbers["starts"]


@pytest.mark.nightly  # in the quick form, a smaller network, Newton's method finds minima
def test_newton_steps_from_usual_starts(run):
    numbers = run("newton_steps", "normal")
    for name in ("newton", "damped-newton", "newton-mr"):
        assert numbers["usual"][name] <= 10 and numbers["usual drawn"][name] <= 2
    assert numbers["higher"]["newton"] >= 3 and numbers["higher"]["damped-newton"] >= 3


def test_gradients_by_depth(run):
    spans = run("gradients_by_depth")["spans"]
    assert spans["tanh", "half of xavier"] > 20 * spans["tanh", "xavier"]
    assert spans["relu", "xavier"] > 5 * spans["relu", "he"]
    assert spans["sigmoid", "xavier"] > 1e3


@pytest.mark.nightly  # by day `optimize/test_diagnose.py` holds what it shows
def test_why_it_fails(run):
    numbers = run("why_it_fails")
    assert numbers["named"] == 6 and numbers["lower"] >= 5


def test_skip_connections(run):
    """The heading holds for each of five starts for every activation, at equal loss."""
    numbers = run("skip_connections", "normal")
    for facts in numbers.values():
        assert facts["start"].size == 5 and np.ptp(facts["start"]) < 0.2
    ratio = {name: facts["ratio"] for name, facts in numbers.items()}
    for other in ("skip connections", "batch normalisation"):
        assert 1e6 * ratio["sigmoid", "plain"].max() < ratio["sigmoid", other].min()
    for activation in ("tanh", "relu"):
        plain, skip, norm = (
            numbers[activation, name]
            for name in ("plain", "skip connections", "batch normalisation")
        )
        assert plain["ratio"].min() > 0.01
        assert skip["trusted"].min() > 3 * max(plain["trusted"].max(), norm["trusted"].max())
        assert norm["trusted"].max() < plain["trusted"].min()
        assert norm["range"][1] > plain["range"][1] or np.isnan(plain["range"][1])
    for activation, rates in {"tanh": (0.01, 0.1, 0.316228), "relu": (0.01, 0.1, 0.316228)}.items():
        for rate in rates:
            skip, plain = (numbers[activation, n]["losses"] for n in ("skip connections", "plain"))
            assert 2 * skip[rate].max() < plain[rate].min()
    assert min(x.min() for x in numbers["sigmoid", "plain"]["losses"].values()) > 2.2
    assert numbers["sigmoid", "skip connections"]["range"][1] >= 1


@pytest.mark.nightly
def test_skip_connections_again(run):
    numbers = run("skip_connections")
    plain, skip = numbers["sigmoid", "plain"], numbers["sigmoid", "skip connections"]
    assert plain["ratio"] < 1e-11 and skip["ratio"] > 1e-4
    for activation in ("tanh", "relu"):
        plain, skip = (numbers[activation, name] for name in ("plain", "skip connections"))
        assert skip["trusted"] > 3 * plain["trusted"]


def test_permutations(run):
    numbers = run("permutations")
    assert max(numbers["loss_gaps"]) < 1e-12 and max(numbers["gaps"]) < 1e-11
    assert min(numbers["distances"]) > 0.1 and numbers["barrier"] > 1.01


def test_many_starts(run):
    numbers = run("many_starts")
    assert numbers["distinct"] >= 3 and set(numbers["kinds"]) == {"minimum"}
    assert min(numbers["right"]) == 1
    assert np.mean(numbers["apart"]) > 0.05


def test_learning_rates(run):
    """The heading holds with a margin in each of five orders of the samples."""
    numbers = run("learning_rates", "normal")
    assert numbers["meets"] == {
        "constant": False,
        "inverse time": True,
        "power 0.6": True,
        "constant, then 1/t": True,
        "power 2": False,
    }
    gaps = numbers["gaps"]
    for good in ("inverse time", "constant, then 1/t", "power 0.6"):
        assert 1.5 * gaps[good].max() < gaps["constant"].min()
    assert 1.5 * gaps["constant"].max() < gaps["power 2"].min()
    assert all(gap.size == 5 for gap in gaps.values())


@pytest.mark.nightly
def test_learning_rates_again(run):
    """Runs with fewer samples and epochs give the same heading."""
    gaps = run("learning_rates")["gaps"]
    assert 2 * gaps["inverse time"].max() < gaps["constant"].min()
    assert 2 * gaps["constant"].max() < gaps["power 2"].min()


def test_early_stopping(run):
    """Each of ten networks, and of five smaller ones trained again, is better at the epoch where it
    stopped.
    """
    for scale, n_seeds in (("normal", 10), ("quick", 5)):
        table = run("early_stopping", scale)["table"]
        assert table["seed"].size == n_seeds
        assert np.all(table["loss_stopped"] < 0.97 * table["loss_end"])
        assert table["loss_stopped"] == pytest.approx(table["lowest_seen"], rel=1e-5)
        assert np.all(table["right_stopped"] > table["right_end"])


def test_batch_size(run):
    """Many samples at once are much faster, with a smaller factor for plain loops on a busy
    machine.
    """
    numbers = run("batch_size")
    assert abs(numbers["slope"] + 0.5) < 0.05  # a root mean square over 100 draws at five points
    root = numbers["errors"] * np.sqrt(numbers["batches"])[:, None]
    assert np.all(abs(root / root.mean(axis=0) - 1) < 0.3)
    assert min(numbers["gain"].values()) > (1.2 if chosen_arch() == "reference" else 2)


def test_losses(run):
    numbers = run("losses")
    assert all(abs(share - level) < 0.04 for level, share in numbers["shares"].items())


def test_hessian_cost(run):
    numbers = run("hessian_cost")
    assert np.all(np.array(numbers["whole"]) > 10 * np.array(numbers["product"]))


def test_newton_parabola(run):
    numbers = run("newton_parabola")
    convex, concave = numbers["convex"], numbers["concave"]
    assert convex["curvature"] > 0 > convex["newton"] == convex["free"]
    assert concave["curvature"] < 0 < concave["newton"] and concave["free"] < 0


def test_hidden_way_out(run):
    numbers = run("hidden_way_out")
    assert numbers["kind"] == "saddle" and numbers["negative"] >= 1
    assert numbers["falling"] < 0.05 and numbers["lowest"] < numbers["loss"]


def test_covariate_shift(run):
    numbers = run("covariate_shift")
    plain, normal = numbers["plain"], numbers["batch norm"]
    assert plain["shift"] > 2 * normal["shift"]
    growth = [facts["spread"][1] / facts["spread"][0] for facts in (plain, normal)]
    assert growth[0] > 2 * growth[1] and plain["loss"] < normal["loss"]


def test_finding_saddles(run):
    """On every network nine tries of ten end at a proved point, most at the requested index, and
    the intervals of the methods are far apart.
    """
    numbers = run("finding_saddles", "normal")
    common = importlib.import_module("common")
    sample, before = (numbers["counts"][way] for way in ("sample", "gradient norm"))
    assert sample["proved"] >= 0.9 * sample["tries"] and sample["there"] >= 0.6 * sample["wanted"]
    assert sample["wanted"] * 2 == sample["tries"] and sample["distinct"] > 3 * before["distinct"]
    for part, of in (("proved", "tries"), ("there", "wanted")):
        low = common.binomial_interval(sample[part], sample[of])[0]
        assert low > common.binomial_interval(before[part], before[of])[1]
    table = common.select(numbers["table"], way="sample")
    for n in np.unique(table["n"]):
        mine = common.select(table, n=n)
        assert mine["proved"].mean() >= 0.9 and 31 <= n <= 300
    assert np.unique(table["data"]).size >= 3
    points = common.select(table, distinct=1)
    networks = [common.select(points, n=n) for n in np.unique(points["n"])]
    ranks = np.array([spearmanr(mine["loss"], mine["index"])[0] for mine in networks])
    assert np.all(ranks > 0.3) and np.sum(ranks > 0.5) >= 6


@pytest.mark.nightly
def test_finding_saddles_again(run):
    """Tries of the table made again have its losses."""
    kept = run("finding_saddles", "normal")["table"]
    table = run("finding_saddles")["table"]
    mine = table["loss"][(table["way"] == "sample") & (table["proved"] == 1)]
    assert mine.size >= 5
    losses = kept["loss"][(kept["way"] == "sample") & (kept["n"] == table["n"][0])]
    found = [np.isclose(losses, loss, rtol=1e-5).any() for loss in mine]
    assert np.mean(found) > 0.5
