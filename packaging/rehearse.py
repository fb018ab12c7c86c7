"""Rehearse a release (`make rehearse`): build the source archive and the wheels, install them by
name and version from a folder into fresh environments, and use them as the README says.

python packaging/rehearse.py [--python python3.12 ...] [--tests tests/engine ...]

In each environment every Python block of the README runs, the command line answers, and a part of
the suite passes. The source archive is installed once, by compiling it.
"""

import argparse
import re
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

from wheels import ROOT, WANTED, build, find, run, tested, version_of


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", nargs="+", default=[], help="interpreters (default: found)")
    parser.add_argument("--tests", nargs="+", default=["tests/engine", "tests/files"])
    args = parser.parse_args()
    pythons = args.python or [path for path in map(find, WANTED) if path]
    if not pythons:
        sys.exit(f"found no Python of {', '.join(WANTED)}")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = f"{project['name']}=={project['version']}"
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder) / "index"  # as the package index would hold the release
        index.mkdir()
        source = build_sdist(Path(folder), pythons[0], index)
        print(f"built {source.name}, {source.stat().st_size} bytes", flush=True)
        for python in pythons:
            work = Path(folder) / f"wheel-{version_of(python)}"
            work.mkdir()
            wheel = Path(shutil.copy(build(work, python), index))
            print(f"built {wheel.name}, {wheel.stat().st_size} bytes", flush=True)
            install(python, work / "user", wanted, index, "--only-binary=fastcurv")
            use(work / "user")
            words = tested(work, python, wheel, args.tests)
            print(f"{version_of(python)}: README and command line run; {words}", flush=True)
        install(pythons[0], Path(folder) / "compiled", wanted, index, "--no-binary=fastcurv")
        use(Path(folder) / "compiled")
        print(f"{version_of(pythons[0])}, compiled from {source.name}: README and command line run")
    return 0


def build_sdist(folder, python, index):
    """Build the source archive of HEAD, and return its path."""
    tools, checkout = folder / "sdist-tools", folder / "checkout"
    run(python, "-m", "venv", tools)
    here = tools / "bin/python"
    run(
        here,
        "-m",
        "pip",
        "install",
        "-q",
        "build",
        "setuptools>=77",
        "cython>=3.1",
        "numpy",
        "scipy",
    )
    checkout.mkdir()
    run("git", "archive", "-o", folder / "head.tar", "HEAD", cwd=ROOT)
    run("tar", "xf", folder / "head.tar", "-C", checkout)
    run(here, "-m", "build", "--sdist", "--no-isolation", "-o", index, cwd=checkout)
    return next(index.glob("*.tar.gz"))


def install(python, place, wanted, index, *options):
    """Install the release from the folder, its dependencies and the README's from the index."""
    run(python, "-m", "venv", place)
    pip = (place / "bin/python", "-m", "pip", "--disable-pip-version-check", "install", "-q")
    run(*pip, f"{wanted.replace('==', '[demo]==')}", "--find-links", index, *options)


def use(place):
    """Run every Python block of the README, and the command line, outside of the checkout."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    if len(blocks) < 2:
        sys.exit("README.md has no Python blocks to run")
    with tempfile.TemporaryDirectory() as outside:
        for block in blocks:
            run(place / "bin/python", "-c", block, cwd=outside)
        said = run(place / "bin/fastcurv", "info", cwd=outside)
        if "kernels" not in said:
            sys.exit(f"fastcurv info printed no kernels:\n{said}")


if __name__ == "__main__":
    sys.exit(main())
