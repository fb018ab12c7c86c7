"""The commands of the compose file, run as local processes: a scheduler, its workers and a
client.
"""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastcurv as fc

dask = pytest.importorskip("distributed")
yaml = pytest.importorskip("yaml")  # a dependency of dask
pytestmark = pytest.mark.nightly
COMPOSE = Path(__file__).parents[2] / "packaging" / "compose.yaml"


def command(service, **values):
    """Return the command that a service runs after its installation, as a list of arguments that
    starts with this Python. `values` are those of variables in the compose file.
    """
    _, _, script = shlex.split(service["command"])
    line = script.split("exec ")[1]
    line = re.sub(r"\$\{(\w+):-(\w*)\}", lambda m: values.get(m[1], m[2]), line)
    assert "$" not in line
    return [sys.executable, "-m", *line.split()]


def load_rows(path):
    table = np.load(path)
    return table[:, :-1], table[:, -1].astype(int)


def test_commands_of_the_compose_file_run_a_cluster(tmp_path):
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    assert set(services) == {"scheduler", "worker"}
    assert services["worker"]["depends_on"] == ["scheduler"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    scheduler = command(services["scheduler"])
    inner = scheduler[scheduler.index("--port") + 1]
    assert services["scheduler"]["ports"] == [f"127.0.0.1:{n}:{n}" for n in (inner, "8787")]
    assert all("@${PYTHON_DIGEST:?" in service["image"] for service in services.values())
    scheduler[scheduler.index("8786")] = port
    worker = command(services["worker"], WORKERS="1", THREADS="1")
    worker[worker.index("tcp://scheduler:8786")] = f"tcp://127.0.0.1:{port}"
    path = os.pathsep.join([str(COMPOSE.parents[1]), os.environ.get("PYTHONPATH", "")])
    options = {
        "cwd": tmp_path,
        "env": dict(os.environ, PYTHONPATH=path, **services["worker"]["environment"] | ARCH),
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((300, 6)), rng.integers(3, size=300)
    paths = []
    for i in range(3):
        paths.append(str(tmp_path / f"rows{i}.npy"))
        np.save(paths[-1], np.column_stack([X[i::3], y[i::3]]))
    model = fc.MLP([6, 7, 3])
    theta = model.init(rng=0)
    here = fc.Objective(model, X, y).gradient(theta)
    running = [subprocess.Popen(c, **options) for c in (scheduler, worker, worker)]
    try:
        with dask.Client(f"tcp://127.0.0.1:{port}", timeout=600) as client:
            end = time.monotonic() + 600
            while len(client.nthreads()) < 2 and time.monotonic() < end:
                time.sleep(0.1)
            assert sorted(client.nthreads().values()) == [1, 1]
            shards = [client.submit(load_rows, path) for path in paths]
            ob = fc.distributed.Objective(model, shards, client=client)
            assert np.abs(ob.gradient(theta) - here).max() <= 1e-13 * np.abs(here).max()
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(20)


ARCH = {"FASTCURV_ARCH": ""}  # the value of ${FASTCURV_ARCH:-} if the variable is not set
