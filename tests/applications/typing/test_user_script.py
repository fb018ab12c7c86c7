"""A typed user script runs and uses every public name. `make lint` checks that script and the stubs
of compiled modules with mypy.
"""

import inspect
import re
from pathlib import Path
from typing import get_args

import pytest

import fastcurv
from fastcurv.applications.estimators.parameters import SOLVER_NAMES
from fastcurv.common import protocols
from fastcurv.network.mlp import INIT_SCHEMES
from fastcurv.optimize.minimize import METHOD_ALIASES, METHODS
from fastcurv.structure import tables
from tests.applications.typing import refused
from tests.public import public

FOLDER = Path(__file__).resolve().parent


def test_the_typed_user_script_runs(python):
    python((FOLDER / "user_script.py").read_text())


def test_the_script_uses_every_public_name():
    text = (FOLDER / "user_script.py").read_text()
    assert [name for name in public() if not re.search(rf"\bfc\.{name}\b", text)] == []


def test_the_stub_describes_everything_the_package_imports():
    engine = FOLDER.parents[2] / "fastcurv" / "_engine"
    assert [path.stem for path in engine.glob("*.pyi")] == ["core"]
    described = (engine / "core.pyi").read_text()
    for name in fastcurv._engine.__all__:
        assert re.search(rf"(def|class) {name}\b|^{name}:", described, re.MULTILINE), name


def test_errors_of_type_checkers_are_errors_at_run_time():
    refused.check_inferred_types()
    for call in refused.REFUSED:
        with pytest.raises(
            (TypeError, ValueError), match=r" must |Use |unexpected keyword argument"
        ):
            call()


@pytest.mark.parametrize(
    "named, there",
    [
        (tables.ActivationName, fastcurv._engine.ACTIVATIONS),
        (tables.ActivationName, tables.ACTIVATIONS),
        (tables.LossName, tables.LOSSES),
        (protocols.Scheme, INIT_SCHEMES),
        (protocols.FirstOrder | protocols.SecondOrder, {**METHODS, **METHOD_ALIASES}),
        (protocols.Solver, SOLVER_NAMES),
    ],
)
def test_names_for_checkers_are_those_at_run_time(named, there):
    parts = get_args(named)
    names = {n for part in parts for n in (get_args(part) or (part,))}
    assert names == set(there)


def test_every_method_of_minimize_has_an_order():
    second = {name for name, method in METHODS.items() if method.curvature}
    assert set(get_args(protocols.SecondOrder)) == second | {"lm"}


def callables():
    """Yield (name, object) for every public function and class and for every public method."""
    for name, found in public().items():
        if name.endswith("Warning"):  # exceptions have their common signature
            continue
        yield name, found
        for part, method in inspect.getmembers(found) if inspect.isclass(found) else ():
            if not part.startswith("_") and callable(method):
                yield f"{name}.{part}", method


def test_no_signature_in_help_exceeds_800_characters():
    lengths = {name: len(f"{name}{inspect.signature(found)}") for name, found in callables()}
    assert len(lengths) > 100 and {name: n for name, n in lengths.items() if n > 800} == {}
