"""Fuzz all readers of files, guided by coverage: `make fuzz SECONDS=60`.

The first byte of an input selects the reader, and the rest is the file. A reader must return, or
raise ValueError with one printable line. Any other exception, a crash, a time of more than TIMEOUT
seconds or memory of more than MEMORY_MB is a finding, which atheris writes to a file named crash-*,
timeout-* or oom-*.
"""

import random
import sys
import tempfile
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["fastcurv"]):
    import fastcurv as fc
    from fastcurv.applications.cli.network import load_network

from tests.files.test_files import example_files, mutated

TIMEOUT = 20  # seconds for one input
MEMORY_MB = 4096
N_SEEDS = 40  # initial files of each kind


def resume(method, options):
    """Return a function of a path that resumes a run of the method from this checkpoint for at most
    one step.
    """
    X = np.random.default_rng(0).standard_normal((6, 2))
    ob = fc.Objective(fc.MLP([2, 3, 1]), X, X[:, 0], loss="mse", l2=0.1)

    def read(path):
        fc.minimize(
            ob,
            None,
            method,
            checkpoint=fc.optimize.Checkpoint(resume=path),
            max_iter=1,
            verdict=False,
            **options,
        )

    return read


TARGETS = [
    (".safetensors", fc.load),
    (".ckpt", resume("trust-region", {})),
    (".ckpt", resume("adam", {"batch_size": 1})),
    (".safetensors", load_network),
]


def one_input(data):
    if not data:
        return
    ending, reader = TARGETS[data[0] % len(TARGETS)]
    path = FOLDER / f"input{ending}"
    path.write_bytes(data[1:])
    try:
        with np.errstate(all="ignore"):
            reader(path)
    except ValueError as error:
        said = str(error)
        if not said or not said.isprintable() or len(said) > 1000:
            raise AssertionError(f"unreadable message: {said!r}") from error


def write_seeds(folder):
    """Write valid and slightly damaged files of every kind into a folder, each after the byte that
    selects its reader.
    """
    dice = random.Random(0)
    for i, (content, _) in enumerate(example_files(folder)):
        for k in range(N_SEEDS):
            damaged = mutated(content, dice) if k else content
            (folder / f"seed-{i}-{k}").write_bytes(bytes([i]) + damaged)


if __name__ == "__main__":
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    with tempfile.TemporaryDirectory() as name:
        FOLDER = Path(name)
        corpus = FOLDER / "corpus"
        corpus.mkdir()
        write_seeds(corpus)
        limits = [f"-max_total_time={seconds}", f"-timeout={TIMEOUT}", f"-rss_limit_mb={MEMORY_MB}"]
        atheris.Setup([sys.argv[0], str(corpus), *limits, "-max_len=20000"], one_input)
        atheris.Fuzz()
