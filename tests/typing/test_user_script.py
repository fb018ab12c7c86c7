"""A user's script with types: it runs, and names everything that is public. `make lint` holds it,
and the stubs of the compiled modules, against mypy.
"""

import re
from pathlib import Path

import fastcurv

FOLDER = Path(__file__).resolve().parent


def test_the_script_runs(python):
    python((FOLDER / "user_script.py").read_text())


def test_the_script_uses_every_public_name():
    used = set(re.findall(r"\bfc\.(\w+)", (FOLDER / "user_script.py").read_text()))
    assert set(fastcurv.__all__) - used == set()


def test_every_compiled_module_has_a_stub():
    engine = FOLDER.parent.parent / "fastcurv" / "_engine"
    modules = {path.stem for path in engine.glob("*.pyx")}
    assert len(modules) > 10 and {path.stem for path in engine.glob("*.pyi")} == modules
