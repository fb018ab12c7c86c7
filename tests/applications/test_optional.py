"""Optional packages: if one is missing, the error states in one sentence what to install."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from fastcurv.common.optional import INSTALL_HINTS

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("fastcurv", "benchmarks", "examples")
LOCAL_MODULES = {path.stem for folder in FOLDERS for path in (ROOT / folder).glob("*.py")}
AVAILABLE_MODULES = (
    set(sys.stdlib_module_names)
    | {"numpy", "scipy", "fastcurv", "fastcurv_command"}
    | LOCAL_MODULES
)
# Imports that run only if the package is installed, with the reason.
UNGUARDED_IMPORTS = {
    "fastcurv/applications/estimators/base.py": "__init__.py imports scikit-learn first",
    "fastcurv/applications/estimators/fit_warnings.py": "__init__.py imports scikit-learn first",
    "fastcurv/applications/estimators/rows.py": "__init__.py imports scikit-learn first",
    "fastcurv/applications/estimators/classifier.py": "__init__.py imports scikit-learn first",
    "fastcurv/applications/estimators/regressor.py": "__init__.py imports scikit-learn first",
    "fastcurv/applications/cli/demo.py: report_on_fit": "the command imports the package first",
    "fastcurv/applications/cli/fit_network.py: _refit": "its estimator needs the package",
    "fastcurv/applications/convert/torch.py: _check_plain_forward": "takes a module of torch",
    "fastcurv/applications/convert/torch.py: _trace_steps": "takes a module of torch",
    "fastcurv/applications/convert/torch.py: _called_function": "takes a graph of torch",
    "fastcurv/applications/convert/torch.py: _check_equal_outputs": "takes a module of torch",
    "fastcurv/applications/convert/onnx.py": "_load_model_proto imports the package first",
    "fastcurv/network/arguments.py: match_array_type": "takes a tensor of torch",
    "fastcurv/distributed.py": "an objective has a client of the package",
    "benchmarks/correct_digits.py": "`measure` prints that a program is not installed",
    "benchmarks/reference/make.py": "only maintainers write the reference networks",
    "benchmarks/inputs.py: by_torch": "`measured` says that it is not installed",
    "benchmarks/inputs.py: by_jax": "`measured` says that it is not installed",
    "benchmarks/peers.py": "`reason` has the message of what a peer's process raises",
    "benchmarks/spectrum_peers.py": "`reason` has the message of what a peer's process raises",
}


def is_guarded(node):
    """Return True if a statement handles a missing package: by `with optional_import`, by
    suppressing ImportError, or by `try` with ImportError.
    """
    if isinstance(node, ast.With):
        calls = [item.context_expr for item in node.items]
        names = {ast.unparse(call.func) for call in calls if isinstance(call, ast.Call)}
        return "optional_import" in names or (
            "suppress" in names and "ImportError" in ast.unparse(node)
        )
    if isinstance(node, ast.Try):
        caught = {ast.unparse(h.type) for h in node.handlers if h.type is not None}
        return bool(caught & {"ImportError", "ModuleNotFoundError"})
    return False


def unguarded(node, function="", guarded=False):
    """Yield (function, package) for each import below a node that would raise a bare
    ModuleNotFoundError. `function` is the name of the enclosing function, or "".
    """
    for child in ast.iter_child_nodes(node):
        names = []
        if isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom) and not child.level:
            names = [child.module]
        if not guarded:
            yield from (
                (function, n) for n in names if n.partition(".")[0] not in AVAILABLE_MODULES
            )
        inside = child.name if isinstance(child, ast.FunctionDef) else function
        yield from unguarded(child, inside, guarded or is_guarded(child))


def test_imports_of_missing_packages_say_what_to_install():
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            for function, package in unguarded(ast.parse(path.read_text())):
                if name not in UNGUARDED_IMPORTS and f"{name}: {function}" not in UNGUARDED_IMPORTS:
                    found[f"{name}: {function}"] = package
    assert found == {}
    text = (
        "import torch\ndef f():\n    with optional_import('x'):\n        import jax\n"
        "    import onnx.a"
    )
    assert [*unguarded(ast.parse(text))] == [("", "torch"), ("f", "onnx.a")]


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
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for extra in re.findall(r'optional_import\([^)]*, "(\w+)"\)', path.read_text())
    }
    assert used and used <= set(extras)


# Calls of users, by the package that they need. Each is tested without optional packages.
LINES = {
    "matplotlib": """
        fc.spectral_density(H, n_probes=2, n_steps=4, seed=0).plot()
        fc.diagnose(ob, theta).plot()
        fc.SpectrumDisplay.from_operator(H)
        fc.LandscapeDisplay.from_objective(ob, theta, n_grid=3)
        fc.LandscapeDisplay.slice(ob, theta, n_dims=2, n_grid=3).plot()
        fc.ConvergenceDisplay.from_results(run)
        fc.plots.new_axes()
        fc.plots.new_figure()
        fc.plots.surface(lambda x, y: x + y, (0, 1), (0, 1))
        cli("diagnose n.npz --figure a.png --data points.npz")
        cli("spectrum n.npz --figure a.png --data points.npz")
        cli("demo --quick")
    """,
    "threadpoolctl": """
        fc.register_threadpoolctl()
    """,
    "sklearn": """
        fc.MLPClassifier()
        fc.MLPRegressor
        fc.estimators
        cli("train iris --out a.npz")
        cli("demo --quick")
    """,
    "torch": """
        fc.to_torch(ob.model, theta)
        cli("classify net.pt --data points.npz --activation tanh")
    """,
    "onnx": """
        fc.from_onnx("net.onnx")
        cli("classify net.onnx --data points.npz")
    """,
    "pyarrow": 'fc.StreamedObjective(fc.MLP([2, 1]), "rows.parquet", "y")',
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
np.savez("points.npz", X=X, y=X[:, 0])
for name in ("net.pt", "net.onnx", "rows.parquet"):
    open(name, "wb").close()
ob = fc.Objective(fc.MLP([2, 3, 1]), X, X[:, :1], loss="mse", l2=0.1)
theta = ob.model.init(seed=0)
H, run = ob.hessian(theta), fc.minimize(ob, theta, max_iter=2, verdict=False)

def cli(line):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = main(line.split())
    text = said.getvalue()
    assert status == 2 and text.count("\\n") == 1, (line, status, text)
    raise ImportError(text.rstrip())

with contextlib.redirect_stdout(io.StringIO()):
    line = "train points.npz --hidden 3 --epochs 1 --max-steps 2 --out n.npz"
    assert main(line.split()) in (0, 1)
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
    """Without optional packages, each function, method and command that needs one raises an error
    that names its extra, and all others work.
    """
    monkeypatch.chdir(tmp_path)
    names = [*INSTALL_HINTS, "tqdm"]
    python(PROGRAM.format(names=names, lines=LINES, packages=INSTALL_HINTS))


SCRIPTS = (
    "benchmarks/workers.py --rows 64",
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
