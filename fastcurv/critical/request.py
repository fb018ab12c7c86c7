"""What was asked of `classify`, checked once and then fixed."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..answers import OBJECTIVE, need
from ..checks import as_rng, check_positive, check_positive_int, check_theta
from ..eigensolver import PER_CUBE
from ..spectrum.shared_run import Krylov
from .knowledge import as_stored


@dataclass(frozen=True, eq=False)
class Request:
    """The arguments of `classify`; ``seek``: whether to walk to what lies near."""

    ob: Any
    theta: np.ndarray
    gradient_tol: float | None
    curvature_tol: float
    failure_probability: float | None
    max_products: int | None
    dense_below: float
    seed: Any
    krylov: Krylov | None
    max_time: float | None = None
    seek: bool = True

    @property
    def n(self) -> int:
        return self.theta.size

    @property
    def dense(self) -> bool:
        """Whether the whole spectrum is computed."""
        return self.dense_in_time and (self.max_time is None or self.seconds <= self.max_time)

    @property
    def dense_in_time(self) -> bool:
        """Whether it is where time lasts."""
        return self.n < self.dense_below and (
            self.max_products is None or self.max_products >= self.n
        )

    @property
    def seconds(self) -> float:
        """What all eigenvalues take, roughly."""
        return PER_CUBE * float(self.n) ** 3


def make_request(
    ob: Any,
    theta: Any,
    *,
    gradient_tol: float | None,
    curvature_tol: float,
    failure_probability: float | None,
    max_products: int | None,
    max_time: float | None,
    dense_below: float,
    seed: Any,
    krylov: Any,
) -> Request:
    """Check everything that can be checked before the first product."""
    real = isinstance(dense_below, numbers.Real) and not isinstance(dense_below, bool)
    if not real or np.isnan(dense_below):
        raise TypeError(f"dense_below is {dense_below!r}; wanted a number of parameters")
    theta = _point(ob, theta)
    as_rng(seed)  # is one, though few questions draw from it
    if gradient_tol is not None:
        gradient_tol = check_positive(gradient_tol, "gradient_tol", zero=True)
    if failure_probability is not None:
        failure_probability = check_positive(failure_probability, "failure_probability")
        if failure_probability >= 1:
            raise ValueError(
                f"failure_probability is {failure_probability}; wanted a number between 0 and 1"
            )
    return Request(
        ob,
        theta,
        gradient_tol,
        check_positive(curvature_tol, "curvature_tol"),
        failure_probability,
        None if max_products is None else check_positive_int(max_products, "max_products"),
        float(dense_below),
        seed,
        None if krylov is None else check_run(krylov, theta),
        None if max_time is None else check_positive(max_time, "max_time"),
    )


def _point(ob: Any, theta: Any) -> np.ndarray:
    need(ob, ("n_params", "gradient", "hessian"), "ob", OBJECTIVE, theta)
    point = check_theta(ob, theta, "theta", np.float64)
    return as_stored(ob, point).copy()


def check_run(run: Any, theta: np.ndarray) -> Krylov:
    """`run` as a `Krylov` on the Hessian at theta."""
    if not isinstance(run, Krylov):
        raise TypeError(
            f"krylov is a {type(run).__name__}; wanted a fastcurv.Krylov on the Hessian at theta"
        )
    if run.n != theta.size:
        raise ValueError(
            f"krylov runs on an operator with n = {run.n}; wanted the Hessian at theta, n = "
            f"{theta.size}"
        )
    there = getattr(run.op, "theta", None)
    if there is not None and not np.array_equal(np.asarray(there, dtype=float), theta):
        raise ValueError(
            "krylov runs on the Hessian at another theta; wanted one made from ob.hessian(theta)"
        )
    return run
