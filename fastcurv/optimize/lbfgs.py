"""L-BFGS: SciPy's, under the budgets, the records and the verdict of `minimize`."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from scipy.optimize import minimize as scipy_minimize

from ..checks import check_positive_int
from .run import Method


class _Enough(Exception):
    """Ends SciPy's loop; its own sign for that is newer than the oldest SciPy promised."""


class LBFGS(Method):
    """SciPy's ``L-BFGS-B`` with `memory` pairs.

    Its state stays inside SciPy: a resumed run starts it afresh.
    """

    memory: int

    defaults = {"memory": 20}

    def prepare(self) -> None:
        self.memory = check_positive_int(self.memory, "memory")

    def drive(self, loop: Any) -> None:
        """Run SciPy's loop; after each of its iterations ours has its say."""
        run = self.run
        seen: dict[str, Any] = {}

        def fun(x: Any) -> Any:
            theta = x.astype(run.theta.dtype)
            f, g = run.value_and_gradient(theta)
            seen["theta"], seen["f"], seen["g"] = theta, f, np.array(g)
            return f, seen["g"].astype(np.float64)

        def after(xk: Any) -> None:
            theta = xk.astype(run.theta.dtype)
            np.copyto(run.theta, theta)
            if np.array_equal(seen["theta"], theta):
                run.f, run.g = seen["f"], seen["g"]
                run.gnorm = float(np.linalg.norm(run.g))
            else:
                run.bind()
            loop.after_step()
            loop.why = "critical" if loop.critical() else loop.end()
            if loop.why is not None:
                raise _Enough

        loop.why = "critical" if loop.critical() else loop.end()
        if loop.why is not None:
            return
        rounding: Any = {
            "ftol": 0.0,
            "gtol": 0.0,
            "maxiter": 2**31 - 1,
            "maxfun": 2**31 - 1,
            "maxcor": self.memory,
        }
        with contextlib.suppress(_Enough):
            found: Any = scipy_minimize(
                fun,
                run.theta.astype(np.float64),
                jac=True,
                method="L-BFGS-B",
                callback=after,
                options=rounding,
            )
            loop.why, loop.sentence = "stalled", f"SciPy's L-BFGS-B ended: {found.message}"
