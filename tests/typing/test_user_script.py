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


def test_the_compiled_module_has_a_stub():
    """One module, of which all that the package takes from it is described."""
    engine = FOLDER.parent.parent / "fastcurv" / "_engine"
    assert [path.stem for path in engine.glob("*.pyi")] == ["core"]
    described = (engine / "core.pyi").read_text()
    for name in fastcurv._engine.__all__:
        assert re.search(rf"(def|class) {name}\b|^{name}:", described, re.MULTILINE), name
