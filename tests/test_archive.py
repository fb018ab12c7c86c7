"""The source archive contains every tracked file, runs its tests and builds its documentation."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Files that builds, tests and editors leave in a checkout, which the archive must not contain.
LEFT_BEHIND = (
    "build/temp/core.o",
    "docs/_build/html/index.html",
    "docs/generated/fastcurv.MLP.rst",
    "docs/api.rst",
    "docs/gallery.md",
    "docs/_pictures.md",
    "docs/_commands.md",
    "examples/__pycache__/common.cpython-311.pyc",
    "fastcurv/_engine/core.cpython-311-x86_64-linux-gnu.so",
    "fastcurv/_engine/core.cp311-win_amd64.pyd",
    "figures/index.html",
    "fastcurv-demo.html",
    ".venv/pyvenv.cfg",
)


def tracked():
    """Return the set of paths of all files that git tracks and that exist in the working tree. Skip
    the test outside a checkout.
    """
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no checkout: only git knows what is tracked")
    said = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    names = said.stdout.decode().split("\0")
    return {name for name in names if name and (ROOT / name).exists()}


def copied(names, folder):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)


def build_archive(folder):
    """Build the source archive of the checkout in `folder`, and return the archive's path."""
    command = [sys.executable, "setup.py", "-q", "sdist", "--formats", "gztar"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=1200)
    (path,) = (folder / "dist").iterdir()
    return path


def test_the_source_archive_holds_what_git_tracks_and_nothing_else(tmp_path):
    pytest.importorskip("setuptools")
    pytest.importorskip("Cython")
    names = tracked()
    copied(names, tmp_path)
    for name in LEFT_BEHIND:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("left behind")
    with tarfile.open(build_archive(tmp_path)) as file:
        members = [member.name.partition("/")[2] for member in file if member.isfile()]
        mode = file.getmember(f"{file.getnames()[0].partition('/')[0]}/.ci/run").mode
    made = {name for name in members if name.startswith("fastcurv.egg-info/")}
    made |= {"PKG-INFO", "setup.cfg"}
    assert names - set(members) == set()
    assert set(members) - names - made == set()
    assert mode & 0o100  # `.ci/run` is executable


@pytest.mark.nightly
def test_the_source_archive_runs_its_tests_and_builds_its_site(tmp_path):
    """The unpacked source archive builds its documentation and passes a part of its tests in a new
    environment, which needs a network.
    """
    copied(tracked(), tmp_path / "sources")
    with tarfile.open(build_archive(tmp_path / "sources")) as file:
        file.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.glob("fastcurv-*")
    known = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    for line in (
        f"make docs PYTHON={sys.executable}",
        f"make .venv/.test PYTHON={sys.executable}",
        ".venv/bin/python -m pytest -q tests/engine tests/applications/docs tests/applications/cli "
        "tests/test_repository.py "
        "tests/applications/test_examples.py tests/applications/typing",
    ):
        done = subprocess.run(line.split(), cwd=folder, env=known, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    assert (folder / "docs/_build/html/index.html").is_file()
