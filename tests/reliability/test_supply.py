"""The supply chain: what the library is built from and with, and that no file is executed."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastcurv

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(fastcurv.__file__).parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
BUILD = ROOT / "packaging" / "build-requirements.txt"
from_a_checkout = pytest.mark.skipif(not WORKFLOWS, reason="installed without its workflows")

FORBIDDEN = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "subprocess", "ctypes"}
# A table is read in a child process of the same Python, whose memory and time are limited.
STARTS_PYTHON = {"applications/cli/tables.py"}


def test_sources_execute_no_files_or_programs():
    """The sources contain no eval, exec or pickle, start no program except Python for a table, and
    never load arrays with objects.
    """
    paths = sorted(PACKAGE.rglob("*.py"))
    assert len(paths) > 100
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            where = path.name, getattr(node, "lineno", 0)
            if isinstance(node, ast.Call):
                if isinstance(node.func, ast.Name):
                    assert node.func.id not in FORBIDDEN, where
                for word in node.keywords:
                    if word.arg == "allow_pickle":
                        assert ast.unparse(word.value) == "False", where
                    if word.arg == "weights_only":
                        assert ast.unparse(word.value) == "True", where
            elif isinstance(node, ast.Import):
                known = (
                    {"subprocess"}
                    if path.relative_to(PACKAGE).as_posix() in STARTS_PYTHON
                    else set()
                )
                assert not {a.name.split(".")[0] for a in node.names} & MODULES - known, where
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                assert node.module.split(".")[0] not in MODULES, where


@pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("readelf"), reason="needs an ELF, and who reads it"
)
def test_the_extension_is_linked_with_hardening():
    """The compiled extension is linked with full RELRO (symbols bound at load time, then read-only)
    and stack protection.
    """
    path = fastcurv._engine.core.__file__

    def said(*options):
        return subprocess.run(
            ["readelf", "-W", *options, path], capture_output=True, text=True, check=True
        ).stdout

    if "__asan_init" in said("--dyn-syms"):
        pytest.skip("built with sanitizers, which watch more")
    assert "BIND_NOW" in said("-d") and "GNU_RELRO" in said("-l")
    assert re.search(r"UND __stack_chk_fail\b", said("--dyn-syms"))


@pytest.mark.parametrize("installed", [False, True])
def test_importing_an_unbuilt_source_folder_explains_the_cure(installed, tmp_path, python):
    """Importing from a source folder without the compiled extension raises an error that states how
    to build the extension, or to leave the folder if it hides an installed copy.
    """
    source, site, rest = (tmp_path / name for name in ("source", "site", "rest"))
    shutil.copytree(PACKAGE, source / "fastcurv", ignore=shutil.ignore_patterns("*.so", "*.pyd"))
    site.mkdir()
    rest.mkdir()
    for path in PACKAGE.parent.iterdir():  # an installed package has NumPy next to it
        if path != PACKAGE:
            (rest / path.name).symlink_to(path)
    if installed:
        (site / "fastcurv").symlink_to(PACKAGE, target_is_directory=True)
    done = python(
        "import sys\n"
        "sys.meta_path = [x for x in sys.meta_path if 'editable' not in repr(x)]\n"
        f"sys.path = [x for x in sys.path if x and x != {str(PACKAGE.parent)!r}]\n"
        f"sys.path.append({str(rest)!r})\n"
        f"sys.path.insert(0, {str(site)!r})\n"
        f"sys.path.insert(0, {str(source)!r})\nimport fastcurv",
        check=False,
    )
    said = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and said.startswith("ImportError: ") and str(source) in said
    assert said.endswith("pip install -e .")
    assert (str(site) in said and "Leave the source folder" in said) == installed


@from_a_checkout
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_have_read_permission_and_pin_their_actions(path):
    text = path.read_text()
    before_jobs = text.split("\njobs:")[0]
    assert re.search(r"^permissions:\n  contents: read$", before_jobs, re.M)
    assert "write-all" not in text and "pull_request_target" not in text
    assert set(re.findall(r"(\S+): write", text)) <= {
        "id-token",
        "attestations",
        "pages",
        "contents",
    }
    used = re.findall(r"uses:\s*(\S+)", text)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", action), action
    for install in re.findall(r"pip install (.*)", text):
        assert "--require-hashes" in install, install
    jobs = re.split(r"(?m)^  (?=[\w-]+:$)", text.split("\njobs:\n")[1])[1:]
    for job in jobs:
        assert "timeout-minutes: " in job
        # A job with rights runs no code of the repository.
        assert ": write" not in job or "make " not in job and "actions/checkout@" not in job
    for step in re.split(r"(?m)^      - ", text):
        if "actions/checkout@" in step:
            assert "persist-credentials: false" in step


@from_a_checkout
def test_the_program_of_the_conda_recipe_runs_the_readme():
    """The line of the conda recipe's tests that runs the programs of the README succeeds."""
    recipe = (ROOT / "packaging" / "conda-forge" / "recipe.yaml").read_text()
    ((first, second),) = re.findall(r"^ +python (-c .*)\n +(.*)$", recipe, re.M)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = f"{sys.executable} {first} {second}"
    done = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0 and done.stdout.count("Proved") == 2, done.stderr


@from_a_checkout
@pytest.mark.parametrize("name", ["build-requirements.txt", "release-requirements.txt"])
def test_requirements_of_a_release_are_pinned_by_hash(name):
    lines = (ROOT / "packaging" / name).read_text().replace("\\\n", " ").splitlines()
    pins = [line for line in lines if line.strip() and not line.strip().startswith("#")]
    assert pins
    for line in pins:
        assert re.match(r"[\w.-]+==[\w.]+[ ;]", line), line
        assert re.findall(r"--hash=sha256:[0-9a-f]{64}", line), line


@from_a_checkout
def test_pinned_projects_equal_build_requirements():
    """The pinned projects are those that [build-system] requires, and releases are built with no
    others.
    """
    project = (ROOT / "pyproject.toml").read_text()
    requires = re.search(r"^requires = \[(.*)\]", project, re.M)[1]
    asked = {re.match(r"[\w-]+", word)[0] for word in re.findall(r'"([^"]+)"', requires)}
    pinned = set(re.findall(r"^([\w.-]+)==", BUILD.read_text(), re.M))
    assert asked <= pinned
    assert "--require-hashes -r {project}/packaging/build-requirements.txt" in project
    assert "--no-isolation" in project
