"""Networks fitted to tables: the final point, the saved file, predictions and errors."""

import csv
import html
import io
import json
import sys

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.applications.cli import fit_table as module
from fastcurv.applications.cli import span
from fastcurv.applications.cli.encode import load_table_dataset
from fastcurv.applications.cli.fit_network import fit_of
from fastcurv.applications.cli.fit_table import choose_l2_by_evidence, fit_table
from fastcurv.applications.cli.measure import fold_rows, linear_model
from fastcurv.applications.cli.parser import main
from fastcurv.applications.cli.recipe import TrainingRecipe, load_run, save_run

from .test_tables import EQUAL_TABLES

N = 60
rng = np.random.default_rng(0)
X = rng.normal(size=(N, 3)).round(3)
SOIL = np.array(["clay", "sand", "loam"])[rng.integers(3, size=N)]
Y = (np.sin(2 * X[:, 0]) + X[:, 1] + (SOIL == "sand") + 0.1 * rng.normal(size=N)).round(4)


@pytest.fixture
def numbers(tmp_path):
    path = tmp_path / "numbers.csv"
    np.savetxt(
        path, np.column_stack([X, Y]), delimiter=",", header="a,b,c,y", comments="", fmt="%s"
    )
    return path


@pytest.fixture
def mixed(tmp_path):
    """Return the path of a table with columns of words, dates and numbers, a missing value, and
    semicolons as separators.
    """
    path = tmp_path / "mixed.csv"
    rows = [
        f"{i + 1};{SOIL[i]};2024-03-{i % 30 + 1:02};{'' if i == 7 else X[i, 0]};{X[i, 1]};{Y[i]}"
        for i in range(N)
    ]
    path.write_text("\n".join(["id;soil;sown;a;b;y", *rows]) + "\n")
    return path


def table_of(text):
    names, *rows = csv.reader(io.StringIO(text))
    return {name: np.array([*map(float, column)]) for name, column in zip(names, zip(*rows))}


def test_fit_table_ends_at_a_proved_minimum_with_the_estimators_weight_decay(numbers):
    """A fit ends at a certified minimum, and a second fit is bitwise identical. Its weight decay is
    within a factor of 3 of that of an estimator with `alpha="evidence"`, which does not penalise
    biases.
    """
    pytest.importorskip("sklearn")
    fit = fit_table(numbers, "y")
    point = fc.classify(fit.ob, fit.theta)
    assert point.kind == "minimum" and point.certified
    with pytest.warns(UserWarning, match="rows for each parameter"):
        est = fc.MLPRegressor((10,), "tanh", alpha="evidence", random_state=0).fit(fit.data.X, Y)
    assert 0.3 < fit.alpha / est.alpha_ < 3
    assert fit.notes == (f"The weight decay, alpha = {fit.alpha:.3g}, has the largest evidence.",)
    again = fit_table(numbers)
    assert np.array_equal(again.theta, fit.theta) and again.alpha == fit.alpha
    given = fit_table(numbers, alpha=2.0, hidden=(4,))
    assert given.ob.l2 == pytest.approx(2 * 2.0 / N) and given.ob.n_params == 21


def test_subsample_of_rows_chooses_nearly_the_same_decay(numbers, monkeypatch):
    data, _ = load_table_dataset(numbers, None, None)
    ob = fc.Objective(fc.MLP([3, 4, 1], "tanh"), data.X, data.y, loss="mse", l2=0.0)
    start = ob.model.init(rng=0)
    whole, _ = choose_l2_by_evidence(ob, start, 0)
    monkeypatch.setattr(module, "MAX_PATH_ROWS", 45)
    some, theta = choose_l2_by_evidence(ob, start, 0)
    assert 0.1 < some / whole < 10 and theta.shape == start.shape


def test_folds_choose_the_decay_of_a_wide_table(numbers, monkeypatch):
    """If weight decay is chosen by cross-validation, the leave-one-out loss is at most a tenth
    above that with weight decay chosen by the evidence.
    """
    by_evidence = fit_table(numbers, hidden=(3,))
    monkeypatch.setattr(module, "MAX_PATH_PARAMS", 15)
    fit = fit_table(numbers, hidden=(3,))
    assert fit.notes[1].endswith("predicts left-out rows of 5 folds best.")
    one, other = (fc.leave_one_out(f.ob, f.theta).losses.mean() for f in (fit, by_evidence))
    assert one <= 1.1 * other


def test_folds_of_more_columns_than_rows_are_fitted_in_the_span_of_the_rows(rng):
    X = rng.standard_normal((12, 30))
    ob = fc.Objective(fc.MLP([30, 3, 1]), X, X[:, 0] + X[:, 1] ** 2, loss="mse", l2=0.05)
    start = ob.model.init(rng=0)
    small, inside, basis = span.restrict_to_row_space(ob, start)
    assert small.model.sizes == (12, 3, 1)
    model, theta = span.change_input_basis(small.model, inside, basis.T)
    assert model.sizes == ob.model.sizes
    assert np.allclose(ob.model.predict(start, X), ob.model.predict(theta, X), rtol=1e-12)
    assert small.value(inside) == pytest.approx(ob.value(theta), rel=1e-12)
    end = fc.minimize(small, inside, rng=0).x
    back = span.change_input_basis(small.model, end, basis.T)[1]
    assert np.linalg.norm(ob.gradient(back)) < 1e-6
    best, theta = module.choose_l2_by_folds(ob, start, 0)
    assert theta.shape == start.shape
    at = fc.Objective(ob.model, X, ob.y, loss="mse", l2=best)
    assert np.linalg.norm(at.gradient(theta)) < 1e-3


@pytest.mark.parametrize(("hidden", "folds"), [((10,), False), ((6, 4), False), ((6,), True)])
def test_targets_without_noise_or_without_slopes_are_learnt(hidden, folds, tmp_path, monkeypatch):
    """Fits reach an R^2 above 0.9 for a sum without noise, whose evidence first falls as the
    penalty decreases, and for a product, for which no unit is active at first.
    """
    if folds:
        monkeypatch.setattr(module, "MAX_PATH_PARAMS", 0)
    path = tmp_path / "exact.csv"
    for y in (X[:, 0] + X[:, 1], X[:, 0] * X[:, 1]):
        np.savetxt(path, np.column_stack([X, y]), delimiter=",", fmt="%s")
        fit = fit_table(path, hidden=hidden)
        z = fit.ob.model.predict(fit.theta, fit.data.X)
        assert 1 - np.mean((z - fit.data.y) ** 2) > 0.9


def test_saved_network_predicts_as_the_fit(mixed, tmp_path, capsys):
    pytest.importorskip("sklearn")
    fit = fit_table(mixed, "y", hidden=(4,))
    out = tmp_path / "net.safetensors"
    fit.save(out)
    saved = load_run(out)
    assert saved.coding == fit.coding and saved.recipe == fit.recipe
    assert main(["predict", str(out), str(mixed)]) == 0
    output = capsys.readouterr()
    found = table_of(output.out)
    z = fit.ob.model.predict(fit.theta, fit.data.X)[:, 0]
    wanted = z * fit.coding.y_scale[0] + fit.coding.y_shift[0]
    assert np.abs(found["y"] - wanted).max() <= 1e-13
    assert output.err == "1 missing value was filled with the median of column 'a'.\n"
    new = tmp_path / "new.csv"
    new.write_text(
        f"b,a,soil,sown\n{X[0, 1]},{X[0, 0]},{SOIL[0]},2024-03-01\n1,1,peat,2024-05-01\n"
    )
    assert main(["predict", str(out), str(new), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert abs(facts["predictions"]["y"][0] - wanted[0]) <= 1e-13
    (note,) = facts["notes"]
    assert note.endswith("all of whose inputs are 0: peat.")
    new.write_text("b,a,soil,sown\n1,1,clay,yesterday\n")
    assert main(["predict", str(out), str(new)]) == 2
    error = capsys.readouterr().err
    assert "line 2, column 'sown', must be a date like 2024-03-01, got 'yesterday'." in error


def test_intervals_equal_those_of_the_estimator(numbers, tmp_path, capsys):
    pytest.importorskip("sklearn")
    data, _ = load_table_dataset(numbers, None, None)
    est = fc.MLPRegressor((4,), "tanh", alpha=1.0, random_state=0).fit(data.X, Y)
    ob = est.objective(data.X, Y)
    recipe = TrainingRecipe(
        str(numbers), hidden=(4,), l2=float(ob.l2), held_out=0.0, digest=data.digest, loss="mse",
        table=True, l2_biases=False,
    )  # fmt: skip
    coding = module.replace(data.coding, sizes=(3, 4, 1))
    path = save_run(tmp_path / "net.safetensors", recipe, ob.model, est.theta_, coding=coding)
    assert main(["predict", str(path), str(numbers), "--interval", "0.9"]) == 0
    found = table_of(capsys.readouterr().out)
    low, high = est.predict_interval(data.X, 0.9)
    assert [*found] == ["y", "y lower", "y upper"]
    for name, wanted in (("y", est.predict(data.X)), ("y lower", low), ("y upper", high)):
        assert np.abs(found[name] - wanted).max() <= 1e-9
    moved = numbers.rename(tmp_path / "moved.csv")
    assert main(["predict", str(path), str(moved), "--interval", "0.9"]) == 2
    error = capsys.readouterr().err
    assert "does not exist." in error and "Pass the training table with --data." in error
    assert main(["predict", str(path), str(moved), "--interval", "0.9", "--data", str(moved)]) == 0
    assert table_of(capsys.readouterr().out).keys() == found.keys()
    more = [str(path), str(moved), "--interval", "0.999", "--data", str(moved)]
    assert main(["predict", *more]) == 0
    output = capsys.readouterr()
    assert np.isinf(table_of(output.out)["y upper"]).all()
    assert output.err.startswith("Bounds that hold 0.999 of new targets are infinite, because")
    moved.write_text(moved.read_text().replace("0.", "1.", 1))
    assert main(["predict", str(path), str(moved), "--interval", "0.9", "--data", str(moved)]) == 2
    error = capsys.readouterr().err
    assert "--interval requires the data" in error and "Pass the data with --data" in error


def test_classes_are_predicted_by_their_original_names(numbers, tmp_path, capsys):
    path = tmp_path / "classes.csv"
    lines = numbers.read_text().splitlines()
    path.write_text("\n".join([lines[0] + ",soil", *(f"{r},{s}" for r, s in zip(lines[1:], SOIL))]))
    fit = fit_table(path, "soil", hidden=(3,))
    assert fit.data.loss == "cross_entropy" and fit.coding.classes == ("clay", "loam", "sand")
    out = fit.save(tmp_path / "net.safetensors")
    assert main(["predict", str(out), str(path), "--probabilities"]) == 0
    names, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    p = np.array([[*map(float, row[1:])] for row in rows])
    assert names == ["soil", *(f"probability of {word}" for word in fit.coding.classes)]
    z = fit.ob.model.predict(fit.theta, fit.data.X)
    assert [row[0] for row in rows] == [fit.coding.classes[i] for i in z.argmax(axis=1)]
    assert np.abs(p.sum(axis=1) - 1).max() <= 1e-12
    assert main(["predict", str(out), str(path), "--interval", "0.9"]) == 2
    assert "--interval must be left out with" in capsys.readouterr().err


@pytest.mark.parametrize("level", ["0", "1", "nan", "90", "x"])
def test_the_level_of_an_interval_lies_between_0_and_1(level, capsys):
    with pytest.raises(SystemExit):
        main(["predict", "net.npz", "new.csv", "--interval", level])
    assert "--interval must be a number " in capsys.readouterr().err


def test_tables_need_pandas_and_no_scikit_learn(mixed, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert fit_table(mixed, hidden=(2,), alpha=1.0).ob.n_params == 17
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError) as error:
        fit_table(mixed, alpha=1.0)
    assert str(error.value) == (
        'tables need pandas, which is not installed. Run: pip install "fastcurv[report]"'
    )


GARBLED_CODES = {
    "kind": ({"kind": "pictures"}, "must have a kind"),
    "fill": ({"fill": float("nan")}, "a finite fill"),
    "more": ({"other": 1}, "unexpected keyword argument 'other'"),
    "width": ({"kind": "left out"}, "must give the 3 inputs of the network, got 2"),
    "form": (
        {"kind": "dates", "form": "%d %Q", "first": "2024-01-01"},
        "the form of dates must be one such as %d.%m.%Y, got '%d %Q'",
    ),
    "first": ({"kind": "dates", "form": "ISO", "first": "soon"}, "Invalid isoformat string"),
    "zone": (
        {"kind": "dates", "form": "ISO", "first": "2024-01-01T00:00:00+01:00"},
        "the first date must have no time zone",
    ),
    "words": ({"categories": [1]}, "strings for the rest"),
}
GARBLED_CODINGS = {
    "word": ({"shift": ["0", 0.0, 0.0]}, "the scaling must be lists of finite numbers, got"),
    "text": ({"y_shift": "0"}, "the scaling must be lists of finite numbers, got '0'"),
    "target": ({"target": 1}, "the names of the columns and of the target must be strings"),
    "columns": ({"columns": ["a", None, "c"]}, "the columns and of the target must be strings"),
    "classes": ({"classes": [None, "b"]}, "the classes must be strings or numbers, got"),
    "scale": ({"scale": [1.0, 0.0, 1.0]}, "the scales must be positive, got"),
    "sizes": ({"sizes": [3]}, r"the sizes must be at least two ints >= 1, got \[3\]"),
    "half": ({"sizes": [3, 1.5]}, "the sizes must be at least two ints >= 1, got"),
    "short": ({"shift": [0.0, 0.0]}, "must fit a network of sizes .*, got 2 shifts, 3 scales"),
    "one class": ({"classes": ["a"]}, "must fit a network of sizes .* and 1 classes"),
}


@pytest.mark.parametrize("kind", [*GARBLED_CODES, *GARBLED_CODINGS])
def test_garbled_codings_of_saved_runs_raise(kind, numbers, tmp_path, monkeypatch):
    fit = fit_table(numbers, hidden=(2,), alpha=1.0)
    path = tmp_path / "net.npz"
    from fastcurv.applications.cli import recipe as saving

    def garbled(record):
        facts = asdict(record)
        if "codes" in facts and kind in GARBLED_CODES:
            facts["codes"] = [facts["codes"][0] | GARBLED_CODES[kind][0], *facts["codes"][1:]]
        elif "codes" in facts:
            facts |= GARBLED_CODINGS[kind][0]
        return facts

    asdict = saving.asdict
    monkeypatch.setattr(saving, "asdict", garbled)
    fit.save(path)
    words = (GARBLED_CODES | GARBLED_CODINGS)[kind][1]
    with pytest.raises(ValueError, match=f"is not a network that .*: .*{words}"):
        load_run(path)


# --- the command `report`


def test_a_report_on_a_table_is_a_page_with_its_numbers(mixed, tmp_path, capsys):
    pytest.importorskip("sklearn")
    page, net = tmp_path / "r.html", tmp_path / "net.safetensors"
    how = [str(mixed), "--target", "y", "--hidden", "3", "--alpha", "1", "--out", str(page)]
    assert main(["report", *how, "--save", str(net)]) == 0
    output = capsys.readouterr()
    assert output.err == "" and f"report: {page}" in output.out and f"saved {net}" in output.out
    note = "Column 'id' was ignored: the numbers of the rows or of what they describe."
    assert note in output.out and note in html.unescape(page.read_text())
    page.unlink()
    assert main(["report", *how, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["certified"] is True and facts["n_rows"] == N and note in facts["notes"]
    assert facts["report"] == str(page)
    row = facts["influential_rows"][0]
    assert f"Line {row + 2} moves the fit most" in html.unescape(page.read_text())
    assert main(["predict", str(net), str(mixed), "--interval", "0.5"]) == 0


@pytest.mark.usefixtures("undrawn")
def test_interrupted_report_leaves_no_file(numbers, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "measure_fit", interrupted)
    out = tmp_path / "r.html"
    how = ["--out", str(out), "--alpha", "1", "--save", str(tmp_path / "n.npz"), "--quiet"]
    assert main(["report", str(numbers), *how]) == 130
    assert capsys.readouterr().err == "fastcurv report: interrupted\n"
    assert not list(tmp_path.glob("*.html")) and not (tmp_path / "n.npz").exists()


def people(path, seed=3, n=90):
    """Write a table in which three rows each belong to one person, whose level no column tells."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(n // 3), 3)
    a, b = rng.standard_normal((2, n))
    level = np.linspace(-2, 2, n // 3)[person]
    y = 5 + 2 * a + level + 0.2 * rng.standard_normal(n)
    lines = [f"p{p},{u:.4f},{v:.4f},{w:.4f}" for p, u, v, w in zip(person, a, b + level, y)]
    path.write_text("\n".join(["person id,a,b,y", *lines]) + "\n")
    return person, y


@pytest.mark.usefixtures("undrawn")
def test_a_linear_model_that_predicts_better_is_reported_and_saved(tmp_path, monkeypatch, capsys):
    """On a linear law the page, the saved network and its intervals are those of the linear model,
    unless --network keeps the network. The network is saved next to the page, over no other file.
    """
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 3))
    y = 3 + X @ [1.0, -2.0, 0.5] + 0.5 * rng.standard_normal(80)
    table = np.column_stack([X, y])
    np.savetxt("t.csv", table, delimiter=",", header="a,b,c,y", comments="", fmt="%.5f")
    command = ["report", "t.csv", "--target", "y", "--out", "r.html", "--json"]
    facts = {}
    for more in ([], ["--network"]):
        assert main([*command, *more]) == 0
        facts[bool(more)] = json.loads(capsys.readouterr().out)
    assert facts[False]["sizes"] == [3, 1] and facts[True]["sizes"] == [3, 10, 1]
    assert facts[False]["linear_score"] == pytest.approx(facts[True]["linear_score"], abs=1e-6)
    assert facts[False]["left_out_score"] == pytest.approx(facts[False]["linear_score"], abs=1e-6)
    assert facts[True]["left_out_score"] < facts[False]["left_out_score"]
    assert load_run("r.npz").recipe.hidden == () and load_run("r-2.npz").recipe.hidden == (10,)
    assert main(["predict", "r.npz", "t.csv", "--interval", "0.95", "--json"]) == 0
    columns = json.loads(capsys.readouterr().out)["predictions"]
    at_least = np.linalg.lstsq(np.column_stack([np.ones(80), X]), y, rcond=None)[0]
    assert columns["y"] == pytest.approx(np.column_stack([np.ones(80), X]) @ at_least, abs=0.05)
    width = np.subtract(columns["y upper"], columns["y lower"])
    assert np.median(width) / 2 == pytest.approx(facts[False]["half_width"], rel=1e-6)


@pytest.mark.usefixtures("undrawn")
def test_groups_are_left_out_together_and_their_errors_are_saved(tmp_path, capsys):
    """With --groups a row is predicted without the rows of its group, so that the score is that of
    new groups, and intervals of `predict` are as wide as those of the page.
    """
    path = tmp_path / "people.csv"
    person, y = people(path)
    words = ["report", str(path), "--target", "y", "--hidden", "3", "--quiet", "--network"]
    words += ["--out", str(tmp_path / "r.html"), "--json"]
    assert main(words) == 0
    rows = json.loads(capsys.readouterr().out)
    assert any("`--groups person id`" in note for note in rows["notes"])
    assert any("--groups" in sentence for sentence in rows["first_screen"])
    assert main([*words, "--groups", "person id"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (
        facts["left_out_by"] == "folds" and facts["left_out_score"] < rows["left_out_score"] - 0.02
    )
    network = str(tmp_path / "r-2.npz")
    errors, spread = load_run(network).errors
    assert spread.tolist() == [1.0, 0.0, 1.0]
    assert np.sort(errors)[int(np.ceil(0.95 * 91)) - 1] == pytest.approx(facts["half_width"])
    moved = path.rename(tmp_path / "moved.csv")  # the table of the fit is not needed
    assert main(["predict", network, str(moved), "--interval", "0.95", "--json"]) == 0
    columns = json.loads(capsys.readouterr().out)["predictions"]
    width = np.subtract(columns["y upper"], columns["y lower"])
    assert width / 2 == pytest.approx(np.full(90, facts["half_width"]))
    net = fit_table(moved, "y", hidden=(2,), alpha=1.0, groups="person id")
    fit = fit_of(net.trained_network, net.data.X, net.table.y)
    folds = fold_rows(fit)
    assert sorted(np.concatenate(folds)) == list(range(90))
    assert all(len(set(person[rows])) * 3 == len(rows) for rows in folds)
    line = linear_model(fit, (0.1,))  # its rows are left out by the same folds: ridge regression
    A = np.column_stack([line.ob.X, np.ones(90)])
    t = line.ob.y.ravel()
    per_row = np.linalg.norm(line.ob.gradient(np.zeros(A.shape[1]))) / np.linalg.norm(A.T @ t)
    decay = np.diag([0.1] * (A.shape[1] - 1) + [0.0])
    for rows in folds:
        B = np.delete(A, rows, 0)
        ridge = np.linalg.solve(per_row * B.T @ B + decay, per_row * B.T @ np.delete(t, rows))
        assert line.out.predictions[rows].ravel() == pytest.approx(A[rows] @ ridge, abs=1e-6)


def test_groups_by_position_count_the_column_of_the_target(tmp_path):
    """A position means the same column for --groups as for other options."""
    path = tmp_path / "t.csv"
    X = np.random.default_rng(0).standard_normal((30, 3))
    rows = [f"{y:.3f},{a:.3f},p{i // 5},{b:.3f}" for i, (y, a, b) in enumerate(X)]
    path.write_text("\n".join(["y,a,person,b", *rows]) + "\n")
    fit = fit_table(path, "y", hidden=(), alpha=1.0, groups="2")
    assert fit.groups.tolist() == [i // 5 for i in range(30)]


@pytest.mark.parametrize("column", ["nobody", "y", "one"])
def test_groups_are_checked_before_the_training(tmp_path, column):
    """The column of groups must exist, must not be the target, and must hold two values."""
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["one,a,y", *(f"p,{i * i % 7},{i}" for i in range(30))]) + "\n")
    steps = []
    with pytest.raises(ValueError, match="groups"):
        fit_table(path, "y", groups=column, note=steps.append)
    assert steps == ["reading the table"]


@pytest.mark.usefixtures("undrawn")
def test_intervals_widen_where_errors_grow(tmp_path, capsys):
    """If errors grow with the prediction, intervals do too: they hold new rows with low and with
    high predictions alike, which those of one width do not.
    """
    path, new = tmp_path / "t.csv", tmp_path / "new.csv"
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 5, (900, 1))
    y = 3 * x[:, 0] + 0.4 * x[:, 0] * rng.standard_normal(900)
    lines = [f"{u:.4f},{v:.4f}" for u, v in zip(x[:, 0], y)]
    path.write_text("\n".join(["x,y", *lines[:300]]) + "\n")
    new.write_text("\n".join(["x,y", *lines[300:]]) + "\n")
    assert main(["report", str(path), "--out", str(tmp_path / "r.html"), "--quiet"]) == 0
    assert "prediction where it is low, and" in (tmp_path / "r.html").read_text()
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "r.npz"), str(new), "--interval", "0.95", "--json"]) == 0
    columns = json.loads(capsys.readouterr().out)["predictions"]
    low, high = (np.array(columns[f"y {side}"]) for side in ("lower", "upper"))
    inside = (low <= y[300:]) & (y[300:] <= high)
    for third in np.array_split(np.argsort(columns["y"]), 3):
        assert 0.9 <= inside[third].mean() <= 0.995
    assert (high - low).max() > 2.5 * (high - low).min()


@pytest.mark.nightly
@pytest.mark.parametrize("kind", EQUAL_TABLES)
def test_report_is_written_for_each_kind_of_table(kind, tmp_path):
    text, _ = EQUAL_TABLES[kind]
    path, page = tmp_path / ("t.tsv" if kind == "tabs" else "t.csv"), tmp_path / "r.html"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["report", str(path), "--hidden", "2", "--out", str(page), "--quiet"]) == 0
    assert 1e4 < page.stat().st_size < 3e5


@pytest.mark.usefixtures("undrawn")
def test_report_warns_of_too_many_effective_parameters(tmp_path, capsys):
    path, page = tmp_path / "few.csv", tmp_path / "r.html"
    # For these rows the network has many effective parameters.
    A = np.random.default_rng(2).standard_normal((24, 20)).round(3)
    A[:, -1] = A[:, 0] + 0.1 * A[:, -1]
    np.savetxt(path, A, delimiter=",", fmt="%s")
    command = ["report", str(path), "--alpha", "1", "--hidden", "3", "--out", str(page), "--quiet"]
    assert main(command) == 0
    output = capsys.readouterr()
    assert "effective parameters for 24 targets" in output.out and output.err == ""
    assert "effective parameters for 24 targets" in html.unescape(page.read_text())
