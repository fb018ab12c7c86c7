"""L-BFGS: SciPy's, under the budgets, the records and the verdict of `minimize`."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize as scipy_minimize

from ..checks import check_positive_int
from .run import Method


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

        def after(intermediate_result: Any) -> None:
            theta = intermediate_result.x.astype(run.theta.dtype)
            np.copyto(run.theta, theta)
            if np.array_equal(seen["theta"], theta):
                run.f, run.g = seen["f"], seen["g"]
                run.gnorm = float(np.linalg.norm(run.g))
            else:
                run.bind()
            loop.after_step()
            loop.why = "critical" if loop.critical() else loop.end()
            if loop.why is not None:
                raise StopIteration

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
        found: Any = scipy_minimize(
            fun,
            run.theta.astype(np.float64),
            jac=True,
            method="L-BFGS-B",
            callback=after,
            options=rounding,
        )
        if loop.why is None:
            loop.why, loop.sentence = "stalled", f"SciPy's L-BFGS-B ended: {found.message}"
