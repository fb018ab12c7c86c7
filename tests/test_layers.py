"""The five layers of the package: modules import only from their own and lower layers, and the core
works without the proofs.
"""

import ast
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import fastcurv

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(fastcurv.__file__).parent
layers_script = runpy.run_path(str(ROOT / "docs" / "layers.py"))
LAYERS, layer_of, imported_by = (
    layers_script[name] for name in ("LAYERS", "layer_of", "imported_by")
)
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__main__.py" and path != PACKAGE / "__init__.py"
}
# Limits of the (statements, modules) that must be read to understand a module and its imports.
METHODS = "newton first_order lbfgs levenberg steps loop"
MAX_STATEMENTS_AND_MODULES = {
    "network.objective": (3600, 20),
    "network.operators": (2600, 16),
    "optimize.loop": (3300, 20),
    "network.objective spectrum.eigsh spectrum.density spectrum.trace "
    + " ".join(f"optimize.{name}" for name in METHODS.split()): (7000, 42),
}


def statements(path):
    """Return the number of statements in a Python file, without docstrings."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    words = [
        node
        for node in nodes
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]
    return sum(isinstance(node, ast.stmt) for node in nodes) - len(words)


def loaded(names):
    """Return the set of modules that are loaded when the modules `names` are imported, without
    imports inside functions.
    """
    todo, seen = list(names), set()
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            there = imported_by(MODULES[name], name, MODULES, inside=False)
            todo += [other for other in there if other in MODULES]
    return seen


def test_every_module_is_in_one_layer():
    assert {name for name in MODULES if layer_of(name) is None} == set()
    assert len(MODULES) > 100 and len(LAYERS) == 5


def test_no_import_leads_to_a_higher_layer():
    wrong = {}
    for name, path in MODULES.items():
        for other in imported_by(path, name, MODULES, inside=True):
            if other in MODULES and layer_of(other) > layer_of(name):
                wrong.setdefault(name, []).append(other)
    assert wrong == {}


def test_the_core_imports_lazily_by_two_functions_only():
    """Within the core, modules of the package are imported inside functions only by `load_certify`
    and `load_module` of common/runtime.py.
    """
    found = []
    for name, path in MODULES.items():
        if layer_of(name) > 2:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                inner = [n for n in ast.walk(node) if isinstance(n, (ast.Import, ast.ImportFrom))]
                own = [
                    n
                    for n in inner
                    if isinstance(n, ast.ImportFrom) and (n.level or "fastcurv" in (n.module or ""))
                ]
                found += [f"{name}.{node.name}" for _ in own]
                calls = [ast.unparse(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)]
                found += [f"{name}.{node.name}" for called in calls if called == "import_module"]
    assert sorted(set(found)) == ["common.runtime.load_certify", "common.runtime.load_module"]


@pytest.mark.parametrize(
    "names", MAX_STATEMENTS_AND_MODULES, ids=["objective", "operators", "loop", "core"]
)
def test_the_core_stays_below_its_size_limits(names):
    found = loaded(names.split())
    total = sum(statements(MODULES[name]) for name in found)
    most, files = MAX_STATEMENTS_AND_MODULES[names]
    assert total <= most and len(found) <= files, (total, len(found), sorted(found))


def test_importing_an_objective_loads_only_the_core_in_100_ms():
    """Importing Objective after NumPy and SciPy loads only modules of the core, and takes at most
    100 ms of processor time in the fastest of five processes.
    """
    code = (
        "import sys, time, numpy, scipy.sparse.linalg, scipy.linalg, scipy.special, "
        "scipy.linalg.cython_blas, scipy.optimize\n"
        "began = time.process_time()\n"
        "from fastcurv import Objective\n"
        "print(time.process_time() - began)\n"
        "print(*[name for name in sys.modules if name.startswith('fastcurv.')])"
    )
    where = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env=where, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for _ in range(5)
    ]
    names = [name.removeprefix("fastcurv.") for name in runs[0][1].split()]
    assert [name for name in names if name in MODULES and layer_of(name) > 1] == []
    assert min(float(run[0]) for run in runs) <= 0.1


def test_the_picture_of_the_layers_is_drawn_from_the_imports():
    assert (ROOT / "docs" / "layers.svg").read_text(encoding="utf-8") == layers_script["drawing"]()
