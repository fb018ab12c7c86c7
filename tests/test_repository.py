"""The rules of the repository, checked on its files: imports between subpackages, lengths of files
and functions, and that every docstring example runs.
"""

import ast
import doctest
import functools
import graphlib
import importlib
import re
import runpy
from pathlib import Path

import pytest

import fastcurv

from .public import public

PACKAGE = Path(fastcurv.__file__).parent
ROOT = Path(__file__).resolve().parent.parent
NEEDS = {
    "applications.convert.onnx": "onnx",
    "applications.convert.torch": "torch",
}  # modules whose examples need a package
HEAVY = ("matplotlib", "sklearn", "tqdm", "torch", "jax", "pandas")


layers_script = runpy.run_path(str(ROOT / "docs" / "layers.py"))
tree, imported_by, MODULES = (
    layers_script["tree"],
    layers_script["imported_by"],
    layers_script["modules"](),
)
INSIDE = sorted(set(MODULES) - {"", "__main__"})


@functools.cache
def imports_of(name):
    """Return the set of modules and names of the package that the module `name` imports."""
    return imported_by(MODULES[name], name, MODULES) if name in INSIDE else set()


def test_every_form_of_import_is_recognised(tmp_path):
    """`imported_by`, which the following rules use, recognises every form of import statement."""
    file = tmp_path / "some.py"
    file.write_text(
        "from .a import x\nfrom .. import b\nimport fastcurv.c\nfrom fastcurv import d\n"
        "from fastcurv.e import y\nfrom ..h.i import j\n"
        "def f():\n    from .g import z\n    import fastcurv as fc\nimport numpy\n"
    )
    seen = imported_by(file, "room.some", {"b": 0})
    assert seen == {"room.a", "b", "c", "d", "e", "h.i", "room.g", "fastcurv"}
    loaded = imported_by(file, "room.some", {"b": 0}, inside=False)
    assert loaded == {"room.a", "b", "c", "d", "e", "h.i"}
    assert {"krylov.lanczos", "critical.classify"} <= set(MODULES)
    assert "_engine" in imports_of("network.plans")


def test_modules_have_no_circular_imports():
    """No module imports itself through others, including imports inside functions and for types."""

    graphlib.TopologicalSorter({name: imports_of(name) for name in INSIDE}).prepare()


def test_kernels_include_no_header_of_a_higher_layer():
    """The kernels include only headers of their own folder and of the system, and only kernels.pxd
    declares kernels to Cython.
    """
    for path in (ROOT / "src" / "kernels").iterdir():
        for name in re.findall(r'#\s*include\s+"([^"]+)"', path.read_text()):
            assert (path.parent / name).is_file(), f"{path.name} includes {name}"
    for path in (PACKAGE / "_engine").glob("*.p[yx]*"):
        if path.name != "kernels.pxd":
            assert 'cdef extern from "kernels' not in path.read_text(), (
                f"{path.name} calls the kernels outside the kernel table"
            )


def test_the_extension_is_built_from_the_files_of_its_folder():
    folder = ROOT / "fastcurv" / "_engine"  # an installed package has no sources
    files = {path.name: path.read_text() for path in folder.glob("*.p[yx][xd]")}
    included = re.findall(r'^include "(\w+\.p[yx][xd])"$', files.pop("core.pyx"), re.M)
    assert sorted(included) == sorted(files)
    for name, text in files.items():
        assert not re.search(r"^from \.", text, re.M), name
    for path in PACKAGE.rglob("*.py"):
        if path.parts[-2:] != ("_engine", "__init__.py"):
            assert "testing_hooks" not in path.read_text(), f"{path.name} uses hooks of tests"


def test_methods_that_the_engine_calls_on_itself_exist():
    """Every ``self.name(...)`` in a .pyx file is defined in the engine or in a Python subclass,
    which Cython cannot check.
    """
    sources = {  # an installed package has its .py files elsewhere than the tests have .pyx files
        path: path.read_text()
        for folder in {PACKAGE, ROOT / "fastcurv"}
        for path in folder.rglob("*")
        if path.suffix in (".py", ".pyx", ".pxd")
    }
    text = "\n".join(sources.values())
    defined = set(re.findall(r"^ *c?p?def [^\n=]*?(\w+)\(", text, re.MULTILINE))
    defined |= set(re.findall(r"self\.(\w+)(?:, self\.\w+)* = ", text))
    defined |= set(re.findall(r"^ +cdef [^\n(]*?(\w+)$", text, re.MULTILINE))
    called = {
        name
        for path, text in sources.items()
        if path.suffix == ".pyx"
        for name in re.findall(r"\bself\.(\w+)\(", text)
    }
    assert len(called) > 50 and called <= defined, called - defined


def test_no_compiler_flags_change_arithmetic_or_portability():
    """No build file uses -ffast-math, which changes the arithmetic of the whole process, or -march,
    which restricts the machines on which a wheel runs.
    """
    for name in ("setup.py", "pyproject.toml", "Makefile"):
        lines = [line.split("#")[0] for line in (ROOT / name).read_text().splitlines()]
        assert not re.search(r"-ffast-math|-Ofast|-march|-mcpu|-funsafe", "\n".join(lines)), name
    for path in (ROOT / "src").rglob("*.[chi]*"):
        assert not re.search(r"fast-math|Ofast", path.read_text()), path.name


def test_library_code_calls_no_print():
    """Only modules of the command line, common/runtime.py and the program that checks certificates
    call print or exit.
    """
    others = ("common.runtime", "applications.certificate.check_certificate")
    for name, path in MODULES.items():
        calls = {getattr(n.func, "id", "") for n in ast.walk(tree(path)) if isinstance(n, ast.Call)}
        talks = name.startswith(("applications.cli", "__main__")) or name in others
        assert talks or not {"print", "exit", "quit"} & calls, name


def test_importing_fastcurv_loads_no_optional_package(python):
    """`import fastcurv` and access to its main classes load neither an optional package nor
    scipy.optimize.
    """
    python(f"""
import sys
import fastcurv
fastcurv.MLP, fastcurv.Objective, fastcurv.eigsh  # SciPy's optimisers take longer than all of it
heavy = [name for name in {(*HEAVY, "scipy.optimize")!r} if name in sys.modules]
assert not heavy, heavy
""")


# By day, `test_importing_fastcurv_loads_no_optional_package` tests what is imported.
@pytest.mark.nightly
def test_import_takes_at_most_100_ms(clock, python):
    """Importing the package after NumPy and scipy.sparse.linalg takes at most 100 ms in the fastest
    of at most eight processes.
    """
    python(f"""
import subprocess, sys
code = (
    "import time, numpy, scipy.sparse.linalg; start = time.{clock}(); import fastcurv; "
    "print(time.{clock}() - start); import sys; assert 'scipy.optimize' not in sys.modules"
)
def once():
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    return float(done.stdout)
times = []
while min(times, default=1.0) > 0.1:
    times.append(once())
    assert len(times) <= 8, times
""")


def test_public_names_are_defined_where_the_table_says():
    for name in fastcurv.__all__:
        assert getattr(fastcurv, name).__name__.split(".")[-1] == name
    with pytest.raises(AttributeError, match="no attribute 'wish'"):
        _ = fastcurv.wish


@pytest.mark.parametrize("name", INSIDE)
def test_docstring_examples_print_their_shown_output(name):
    """Every docstring example of a module runs and prints the shown output. Examples of converters
    are skipped if the other library is not installed.
    """
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    module = importlib.import_module(f"fastcurv.{name}")
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0, (
        f"{result.failed} of {result.attempted} examples of fastcurv.{name}; see the captured "
        "output"
    )


def test_public_names_are_documented():
    """Every public name has a docstring with an example."""
    texts = {name: found.__doc__ or "" for name, found in public().items()}
    assert len(texts) > 30
    assert [name for name, text in texts.items() if ">>>" not in text] == []


def test_version_is_equal_in_all_files():
    """The package, its metadata, the conda recipe, the citation and the newest entry of the
    changelog have the same version.
    """
    declared = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert fastcurv.__version__ == declared
    released = re.findall(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert not released or released[0] == declared
    fallback = re.search(r'VERSION = "([^"]+)"', (PACKAGE / "common" / "runtime.py").read_text())
    assert fallback is None or fallback[1] == declared
    for name in ("packaging/conda-forge/recipe.yaml", "CITATION.cff"):
        assert re.search(rf"^ *version: {declared}$", (ROOT / name).read_text(), re.M), name


def programs_in_strings(path):
    """Return the programs that a test file has in strings."""
    nodes = [*ast.walk(ast.parse(path.read_text()))]
    parts = {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) if node not in parts]
    return [
        text.replace("!r}", "}")  # of str.format, whose other braces are sets in Python
        for text in texts
        if isinstance(text, str) and re.search(r"\n(import|from) .*fastcurv", text)
    ]


def test_programs_import_existing_names():
    """Programs that tests run in other processes, and benchmarks, can be parsed, and what they
    import from the library exists, even if only nightly tests run them.
    """
    paths = set((ROOT / "tests").rglob("*.py")) - {Path(__file__)}  # has imports that do not exist
    programs = [text for path in paths for text in programs_in_strings(path)]
    programs += [path.read_text() for path in (ROOT / "benchmarks").glob("*.py")]
    assert len(programs) > 30
    for text in programs:
        for statement in ast.walk(ast.parse(text)):
            if not isinstance(statement, ast.ImportFrom) or not statement.module:
                continue
            names = {alias.name for alias in statement.names}
            if statement.module.split(".")[0] == "fastcurv" and names != {"plots"}:  # not core
                exec(ast.unparse(statement), {})  # an ImportError if the name does not exist


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def private_names(file):
    """Yield the names of functions, classes, variables and attributes that a file defines."""
    for node in ast.walk(tree(file)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield from [node.attr] * (ast.unparse(node.value) in ("self", "cls"))


def private_uses(file):
    """Yield the names of other files that a file uses through attributes, `getattr` or imports."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Attribute):
            if ast.unparse(node.value) not in ("self", "cls", "super()"):
                yield node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            yield from (part.value for part in node.args[1:2] if isinstance(part, ast.Constant))


def test_no_subpackage_uses_private_names_of_another(tmp_path):
    """No module uses a private name that only other subpackages define."""
    file = tmp_path / "some.py"
    file.write_text(
        "from .a import _b\n_c = x._d(self._e, getattr(y, '_f'))\nclass _G:\n"
        "    def _h(self):\n        self._i = super()._j\n"
    )
    assert {name for name in private_uses(file) if is_private(name)} == {"_b", "_d", "_f"}
    assert {name for name in private_names(file) if is_private(name)} == {"_c", "_G", "_h", "_i"}
    homes = {}
    for name in INSIDE:
        for found in filter(is_private, private_names(MODULES[name])):
            homes.setdefault(found, set()).add(name.partition(".")[0])
    assert len(homes) > 300
    for name in INSIDE:
        used = set(filter(is_private, private_uses(MODULES[name]))) & set(homes)
        assert {one for one in used if name.partition(".")[0] not in homes[one]} == set(), name
