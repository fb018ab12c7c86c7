"""Commands that the shell advises run as they are printed, and first words known from other
programs, such as `help`, are accepted.
"""

import io
import json
import re
import shlex
from contextlib import redirect_stdout
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.applications.cli.advice import ShellCommands
from fastcurv.applications.cli.output import verdict_facts
from fastcurv.applications.cli.parser import build_parser, main
from fastcurv.applications.cli.recipe import TrainingRecipe, load_run, save_run
from fastcurv.applications.diagnosis.diagnose import CAUSES
from fastcurv.applications.plots.spectrum import PLOT_DENSE_MAX_N
from fastcurv.spectrum.results import to_json_value
from fastcurv.testing import QuadraticObjective

PYTHON = re.compile(
    r"\bfc\.|fastcurv\.[a-z_]+\b(?<!fastcurv\.html)|\bob\b|\bnp\.|\w\(|max_iter|_tol"
)
COMMAND = re.compile(r"`(fastcurv [^`\n]*)`|^ +(fastcurv train .*)$", re.MULTILINE)


def run_cli(line):
    """Return (status, output) of a command line without the program's name."""
    out = io.StringIO()
    with redirect_stdout(out):
        status = main(shlex.split(line))
    return status, out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with two data sets, seven training runs and two saved networks, for each of
    which the shell gives advice.
    """
    place = tmp_path_factory.mktemp("my runs")  # the space must be quoted
    rng = np.random.default_rng(3)
    X = rng.standard_normal((80, 3))
    y = 100 + 30 * np.tanh(X[:, 0] * X[:, 1])
    lines = ["a,b,c,y", *(",".join(map(repr, map(float, row))) for row in np.c_[X, y])]
    (place / "d.csv").write_text("\n".join(lines) + "\n")
    words = np.where(X[:, 0] > 0, "yes", "no")
    lines = [
        "a\tb\tc\tkind",
        *("\t".join([*map(repr, map(float, r)), k]) for r, k in zip(X, words)),
    ]
    (place / "k.tsv").write_text("\n".join(lines) + "\n")
    model = fc.MLP([3, 4, 1])
    fc.save(place / "zero.safetensors", model, np.zeros(model.n_params))
    fc.save(place / "large.safetensors", model, 10 * model.init(seed=0))
    d, k = (shlex.quote(str(place / name)) for name in ("d.csv", "k.tsv"))
    for name, line in (
        ("short", f"{d} --hidden 3 --epochs 1 --max-steps 1"),
        ("raw", f"{d} --hidden 3 --epochs 2 --refine none --no-standardize"),
        ("apart", f"{k} --hidden 3 --epochs 2 --l2 0 --max-steps 5"),
        ("words", f"{k} --hidden 3 --epochs 5 --l2 0.01"),
        ("normal", f"{k} --hidden 4 --epochs 5 --batch-norm --max-steps 5"),
        ("counts", f"{d} --hidden 3 --epochs 5 --loss gamma --max-steps 20"),
        ("spread", f"{d} --hidden 3 --epochs 2 --loss gaussian_nll --max-steps 20"),
    ):
        out = shlex.quote(str(place / f"{name}.safetensors"))
        assert run_cli(f"train {line} --quiet --out {out}")[0] in (0, 1), line
    return place


def quoted(*parts):
    return shlex.quote("/".join(map(str, parts)))


@pytest.mark.usefixtures("undrawn")
def test_every_printed_command_in_advice_runs(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    data = f"--data {quoted(folder, 'd.csv')}"
    typed = set()
    for name, more in (
        ("short", ""),
        ("short", "--l2 10"),
        ("short", f"{data} --max-time 100"),
        ("raw", ""),
        ("apart", ""),
        ("zero", data),
        ("large", data),
        ("words", ""),
    ):
        model = quoted(folder, f"{name}.safetensors")
        report = f"report {model} {more} --probes 1 --steps 3 --out page.html"
        for command in (
            f"classify {model} {more}",
            f"classify {model} {more} --max-products 3",
            f"diagnose {model} {more}",
            *[report] * (name != "short" or not more),  # reports take most of the time
        ):
            status, text = run_cli(f"{command} --quiet")
            assert status == 0, command
            rest = COMMAND.sub("", text.replace("f(x)", ""))
            found = PYTHON.search(rest)
            assert not found or found[0].startswith("v'"), (command, found, rest)
            typed |= {a or b for a, b in COMMAND.findall(text)}
        page = (tmp_path / "page.html").read_text()
        assert not re.search(r"fastcurv\.(escape|minimize)|fc\.minimize|fc\.Objective", page)
    assert any("--from" in line for line in typed) and any("--l2" in line for line in typed)
    for number, line in enumerate(sorted(typed)):
        assert line.startswith("fastcurv ")
        words = f"{line.removeprefix('fastcurv ')} --max-steps 2 --quiet --out {number}.safetensors"
        assert run_cli(words)[0] in (0, 1), line


def test_every_cause_of_a_failed_training_has_a_command():
    """For each cause that `diagnose` names, the suggested command is accepted by the parser, and
    the commands together change loss, l2, standardisation and skip connections. Shuffled labels
    have no command.
    """
    rng = np.random.default_rng(0)
    X, parser, changed = rng.standard_normal((12, 3)), build_parser(), set()
    for model in (
        fc.MLP([3, 4, 4, 1], "relu"),
        fc.MLP([3, 1]),
        fc.MLP([3, 5, 4, 1], ["tanh", "relu"], residual=True),
    ):
        ob = fc.Objective(model, X, X[:, :1], loss="mse", l2=0.5)
        recipe = TrainingRecipe(
            "my data.csv", tuple(model.sizes[1:-1]), "relu", loss="mse", l2=0.5, raw=True
        )
        facts = SimpleNamespace(
            ob=ob, values=np.arange(4), initial_weight_size=0.4, steps=SimpleNamespace(batch=8)
        )
        for cause in CAUSES:
            line = ShellCommands(recipe, "net.safetensors").command_for_change(cause.change(facts))
            if not line.startswith("fastcurv train"):
                assert cause.name == "labels shuffled" and "row by row" in line
                continue
            args = parser.parse_args(shlex.split(line)[1:])
            assert args.start == "net.safetensors" or args.data == "my data.csv"
            changed |= {
                (name, str(getattr(args, name)))
                for name, usual in (
                    ("loss", "mse"),
                    ("l2", 0.5),
                    ("raw", True),
                    ("residual", False),
                    ("learning_rate", None),
                )
                if getattr(args, name) not in (usual, None)
            }
    assert changed >= {("loss", "pseudo_huber"), ("loss", "cross_entropy"), ("l2", "0.0001")}
    assert changed >= {("raw", "False"), ("residual", "True"), ("learning_rate", "0.02")}


def test_training_continues_from_a_saved_network(folder, tmp_path, monkeypatch):
    """`train --from` lowers the loss of a saved run with its own settings, accepts other settings,
    and continues from a network saved by `fc.save`, whose data are not standardised.
    """
    monkeypatch.chdir(tmp_path)
    short = quoted(folder, "short.safetensors")
    first = load_run(folder / "short.safetensors")
    assert run_cli(f"train --from {short} --quiet")[0] == 0
    found = load_run("theta.safetensors")
    assert found.recipe == first.recipe
    ob = found.recipe.build_objective()
    assert ob.value(found.theta) < ob.value(first.theta)
    assert run_cli(f"train --from {short} --quiet --l2 0.5 --epochs 0 --max-steps 1")[0] == 1
    assert load_run("theta-2.safetensors").recipe.l2 == 0.5
    model, zero = fc.load(folder / "large.safetensors")
    data = quoted(folder, "d.csv")
    start = f"train --from {quoted(folder, 'large.safetensors')} {data} --quiet --epochs 0"
    assert run_cli(f"{start} --max-steps 1 --out on.safetensors")[0] == 1
    assert fc.load("on.safetensors")[0] == model
    on = load_run("on.safetensors")
    assert on.recipe.raw and on.recipe.l2 == 1e-3
    ob = on.recipe.build_objective(model=on.model)
    assert ob.value(on.theta) < ob.value(zero)
    status, text = run_cli("classify on.safetensors --json")
    assert status == 0 and json.loads(text)["gradient_norm"] == pytest.approx(
        np.linalg.norm(ob.gradient(on.theta))
    )


def test_continued_training_rejects_options_that_do_not_fit_the_network(
    folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    zero, short = (quoted(folder, f"{name}.safetensors") for name in ("zero", "short"))
    for line, words in (
        (f"train --from {zero}", "must be given. Use: fastcurv train"),
        (f"train --from {zero} iris", "iris must have 3 features, as many as"),
        (f"train --from {short} --hidden 4", "--hidden must be left out with --from"),
        (f"train --from {short} --activation relu", "--activation must be left out"),
        (f"train --from {short} iris", "Use the data that it was trained on"),
        ("train --from nowhere.onnx d.csv", "does not exist"),
        (
            f"train --from {zero} {quoted(folder, 'd.csv')} --out a.npz",
            "--out must end in .safetensors",
        ),
        ("train", "and none is given. Begin with: fastcurv train iris"),
    ):
        assert main(shlex.split(line)) == 2, line
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, (line, error)
    assert not list(tmp_path.iterdir())


def test_an_imported_network_is_trained_further_in_the_given_precision(folder, tmp_path):
    large, out = quoted(folder, "large.safetensors"), quoted(tmp_path, "single.safetensors")
    line = f"train --from {large} {quoted(folder, 'd.csv')} --dtype float32 --epochs 1 --quiet"
    assert run_cli(f"{line} --max-steps 1 --out {out}")[0] in (0, 1)
    model, theta = fc.load(tmp_path / "single.safetensors")
    assert model.dtype == theta.dtype == np.float32 and model.sizes == (3, 4, 1)
    run = load_run(tmp_path / "single.safetensors")
    assert run.model.dtype == np.float32
    path = tmp_path / "run.npz"
    with pytest.raises(ValueError, match="path must end in .safetensors for an imported network"):
        save_run(path, run.recipe, run.model, run.theta)
    assert not path.exists()


def test_training_rejects_a_start_with_an_infinite_loss(folder, tmp_path, capsys):
    model = fc.MLP([3, 4, 1], "relu")
    fc.save(tmp_path / "far.safetensors", model, np.full(model.n_params, 1e100))
    far, d = quoted(tmp_path, "far.safetensors"), quoted(folder, "d.csv")
    assert main(shlex.split(f"train --from {far} {d}")) == 2
    error = capsys.readouterr().err
    assert "must be finite at the initial theta, got a loss of inf" in error
    assert error.count("\n") == 1


def test_commands_for_a_network_without_a_file_train_it_again():
    recipe = TrainingRecipe("iris", hidden=(5,), loss="cross_entropy")
    shell = ShellCommands(recipe)
    again = shell.continuation_command(epochs=7, refine=None, quiet=False)
    assert again == shell.retraining_command(epochs=7)
    assert again.startswith("fastcurv train iris ") and "--epochs 7" in again
    assert "refine" not in again and "quiet" not in again
    stored = replace(shell, model="net.safetensors", data="d.csv")
    assert stored.continuation_command(epochs=7) == (
        "fastcurv train --from net.safetensors d.csv --epochs 7"
    )


def columns(text):
    names, *rows = (line.split(",") for line in text.splitlines())
    return dict(zip(names, zip(*rows)))


def test_predictions_use_units_and_labels_of_the_training_data(folder, tmp_path):
    table = np.loadtxt(folder / "d.csv", delimiter=",", skiprows=1)
    (tmp_path / "new.csv").write_text(
        "c,y,b,a\n" + "".join(f"{c!r},x,{b!r},{a!r}\n" for a, b, c, _ in table.tolist())
    )
    (tmp_path / "bare.csv").write_text(
        "".join(f"{a!r},{b!r},{c!r}\n" for a, b, c, _ in table.tolist())
    )
    np.savez(tmp_path / "X.npz", X=table[:, :3])
    run = load_run(folder / "short.safetensors")
    model, theta = fc.load(folder / "short.safetensors")
    trained = run.recipe.load_dataset()
    rows = np.isin(np.arange(80), np.flatnonzero([*map(bool, np.ones(80))]))
    assert rows.all() and len(trained.X) == 64
    (W, b), (V, c) = model.unflatten(theta)
    shift, scale = np.array(run.coding.shift), np.array(run.coding.scale)
    exact = (np.tanh((table[:, :3] - shift) / scale @ W.T + b) @ V.T + c)[:, 0]
    exact = exact * run.coding.y_scale[0] + run.coding.y_shift[0]
    assert abs(table[:, 3].mean() - run.coding.y_shift[0]) < 0.2 * table[:, 3].std()
    short = quoted(folder, "short.safetensors")
    for source in (folder / "d.csv", *(tmp_path / n for n in ("new.csv", "bare.csv", "X.npz"))):
        status, text = run_cli(f"predict {short} {quoted(source)}")
        assert status == 0
        gaps = np.abs(np.array(columns(text)["y"], float) - exact)
        assert gaps.max() <= 1e-12 * np.abs(exact).max(), source
    out = tmp_path / "p.csv"
    assert run_cli(f"predict {short} {quoted(tmp_path, 'X.npz')} --out {quoted(out)}")[0] == 0
    assert out.read_text() == text
    status, text = run_cli(f"predict {short} {quoted(tmp_path, 'X.npz')} --json")
    assert np.array_equal(
        json.loads(text)["predictions"]["y"], np.array(columns(out.read_text())["y"], float)
    )


def test_predict_handles_every_kind_of_target_and_foreign_models(folder):
    k, d = quoted(folder, "k.tsv"), quoted(folder, "d.csv")
    kinds = [line.split("\t")[3] for line in (folder / "k.tsv").read_text().splitlines()[1:]]
    for name in ("words", "normal"):
        found = columns(
            run_cli(f"predict {quoted(folder, name + '.safetensors')} {k} --probabilities")[1]
        )
        assert np.mean(np.array(found["kind"]) == np.array(kinds)) > 0.85
        shares = np.array([found[f"probability of {c}"] for c in ("no", "yes")], float)
        assert np.abs(shares.sum(axis=0) - 1).max() < 1e-12
        assert np.array_equal(np.array(["no", "yes"])[shares.argmax(axis=0)], found["kind"])
    run = load_run(folder / "normal.safetensors")
    ob = run.recipe.build_objective()
    data = run.recipe.load_dataset()
    known = ob.statistics(run.theta)
    alone = columns(
        run_cli(f"predict {quoted(folder, 'normal.safetensors')} {k} --probabilities")[1]
    )
    outputs = ob.model.predict(run.theta, data.X, known)
    p = np.exp(outputs[:, 1]) / np.exp(outputs).sum(axis=1)
    assert set(np.round(p, 9)) <= set(np.round(np.array(alone["probability of yes"], float), 9))
    counts = columns(run_cli(f"predict {quoted(folder, 'counts.safetensors')} {d}")[1])
    assert abs(np.mean(np.array(counts["y"], float)) - 100) < 30  # the mean, not its logarithm
    spread = columns(run_cli(f"predict {quoted(folder, 'spread.safetensors')} {d}")[1])
    assert min(map(float, spread["y standard deviation"])) > 0
    model, theta = fc.load(folder / "large.safetensors")
    plain = columns(run_cli(f"predict {quoted(folder, 'large.safetensors')} {d}")[1])
    table = np.loadtxt(folder / "d.csv", delimiter=",", skiprows=1)[:, :3]
    assert np.array_equal(np.array(plain["output"], float), model.predict(theta, table)[:, 0])


def test_one_output_for_two_classes_gives_the_probability_of_the_second(folder, tmp_path):
    net, k = quoted(tmp_path, "net.safetensors"), quoted(folder, "k.tsv")
    line = f"train {k} --loss binary_cross_entropy --hidden 3 --epochs 20 --quiet --out {net}"
    assert run_cli(line)[0] in (0, 1)
    run = load_run(tmp_path / "net.safetensors")
    model, theta = fc.load(tmp_path / "net.safetensors")
    table = (folder / "k.tsv").read_text().splitlines()[1:]
    X = np.array([line.split("\t")[:3] for line in table], float)
    z = model.predict(theta, (X - run.coding.shift) / run.coding.scale)
    assert z.shape == (80, 1) and 20 < (z > 0).sum() < 60
    status, text = run_cli(f"predict {net} {k} --probabilities")
    found = columns(text)
    assert status == 0 and found["kind"] == tuple(np.where(z[:, 0] > 0, "yes", "no"))
    share = np.array(found["probability of yes"], float)
    assert np.allclose(share, 1 / (1 + np.exp(-z[:, 0])), rtol=1e-12)


def test_predict_rejects_data_that_do_not_fit_the_network(folder, tmp_path, capsys):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "w.csv").write_text("a,b,c\n1,2,x\n")
    (tmp_path / "e.csv").write_text("a,b,c\n")
    (tmp_path / "h.csv").write_text("a,b,c\n1,2,1e74\n-1e74,1,2\n")
    np.savez(tmp_path / "far.npz", X=[[0.0, 0, 0], [1e60, 0, 0]])
    run = load_run(folder / "short.safetensors")
    steep = replace(run.recipe, loss="gamma", activation="relu")
    save_run(tmp_path / "gamma.npz", steep, run.model, np.ones(16), coding=run.coding)
    save_run(tmp_path / "unscaled.npz", run.recipe, run.model, run.theta)
    save_run(tmp_path / "cut.npz", run.recipe, run.model, run.theta[1:], coding=run.coding)
    short, large = (quoted(folder, f"{name}.safetensors") for name in ("short", "large"))
    for model, data, words in (
        (
            short,
            quoted(tmp_path, "a.csv"),
            "must have the column 'c' of the training table, got a, b.",
        ),
        (short, quoted(tmp_path, "w.csv"), "column 'c', must be a number, got 'x'"),
        (short, quoted(tmp_path, "e.csv"), "at least one row below the column names"),
        (short, "nowhere.csv", "does not exist"),
        (short, "iris", "must have 3 features, got 4"),
        (short, f"{quoted(folder, 'd.csv')} --probabilities", "is for regression"),
        (short, f"{quoted(folder, 'd.csv')} --out p.txt", "must end in .csv"),
        (short, f"{quoted(folder, 'd.csv')} --activation relu", "which names its activations"),
        (large, quoted(tmp_path, "a.csv"), "must have the 3 columns of the training table, got 2"),
        (large, f"{quoted(folder, 'd.csv')} --probabilities", "which does not name its classes"),
        (large, f"{quoted(folder, 'd.csv')} --interval 0.9", "does not name its training data"),
        (
            quoted(tmp_path, "gamma.npz"),
            quoted(tmp_path, "far.npz"),
            "sample 2, must have features for which the prediction is finite, got an overflow.",
        ),
        (
            quoted(tmp_path, "unscaled.npz"),
            quoted(folder, "d.csv"),
            "does not hold the scaling of the training data. Train the network again.",
        ),
        (quoted(tmp_path, "cut.npz"), quoted(folder, "d.csv"), "must hold 16 parameters, got 15"),
        ("nothing.safetensors", "iris", "does not exist"),
    ):
        assert main(shlex.split(f"predict {model} {data}")) == 2, (model, data)
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, error
    assert main(["predict", str(folder / "short.safetensors"), str(tmp_path / "h.csv")]) == 0


@pytest.mark.parametrize("raw", ["", "--no-standardize"])
@pytest.mark.parametrize("where", ["X", "y"])
def test_predict_rejects_numbers_whose_squares_overflow(where, raw, tmp_path, capsys, monkeypatch):
    """Training on inputs or targets whose squares overflow, or that exceed float32 in a float32
    network, is rejected with a one-line error and without output, unless standardisation makes the
    numbers usual.
    """
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for size, more in ((1e308, ""), (1e200, ""), (1e39, "--dtype float32"), (1e155, "")):
        X, y = rng.uniform(-1, 1, (40, 2)), rng.uniform(-1, 1, 40)
        {"X": X[:, 0], "y": y}[where][...] *= size
        np.savez("big.npz", X=X, y=y)
        status = main(f"train big.npz --hidden 2 --epochs 1 --max-steps 2 {raw} {more}".split())
        told = capsys.readouterr()
        if size < 1e100 and not raw:  # usual numbers after standardisation
            assert status in (0, 1)
            continue
        assert status == 2 and told.out == "" and told.err.count("\n") == 1, (size, told)
        assert "NaN" not in told.err and "nan" not in told.err, told.err


def test_help_and_version_are_accepted_as_first_words(capsys):
    """`help`, `help COMMAND` and `version` exit with status 0, and help lists the choices of each
    option.
    """
    for words, wanted in (
        ("help", ("usage: fastcurv", "predict")),
        ("help train", ("usage: fastcurv train", "leaky_relu", "levenberg-marquardt", "--from")),
        ("train --help", ("softplus", "saddle-free-newton", "l-bfgs")),
        ("version", (f"fastcurv {fc.__version__}\n",)),
        ("--version", (f"fastcurv {fc.__version__}\n",)),
        ("train --version", (f"fastcurv {fc.__version__}\n",)),
        ("spectrum --help", (f"Up to {PLOT_DENSE_MAX_N} parameters",)),
    ):
        with pytest.raises(SystemExit) as stop:
            main(words.split())
        text = capsys.readouterr().out
        assert stop.value.code == 0 and all(word in text for word in wanted), (words, text)


def test_help_imports_no_computing_module(python):
    python("""
import sys
from fastcurv.applications.cli.parser import build_parser
build_parser().format_help()
heavy = ("scipy.optimize", "fastcurv.optimize", "fastcurv.applications.plots",
  "fastcurv.critical", "matplotlib")
assert not [name for name in heavy if name in sys.modules]
""")


def test_json_of_a_verdict_has_the_names_and_values_of_to_dict():
    point = fc.classify(QuadraticObjective(np.diag([1.0, 2.0, 3.0])), np.zeros(3), seed=0)
    facts = point.to_dict()
    shell = to_json_value(verdict_facts(point))
    assert shell and {name: facts[name] for name in shell} == shell
