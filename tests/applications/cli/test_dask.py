"""Commands with rows on workers of Dask."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from fastcurv.applications.cli import main
from fastcurv.applications.cli.recipe import load_run

pytest.importorskip("distributed")

from ...test_distributed import client, scheduler_process, whole  # noqa: E402, F401


def test_commands_accept_dask_workers(client, tmp_path, capsys, monkeypatch):  # noqa: F811
    """The commands train, classify and spectrum print the same losses, kinds and eigenvalues with
    --dask as without, to a relative 1e-6.
    """
    monkeypatch.chdir(tmp_path)
    X, y = whole(weights=False)
    np.savez("data.npz", X=X, y=y)
    run = ["run.npz", "--quiet", "--json"]
    train = ["train", "data.npz", "--hidden", "4", "--l2", "1e-2", "--out", *run]
    said = []
    for more in ([], ["--dask", "local"]):
        for command in (
            [*train, "--epochs", "2", "--batch-size", "999", "--refine", "none"],
            ["classify", *run],
            ["spectrum", *run, "-k", "1", "--probes", "1", "--steps", "5"],
        ):
            assert main([*command, *more]) == 0
            said.append(json.loads(capsys.readouterr().out))
    for here, there in zip(said[:3], said[3:]):
        assert here.get("kind") == there.get("kind")
        for name in ("loss", "eigenvalues", "lambda_max"):
            if name in here and isinstance(here[name], (float, list)):
                assert np.allclose(here[name], there[name], rtol=1e-6), name
    assert said[4]["certified"] == said[1]["certified"]


def test_training_saves_theta_if_the_scheduler_dies(tmp_path):
    """If the scheduler dies during `train`, the command prints one line, exits with status 3, and
    saves a theta below the initial loss.
    """
    X, y = whole(3, weights=False)
    np.savez(tmp_path / "d.npz", X=X, y=y)
    out = tmp_path / "net.npz"
    with scheduler_process() as (process, address):
        command = [sys.executable, "-m", "fastcurv", "train", str(tmp_path / "d.npz")]
        command += ["--hidden", "4", "--epochs", "100000", "--refine", "none", "--dask", address]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        pipes["env"] = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "6s"}
        with subprocess.Popen([*command, "--out", str(out)], **pipes) as training:
            assert b"net 5-4-3" in training.stdout.readline()
            assert b"start" in training.stdout.readline()
            time.sleep(5)
            process.kill()
            said, wrong = training.communicate(timeout=1200)
    assert training.returncode == 3, wrong
    assert wrong.count(b"\n") == 1 and wrong.endswith(f"; saved {out}\n".encode())
    assert b"fastcurv train: the connection to the scheduler of Dask was lost" in wrong
    recipe, theta = load_run(out)
    objective = recipe.build_objective()
    assert objective.value(theta) < objective.value(objective.model.init(seed=0))
