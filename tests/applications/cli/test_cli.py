"""The shell's commands, from their arguments to the files that they write."""

import json
import re
from argparse import Namespace

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

import fastcurv as fc  # noqa: E402
from fastcurv.applications.cli.parser import build_parser, main  # noqa: E402
from fastcurv.applications.cli.recipe import load_run  # noqa: E402


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the path of a small network on iris, saved by the command `train`."""
    path = tmp_path_factory.mktemp("run") / "theta.npz"
    words = "train iris --hidden 4 --l2 1e-2 --epochs 20 --quiet --out"
    assert main([*words.split(), str(path)]) == 0
    return path


def test_diagnose_prints_the_cause_and_advice(trained, tmp_path, capsys):
    picture = tmp_path / "layers.png"
    given = ["diagnose", str(trained), "--quiet", "--figure", str(picture)]
    assert main(given) == 0 and picture.stat().st_size > 1000
    said = capsys.readouterr().out
    assert "Diagnosis: Healthy" in said and "explained" in said
    assert main([*given[:3], "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["healthy"] and facts["causes"] == [] and facts["loss"] == "cross_entropy"
    assert main([*given[:3], "--l2", "10"]) == 0  # theta is not critical for this l2
    assert "l2 too large" in capsys.readouterr().out


def test_train_reaches_a_critical_point(trained, capsys):
    recipe, theta = load_run(trained)
    objective = recipe.build_objective()
    assert recipe.hidden == (4,) and recipe.l2 == 1e-2
    assert theta.shape == (objective.n_params,) == (4 * 4 + 4 + 3 * 4 + 3,)
    assert np.linalg.norm(objective.gradient(theta)) <= 1e-6
    outputs = objective.model.predict(theta, recipe.load_dataset().X_test)
    assert recipe.load_dataset().score(outputs, recipe.load_dataset().y_test) >= 0.8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "mnist"], "data must be one of"),
        (["train", "nowhere.npz"], "nowhere.npz does not exist."),
        (["classify", "nowhere.npz"], "nowhere.npz does not exist."),
        (["spectrum", "{empty}"], "is not a run that"),
        (["classify", "{run}", "--data", "wine"], "Use the data that it was trained on"),
    ],
)
def test_invalid_arguments_print_one_line_and_exit_with_status_2(
    arguments, words, trained, tmp_path, capsys
):
    empty = tmp_path / "empty.npz"
    empty.write_bytes(b"")
    arguments = [a.format(run=trained, empty=empty) for a in arguments]
    if arguments[0] == "train":
        arguments += ["--quiet", "--out", str(tmp_path / "t.npz")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "t.npz").exists()


@pytest.mark.parametrize("shape", ["--batch-norm", "--residual"])
def test_classify_builds_the_network_that_was_trained(shape, tmp_path, capsys):
    """The saved file describes networks with batch normalisation or skip connections, so that
    `classify` accepts them and the rebuilt objective has the loss printed by `train`.
    """
    path = tmp_path / "theta.npz"
    common = ["--quiet", "--seed", "1"]
    arguments = ["--hidden", "4,4", shape, "--l2", "1e-2", "--epochs", "5", "--out", str(path)]
    assert main(["train", "iris", *arguments, *common]) in (0, 1)  # status 1: not converged
    trained = capsys.readouterr().out
    name = {"--batch-norm": "batch normalisation", "--residual": "skip connections"}[shape]
    recipe, theta = load_run(path)
    assert (
        name in trained
        and recipe.batch_norm == (shape == "--batch-norm")
        and recipe.residual != recipe.batch_norm
    )
    ob = recipe.build_objective()
    assert theta.size == ob.n_params == 4 * 4 + 4 + 4 * 4 + 4 + 4 * 3 + 3 + 16 * recipe.batch_norm
    assert f"loss {ob.value(theta):.6f}" in trained
    assert main(["classify", str(path), *common]) == 0 and name in capsys.readouterr().out


def test_info_and_bench_report_machine_and_versions(capsys):
    assert main(["info"]) == 0
    assert "numpy" in capsys.readouterr().out.lower()
    assert main(["bench", "--sizes", "8,6,3", "--samples", "20", "--dtype", "float64"]) == 0
    assert re.search(r"float64 +[\d.e-]+ +[\d.e-]+ +[\d.]+ +\d+%", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            "--sizes 8",
            "sizes must have at least two widths, of the input and of the output, got [8]",
        ),
        ("--sizes 8,3 --activation cosine", "activation must be one of"),
    ],
)
def test_bench_omits_what_cannot_be_timed(arguments, words, capsys):
    assert main(["bench", *arguments.split()]) == 2
    said = capsys.readouterr()
    assert said.out == "" and words in said.err and said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("sizes", "flops"), [([3, 4, 2], 72), ([5, 2], 20), ([2, 3, 4, 2], 132), ([1, 7, 1], 56)]
)
def test_bench_counts_the_multiplications_of_a_product(sizes, flops, monkeypatch):
    """For each sample and weight, `bench` counts two multiplications in the first layer, for R z
    and the product. In other layers it counts six, because R z, R e and the product have two terms
    each.
    """
    from fastcurv.applications.cli import commands

    monkeypatch.setattr(commands, "best_time", lambda call: 0.5)
    monkeypatch.setattr(fc._engine, "measure_fma_peak", lambda dtype, threads: 1e3)
    args = Namespace(sizes=sizes, samples=10, activation="tanh", threads=1)
    row = commands.bench_row(args, "float32")
    assert row["share_of_peak"] == pytest.approx(2 * 10 * flops / 0.5 / 1e3)
    assert row["product"] == row["gradient"] == 0.5 and row["dtype"] == "float32"


@pytest.mark.parametrize("text", ["0", "1025", "a", "1.5", ""])
def test_errors_for_threads_name_the_accepted_counts(text, capsys):
    """The error for an invalid number of threads names the range from 1 to 1024. The error for an
    invalid number of samples names the lower limit 1.
    """
    for words, wanted in (
        (["bench", "--threads", text], "from 1 to 1024"),
        (["bench", "--samples", text.replace("1025", "-3")], "of at least 1"),
    ):
        with pytest.raises(SystemExit):
            build_parser().parse_args(words)
        assert capsys.readouterr().err.rstrip().count(f"must be a whole number {wanted}, got ")
    assert build_parser().parse_args(["bench", "--threads", "1024"]).threads == 1024
