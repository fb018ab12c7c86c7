"""Calls that type checkers must reject, as checks at run time do, and inferred types of public
names.

A superfluous `type: ignore` fails under ``mypy --strict`` (`make lint`) and pyright.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_type

import numpy as np
import numpy.typing as npt

import fastcurv as fc
from fastcurv.network.operators import Curvature
from fastcurv.spectrum.density_curve import SpectralDensity
from fastcurv.spectrum.results import Eigenpairs, Estimate

X = np.random.default_rng(0).standard_normal((20, 3))
Y = np.arange(20) % 2
MODEL = fc.MLP([3, 4, 2], activation=["tanh"])
THETA = MODEL.init(rng=0)
OB = fc.Objective(MODEL, X, Y, loss="cross_entropy")
H = OB.hessian(THETA)


class Parabola:
    """The user-defined objective x'x of two variables, with its own type annotations."""

    n_params = 2

    def value(self, x: npt.NDArray[np.float64]) -> float:
        return float(x @ x)

    def gradient(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return 2 * x

    def hessian(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return 2 * np.eye(len(x))


def check_inferred_types() -> None:
    """Assert the types of results that type checkers infer, which editors use for completion, and
    results of correctly typed calls.
    """
    assert_type(fc.Objective(MODEL, X, Y), fc.Objective)
    assert_type(fc.StreamedObjective(MODEL, X, Y), fc.StreamedObjective)
    assert_type(H, Curvature)
    assert_type(fc.eigsh(H, 2, "SA"), Eigenpairs)
    assert_type(fc.trace(H, 10, rng=0), Estimate)
    assert_type(fc.spectral_density(H, 2, 5), SpectralDensity)
    assert_type(fc.classify(OB, THETA).kind, str)
    assert_type(fc.MLPClassifier(max_iter=400).fit(X, Y), fc.MLPClassifier)
    assert_type(fc.MLPRegressor(max_iter=400).fit(X, Y), fc.MLPRegressor)
    assert fc.minimize(Parabola(), np.ones(2), "newton-cg").kind == "minimum"
    assert fc.classify(Parabola(), np.zeros(2), max_time=60.0).kind == "minimum"
    assert fc.find_critical_point(Parabola(), np.ones(2), "newton-mr").success
    assert not fc.escape(Parabola(), np.ones(2)).success
    fc.MLPClassifier(solver="lbfgs", activation="logistic")
    assert fc.minimize(OB, THETA, "lbfgs", max_iter=2, verdict=False).nit == 2


REFUSED: list[Callable[[], object]] = [
    lambda: fc.Objective(MODEL, X, Y, loss="crossentropy"),  # type: ignore[arg-type]
    lambda: fc.Objective(MODEL, X, Y, lss="mse"),  # type: ignore[call-arg]
    lambda: fc.StreamedObjective(MODEL, X, Y, loss="l2"),  # type: ignore[arg-type]
    lambda: fc.MLP([3, 4, 2], activation="swish"),  # type: ignore[arg-type]
    lambda: fc.MLP([3, 4, 2], activation=["swish"]),  # type: ignore[list-item]
    lambda: fc.MLP([3, 4, 2], activations="tanh"),  # type: ignore[call-arg]
    lambda: MODEL.init(0, "kaiming"),  # type: ignore[arg-type]
    lambda: fc.eigsh(H, 3, whcih="SA"),  # type: ignore[call-arg]
    lambda: fc.eigsh(H, 3, "SB"),  # type: ignore[arg-type]
    lambda: fc.spectral_density(H, axis="symlog"),  # type: ignore[arg-type]
    lambda: fc.spectral_density(H, k=3),  # type: ignore[call-arg]
    lambda: fc.trace(H, method="hutch"),  # type: ignore[arg-type]
    lambda: fc.trace(H, probes=3),  # type: ignore[call-arg]
    lambda: fc.diagonal(H, method="xtrace"),  # type: ignore[arg-type]
    lambda: fc.frobenius_norm(H, method="xtrace"),  # type: ignore[arg-type]
    lambda: fc.classify(THETA, OB),  # type: ignore[arg-type]
    lambda: fc.classify(H, THETA),  # type: ignore[arg-type]
    lambda: fc.minimize(THETA, OB),  # type: ignore[arg-type]
    lambda: fc.minimize(OB, THETA, "nadam"),  # type: ignore[arg-type]
    lambda: fc.optimize.EarlyStopping(X),  # type: ignore[arg-type]
    lambda: fc.find_critical_point(THETA, OB),  # type: ignore[arg-type]
    lambda: fc.find_critical_point(OB, THETA, "newton"),  # type: ignore[arg-type]
    lambda: fc.find_critical_point(OB, THETA, rng=0),  # type: ignore[call-arg]
    lambda: fc.escape(THETA, OB),  # type: ignore[arg-type]
    lambda: fc.MLPClassifier(solver="nadam").fit(X, Y),  # type: ignore[arg-type]
    lambda: fc.MLPRegressor(activation="swish").fit(X, Y),  # type: ignore[arg-type]
]
