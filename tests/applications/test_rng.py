"""Every public call that draws random numbers takes them from `rng`, as SPEC 7 has it."""

import inspect

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

import fastcurv as fc  # noqa: E402
from fastcurv import testing  # noqa: E402
from fastcurv.applications.cli import report  # noqa: E402
from fastcurv.applications.uncertainty.laplace import LaplacePosterior  # noqa: E402

from ..public import public  # noqa: E402

A = np.diag([-7.0, 1.0, 2.0, 3.0, 5.0])
X = np.random.default_rng(0).standard_normal((20, 2))
OB = fc.Objective(fc.MLP([2, 2, 1]), X, X[:, 0], loss="mse", l2=0.1)
THETA = OB.model.init(rng=0)
MINIMUM = fc.minimize(OB, THETA).x
SADDLE = testing.lecture_toy()
NET = testing.LinearAutoencoder([3.0, 2.0, 1.0], 2)
EST = fc.MLPRegressor((2,), "tanh", alpha=1.0, random_state=0).fit(X, X[:, 0])
DRAWS = {"directions": "random", "n_grid": 3}
STEPS = {"n_probes": 2, "n_steps": 3}

# each public call with `rng`, as a function of it that returns numbers
CALLS = {
    "LandscapeDisplay.from_objective": lambda **how: (
        fc.LandscapeDisplay.from_objective(OB, THETA, **DRAWS, **how).losses
    ),
    "LandscapeDisplay.slice": lambda **how: (
        fc.LandscapeDisplay.slice(OB, THETA, **DRAWS, **how).losses
    ),
    "LaplacePosterior.sample": lambda **how: fc.laplace(OB, MINIMUM).sample(2, **how),
    "MLP.init": lambda **how: OB.model.init(**how),
    "SpectrumDisplay.from_operator": lambda **how: (
        fc.SpectrumDisplay.from_operator(A, **STEPS, **how).density.weights
    ),
    "classify": lambda **how: fc.classify(SADDLE, [0.0, 0.0], dense_below=0, **how).kind,
    "diagonal": lambda **how: fc.diagonal(A, 3, **how).estimate,
    "eigsh": lambda **how: fc.eigsh(A, 2, **how).vectors,
    "escape": lambda **how: fc.escape(SADDLE, [0.0, 0.0], **how).x,
    "frobenius_norm": lambda **how: fc.frobenius_norm(A, 3, **how).estimate,
    "minimize": lambda **how: fc.minimize(OB, max_iter=2, verdict=False, **how).x,
    "report": lambda **how: fc.report(EST, X, X[:, 0], **how).to_dict()["left_out_score"],
    "sample_critical_points": lambda **how: (
        [point.theta for point in fc.sample_critical_points(OB, 2, sources="descent", **how)]
    ),
    "spectral_density": lambda **how: fc.spectral_density(A, **STEPS, **how).weights,
    "spectrum.Tracker": lambda **how: fc.spectrum.Tracker(OB, **how)(THETA).values,
    "testing.LinearAutoencoder": lambda **how: testing.LinearAutoencoder([2.0, 1.0], 1, **how).X,
    "testing.LinearAutoencoder.case": lambda **how: NET.case([1], **how).theta,
    "testing.LinearAutoencoder.cases": lambda **how: NET.cases(**how)[0].theta,
    "testing.LinearAutoencoder.critical_point": lambda **how: NET.critical_point([1], **how),
    "testing.PrescribedSpectrum": lambda **how: (
        testing.PrescribedSpectrum([1.0, 2.0], **how) @ np.eye(2)
    ),
    "trace": lambda **how: fc.trace(A, 3, **how).estimate,
}


def parameters(call):
    """Return the names of the parameters of a callable."""
    try:
        return inspect.signature(call).parameters
    except (TypeError, ValueError):
        return {}


def test_the_table_has_every_call_with_rng():
    calls = {**public(), "LaplacePosterior": LaplacePosterior}
    calls |= {f"testing.{name}": getattr(testing, name) for name in testing.__all__}
    for name, owner in list(calls.items()):
        if inspect.isclass(owner):
            methods = [word for word in dir(owner) if not word.startswith("_")]
            calls |= {f"{name}.{method}": getattr(owner, method) for method in methods}
    drawing = {name for name, call in calls.items() if "rng" in parameters(call)}
    assert drawing - {"Objective.batches", "StreamedObjective.batches"} == set(CALLS)
    assert not [name for name, call in calls.items() if "seed" in parameters(call)]


@pytest.mark.parametrize("name", CALLS)
def test_forms_of_rng_draw_the_same(name, monkeypatch):
    monkeypatch.setattr(report, "svg_markup", lambda *_, **__: "")  # drawing takes most of the time
    call = CALLS[name]
    drawn = call(rng=np.random.default_rng(3))
    for rng in (3, np.random.default_rng(3), np.random.PCG64(3), np.random.SeedSequence(3)):
        assert np.array_equal(call(rng=rng), drawn), rng
    with pytest.raises(TypeError, match="rng must be .* BitGenerator or Generator"):
        call(rng="3")
    with pytest.raises(ValueError, match="rng must be None, an int >= 0"):
        call(rng=-1)
