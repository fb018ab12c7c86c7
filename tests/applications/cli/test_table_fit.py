"""The commands `report` and `predict` on tables: pages, saved networks, intervals, the domain."""

import csv
import html
import io
import json
import re

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.applications.cli import commands, measure
from fastcurv.applications.cli.network import load_network
from fastcurv.applications.cli.parser import main
from fastcurv.common.files import read_tensors, write_tensors

for package in ("pandas", "sklearn", "jinja2", "matplotlib"):
    pytest.importorskip(package)

N = 60
SOILS = ("clay", "sand", "loam")


def table(path, kind="numbers", n=N, seed=0):
    """Write a table with numbers, words, dates, empty cells and row numbers, and return its rows as
    a list of dicts.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        a, b = rng.normal(size=2).round(3)
        soil = SOILS[rng.integers(3)]
        y = round(np.sin(2 * a) + b + (soil == "sand") + 0.1 * rng.normal(), 4)
        y = y if kind == "numbers" else ("low", "high")[int(y > 0.5)]
        cell = "" if i % 11 == 7 else a
        rows.append({"id": i + 1, "soil": soil, "day": f"2024-03-{i % 30 + 1:02}", "a": cell,
                     "b": b, "y": y})  # fmt: skip
    write(path, rows)
    return rows


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def run_json(capsys, *words):
    status = main([*map(str, words), "--json"])
    said = capsys.readouterr()
    assert status == 0, said.err
    return json.loads(said.out)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("kind", ["numbers", "classes"])
def test_predict_gives_the_results_of_the_page_bit_for_bit(kind, tmp_path, capsys):
    """Predictions, intervals and the domain of the rows of a page are equal in every bit, and every
    number of the page is in the user guide.
    """
    from .test_page import documented_names

    path, net = tmp_path / "t.csv", tmp_path / "n.safetensors"
    table(path, kind)
    facts = run_json(capsys, "report", path, "--hidden", "3", "--out", tmp_path / "r.html",
                     "--save", net, "--network", "--quiet")  # fmt: skip
    more = ["--interval", "0.95"] if kind == "numbers" else ["--probabilities"]
    found = run_json(capsys, "predict", net, path, "--domain", "--data", path, *more)
    columns, shown = found["predictions"], facts["shown_rows"]
    assert set(facts) - {"out", "report", "notes"} <= documented_names()
    assert shown == list(range(N)) and columns["inside"] == list(map(int, facts["in_domain"]))
    if kind == "numbers":
        assert columns["y"] == facts["predictions"]
        assert columns["y lower"] == facts["lower"] and columns["y upper"] == facts["upper"]
        width = np.subtract(facts["upper"], facts["lower"]) / 2
        assert np.median(width) == pytest.approx(facts["half_width"], rel=0.2)
    else:
        p = [columns[f"probability of {c}"] for c in ("high", "low")]
        assert np.array_equal(np.transpose(p), facts["predictions"])
        assert columns["y"] == [("high", "low")[int(low > high)] for high, low in zip(*p)]
    model, theta = fc.load(net)
    assert model.sizes[1] == 3 and len(theta) == model.n_params
    wrong = ["--interval", "0.9"] if kind == "classes" else ["--probabilities"]
    assert main(["predict", str(net), str(path), *wrong]) == 2
    assert f"{wrong[0]} must be left out" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_the_page_of_a_table_names_lines_and_what_was_left_out(tmp_path, capsys):
    path, page = tmp_path / "t.csv", tmp_path / "r.html"
    table(path)
    words = ["report", str(path), "--hidden", "3", "--alpha", "1", "--network", "--out", str(page)]
    assert main([*words, "--quiet"]) == 0
    said, text = capsys.readouterr(), html.unescape(page.read_text())
    for note in (
        "Column 'id' was left out: it numbers or names the rows (--keep).",
        "5 of 60 cells (8%) of column 'a' are empty and hold the median instead.",
    ):
        assert note in said.out and note in text
    assert re.search(r"Line \d+ moves the fit most", text) and said.err == ""
    assert "fastcurv predict" in text and "--domain --data" in text
    assert (tmp_path / "r.safetensors").exists()
    again = run_json(capsys, *words)
    assert again["kind"] == "minimum" and (tmp_path / "r-2.safetensors").exists()
    net, before = str(tmp_path / "r.safetensors"), path.read_bytes()
    link = tmp_path / "other.csv"  # another name of the table
    link.hardlink_to(path)
    for more in (["--out", str(path)], ["--out", str(link)]):
        assert main(["predict", net, str(path), *more]) == 2  # no output replaces an input
        assert "out must differ from the inputs" in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.usefixtures("undrawn")
def test_a_linear_model_that_predicts_better_is_reported_and_saved(tmp_path, capsys):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 3))
    y = 3 + X @ [1.0, -2.0, 0.5] + 0.5 * rng.standard_normal(80)
    path = tmp_path / "t.csv"
    np.savetxt(path, np.column_stack([X, y]), delimiter=",", header="a,b,c,y", comments="")
    facts = {}
    for more in ([], ["--network"]):
        facts[bool(more)] = run_json(capsys, "report", path, "--out", tmp_path / "r.html", *more)
    assert facts[False]["sizes"] == [3, 1] and facts[True]["sizes"] == [3, 10, 1]
    assert facts[False]["left_out_score"] == pytest.approx(facts[False]["linear_score"], abs=1e-6)
    assert facts[True]["left_out_score"] < facts[False]["left_out_score"]
    columns = run_json(capsys, "predict", tmp_path / "r.safetensors", path)["predictions"]
    A = np.column_stack([X, np.ones(80)])
    assert columns["y"] == pytest.approx(A @ np.linalg.lstsq(A, y, rcond=None)[0], abs=0.05)


@pytest.mark.usefixtures("undrawn")
def test_groups_are_left_out_together(tmp_path, capsys):
    """With --groups the score is that of new groups: lower, if no column has their level."""
    rng = np.random.default_rng(3)
    person = np.repeat(np.arange(30), 3)
    a, b = rng.standard_normal((2, 90))
    level = np.linspace(-2, 2, 30)[person]
    y = 5 + 2 * a + level + 0.2 * rng.standard_normal(90)
    names = [f"p{chr(97 + p % 26)}{'uv'[p // 26]}" for p in person]
    path = tmp_path / "t.csv"
    write(path, [{"who": w, "a": u, "b": v, "y": z} for w, u, v, z in zip(names, a, b + level, y)])
    words = ["report", path, "--hidden", "3", "--network", "--out", tmp_path / "r.html"]
    rows = run_json(capsys, *words, "--ignore", "who")
    facts = run_json(capsys, *words, "--groups", "who")
    assert facts["left_out_by"] == "folds" and facts["n_columns"] == 2
    assert facts["left_out_score"] < rows["left_out_score"]
    fit = measure.fit_of(
        fc.MLPRegressor((2,), "tanh", alpha=1.0, random_state=0).fit(a[:, None], y), a[:, None], y,
        person,
    )  # fmt: skip
    folds = measure.fold_rows(fit)
    assert sorted(np.concatenate(folds)) == list(range(90))
    assert all(len(set(person[rows])) * 3 == len(rows) for rows in folds)
    for column in ("nobody", "y"):
        assert main(["report", str(path), "--target", "y", "--groups", column]) == 2
        assert "groups must be a column" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_intervals_widen_where_errors_grow(tmp_path, capsys):
    """Intervals hold new rows with low and with high predictions alike, also for a Poisson loss."""
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 5, 900)
    y = 3 * x + 0.4 * x * rng.standard_normal(900)
    lines = [f"{u:.4f},{v:.4f}" for u, v in zip(x, y)]
    path, new = tmp_path / "t.csv", tmp_path / "new.csv"
    path.write_text("\n".join(["x,y", *lines[:300]]) + "\n")
    new.write_text("\n".join(["x,y", *lines[300:]]) + "\n")
    run_json(capsys, "report", path, "--out", tmp_path / "r.html")
    assert "prediction where it is low, and" in (tmp_path / "r.html").read_text()
    net = tmp_path / "r.safetensors"
    columns = run_json(capsys, "predict", net, new, "--interval", "0.95")["predictions"]
    low, high = (np.array(columns[f"y {side}"]) for side in ("lower", "upper"))
    inside = (low <= y[300:]) & (y[300:] <= high)
    for third in np.array_split(np.argsort(columns["y"]), 3):
        assert 0.9 <= inside[third].mean() <= 0.995
    assert (high - low).max() > 2.5 * (high - low).min()
    (tmp_path / "far.csv").write_text("x\n3\n500\n")
    found = run_json(capsys, "predict", net, tmp_path / "far.csv", "--domain", "--data", path)
    assert found["predictions"]["inside"] == [1, 0]
    (note,) = found["notes"]
    assert note == "Line 3 is an extrapolation: outside the range of the training table in x."
    assert main(["predict", str(net), str(path), "--domain", "--data", str(new)]) == 2
    assert "data must be the table that the network was fitted to" in capsys.readouterr().err


HOSTILE = "<b>$x^y$&\x1b[KJ\"'</script>"


@pytest.mark.filterwarnings("ignore")
def test_names_and_cells_of_strangers_are_escaped(tmp_path, capsys):
    """Column names, words, labels and the name of the file are text on the page, in its data and in
    its pictures, where a dollar is a dollar.
    """
    rows = table(tmp_path / "seed.csv", "classes")
    hostile = [
        {HOSTILE: row["soil"] + HOSTILE, "b": row["b"], "$y$ " + HOSTILE: row["y"] + HOSTILE}
        for row in rows
    ]
    path, page = tmp_path / "<i>$t$.csv", tmp_path / "r.html"
    write(path, hostile)
    words = ["--hidden", "2", "--alpha", "1", "--target", "2", "--out", str(page)]
    assert main(["report", str(path), *words]) == 0
    said, text = capsys.readouterr(), page.read_text()
    assert said.out.replace("\n", "").isprintable() and said.err == ""
    assert "\x1b" not in text and "<b>$" not in text and "<i>$t" not in text
    assert text.count("</script>") == text.count("<script") and page.stat().st_size <= 300_000
    assert "$x^y$" in text and 'http-equiv="Content-Security-Policy"' in text
    assert not re.search(r"""(src|href)=["']?(https?:|//)""", text)
    net = str(tmp_path / "r.safetensors")
    assert main(["predict", net, str(path), "--probabilities"]) == 0
    names, *lines = csv.reader(io.StringIO(capsys.readouterr().out))
    assert len(lines) == N and names[0].startswith("$y$")


def saved(tmp_path, capsys):
    table(tmp_path / "t.csv")
    net = tmp_path / "n.safetensors"
    run_json(capsys, "report", tmp_path / "t.csv", "--hidden", "2", "--alpha", "1", "--network",
             "--out", tmp_path / "r.html", "--save", net)  # fmt: skip
    return net


def change(facts, *path):
    """Set the entry at a path of keys, the last of which is followed by the new value."""
    *keys, last, value = path
    for key in keys:
        facts = facts[key]
    facts[last] = value


GARBLED = {
    "loss": ("loss", "hinge"), "class": ("classes", [1, 2]), "one class": ("classes", ["a"]),
    "l2": ("l2", float("nan")), "scale": ("scale", 0), "hidden": ("hidden", [-1]),
    "wide": ("hidden", [1 << 40]), "digest": ("digest", 3), "columns": ("coding", "columns", []),
    "kind": ("coding", "columns", 0, "kind", "pictures"), "coding": ("coding", []),
    "name": ("coding", "columns", 0, "name", ["a"]), "fill": ("coding", "columns", 2, "fill", "1"),
    "negative": ("coding", "columns", 2, "scale", -1.0), "more": ("coding", "columns", 0, "x", 1),
    "words": ("coding", "columns", 0, "words", ["a", "a", "b"]),
    "many": ("coding", "columns", 0, "words", [f"w{i}" for i in range(100_000)]),
    "same name": ("coding", "columns", 0, "name", "b"), "na": ("coding", "na", [1]),
    "sep": ("coding", "sep", 2), "header": ("coding", "header", "yes"),
}  # fmt: skip


@pytest.mark.usefixtures("undrawn")
def test_garbled_networks_are_refused_in_one_sentence(tmp_path, capsys):
    """Every entry of a saved network is checked before it is used."""
    net = saved(tmp_path, capsys)
    for kind, path in GARBLED.items():
        arrays, facts = read_tensors(net)
        change(facts["run"], *path)
        write_tensors(tmp_path / "bad.safetensors", arrays, facts)
        with pytest.raises(ValueError, match=r"is not a network that 'fastcurv report' saved") as e:
            load_network(tmp_path / "bad.safetensors")
        assert str(e.value).isprintable() and len(str(e.value)) < 700, kind
    for name, values in (("errors", -1.0), ("spread", 0.0), ("minimum", np.nan)):
        arrays, facts = read_tensors(net)
        arrays[f"history.{name}"] = arrays[f"history.{name}"] * 0 + values
        write_tensors(tmp_path / "bad.safetensors", arrays, facts)
        with pytest.raises(ValueError, match="is not a network that"):
            load_network(tmp_path / "bad.safetensors")
    assert main(["predict", str(tmp_path / "no.safetensors"), str(tmp_path / "t.csv")]) == 2
    assert "does not exist. Create it with 'fastcurv report'." in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_interrupted_report_leaves_no_file(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    table(tmp_path / "t.csv")
    monkeypatch.setattr("fastcurv.applications.cli.table_fit.measure_fit", interrupted)
    words = ["report", str(tmp_path / "t.csv"), "--alpha", "1", "--out", str(tmp_path / "r.html")]
    assert main([*words, "--quiet"]) == 130
    assert capsys.readouterr().err == "fastcurv report: interrupted\n"
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_commands_refuse_other_files_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "given_options", lambda args: pytest.fail("work was begun"))
    for name, words in (("t.dta", "pandas.read_stata("), ("-", "standard input")):
        assert main(["report", name, "--out", str(tmp_path / "r.html")]) == 2
        assert words in capsys.readouterr().err
    how = ["--out", str(tmp_path / "r.html"), "--save", "n.npz"]
    assert main(["report", str(tmp_path / "t.csv"), *how]) == 2
    assert "save must end in .safetensors" in capsys.readouterr().err


@pytest.mark.nightly
@pytest.mark.usefixtures("undrawn")
def test_intervals_hold_new_rows_of_public_data(tmp_path, capsys):
    """On five data sets the score of rows kept away is that of the page within 0.12, and intervals
    hold 90% to 99% of these rows.
    """
    datasets = pytest.importorskip("sklearn.datasets")
    made = [datasets.load_diabetes(return_X_y=True)]
    made += [getattr(datasets, f"make_friedman{i}")(400, noise=s, random_state=0)
             for i, s in ((1, 1.0), (2, 50.0), (3, 0.1))]  # fmt: skip
    made.append(datasets.make_regression(300, 6, noise=20.0, random_state=0))
    for X, y in made:
        lines = [",".join(map(str, row)) for row in np.column_stack([X, y]).tolist()]
        head = ",".join([*(f"x{j}" for j in range(X.shape[1])), "y"])
        half = 2 * len(y) // 3
        for name, part in (("t.csv", lines[:half]), ("new.csv", lines[half:])):
            (tmp_path / name).write_text("\n".join([head, *part]) + "\n")
        (tmp_path / "r.safetensors").unlink(missing_ok=True)
        facts = run_json(capsys, "report", tmp_path / "t.csv", "--out", tmp_path / "r.html")
        net = tmp_path / "r.safetensors"
        found = run_json(capsys, "predict", net, tmp_path / "new.csv", "--interval", "0.95")
        low, high, z = (np.array(found["predictions"][f"y{e}"]) for e in (" lower", " upper", ""))
        new = y[half:]
        assert 0.9 <= np.mean((low <= new) & (new <= high)) <= 0.99
        assert abs(1 - np.mean((new - z) ** 2) / new.var() - facts["left_out_score"]) <= 0.12
