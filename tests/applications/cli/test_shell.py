"""Interfaces for scripts: JSON output, exit statuses, closed pipes, and two file formats."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.applications.cli import commands
from fastcurv.applications.cli.data import read_npz
from fastcurv.applications.cli.encode import load_dataset
from fastcurv.applications.cli.output import PAGE_SUFFIXES, check_output_path
from fastcurv.applications.cli.parser import main
from fastcurv.applications.cli.recipe import TrainingRecipe, load_run, save_run
from fastcurv.common import files


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """Return a folder with 80 samples of two overlapping classes, as points.npz and as
    points.csv.
    """
    folder = tmp_path_factory.mktemp("points")
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    X = rng.standard_normal((80, 3)) + y[:, None]
    np.savez(folder / "points.npz", X=X, y=y)
    lines = ["height,width,depth,kind"]
    lines += [",".join([*map(repr, map(float, row)), "ab"[c]]) for row, c in zip(X, y)]
    (folder / "points.csv").write_text("\n".join(lines) + "\n")
    return folder


def train(points, out, *more, data="points.npz"):
    arguments = ["train", str(points / data), "--hidden", "3", "--l2", "1e-2", "--epochs", "5"]
    return main([*arguments, "--out", str(out), *more])


@pytest.fixture(scope="module")
def trained(points, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "net.safetensors"
    assert train(points, path) == 0
    return path


def test_json_output_is_one_object_with_the_librarys_numbers(points, trained, tmp_path, capsys):
    assert train(points, tmp_path / "a.npz", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    recipe, theta = load_run(tmp_path / "a.npz")
    objective = recipe.build_objective()
    assert said["value"] == objective.value(theta) and said["success"] is True
    assert said["n_params"] == objective.n_params and said["loss"] == "cross_entropy"

    assert main(["classify", str(trained), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    recipe, theta = load_run(trained)
    point = fc.classify(recipe.build_objective(), theta, seed=0)
    assert (said["kind"], said["certified"]) == (point.kind, point.certified)
    assert said["lambda_min"] == point.lambda_min and said["reason"] == point.reason

    assert main(["spectrum", str(trained), "-k", "2", "--steps", "10", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    exact = fc.eigvalsh(recipe.build_objective().hessian(theta))
    wanted = [*exact[:2], *exact[-2:]]
    gaps = np.abs(np.subtract(said["eigenvalues"], wanted))
    assert np.all(gaps <= np.add(said["residuals"], 1e-12))

    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["numpy"] == np.__version__


@pytest.mark.parametrize("kind", [".npz", ".safetensors"])
def test_runs_are_read_from_either_file_format(kind, tmp_path):
    how = {"activation": "gelu", "residual": True, "dtype": "float32"}
    recipe = TrainingRecipe("wine", hidden=(5, 5), **how, l2=0.5, loss="cross_entropy", seed=3)
    model = fc.MLP([13, 5, 5, 3], **how)
    theta = model.init(seed=0)
    history = {"loss": np.arange(3.0), "gradient_norm": np.ones(3), "time": np.arange(3.0)}
    path = save_run(tmp_path / f"run{kind}", recipe, model, theta, history, (("adam", 3),))
    saved = load_run(path)
    assert saved.recipe == recipe and saved.phases == (("adam", 3),)
    assert saved.theta.dtype == theta.dtype and np.array_equal(saved.theta, theta)
    assert {k: v.tolist() for k, v in saved.history.items()} == {
        k: v.tolist() for k, v in history.items()
    }
    assert load_run(path, data="iris", l2=None).recipe.data == "iris"


def test_load_reads_safetensors_runs_and_names_the_option_for_others(trained, tmp_path):
    model, theta = fc.load(trained)
    recipe, same = load_run(trained)
    assert model == recipe.build_objective().model and np.array_equal(theta, same)
    np.savez(tmp_path / "run.npz", theta=theta)
    with pytest.raises(ValueError, match="train --out net.safetensors"):
        fc.load(tmp_path / "run.npz")


def test_a_run_can_be_used_from_any_folder(points, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(points)
    out = tmp_path / "net.npz"
    assert main(["train", "points.csv", "--hidden", "3", "--epochs", "2", "--out", str(out)]) == 0
    monkeypatch.chdir("/")
    capsys.readouterr()
    assert main(["classify", str(out)]) == 0
    assert "points: 64 samples; net 3-3-2" in capsys.readouterr().out


def test_changed_data_are_detected(points, tmp_path, capsys):
    (tmp_path / "d.csv").write_text((points / "points.csv").read_text())
    arguments = ["train", str(tmp_path / "d.csv"), "--hidden", "2", "--epochs", "2"]
    assert main([*arguments, "--out", str(tmp_path / "n.npz")]) == 0
    text = (points / "points.csv").read_text().replace("0.", "1.", 1)
    (tmp_path / "d.csv").write_text(text)
    capsys.readouterr()
    assert main(["classify", str(tmp_path / "n.npz")]) == 2
    assert "must hold the data that" in capsys.readouterr().err
    assert main(["classify", str(tmp_path / "n.npz"), "--data", str(tmp_path / "d.csv")]) == 0


def test_csv_and_npz_files_load_equal_data(points):
    a, b = load_dataset(points / "points.csv"), load_dataset(points / "points.npz")
    assert np.array_equal(a.X, b.X) and np.array_equal(a.y, b.y) and a.loss == b.loss
    named = load_dataset(points / "points.csv", target="kind")
    assert np.array_equal(named.X, a.X)
    other = load_dataset(points / "points.npz", loss="binary_cross_entropy")
    assert other.n_outputs == 1 and set(other.y.ravel()) == {0.0, 1.0}
    whole = load_dataset(points / "points.npz", loss="mse", test_fraction=0, raw=True)
    assert whole.X.shape == (80, 3) and len(whole.X_test) == 0 and whole.y.shape == (80, 1)


def test_errors_for_missing_columns_name_the_column(points):
    with pytest.raises(ValueError, match="height, width, depth, kind"):
        load_dataset(points / "points.csv", target="colour")
    with pytest.raises(ValueError, match="target must be None for"):
        load_dataset(points / "points.npz", target="colour")


@pytest.mark.parametrize(
    "out", ["/proc/x.npz", "{folder}", "{folder}/", "/dev/null", "net.txt", "/dev/null/x.npz"]
)
def test_unwritable_output_files_are_reported_before_training(
    out, points, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(fc, "minimize", lambda *_, **__: pytest.fail("work was begun"))
    assert train(points, out.format(folder=tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("fastcurv train: out ")
    assert not list(tmp_path.iterdir())


def test_checking_an_output_folder_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "00" * n)
    mine = tmp_path / f".fastcurv-{'00' * 8}.part"
    mine.write_text("kept")
    with pytest.raises(ValueError, match="cannot be written to.*File exists"):
        check_output_path(tmp_path / "x.npz", "out")
    assert mine.read_text() == "kept"
    monkeypatch.undo()
    check_output_path(tmp_path / "a" / "b" / "y.npz", "out")
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]


@pytest.mark.parametrize("figure", ["/proc/x.png", "{folder}", "x.exe", "/proc/x/y.png"])
def test_unwritable_figures_are_reported_before_any_computation(
    figure, trained, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(
        commands, "extreme_eigenpairs", lambda *_, **__: pytest.fail("work was begun")
    )
    assert main(["spectrum", str(trained), "--figure", figure.format(folder=tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("fastcurv spectrum: figure ")


@pytest.mark.parametrize("out", ["r.pdf", "r", "r.html.txt", ".html"])
@pytest.mark.parametrize("command", ["demo", "report {run}"])
def test_reports_must_be_named_html(command, out, trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "open_run", lambda *_: pytest.fail("work was begun"))
    monkeypatch.setattr(fc, "Objective", lambda *_, **__: pytest.fail("work was begun"))
    assert main([*command.format(run=trained).split(), "--out", out]) == 2
    error = capsys.readouterr().err
    assert error.endswith(f": out must end in .html or .htm, got '{out}'.\n")
    assert not list(tmp_path.iterdir())
    for good in ("r.HTML", "a/r.htm"):
        check_output_path(tmp_path / good, kinds=PAGE_SUFFIXES)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("", "fastcurv: the command must be given. Begin with 'fastcurv demo'"),
        ("spectrm x.npz", "fastcurv: the command must be one of demo, train, "),
        ("spectrm x.npz", "Did you mean spectrum?"),
        ("train iris --activaton relu", "fastcurv train: unknown argument --activaton. Did you "),
        ("train iris --hidden 6 6", "unknown argument 6. Join widths by commas, --hidden "),
        ("bench 20,30,2", "unknown argument 20,30,2. See fastcurv bench --help"),
    ],
)
def test_misspelt_commands_and_options_suggest_the_closest_match(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments.split())
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1 and words in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--threads 99999999999", "--threads must be a whole number from 1 to 1024"),
        ("--threads -1", "--threads must be "),
        ("--l2 nan", "--l2 must be a number"),
        ("--epochs x", "--epochs must be a whole number"),
        ("--hidden 3,x", "--hidden must be widths"),
        ("--hidden=", "--hidden must be widths"),
        ("--hidden 0", "--hidden must be widths"),
        ("--method wish", "method must be one of"),
        ("--refine wish", "refine must be one of"),
        ("--activation cosine", "cosine"),
        ("--loss hinge", "--loss must be a valid loss"),
        ("--loss quantile(2)", "level must be a number"),
        ("--max-time 0", "--max-time must be a number above 0"),
        ("--max-time nan", "--max-time must be a number above 0"),
        ("--max-time inf", "--max-time must be a number above 0"),
    ],
)
def test_invalid_training_options_print_one_line_before_any_work(
    arguments, words, points, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(fc, "minimize", lambda *_, **__: pytest.fail("work was begun"))
    try:
        status = train(points, tmp_path / "n.npz", *arguments.split())
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and error.count("\n") == 1 and error.startswith("fastcurv train: ")
    assert words in error


def test_status_is_1_if_training_is_unfinished_or_a_verdict_not_certified(points, tmp_path, capsys):
    out = tmp_path / "short.npz"
    assert train(points, out, "--max-steps", "1", "--epochs", "1") == 1 and out.exists()
    assert main(["classify", str(out)]) == 0
    assert main(["classify", str(out), "--require-certified"]) == 1
    assert train(points, out, "--refine", "none") == 0


def test_progress_is_shown_on_a_terminal(points, tmp_path):
    pytest.importorskip("tqdm")
    fcntl, pty, termios = map(pytest.importorskip, ("fcntl", "pty", "termios"))
    command = [sys.executable, "-m", "fastcurv", "train", str(points / "points.npz"), "--hidden"]
    command += ["3", "--out", str(tmp_path / "n.npz"), "--epochs", "3"]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    shown = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk
    except OSError:  # raised on Linux when the other end is closed
        pass
    finally:
        os.close(ours)
    assert shown.wait(timeout=1200) == 0 and b"adam" in seen


def test_long_lines_are_wrapped_on_terminals_only(monkeypatch):
    from fastcurv.applications.cli import output

    line = "  Minimum: " + "a critical point is proved to lie near theta " * 4
    assert output.wrap_to_terminal(line) == line
    monkeypatch.setattr(output.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    broken = output.wrap_to_terminal("short\n" + line).split("\n")
    assert broken[0] == "short" and len(broken) > 3
    assert max(map(len, broken)) <= 80 and all(part.startswith("  ") for part in broken[1:])
    assert " ".join(" ".join(broken[1:]).split()) == " ".join(line.split())


@pytest.mark.parametrize(
    ("numbers", "packed", "refused"),
    [(1 << 22, True, False), ((1 << 22) + 1, True, True), (1 << 23, False, False)],
)
def test_files_that_expand_beyond_the_limit_are_rejected(numbers, packed, refused, tmp_path):
    """An archive is rejected if its arrays, as float64, exceed both 32 MiB and 64 times the length
    of the file.
    """
    path = tmp_path / "x.npz"
    (np.savez_compressed if packed else np.savez)(path, x=np.ones(numbers, np.int8))
    if refused:
        with pytest.raises(ValueError, match=f"got {8 * numbers} bytes.* np.savez instead of np"):
            read_npz(path)
    else:
        assert read_npz(path)["x"].sum(dtype=int) == numbers


def test_unused_arrays_of_an_archive_are_not_unpacked(tmp_path):
    """Arrays of an archive that are not requested have size 0 in the result and are not unpacked.
    Arrays of unusual dtype, order or shape are read exactly.
    """
    path = tmp_path / "x.npz"
    np.savez_compressed(path, X=np.eye(3), y=np.arange(3), huge=np.zeros(1 << 26, np.int8))
    found = read_npz(path, ("X", "y"))
    assert found["X"].tolist() == np.eye(3).tolist() and found["huge"].size == 0
    assert load_dataset(path, raw=True, loss="mse").X.shape[1] == 3
    for name in ("wide", "fortran", "empty", "words", "number"):
        arrays = {
            "wide": np.arange(4, dtype=">i2"), "fortran": np.asfortranarray(np.eye(3)[:2]),
            "empty": np.zeros((0, 3)), "words": np.array(["a", "b"]), "number": np.array(7.5),
        }  # fmt: skip
        np.savez(path, **{name: arrays[name]})
        again = read_npz(path)[name]
        assert np.array_equal(again, arrays[name]) and again.dtype == arrays[name].dtype


def test_small_compressed_files_take_little_memory(tmp_path, python):
    """A file of at most 64 KiB of compressed zeros is rejected or read with a peak memory below
    five times 32 MiB.
    """
    program = (
        "import re\nfrom fastcurv.applications.cli.encode import load_dataset\n"
        "def peak():\n    text = open('/proc/self/status').read()\n"
        "    return int(re.search(r'VmHWM:\\s+(\\d+)', text)[1])\n"
        "before = peak()\n"
        "try:\n    load_dataset({!r}, loss='mse')\n    print('read')\n"
        "except ValueError:\n    print('refused')\n"
        "print(peak() - before)"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    for rows, expected in ((1 << 16, "refused"), (4 * 8100, "read")):
        path = tmp_path / f"{rows}.npz"
        X = np.zeros((rows, 128), np.int8)
        X[::2] = 1
        np.savez_compressed(path, X=X, y=np.arange(rows) / rows)
        run = python(program.format(str(path)))
        told, kib = run.stdout.split()
        assert told == expected and int(kib) < 5 * (32 << 10), run
