"""Benchmarks on the command line explain what they measure and write their numbers as JSON."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SMALL = {  # options with which each benchmark takes seconds
    "hvp": "--workload tiny --dtype float64 --quick --rounds 1 --no-peers",
    "kernels": "--dtype float32 --sizes 8 --square --seconds 0.01",
    "overhead": "--workload tiny --nets 1-5-1 --rounds 1",
}


def run(name, *arguments, folder=FOLDER.parent):
    command = [sys.executable, str(FOLDER / f"{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=1200)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.by_day(share=1 / 5)
@pytest.mark.parametrize("name", SMALL)
def test_with_json_standard_output_holds_only_json(name, tmp_path):
    """With `--json`, standard output is JSON and tables are on standard error. With a file name,
    that file contains JSON with the same keys.
    """
    done = run(name, *SMALL[name].split(), "--json", folder=tmp_path)
    assert json.loads(done.stdout) and done.stderr
    written = run(name, *SMALL[name].split(), "--json", "n.json", folder=tmp_path)
    assert json.loads((tmp_path / "n.json").read_text()).keys() == json.loads(done.stdout).keys()
    assert written.stdout and "MISSED" not in written.stdout + done.stderr


def test_bounds_are_printed_with_the_option_bounds():
    said = run("hvp", *SMALL["hvp"].split(), "--bounds").stdout
    assert re.search(r"^  (met   |MISSED)  tiny float64", said, re.MULTILINE)


@pytest.mark.parametrize("only", ["", "small"])
def test_each_part_of_the_overhead_is_compared_with_its_own_bounds(only, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    import overhead

    jobs = {"lowest, then highest": 1.0, "density": 9.0}
    monkeypatch.setattr(overhead, "measure", lambda *_: jobs)
    monkeypatch.setattr(overhead, "iteration", lambda *_: {"ratio": 0.5})
    monkeypatch.setattr(overhead, "measure_small", lambda *_: [0.1, 1.0])
    monkeypatch.setattr(sys, "argv", ["overhead.py", "--bounds", *([f"--{only}"] if only else [])])
    overhead.main()
    said = capsys.readouterr().out.partition("Bounds\n\n")[2].splitlines()
    count = {"": len(overhead.NETS) * 2 + 2 * 3, "small": len(overhead.SMALL)}[only]
    missed = [line for line in said if line.startswith("  MISSED")]
    assert len(said) == count and len(missed) == (0 if only else 3)


def test_tables_and_the_picture_of_speed_are_made_from_stored_runs(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(FOLDER))
    picture = importlib.import_module("speed_picture")
    seconds = {"fastcurv": 1.0, "torch": 2.5, "jax-linearize": 4.0, "jax-jvp": 3.0}
    times = {name: {"product": s} for name, s in seconds.items()}
    record = {"workload": "tiny", "seconds": times, "share_of_peak": 0.75}
    facts = {"cpu": "A CPU", "threads": 2, "time": "2026-01-01", "versions": {"torch": "2.0"}}
    run = {"machine": facts, "records": [record | {"dtype": d} for d in picture.DTYPES]}
    text = "# Speed\n<!-- results/hvp.json -->\n\n<!-- results/two.json -->\nold\n\n## Next\nkept\n"
    made = picture.with_tables(text, {"hvp": run, "two": run})
    assert made.count("| 2.5 / 2.5 | 3 / 3 | 75% / 75% |") == 2
    assert "A CPU, threads: 2, 2026-01-01; torch 2.0." in made
    assert "old" not in made and made.endswith("\n## Next\nkept\n")
    assert picture.with_tables(made, {"hvp": run, "two": run}) == made
    pytest.importorskip("matplotlib")
    picture.draw(run, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 5000
