"""The five layers of the package: modules import only from their own and lower layers, and the core
works without the applications.
"""

import ast
import runpy
from pathlib import Path

import fastcurv

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(fastcurv.__file__).parent
layers_script = runpy.run_path(str(ROOT / "docs" / "layers.py"))
LAYERS, layer_of, imported_by, tree = (
    layers_script[name] for name in ("LAYERS", "layer_of", "imported_by", "tree")
)
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name not in ("__main__.py", "__init__.py")
}


def test_every_module_is_in_one_layer():
    assert {name for name in MODULES if layer_of(name) is None} == set()
    assert len(MODULES) > 90 and len(LAYERS) == 5


def test_no_import_leads_to_a_higher_layer():
    """Files import only from their own and lower layers, and functions below the applications
    import no module of the package.
    """
    wrong = {}
    inside = {}
    for name, path in MODULES.items():
        for other in imported_by(path, name, MODULES, inside=False):
            if other in MODULES and layer_of(other) > layer_of(name):
                wrong.setdefault(name, []).append(other)
        if layer_of(name) == len(LAYERS):
            continue
        for function in ast.walk(tree(path)):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                imports = [node for node in ast.walk(function) if isinstance(node, ast.ImportFrom)]
                modules = [ast.unparse(node) for node in imports if node.level]
                if modules:
                    inside[f"{name}.{function.name}"] = " ".join(modules)
    assert wrong == {}
    assert inside == {}


def test_the_core_imports_nothing_by_a_name_in_text():
    """Only the table of public names, in ``fastcurv/__init__.py``, imports by a name in text."""
    names = {"import_module", "__import__"}
    files = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in names
    }
    assert files <= {"__init__.py"}
