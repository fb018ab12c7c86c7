"""Readers of tables, models and runs of the commands raise ValueError for malformed files."""

import io
import os
import random

import numpy as np
import pytest

from fastcurv.applications.cli import main
from fastcurv.applications.cli.encode import load_dataset
from fastcurv.applications.cli.models import read_model
from fastcurv.applications.cli.recipe import load_run

from ...files.test_files import mutated, posix, safetensors


@posix
def test_readers_reject_pipes_without_waiting(tmp_path):
    for name in ("x.safetensors", "x.npz", "x.csv", "x.onnx", "x.pt", "x.npy"):
        os.mkfifo(tmp_path / name)
    model, run, table = (tmp_path / name for name in ("x.safetensors", "x.npz", "x.csv"))
    for reader, path in ((load_run, model), (load_run, run), (load_dataset, table)):
        with pytest.raises(
            ValueError, match="must be a file, got a device or a pipe|is not a regular file"
        ):
            reader(path)
    for path in tmp_path.iterdir():
        assert main(["classify", str(path), "--data", str(table)]) == 2


UNUSUAL_ARRAYS = [
    np.array(3),
    np.zeros((0, 3)),
    np.array(["a", "b"]),
    np.array([1 + 2j]),
    np.arange(4),
    np.full((4, 3), np.nan),
    np.full((4, 3), 1e308),
    np.zeros((4, 3, 2)),
    np.array([1e300] * 4),
    np.array([True, False] * 2),
    np.array([-5, 1, 2, 3]),
    np.array([2**63] * 4, np.uint64),
    np.zeros(4, [("a", "f8")]),
    np.array(["2020-01-01"] * 4, "M8[D]"),
    np.arange(4, dtype=">i2"),
]
CELLS = ["1", "2.5", "-3", "nan", "inf", "", "a", "1e999", "1_000", '"x,y"', '"', "\0", "ü", " 7 "]
CELLS += ["9" * 5000, "1,2", '"a\nb"', "\x1b[31m"]


def garbled(content, dice):
    content = bytearray(content)
    for _ in range(1 + dice.randrange(3)):
        at, kind = dice.randrange(len(content) or 1), dice.randrange(3)
        if kind == 0 and content:
            content[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del content[at : at + dice.randrange(1, 30)]
        else:
            content[at : at + 4] = dice.randbytes(dice.randrange(1, 9))
    return bytes(content)


def an_npz(dice):
    held, buffer = {"X": np.eye(4, 3), "y": np.array([0, 1, 1, 0])}, io.BytesIO()
    for name in "Xy":
        if dice.random() < 0.5:
            held[name] = dice.choice(UNUSUAL_ARRAYS)
        elif dice.random() < 0.1:
            del held[name]
    dice.choice([np.savez, np.savez_compressed])(buffer, **held)
    return buffer.getvalue() if dice.random() < 0.5 else garbled(buffer.getvalue(), dice)


def a_csv(dice):
    width, good = dice.randrange(1, 4), dice.random() < 0.3
    cells = CELLS[:3] if good else CELLS
    n_lines = dice.randrange(10, 30) if good else dice.randrange(16)
    lines = [",".join(dice.choices(cells, k=width)) for _ in range(n_lines)]
    return "\n".join(lines).encode(dice.choice(["utf-8", "utf-8", "utf-16"]))


def a_state(dice):
    header, data, n = {}, b"", dice.choice([1, 10**5])
    for name, shape in (
        ("0.weight", (4, 3)),
        ("0.bias", (4,)),
        ("2.weight", (2, 4)),
        ("2.bias", 2),
    ):
        array = np.ones(shape) if dice.random() < 0.9 else dice.choice(UNUSUAL_ARRAYS[5:8])
        end = len(data) + array.nbytes
        name = dice.choice([name] * 8 + ["x" * n, "a\nb.weight"])
        header[name] = {"dtype": "F64", "shape": array.shape, "data_offsets": [len(data), end]}
        data += array.tobytes()
    content = safetensors(header, data)
    return content if dice.random() < 0.5 else mutated(content, dice)


READERS = {
    "npz": (".npz", an_npz, load_dataset),
    "csv": (".csv", a_csv, load_dataset),
    "csv, by name": (".csv", a_csv, lambda path: load_dataset(path, target="a")),
    "state": (".safetensors", a_state, lambda path: read_model(path, "tanh")),
    "run, npz": (".npz", an_npz, load_run),
    "run, safetensors": (".safetensors", a_state, load_run),
}


@pytest.mark.parametrize("kind", READERS)
def test_damaged_files_of_other_programs_are_read_or_rejected(kind, tmp_path):
    dice, (ending, drawn, reader) = random.Random(3), READERS[kind]
    path, n_refused = tmp_path / f"x{ending}", 0
    for _ in range(120):
        path.write_bytes(drawn(dice))
        try:
            with np.errstate(all="ignore"):
                reader(path)
        except ValueError as error:
            said = str(error).replace(str(path), "")
            assert said.isprintable() and 0 < len(said) < 700, said
            n_refused += 1
    assert n_refused > 20 and (n_refused < 120 or kind.startswith("run") or "name" in kind)
