"""The commands and code of the README run in a new environment where nothing is installed."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ...test_archive import copied, tracked

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^((?:make|pip) [^#\n]*?) *(?:#.*)?$", TEXT, re.MULTILINE)
BLOCKS = re.findall(r"```python\n(.*?)```\n(?:\n```\n(.*?)```)?", TEXT, re.DOTALL)
(INSTALL,) = (line for line in COMMANDS if line.startswith("pip"))


def test_the_readme_installs_what_its_code_imports():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extra,) = re.findall(r"\[(\w+)\]", INSTALL)
    brought = " ".join([*project["optional-dependencies"][extra], *project["dependencies"]])
    brought = brought.replace("scikit-learn", "sklearn")
    imported = {m for code, _ in BLOCKS for m in re.findall(r"^(?:import|from) (\w+)", code, re.M)}
    assert imported == {"numpy", "fastcurv"}
    assert {name for name in imported - {"fastcurv"} if name not in brought} == set()
    targets = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.M)[1].split()
    made = [line.split()[1] for line in COMMANDS if line.startswith("make")]
    assert made and set(made) <= set(targets)
    from fastcurv.applications.cli.parser import COMMANDS as known

    named = re.search(r"^\| use from a shell \| (.*) \|$", TEXT, re.MULTILINE)[1]
    assert {name.removeprefix("fastcurv ") for name in re.findall(r"`([^`]+)`", named)} <= set(
        known
    )


@pytest.mark.nightly
def test_the_readme_works_in_a_new_environment(tmp_path):
    source, elsewhere, place = (tmp_path / name for name in ("source", "elsewhere", "environment"))
    copied(tracked(), source)
    elsewhere.mkdir()
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    known = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FASTCURV"))}
    known |= {"PATH": f"{place / 'bin'}{os.pathsep}{known['PATH']}"}

    def run_command(line, folder=source):
        options = {"capture_output": True, "text": True, "env": known}
        return subprocess.run(["bash", "-c", line], cwd=folder, **options)

    done = run_command(INSTALL)
    assert done.returncode == 0, done.stderr
    for folder in (source, elsewhere):
        for code, printed in BLOCKS:
            (folder / "block.py").write_text(code)
            done = run_command("python block.py", folder)
            assert done.returncode == 0 and done.stdout == printed, (code, done)
    for line in ("make demo", "fastcurv info", "make -n test"):
        done = run_command(line)
        assert done.returncode == 0, (line, done.stdout[-2000:], done.stderr[-2000:])
    assert (source / "fastcurv-demo.html").is_file()

    for engine in (source / "fastcurv/_engine").glob("core.*.so"):
        engine.unlink()
    done = run_command("pip uninstall -q -y fastcurv && pip install -q .")
    assert done.returncode == 0, done.stderr
    done = run_command("python -c 'import fastcurv'")
    assert "Leave the source folder, or run in it: pip install -e ." in done.stderr
    assert run_command("python -c 'import fastcurv'", elsewhere).returncode == 0
