"""The rules of the house, read from its files: who may know whom, how long a file may be, that every example runs."""
import ast
import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import fastcurv

PACKAGE = Path(fastcurv.__file__).parent
ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(name for _, name, _ in pkgutil.iter_modules([str(PACKAGE)]) if not name.startswith("_"))
ENGINE = {"_engine", "model", "objective", "operators"}
ENGINE_ALONE = {"model", "objective", "operators", "config", "threads", "sweeps"}           # see the compiled side
NETWORKS = (ENGINE_ALONE - {"sweeps"}) | {"testing", "datasets", "runs", "cli", "commands", "demo", "report", "estimators", "convert"}
ALGORITHMS = {"lanczos", "spectrum", "density", "critical", "steps", "minimize", "symmetry"}
HEAVY = ("matplotlib", "sklearn", "tqdm", "torch", "jax", "pandas")


def imported_by(path):
    """Names of modules of the package that a file imports, at its head or inside a function; "fastcurv" for the whole."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level == 1 or module.split(".")[0] == "fastcurv":
                inner = module if node.level else module.partition(".")[2]
                found |= {inner.split(".")[0]} if inner else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                head, _, inner = alias.name.partition(".")
                if head == "fastcurv":
                    found.add(inner.split(".")[0] or "fastcurv")
    return found


IMPORTS = {name: imported_by(PACKAGE / f"{name}.py") for name in MODULES}


def test_the_reader_of_imports_sees(tmp_path):
    """Every way to write an import is seen: else the rules below would hold of nothing."""
    file = tmp_path / "some.py"
    file.write_text("from .a import x\nfrom . import b\nimport fastcurv.c\nfrom fastcurv import d\nfrom fastcurv.e import y\n"
                    "def f():\n    from .g import z\n    import fastcurv as fc\nimport numpy\nfrom numpy import linalg\n")
    assert imported_by(file) == {"a", "b", "c", "d", "e", "g", "fastcurv"}
    assert ALGORITHMS <= set(MODULES) and "_engine" in IMPORTS["objective"]


@pytest.mark.parametrize("name", [name for name in MODULES if name not in NETWORKS])
def test_algorithms_know_no_network(name):
    """They see operators and objectives by protocol: no engine, and no module that has one, at the head or inside a function."""
    assert IMPORTS[name] & (NETWORKS | {"_engine", "fastcurv"}) <= ({"_engine"} if name == "sweeps" else set())


@pytest.mark.parametrize("name", MODULES)
def test_only_a_few_see_the_compiled_side(name):
    assert "_engine" not in IMPORTS[name] or name in ENGINE_ALONE


def test_kernels_know_no_layer():
    """The workshop includes its own headers and the system's, nothing from above it."""
    for path in (ROOT / "src" / "kernels").iterdir():
        for name in re.findall(r'#\s*include\s+"([^"]+)"', path.read_text()):
            assert (path.parent / name).is_file(), f"{path.name} includes {name}"
    for path in (ROOT / "src").glob("*.pxi"):
        if path.name != "tables.pxi":
            assert "cdef extern from \"kernels" not in path.read_text(), f"{path.name} opens a door of its own to the kernels"


def sources():
    """Files that people write: no product of a build."""
    for folder, endings in (("src", ".c .h .inc .pyx .pxi"), ("src/kernels", ".c .h .inc"), ("fastcurv", ".py"), ("tests", ".py .c"),
                            ("benchmarks", ".py"), ("examples", ".py"), (".", ".py .toml .in")):
        for path in sorted((ROOT / folder).iterdir()):
            if path.suffix in endings.split() and path.name != "engine.c":
                yield path


def test_files_stay_short():
    """Past 500 lines a file is split."""
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in sources()}
    assert len(lengths) > 50
    assert {name: length for name, length in lengths.items() if length > 500} == {}


def test_no_flags_that_break_others():
    """Fast-math on a link line changes the arithmetic of the whole process, and -march the machines a wheel runs on."""
    for name in ("setup.py", "pyproject.toml", "Makefile"):
        lines = [line.split("#")[0] for line in (ROOT / name).read_text().splitlines()]
        assert not re.search(r"-ffast-math|-Ofast|-march|-mcpu|-funsafe", "\n".join(lines)), name
    for path in sources():
        if path.suffix in (".c", ".inc", ".h"):
            assert not re.search(r"fast-math|Ofast", path.read_text()), path.name


def test_the_library_does_not_print():
    """Only what talks to a shell prints."""
    talkers = {"cli", "commands", "demo", "config", "__main__"}
    for name in MODULES:
        calls = [node.func.id for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text()))
                 if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        assert name in talkers or not {"print", "exit", "quit"} & set(calls), name


def test_import_is_light(python):
    """`import fastcurv` brings NumPy and SciPy and none of what is only asked for at times."""
    python(f"""
import sys
import fastcurv
assert not [name for name in {HEAVY!r} if name in sys.modules], [name for name in {HEAVY!r} if name in sys.modules]
""")


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    """Every example of every docstring runs and prints what it says."""
    module = importlib.import_module(f"fastcurv.{name}")
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples of fastcurv.{name}; see the captured output"


def public():
    return {name: value for name, value in vars(fastcurv).items()
            if not name.startswith("_") and getattr(value, "__module__", "").startswith("fastcurv.")}


@pytest.mark.parametrize("name", sorted(public()))
def test_public_names_are_documented(name):
    """What `import fastcurv` offers says what it is, and shows it."""
    text = public()[name].__doc__ or ""
    assert text.strip(), f"fastcurv.{name} has no docstring"
    assert ">>>" in text, f"the docstring of fastcurv.{name} has no example"


def test_one_version():
    """The package, its metadata and its newest entry in the list of changes say the same."""
    declared = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert fastcurv.__version__ == declared
    released = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert not released or released[0] == declared
    fallback = re.search(r'__version__ = "([^"]+)"', (PACKAGE / "__init__.py").read_text())
    assert fallback is None or fallback[1] == declared
