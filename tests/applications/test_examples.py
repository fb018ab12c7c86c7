"""Each example runs in its quick form or from its stored table: its figure is drawn, the
statements of its heading hold, and some are false for each control.

The quick form of an example with a stored table takes seconds and is tested nightly.
"""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from fastcurv import plots

from .headings.check import check_heading, heading, member, vary
from .headings.papers import FOUND
from .headings.table import HEADINGS

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

FOLDER = Path(__file__).resolve().parents[2] / "examples"
STORED = {path.stem for path in (FOLDER / "data").glob("*.csv")}
SLOW = {  # examples that take seconds in their quick form
    "best_steps",
    "constant_rate",
    "escape_times",
    "gradient_flat",
    "index_against_loss",
    "outliers",
    "spread_by_width",
    "why_it_fails",
    "wider_net",
}
# headings that name a class of networks; the others are about stored tables, whose rows are the
# members, about functions with closed forms, or about the networks that they name
NAMES_A_CLASS = {
    "batch_size", "bent_path", "best_steps", "constant_rate", "covariate_shift", "early_stopping",
    "edge_of_stability", "escape_step", "escape_times", "gradient_flat", "gradients_by_depth",
    "hessian_cost", "hidden_way_out", "index_against_loss", "input_covariance", "many_starts",
    "matched_units", "newton_steps", "outliers", "permutations", "running_average",
    "spread_by_width", "straight_line", "sudden_drop", "taylor_error", "two_weights",
}  # fmt: skip


@pytest.fixture
def module(monkeypatch):
    """Return a function that imports a module of the examples' folder by name. The modules are
    unloaded at the end of the test.
    """
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in [m for m in sys.modules if getattr(sys.modules[m], "__file__", None)]:
        if str(FOLDER) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def run(tmp_path, monkeypatch, module):
    """Return a function that runs an example by name, by default at its quick size, checks that it
    draws a figure, which is not rendered, and its sentence, and returns its numbers.
    """
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))

    def run(name, scale="quick"):
        outcome = module(name).main(scale, tmp_path)
        assert drawn.pop().axes and outcome.picture.parent == tmp_path
        assert outcome.sentence.endswith(".") and re.search(r"\d", outcome.sentence)
        return outcome.numbers

    return run


def test_every_example_is_in_the_gallery_and_names_its_lecture_row(module):
    gallery = module("gallery")
    assert set(gallery.ORDER) == set(HEADINGS)
    scripts = {path.stem for path in FOLDER.glob("*.py")} - {
        "common",
        "critical",
        "experiments",
        "gallery",
        "handout",
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
    """The gallery has all chapters and examples. The address of an example depends only on its
    name, and numbers of lecture claims, such as L12, are not shown outside details.
    """
    gallery, story = module("gallery"), module("story")
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"PNG")

    def built(names):
        page = gallery.first_page(names)
        for chapter, own in story.STORY.items():
            page.chapter(chapter)
            for name in own:
                if name in names:
                    gallery.add_example(page, name, picture, "A sentence.", 1)
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
    assert not re.search(r"\bL\d+\b", text) and text.count("Lecture: ") >= 27
    assert len(set(story.FIRST_PICTURES) & set(gallery.ORDER)) == 12
    for name in gallery.ORDER:
        assert re.search(rf'href="[^"]*examples/{name}.py"', text), name
    assert 'href="playground.html"' in text


def test_the_handout_has_ten_claims_in_legible_words(module, tmp_path):
    """Ten pictures, in which words of 9 points are printed at 7 or more, are on five pages, with
    texts that do not overlap and keep to the margin. Missing pictures are not drawn here.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    handout, figure = module("handout"), plots.new_figure((7.6, 4.2))
    for name in handout.CLAIMS.values():
        figure.savefig(tmp_path / f"{name}.png", dpi=handout.DOTS_PER_INCH)
    assert len(re.findall(rb"/Type /Page\b", handout.write(tmp_path).read_bytes())) == 5
    shown = []
    for number, claims in enumerate(handout.pages(tmp_path), 1):
        page = handout.draw_page(claims, number, 5)
        FigureCanvasAgg(page).draw()
        boxes = [text.get_window_extent() for text in page.texts]
        pictures = [ax.get_position().transformed(page.transFigure) for ax in page.axes]
        assert len(pictures) == 2 and 9 * pictures[0].width / page.dpi / 7.6 >= 7
        for k, box in enumerate(boxes):
            assert box.x0 >= 0 and box.x1 <= 0.95 * page.bbox.x1 and box.y0 >= 0, page.texts[k]
            others = [*boxes[:k], *pictures]
            assert not any(box.overlaps(other) for other in others), page.texts[k]
        shown += [text.get_text() for text in page.texts]
    assert sum(text.startswith("python examples/") for text in shown) == 10
    lecturers = ("Andrew Ng: ", "Hung-yi Lee: ", "Hugo Larochelle: ", "A course: ")
    assert sum(text.startswith(lecturers) for text in shown) == 10
    assert sum("https://github.com/OWNER/fastcurv, BSD-3-Clause" in text for text in shown) == 5


def test_a_slide_has_one_sentence_above_its_picture(module, tmp_path):
    common, story, gallery = module("common"), module("story"), module("gallery")
    for name in gallery.ORDER:
        lines = common.slide_lines(story.claim(name))
        assert 1 <= len(lines) <= 3 and " ".join(lines).count(". ") == 0, name
        assert lines[-1].endswith((".", "?", ":")) and "`" not in lines[0], name
    figure, path = plots.new_figure((7.6, 3.8)), tmp_path / "slide.png"
    figure.subplots().plot([0, 1], label="a curve")
    figure.legend(frameon=False, loc="outside upper center")
    title = common.save_slide(figure, "First sentence, " * 11 + "its end. Second.", path)
    svg, pdf = (path.with_suffix(suffix).read_bytes() for suffix in (".svg", ".pdf"))
    width, height = map(float, re.search(rb'width="(.+?)pt" height="(.+?)pt"', svg).groups())
    assert width / height == pytest.approx(16 / 9, rel=1e-3)
    assert title.get_fontsize() * 13.333 * 72 / width == pytest.approx(24)
    assert "Second" not in title.get_text() and title.get_text().count("\n") == 2
    box, margin = title.get_window_extent(), (width / 0.72 - figure.bbox.width) / 2
    assert margin > 0 and -margin < box.x0 and box.x1 < figure.bbox.width + margin
    assert figure.bbox.height < box.y0 and box.y1 < 0.98 * height / 0.72
    assert figure.legends[0].get_window_extent().y1 < figure.bbox.y1 + 1
    assert b"its end." in svg and pdf.startswith(b"%PDF")


def test_every_stored_table_belongs_to_an_experiment(module):
    experiments = module("experiments").EXPERIMENTS
    kept = {path.stem: path for path in (FOLDER / "data").glob("*.csv")}
    assert set(kept) == set(experiments) and sorted(experiments) == list(experiments)
    for name, path in kept.items():
        assert f"--only {name}:" in path.read_text().splitlines()[0]
        assert path.stat().st_size < 100_000 and callable(module(name).experiment)


def test_help_says_how_long_the_full_size_takes(module, monkeypatch, capsys):
    gallery, common = module("gallery"), module("common")
    assert set(common.FULL_MINUTES) < set(gallery.ORDER)
    for name, words in (
        ("minimum_ratio", f"about {common.FULL_MINUTES['minimum_ratio']} minutes"),
        ("toy_surface", "three minutes"),
    ):
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        with pytest.raises(SystemExit) as end:
            common.command_line(module(name).main)
        assert end.value.code == 0 and words in " ".join(capsys.readouterr().out.split())


def test_each_example_of_the_chapter_on_papers_names_its_paper(module):
    story = module("story")
    for name in story.STORY["Ten papers, reproduced"]:
        assert story.docstring(name)[-2].startswith("Paper: "), name


def test_a_false_statement_and_a_control_without_effect_are_reported():
    signs = heading(same=lambda d: {})(lambda d: {"x is positive": d["x"] > 0})
    for x, words in ((1, "control 'same'"), (-1, "x is positive")):
        with pytest.raises(AssertionError, match=words):
            check_heading(signs, {"x": x})


@pytest.mark.by_day(share=0.3)
@pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=[pytest.mark.nightly] if x in SLOW else []) for x in sorted(HEADINGS)],
)
def test_the_statements_of_a_heading_hold_and_not_for_a_control(run, name):
    check_heading(HEADINGS[name], run(name, "normal" if name in STORED else "quick"))


@pytest.mark.nightly
@pytest.mark.parametrize("name", sorted(HEADINGS))
def test_headings_hold_at_the_size_of_the_gallery(run, name):
    numbers = run(name, "normal")
    check_heading(HEADINGS[name], numbers, with_slow=True)
    if name in FOUND:
        assert FOUND[name](numbers) == found_in_the_table_of_papers()[name]


@pytest.mark.nightly
@pytest.mark.parametrize("name", sorted(NAMES_A_CLASS))
def test_a_heading_holds_for_the_stated_number_of_members_of_its_class(module, name):
    """One more or less is allowed, because trainings on other processors end elsewhere."""
    *_, stated = module("story").MEMBERS[name]
    holds = sum(HEADINGS[name].holds_for(member(name, seed)) for seed in range(1, 13))
    assert abs(holds - stated) <= 1


def found_in_the_table_of_papers():
    """Return a dict of the last column of the table in docs/papers.md by the name of the
    example.
    """
    page = (FOLDER.parent / "docs/papers.md").read_text()
    rows = re.findall(
        r"^\| .+? \| \[.+?\]\(\.\./examples/(\w+)\.py\) \| (.+?) \|$", page, re.MULTILINE
    )
    return dict(rows)


def test_numbers_in_the_table_of_papers_match_the_examples(module):
    """The table of papers lists the examples of its chapter, and its numbers for `input_covariance`
    equal those of the example. The other examples are tested nightly.
    """
    found = found_in_the_table_of_papers()
    assert list(found) == list(FOUND) == list(module("story").STORY["Ten papers, reproduced"])
    numbers = vary("input_covariance", scale="normal")
    assert FOUND["input_covariance"](numbers) == found["input_covariance"]


# Measured columns of each table, whose rows are shuffled together for a control.
MEASURED = {
    "failed_training": ["loss"],
    "initial_scale": ["end"],
    "learning_rates": ["excess"],
    "minimum_ratio": ["loss", "positive", "negative", "zero", "positive_signs", "negative_signs"],
    "plateaus": ["work"],
    "poor_minima": ["loss"],
    "saddles_against_size": ["negative", "kind", "found"],
    "skip_connections": ["value"],
    "where_training_stops": ["gain", "loss", "kind", "down_kind"],
}


@pytest.mark.nightly
@pytest.mark.parametrize("name", sorted(MEASURED))
def test_a_heading_fails_if_measurements_are_shuffled(module, tmp_path, monkeypatch, name):
    common, rng = module("common"), np.random.default_rng(0)
    read_table = common.read_table

    def shuffled(path):
        table = read_table(path)
        order = rng.permutation(len(table[MEASURED[name][0]]))
        return table | {column: table[column][order] for column in MEASURED[name]}

    monkeypatch.setattr(common, "read_table", shuffled)
    stated = HEADINGS[name].statements(module(name).main("normal", tmp_path).numbers)
    assert sum(stated.values()) <= len(stated) / 2, stated


@pytest.mark.nightly
def test_results_of_where_training_stops_are_reproduced(run):
    facts = run("where_training_stops")
    assert facts["trainings"] == 54 and facts["saddles"] == facts["minima below without"] == 0
    assert facts["minima"] == facts["minima in full batches"] == 3  # those of L-BFGS
    assert facts["minima below"] == facts["penalised"] == 27


@pytest.mark.nightly
def test_results_of_minimum_ratio_are_reproduced(run):
    kept = run("minimum_ratio", "normal")
    numbers = run("minimum_ratio")
    assert numbers["certified"] >= 10 and np.all(numbers["wide"]["positive"] == 40)
    loss = numbers["with l2"]["loss"]
    assert all(np.isclose(kept["with l2"]["loss"], value, rtol=1e-5).any() for value in loss)


@pytest.mark.nightly
def test_results_of_saddles_against_size_are_reproduced(run):
    shares = {n: k / of for n, (k, of) in run("saddles_against_size")["minima"].items()}
    assert shares[5] == 1 and shares[17] < 0.5


def test_probabilities_of_definite_random_matrices_match_closed_forms(module):
    """The probability that a random symmetric matrix is positive definite equals the closed forms
    for orders 1 to 3, and agrees with a simulation for order 4. Its logarithm is within 20% of the
    known leading term for orders 10 and 20.
    """
    chance = module("saddles_against_size").chance_random_matrix
    exact = [1 / 2, (2 - 2**0.5) / 4, (np.pi - 2 * 2**0.5) / (4 * np.pi)]
    assert np.allclose([chance(n) for n in (1, 2, 3)], exact, rtol=1e-10)
    A = np.random.default_rng(0).standard_normal((200_000, 4, 4))
    seen = np.mean(np.linalg.eigvalsh(A + A.transpose(0, 2, 1))[:, 0] > 0)
    assert abs(seen - chance(4)) < 5 * np.sqrt(chance(4) / len(A))
    ratio = np.log([chance(n) for n in (10, 20)]) / np.log(3)
    assert np.allclose(ratio / [-25, -100], 1, atol=0.2)  # Dean and Majumdar's leading term


@pytest.mark.nightly
def test_results_of_poor_minima_are_reproduced(run):
    counts = run("poor_minima")["shares"]["two spirals"]["width"]
    assert counts[16][0] >= 18


@pytest.mark.nightly
def test_results_of_skip_connections_are_reproduced(run):
    numbers = run("skip_connections")
    plain, skip = numbers["sigmoid", "plain"], numbers["sigmoid", "skip connections"]
    assert plain["ratio"] < 1e-11 and skip["ratio"] > 1e-4
    for activation in ("tanh", "relu"):
        plain, skip = (numbers[activation, name] for name in ("plain", "skip connections"))
        assert skip["trusted"] > 3 * plain["trusted"]


@pytest.mark.nightly
def test_results_of_learning_rates_are_reproduced(run):
    """Runs of `learning_rates` with fewer samples and epochs satisfy the heading: gaps at least
    double from inverse time to constant to power 2.
    """
    gaps = run("learning_rates")["gaps"]
    assert 2 * gaps["inverse time"].max() < gaps["constant"].min()
    assert 2 * gaps["constant"].max() < gaps["power 2"].min()
