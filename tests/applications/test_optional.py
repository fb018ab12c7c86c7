"""Optional packages: if one is missing, the error states in one sentence what to install."""

import re
import tomllib
from pathlib import Path

import pytest

from fastcurv.common.optional import INSTALL_HINTS

ROOT = Path(__file__).resolve().parents[2]


def test_the_extras_that_messages_name_bring_the_package():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for package, (name, source) in INSTALL_HINTS.items():
        extra = re.fullmatch(r"fastcurv\[(\w+)\]", source)
        if extra:
            assert any(
                name.startswith(re.match(r"[\w-]+", have)[0]) for have in extras[extra[1]]
            ), package
    used = {
        extra
        for folder in ("fastcurv", "benchmarks", "examples")
        for path in (ROOT / folder).rglob("*.py")
        for extra in re.findall(r'optional_import\([^)]*, "(\w+)"\)', path.read_text())
    }
    assert used and used <= set(extras)


# Calls of users, by the package that they need. Each is tested without optional packages.
LINES = {
    "matplotlib": """
        fc.spectral_density(H, n_probes=2, n_steps=4, rng=0).plot()
        fc.SpectrumDisplay.from_operator(H)
        fc.LandscapeDisplay.from_objective(ob, theta, n_grid=3)
        fc.LandscapeDisplay.slice(ob, theta, n_dims=2, n_grid=3).plot()
        fc.plots.new_axes()
        fc.plots.new_figure()
        fc.plots.surface(lambda x, y: x + y, (0, 1), (0, 1))
        cli("demo --quick")
    """,
    "threadpoolctl": """
        fc.register_threadpoolctl()
    """,
    "sklearn": """
        fc.MLPClassifier()
        fc.MLPRegressor
        fc.estimators
        cli("demo --quick")
    """,
    "torch": """
        fc.to_torch(ob.model, theta)
    """,
    "onnx": """
        fc.from_onnx("net.onnx")
    """,
    "dask": 'fc.distributed.Objective(fc.MLP([2, 1]), [lambda: 0], "mse")',
}
PROGRAM = """
import contextlib, io, os, sys
for name in {names!r}:
    sys.modules[name] = None
import numpy as np
import fastcurv as fc
from fastcurv.applications.cli import main
X = np.random.default_rng(0).standard_normal((20, 2))
open("net.onnx", "wb").close()
ob = fc.Objective(fc.MLP([2, 3, 1]), X, X[:, :1], loss="mse", l2=0.1)
theta = ob.model.init(rng=0)
H, run = ob.hessian(theta), fc.minimize(ob, theta, max_iter=2, verdict=False)
names = {{}}
exec("from fastcurv import *", names)
assert "MLP" in names and "MLPClassifier" not in names

def cli(line):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = main(line.split())
    text = said.getvalue()
    assert status == 2 and text.count("\\n") == 1, (line, status, text)
    raise ImportError(text.rstrip())

for package, lines in {lines!r}.items():
    for line in lines.split("\\n"):
        if line.strip():
            try:
                exec(line.strip())
            except ImportError as error:
                text = str(error)
                assert "which is not installed. Run: pip install" in text, (line, text)
                wanted = {packages!r}[package][1]
                assert wanted in text or '"fastcurv[demo]"' in text, (line, text)
            else:
                raise SystemExit(line + " worked without " + package)
"""


def test_a_missing_package_raises_a_sentence_with_its_extra(python, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [*INSTALL_HINTS, "tqdm"]
    python(PROGRAM.format(names=names, lines=LINES, packages=INSTALL_HINTS))


SCRIPTS = (
    "benchmarks/estimators.py",
    "benchmarks/optimisers.py digits",
    "examples/poor_minima.py",
)


@pytest.mark.by_day(share=1 / 2)
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_without_its_packages_names_the_extra(script, python, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *arguments = script.split()
    path = ROOT / name
    done = python(
        "import runpy, sys\n"
        f"for name in {[*INSTALL_HINTS]!r}:\n    sys.modules[name] = None\n"
        f"sys.argv = [{str(path)!r}, *{arguments!r}]\n"
        f"sys.path.insert(0, {str(path.parent)!r})\n"
        f"runpy.run_path({str(path)!r}, run_name='__main__')",
        check=False,
    )
    said = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert re.fullmatch(r"ImportError: .* need .*, which is not installed\. Run: pip .*\]\"", said)
