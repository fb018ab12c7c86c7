"""The output of the shell's commands, for the golden file of `tests/applications/cli`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fastcurv.applications.cli.parser import main

from ...golden import masked

TRAIN = "train iris --hidden 4 --l2 1e-2 --epochs 8 --out a.npz"
COMMANDS = [
    TRAIN,
    "classify a.npz",
    "classify a.npz --json",
    "classify a.npz --gradient-tol 1e-20 --require-certified",
    "classify a.npz --max-products 4 --dtype float32",
    "spectrum a.npz -k 3 --steps 10 --probes 2",
    "spectrum a.npz -k 2 --steps 10 --probes 2 --json",
    "train t.csv --hidden 3 --epochs 5 --method l-bfgs --activation relu --l2 0.1 --out b.npz",
    "classify b.npz --require-certified",
    "classify b.npz --data t.csv --target a",
    "train breast_cancer --hidden 2 --batch-norm --epochs 2 --max-steps 2 --out c.npz",
    "train wine --hidden 3 --dtype float32 --epochs 1 --held-out 0.5 --max-steps 3 --out d.npz",
    "spectrum c.npz -k 2 --steps 5 --probes 3 --l2 0.3",
    "train iris --hidden 3 3 --residual --no-standardize --epochs 2 --max-steps 3 --json "
    "--out e.npz",
    "train diabetes --hidden 2 --epochs 1 --refine none --out f.npz",
    "classify f.npz",
    "train nothing",
    "classify nothing.npz",
]


def table_text() -> str:
    """Return a CSV table of 40 rows of numbers with the header "a,b,c,y"."""
    numbers = np.round(np.sin(np.arange(1, 161).reshape(40, 4) ** 1.5), 3)
    return "a,b,c,y\n" + "\n".join(",".join(map(str, row)) for row in numbers)


def normalised(text: str) -> str:
    """Return the output of a command without run times and temporary paths. Of JSON output, only
    fields that are neither lists nor objects are kept.
    """
    if text.startswith("{"):
        whole = json.loads(text)
        text = "\n".join(f"{k}: {v}" for k, v in whole.items() if not isinstance(v, (list, dict)))
    text = re.sub(r"(?m)^\s*(seconds|wall_time).*$|/tmp/\S*/", "", text)
    return re.sub(" +", " ", text)


def run_command(command: str) -> list[Any]:
    """Return [text, status, *numbers]: the output of a command with # in place of numbers, its exit
    status, and these numbers.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([*command.split(), "--quiet"])
        except SystemExit as end:
            status = int(end.code or 0)
    text, numbers = masked(normalised(out.getvalue()) + "\n" + err.getvalue())
    return [text, float(status), *numbers]


SECTIONS = ("commands",)


def golden(section: str) -> dict[str, list[Any]]:
    """Return a dict of the results of `run_command` for each of COMMANDS, run in a temporary
    folder.
    """
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            Path("t.csv").write_text(table_text())
            return {command: run_command(command) for command in COMMANDS}
        finally:
            os.chdir(here)
