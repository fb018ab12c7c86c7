"""The runs of solvers in a fit: the choice of the weight decay, the run on all rows, escapes from
saddles, and the verdict on the last point.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ...common.checks import is_sparse
from ...common.protocols import Descent
from ...common.sentences import FIT_AUDIENCE
from ...critical.classify import classify
from ...critical.report import for_audience
from ...network.objective import Objective
from ...optimize.escape import escape
from ...optimize.minimize import STOCHASTIC_METHODS, run_method
from ...spectrum.eigsh import eigsh
from ...structure.tables import loss_spec
from .held_out import MAX_ITER_PER_ALPHA, DecayChoice, choose_decay, held_out_mask
from .rows import sum_of_weights
from .sizes import default_n_pairs

PRECOND_MIN_FLOPS = 4_000_000  # minimum flops of a gradient at which preconditioning is used


MIN_SADDLE_CURVATURE = 1e-2  # minimum |lambda_min| / |lambda_max| for an escape from a saddle
MAX_TRUST_REGION_STEPS = 25  # maximum number of trust-region steps after L-BFGS has stalled
MAX_SADDLE_ESCAPES = 4  # maximum number of saddles that "auto" escapes from
MAX_SADDLE_PRODUCTS = 40  # maximum number of Hessian products of a search for negative curvature
SADDLE_TOL = 1e-2  # residual of the eigenvalues of this search, relative to the largest
# options of mini-batch solvers: the parameter of the estimator, and the option of the solver
SOLVER_OPTIONS = {
    "adam": {"beta_1": "beta1", "beta_2": "beta2", "epsilon": "eps"},
    "momentum": {"momentum": "momentum"},
    "nesterov": {"momentum": "momentum"},
}


def _objective_of_rows(ob: Objective, rows: Any, weight: Any) -> tuple[Objective, float]:
    """Return the objective on the rows that a mask selects, and the sum of their weights. `weight`
    holds the weights of all rows, or is None.
    """
    part = ob.batch(rows)
    if weight is None:
        return part, float(part.n_samples)
    total = sum_of_weights(weight[rows])
    return part.reweighted(weight[rows].astype(float) * (part.n_samples / total)), total


class SolverRunsMixin:
    """The runs of solvers in the fit of an estimator, which declares the attributes used here."""

    solver: Any
    tol: Any
    batch_size: Any
    learning_rate_init: Any
    n_iter_no_change: int
    verbose: Any
    verdict: Any
    theta_: np.ndarray
    curvature_: Any
    _gradient_tol: Any
    _max_iter: int  # maximum number of iterations, after "auto" and None are resolved
    _scale: float
    _deadline: float | None
    _set_fitted: Any

    def _run_solver(
        self, ob: Objective, theta: np.ndarray, held: Any, seed: int, choice: DecayChoice | None
    ) -> None:
        """Minimise `ob` from theta with the solver, and set the fitted attributes. `held` is the
        objective of held-out rows, `choice` the chosen weight decay.
        """
        solver: Descent = "l-bfgs" if self.solver == "auto" else self.solver
        options: dict[str, Any] = {"validation": held, "rng": seed}
        if held is not None:
            options["patience"] = self.n_iter_no_change
        if solver in STOCHASTIC_METHODS:
            runs = [self._fit_by_batches(ob, theta, solver, held, seed)]
        elif choice is None:
            runs = [self._run_one_solver(ob, theta, solver, self._max_iter, options)]
        else:
            runs = self._refit_chosen_decay(ob, choice, options)
        if self.solver == "auto" and held is None:
            self._continue_training(ob, runs, options)
        self._set_fitted(ob, runs)
        if self.verdict:
            self.curvature_ = self._classify_final_point(ob)

    def _classify_final_point(self, ob: Objective) -> Any:
        """Return the verdict on theta_, within the remainder of max_time."""
        left = None if self._deadline is None else max(self._deadline - time.monotonic(), 1e-3)
        point = classify(ob, self.theta_, max_time=left, progress=False)
        return for_audience(point, FIT_AUDIENCE)

    def _choose_decay(
        self, ob: Objective, X: Any, weight: Any, theta: np.ndarray
    ) -> DecayChoice | None:
        """Return the weight decay chosen on held-out rows, or None if there are too few rows. `ob`
        is the objective of all rows without decay.
        """
        out = held_out_mask(X)
        if out is None:
            return None
        held, count = _objective_of_rows(ob, out, weight)
        plain, total = _objective_of_rows(ob, ~out, weight)
        steps = min(MAX_ITER_PER_ALPHA, self._max_iter)
        options = {"validation": None, "rng": 0}

        def objective_for_decay(alpha: float) -> Objective:
            return plain.with_l2(alpha / (total * self._scale))

        def minimise(ob: Objective, theta: np.ndarray, watch: Any) -> Any:
            return self._run_one_solver(ob, theta, "l-bfgs", steps, options, watch)

        return choose_decay(objective_for_decay, held, theta, minimise, count)

    def _refit_chosen_decay(
        self, ob: Objective, choice: DecayChoice, options: dict[str, Any]
    ) -> list[Any]:
        """Run L-BFGS on all rows from the best point of the chosen decay, to the loss of the fitted
        rows at that point. Run to convergence if that fit converged or `tol` is a number.
        """
        if choice.run.stopped == "interrupted":
            return [choice.run]
        cut = choice.run.stopped == "max_iter" and not choice.is_overfitting
        early = choice.is_overfitting or cut
        reached = choice.objective_at_best
        steps = self._max_iter
        reaches_goal = None
        if self.tol == "auto":  # convergence to active kinks would take all iterations
            steps = min(steps, choice.max_final_steps)
            reaches_goal = (lambda at: at.fun <= reached) if early else None
        theta = choice.watch.theta.astype(ob.dtype)
        run = self._run_one_solver(ob, theta, "l-bfgs", steps, options, reaches_goal)
        if self.tol == "auto" and (run.stopped == "max_iter" or early and run.fun <= reached):
            short = self._max_iter < MAX_ITER_PER_ALPHA and (cut or run.nit >= self._max_iter)
            run.stopped = "max_iter" if short else "held_out"
        return [choice.run, run]

    def _rows_per_gradient(self, rows: int) -> int:
        """Return the number of rows of a gradient: of a mini-batch, or all `rows`."""
        size = 200 if self.batch_size == "auto" else self.batch_size
        return min(size, rows) if self.solver in STOCHASTIC_METHODS else rows

    def _mini_batch_options(self, ob: Objective) -> dict[str, Any]:
        """Return the options of the mini-batch solver."""
        rate = self.learning_rate_init
        known = {} if rate is None else {"learning_rate": rate}
        names = SOLVER_OPTIONS.get(self.solver, {})
        known |= {option: getattr(self, name) for name, option in names.items()}
        return {"batch_size": self._rows_per_gradient(ob.n_samples)} | known

    def _fit_by_batches(
        self, ob: Objective, theta: np.ndarray, solver: Descent, held: Any, seed: int
    ) -> Any:
        """Run a mini-batch solver, and return the result at its best point.

        An epoch is scored by the loss of the held-out rows or by the mean loss of its batches, each
        at the theta at which it was used, since evaluating the loss of all rows at the end would
        take half as long as the epoch.
        """
        small = 0.0 if held is not None else self._gradient_tol / self._scale
        losses = [ob.value(theta)]
        scores = losses[:] if held is None else [held.value(theta)]
        best = theta.copy()
        lowest = scores[0]
        idle = 0

        def has_no_progress(at: Any) -> bool:
            nonlocal best, lowest, idle
            score = loss = float(at.fun)
            if held is not None and loss < np.inf:
                score = held.value(at.x)
            losses.append(loss)
            scores.append(score)
            idle = 0 if score < lowest - small else idle + 1
            if score < lowest:
                best = at.x
                lowest = score
            return bool(idle >= self.n_iter_no_change)

        options = {"validation": None, "rng": seed, "record_every": self._max_iter + 1}
        options |= self._mini_batch_options(ob)
        run = self._run_one_solver(ob, theta, solver, self._max_iter, options, has_no_progress)
        if lowest == scores[0] and not losses[-1] <= losses[0]:  # no epoch improved the score
            run.stopped = "diverged"
        run.x = best
        run.fun = ob.value(best)
        run.history = {"loss": losses}
        if held is not None:
            run.history["validation"] = scores
        return run

    def _continue_training(self, ob: Objective, runs: list[Any], options: dict[str, Any]) -> None:
        """Continue after L-BFGS: by trust-region steps if it stalled, and by an escape from a
        saddle. Append the runs to `runs`.
        """
        for _ in range(MAX_SADDLE_ESCAPES):
            left = self._max_iter - sum(run.nit for run in runs)
            if left > 0 and runs[-1].stopped == "stalled":
                steps = min(left, MAX_TRUST_REGION_STEPS)
                runs.append(self._run_one_solver(ob, runs[-1].x, "trust-region", steps, options))
                left -= runs[-1].nit
                if left > 0 and runs[-1].stopped == "max_iter":
                    runs[-1].stopped = "stalled"
            if left <= 0 or runs[-1].stopped == "interrupted":
                return
            H = ob.hessian(runs[-1].x)
            if self._scale * float(np.abs(H.gradient).max()) > self._gradient_tol:
                return
            k = min(2, ob.n_params)
            limits: Any = {"tol": SADDLE_TOL, "max_products": MAX_SADDLE_PRODUCTS}
            ends = eigsh(H, k, "BE", rng=0, progress=False, **limits)
            low = float(ends.values[0] + ends.residuals[0])
            if not low < -MIN_SADDLE_CURVATURE * abs(float(ends.values[-1])):
                return
            lower = escape(ob, runs[-1].x, ends.vectors[:, 0])
            if not lower.fun < runs[-1].fun:
                return
            runs.append(self._run_one_solver(ob, lower.x, "l-bfgs", left, options))

    def _run_one_solver(
        self, ob: Any, theta: Any, solver: Descent, max_iter: int, options: Any, watch: Any = None
    ) -> Any:
        """Run one solver until no entry of the gradient of ``loss_`` exceeds tol, or `watch`
        returns True for a point. Return the result at the point where the gradient met tol, if it
        did, and not at an earlier point whose loss is lower by rounding.
        """
        small = self._gradient_tol / self._scale
        last = []

        def has_converged(intermediate_result: Any) -> bool:
            ended = watch is not None and watch(intermediate_result)
            if solver in STOCHASTIC_METHODS:
                return ended
            g = getattr(intermediate_result, "jac", None)
            within = g is not None and max(g.max(), -g.min()) <= small
            if within and options["validation"] is None:
                last.append((np.array(intermediate_result.x), float(intermediate_result.fun)))
            return ended or within

        if solver == "l-bfgs" and watch is None:  # runs with early stopping need fewer pairs
            options = options | {"memory": default_n_pairs(ob.n_params, ob.n_samples)}
            # Preconditioning by layers saves no time for classifiers, which need few steps.
            numbers = loss_spec(ob.loss).targets == "numbers" and not is_sparse(ob.X)
            options["precondition"] = numbers and 6 * ob.n_samples * ob.n_params > PRECOND_MIN_FLOPS
        if self._deadline is not None:
            options = options | {"max_time": max(self._deadline - time.monotonic(), 1e-3)}
        run: Any = run_method(
            ob,
            theta,
            solver,
            max_iter=max_iter,
            callback=has_converged,
            progress=bool(self.verbose),
            **options,
        )
        if run.stopped == "callback":
            if last:
                run.x, run.fun = last[-1]
            elif solver in STOCHASTIC_METHODS:
                run.stopped = "patience"
        return run
