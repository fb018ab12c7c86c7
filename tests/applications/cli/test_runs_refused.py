"""The shell rejects files that are not saved runs and unusable output paths, and handles values
that JSON cannot represent.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("sklearn")

import fastcurv as fc  # noqa: E402
from fastcurv.applications.cli.data import read_npz
from fastcurv.applications.cli.encode import load_dataset
from fastcurv.applications.cli.output import check_output_path  # noqa: E402
from fastcurv.applications.cli.parser import main  # noqa: E402
from fastcurv.applications.cli.recipe import check_saved_size, load_run  # noqa: E402
from fastcurv.applications.cli.report import Report  # noqa: E402
from fastcurv.applications.estimators.spectrum_check import SpectrumCheck  # noqa: E402
from fastcurv.critical.decide import Reason
from fastcurv.spectrum.results import to_json_value  # noqa: E402
from fastcurv.testing import QuadraticObjective  # noqa: E402
from fastcurv.testing.reference import ReferenceModel, ReferenceObjective  # noqa: E402

RECIPES = {
    "matrix": ({}, np.eye(3), "a vector of floats"),
    "words": ({}, np.array(["a"]), "a vector of floats"),
    "name": ({"colour": 1}, np.ones(3), "the recipe has an unknown entry 'colour'"),
    "kind": ({"seed": "zero"}, np.ones(3), "seed in the recipe must be of type int, got 'zero'"),
    "width": ({"hidden": [0]}, np.ones(3), r"hidden in the recipe must be ints >= 1, got \[0\]"),
    "half": ({"hidden": [1.5]}, np.ones(3), r"hidden in the recipe must be ints >= 1, got \[1.5\]"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_malformed_runs_are_rejected(name, tmp_path):
    recipe, theta, words = RECIPES[name]
    np.savez(tmp_path / "run.npz", theta=theta, recipe=json.dumps(recipe))
    with pytest.raises(ValueError, match=words) as error:
        load_run(tmp_path / "run.npz")
    assert "\n" not in str(error.value) and "fastcurv train" in str(error.value)


def test_folders_and_devices_are_rejected_as_output(tmp_path):
    check_output_path(None)
    check_output_path(tmp_path / "new" / "file")
    for place, words in [
        (tmp_path, "the folder"),
        (f"{tmp_path}/x/", "the folder"),
        ("/dev/null", ""),
    ]:
        with pytest.raises(ValueError, match=words or "not a regular file"):
            check_output_path(place)


def test_no_output_replaces_an_input(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("d.npz", X=np.eye(12), y=np.arange(12.0))
    np.savetxt("t.csv", np.arange(48.0).reshape(12, 4), delimiter=",")
    (tmp_path / "new.csv").symlink_to("t.csv")
    (tmp_path / "link.npz").symlink_to("d.npz")
    short = "--quiet --epochs 1 --max-steps 1 --hidden 2"
    main(f"train t.csv {short} --out net.npz".split())
    before = [(tmp_path / name).read_bytes() for name in ("d.npz", "t.csv", "net.npz")]
    np.savetxt("other.csv", np.arange(6.0).reshape(2, 3), delimiter=",")
    for line in (
        f"train d.npz {short} --out d.npz",
        f"train d.npz {short} --out ./link.npz",
        f"train --from net.npz {short[:-11]} --out net.npz",
        "predict net.npz new.csv --out t.csv",
        "predict net.npz other.csv --out t.csv",
        "predict net.npz other.csv --out new.csv",
    ):
        assert main(line.split()) == 2 and "must differ from the inputs" in capsys.readouterr().err
    assert before == [(tmp_path / name).read_bytes() for name in ("d.npz", "t.csv", "net.npz")]


@pytest.mark.parametrize("share", [r"\\\\host\\share\\d.npz", "//host/share/d.npz"])
def test_network_shares_that_a_file_names_are_not_opened(share, tmp_path, capsys):
    run = tmp_path / "run.npz"
    np.savez(run, theta=np.ones(5), recipe=json.dumps({"data": share, "hidden": [1]}))
    assert load_run(run).recipe.data == ""
    assert main(["classify", str(run)]) == 2 and "--data" in capsys.readouterr().err


def test_wide_tables_are_refused_before_training():
    from fastcurv.applications.cli.data import DataCoding

    coding = DataCoding(columns=tuple(map(str, range(370_000))))  # quotes double in the header
    check_saved_size("net.npz", coding)
    with pytest.raises(ValueError, match="Use a name that ends in .npz"):
        check_saved_size("net.safetensors", coding)


def test_a_report_is_written_although_its_network_cannot_be_saved(tmp_path, monkeypatch, capsys):
    """The page is also written if its name is a link into a folder that does not exist."""
    from fastcurv.applications.cli.fit_table import TableFit

    def save(fit, *_):
        raise OSError("No space left on device")

    monkeypatch.setattr(TableFit, "save", save)
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).standard_normal((30, 3))
    np.savetxt("t.csv", rows, delimiter=",", header="a,b,y", comments="")
    (tmp_path / "link.html").symlink_to("new/page.html")
    line = "report t.csv --alpha 1 --hidden 2 --quiet --out link.html --save net.npz"
    assert main(line.split()) == 3 and "No space left" in capsys.readouterr().err
    assert (tmp_path / "new" / "page.html").stat().st_size > 10_000


def test_json_replaces_nan_and_infinity_by_null():
    look = SpectrumCheck("saddle", 1e-3, -2.0, 1.0, (1e-3, 1e-3), 30)
    told = to_json_value(
        {"look": look, "at": (np.float64(np.nan), np.arange(2)), "type": complex(1)}
    )
    assert told["look"]["kind"] == "saddle" and told["at"] == [None, [0, 1]]
    assert told["type"] == "(1+0j)"
    json.dumps(told)
    odd = {"a": np.nan, "b": np.array([1.0, np.inf]), "c": (np.int64(3), None, True)}
    assert json.dumps(to_json_value(odd)) == '{"a": null, "b": [1.0, null], "c": [3, null, true]}'


def test_a_spectrum_check_is_resolved_if_its_residuals_are_small():
    seen = SpectrumCheck("saddle", 1e-3, -2.0, 1.0, (1e-3, 1e-3), 30)
    assert seen.has_negative_curvature and seen.is_resolved
    assert not SpectrumCheck("saddle", 1e-3, -2.0, 1.0, (0.5, 1e-3), 3).is_resolved


def test_reference_networks_reject_inconsistent_shapes():
    with pytest.raises(ValueError, match="at least two widths"):
        ReferenceModel([3])
    with pytest.raises(ValueError, match="at least two widths"):
        ReferenceModel([3, 2, 1], ["tanh", "tanh"])
    with pytest.raises(ValueError, match=r"must have shapes \(4, 3\)"):
        ReferenceObjective(ReferenceModel([3, 1]), np.zeros((4, 2)), np.zeros(4), "mse")


def test_show_versions_prints_or_returns(capsys):
    assert fc.show_versions() is None
    printed = capsys.readouterr().out
    for name, value in fc.show_versions("dict").items():
        assert f"{name}: {value}" in printed
    with pytest.raises(ValueError, match="must be 'print' or 'dict'"):
        fc.show_versions("json")


def test_unreadable_archives_are_rejected(tmp_path):
    """A folder, and an archive whose directory states an unpacked size above the limit, are
    rejected without unpacking.
    """
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        read_npz(tmp_path)
    np.savez(tmp_path / "bomb.npz", x=np.zeros(10))
    raw = bytearray((tmp_path / "bomb.npz").read_bytes())
    at = raw.index(b"PK\x01\x02") + 24  # the size in the archive's directory
    raw[at : at + 4] = (0xF0000000).to_bytes(4, "little")
    (tmp_path / "bomb.npz").write_bytes(raw)
    with pytest.raises(ValueError, match=f"got {0xF0000000} bytes"):
        read_npz(tmp_path / "bomb.npz")


@pytest.mark.parametrize(("name", "cast"), [("X", "float"), ("y", "str")])
def test_errors_for_arrays_of_objects_name_the_array(name, cast, tmp_path):
    held = {"X": np.arange(8.0).reshape(4, 2), "y": np.array(["a", "b"] * 2)}
    held["more"] = np.ones(2).astype(object)
    np.savez(tmp_path / "obj.npz", **held | {name: held[name].astype(object)})
    with pytest.raises(ValueError) as error:
        load_dataset(tmp_path / "obj.npz")
    assert str(error.value) == (
        f"{tmp_path / 'obj.npz'}: {name} must hold numbers or words, got Python objects. "
        f"Convert them, for example with {name}.astype({cast})."
    )
    np.savez(tmp_path / "obj.npz", **held | {name: held[name].astype(object).astype(cast)})
    assert load_dataset(tmp_path / "obj.npz").n_outputs == 2


def test_training_without_epochs_and_refinement_saves_the_start(tmp_path, capsys):
    path = tmp_path / "start.npz"
    words = ["train", "iris", "--hidden", "4", "--epochs", "0", "--refine", "none", "--quiet"]
    assert main([*words, "--seed", "3", "--out", str(path)]) == 0
    recipe, theta = load_run(path)
    model = recipe.build_objective().model
    assert np.array_equal(theta, model.init(seed=3))
    with np.load(path) as saved:
        assert not any(name.startswith("history") for name in saved.files)
    assert main(["classify", str(path), "--activation", "tanh"]) == 2
    assert "which names its activations" in capsys.readouterr().err


def test_the_report_states_the_risk_of_a_verdict():
    bowl = QuadraticObjective(np.diag([1.0, 2.0]))
    point = fc.classify(bowl, np.zeros(2), seed=0)
    doubted = replace(
        point, certified=False, failure_probability=0.004, rule=Reason.WITHIN_ACCEPTED_RISK
    )
    assert doubted.statement in Report("r").add_verdict(doubted).to_html()


def test_escape_saddle_needs_negative_curvature():
    from fastcurv.applications.cli.demo import escape_saddle

    bowl = QuadraticObjective(np.diag([1.0, 2.0]))
    point = fc.classify(bowl, np.zeros(2), seed=0)
    step, sentence = escape_saddle(bowl, np.zeros(2), point, False)
    assert step is None and sentence == "No direction of negative curvature was found."


def test_a_second_training_gets_a_numbered_default_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["train", "iris", "--hidden", "2", "--epochs", "1", "--refine", "none", "--quiet"]
    assert main(words) == 0
    first = (tmp_path / "theta.safetensors").read_bytes()
    assert main([*words, "--seed", "1"]) == 0
    assert "theta-2.safetensors" in capsys.readouterr().out
    assert main([*words, "--activation", "wish"]) == 2
    assert "got 'wish'" in capsys.readouterr().err
    assert main([*words, "--seed", "2"]) == 0
    assert (tmp_path / "theta.safetensors").read_bytes() == first
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"theta.safetensors", "theta-2.safetensors", "theta-3.safetensors"}
    assert main([*words, "--seed", "1", "--out", "theta.safetensors"]) == 0
    assert (tmp_path / "theta.safetensors").read_bytes() != first
