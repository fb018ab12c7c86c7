"""What the two estimators share: parameters, the objective that scikit-learn's `loss_` is, the fit
by any solver, and the attributes afterwards.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ..answers import own_names
from ..network.mlp import MLP, RELU_LIKE
from ..network.objective import Objective
from ..optimize.escape import escape
from ..optimize.minimize import STOCHASTIC, minimize
from .choices import OUT, advice, outputs_of, pairs_worth, threads_worth, unhidden
from .look import PRODUCTS, Look, judge, look
from .parameters import check_parameters, layers_of, total_of
from .scatter import FIRST, Scatter

DEEP = 1e-2  # curvature this far below zero, relative to the largest, is worth leaving
LAST_STEPS = 25  # trust-region steps of "auto" where L-BFGS stalled
TOL = 1e-4  # largest entry of the gradient that is zero, where tol is "auto"
SHARE = 4  # gradients of the fit for one product of the look
ROUNDS = 4  # saddles that "auto" leaves at most


class BaseMLP(BaseEstimator):
    """Parameters, fit and attributes of both estimators; see `MLPClassifier`."""

    _total: float
    _scale: float
    _resumed: bool
    _deadline: float | None
    _size: float
    _stratify = False

    @own_names("estimator")
    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "auto",
        alpha: float = 1e-4,
        batch_size: Any = "auto",
        learning_rate_init: float | None = None,
        max_iter: int = 200,
        tol: Any = "auto",
        random_state: Any = None,
        warm_start: bool = False,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        max_time: float | None = None,
        n_threads: int | None = None,
        memory: int | None = None,
        verdict: Any = "quick",
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.max_time = max_time
        self.n_threads = n_threads
        self.memory = memory
        self.verdict = verdict

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    # --- what the two differ in

    def _targets(self, y: Any, reset: bool) -> tuple[np.ndarray, str, int]:
        """Targets as the objective wants them, its loss, and the number of outputs."""
        raise NotImplementedError

    def _start(self, model: MLP, theta: np.ndarray, y: np.ndarray, weight: Any) -> None:
        """Change the random start in place, where the targets suggest a better one."""

    # --- the objective

    @property
    def _tol(self) -> float:
        return TOL if self.tol == "auto" else float(self.tol)

    def _model(self, k: int, m: int, dtype: Any) -> MLP:
        hidden, names = layers_of(self.hidden_layer_sizes, self.activation)
        return MLP([k, *hidden, m], names, dtype=dtype)

    def _objective(
        self, model: MLP, X: Any, y: Any, loss: str, weight: Any, alpha: float | None = None
    ) -> Objective:
        """``loss_`` divided by `_scale`: alpha over the sum of weights, biases spared."""
        total = self._total = total_of(X.shape[0], weight)
        self._scale = {"mse": 0.5, "binary_cross_entropy": model.sizes[-1]}.get(loss, 1.0)
        return Objective(
            model,
            X,
            y,
            loss,
            l2=(self.alpha if alpha is None else alpha) / (total * self._scale),
            sample_weight=None if weight is None else weight.astype(float) * (X.shape[0] / total),
            n_threads=threads_worth(self.n_threads, model.n_params, X.shape[0]),
            memory=self.memory,
            l2_biases=False,
        )

    def _data(self, X: Any, y: Any, weight: Any, reset: bool) -> tuple[Any, Any, str, Any, int]:
        """Checked rows and targets of those rows that have weight."""
        X, y, weight = unhidden(X, "X"), unhidden(y, "y"), unhidden(weight, "sample_weight")
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            dtype=(np.float64, np.float32),
            multi_output=True,
            y_numeric=not self._stratify,
            reset=reset,
        )
        y, loss, m = self._targets(y, reset)
        if weight is not None:
            weight = _check_sample_weight(weight, X, dtype=X.dtype, ensure_non_negative=True)
            kept = weight > 0
            if not kept.any():
                raise ValueError("sample_weight is zero everywhere; wanted some rows that count")
            X, y, weight = X[kept], y[kept], weight[kept]
        return X, y, loss, weight, m

    # --- the fit

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Fit to the rows of X.

        Parameters
        ----------
        X : array_like (N, k)
        y : array_like (N,) or (N, m)
        sample_weight : array_like (N,), optional
            A weight of 2 is the same as the row twice, 0 the same as no row.

        Returns
        -------
        self

        Raises
        ------
        KeyboardInterrupt
            On Ctrl-C: what was fitted so far is kept, and ``stopped_`` is "interrupted".
        """
        check_parameters(self)
        X, y, loss, weight, m = self._data(X, y, sample_weight, True)
        rng = check_random_state(self.random_state)
        model = self._model(X.shape[1], m, X.dtype)
        held = None
        if self.early_stopping:
            (X, y, weight), rest = self._split(X, y, weight, rng)
            held = self._objective(model, *rest[:2], loss, rest[2], 0.0)
        ob = self._objective(model, X, y, loss, weight)
        theta = self._first_theta(model, y, weight, rng)
        self._run(ob, theta, held, int(rng.randint(1 << 31)))
        if self.n_iter_ >= self.max_iter and self.stopped_ == "max_iter":
            warnings.warn(
                f"{self.solver} ended at max_iter={self.max_iter} with a gradient of "
                f"{self._size:.2g}, above tol={self._tol:g}; {advice(X, y, model, self.alpha)}",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _split(self, X: Any, y: Any, weight: Any, rng: Any) -> list[tuple[Any, Any, Any]]:
        """Rows to train on, and rows held out."""
        labels = y if self._stratify and y.ndim == 1 else None
        rows = train_test_split(
            np.arange(X.shape[0]),
            test_size=self.validation_fraction,
            random_state=rng,
            stratify=labels,
        )
        return [(X[r], y[r], None if weight is None else weight[r]) for r in rows]

    def _first_theta(self, model: MLP, y: Any, weight: Any, rng: Any) -> np.ndarray:
        seed = int(rng.randint(1 << 31))
        self._resumed = self.warm_start and getattr(self, "model_", None) == model
        if self._resumed:
            return np.array(self.theta_)
        # half of He's variance scores better where a fit goes to its end (benchmarks/estimators.py)
        scheme = "lecun" if set(RELU_LIKE) & set(model.activation) else "xavier"
        theta = model.init(seed=seed, scheme=scheme)
        self._start(model, theta, y, weight)
        return theta

    def _run(self, ob: Objective, theta: np.ndarray, held: Any, seed: int) -> None:
        """Minimise by the solver, and keep what came of it."""
        solver = "l-bfgs" if self.solver in ("auto", "lbfgs") else self.solver
        options: dict[str, Any] = {"validation": held, "seed": seed}
        if held is not None:
            options["patience"] = self.n_iter_no_change
        if solver in STOCHASTIC:
            options |= self._batches(ob) | {"patience": self.n_iter_no_change}
        self._deadline = None if self.max_time is None else time.monotonic() + self.max_time
        runs: list[Any] = []
        stop = None
        if self.solver == self.tol == "auto" and held is None:
            stop, steps = Scatter(ob, self._total, self._scale), min(FIRST, self.max_iter // SHARE)
            if steps and not self._resumed:
                runs = stop.begin(
                    theta,
                    self.alpha,
                    lambda on, at, watch: self._minimize(on, at, solver, steps, options, watch),
                )
        left = self.max_iter - sum(run.nit for run in runs)
        if not runs or runs[-1].stopped != "interrupted":
            start = runs[-1].x if runs else theta
            runs.append(self._minimize(ob, start, solver, left, options, stop))
        if stop is not None and stop.reached and runs[-1].stopped != "interrupted":
            runs[-1].stopped = "scatter"
        seen = None
        if self.solver == "auto" and held is None:
            seen = self._go_on(ob, runs, options)
        self._keep(ob, runs)
        if seen is not None and self.verdict == "quick":
            self.curvature_: Look | None = seen
        else:
            spent = sum(run.nfev for run in runs) if solver not in STOCHASTIC else 8 * PRODUCTS
            asked = self._scale, self._tol, self.verdict, spent // SHARE
            self.curvature_ = judge(ob, self.theta_, *asked)

    def _batches(self, ob: Objective) -> dict[str, Any]:
        """What solvers by mini-batches are told."""
        size = 200 if self.batch_size == "auto" else self.batch_size
        rate = self.learning_rate_init
        known = {} if rate is None else {"learning_rate": rate}
        return {"batch_size": min(size, ob.n_samples)} | known

    def _go_on(self, ob: Objective, runs: list[Any], options: dict[str, Any]) -> Look | None:
        """After L-BFGS: trust-region steps where it stalled, a way down from a saddle; more runs
        are added to `runs`, and the last look is returned.
        """
        for _ in range(ROUNDS):
            left = self.max_iter - sum(run.nit for run in runs)
            if left > 0 and runs[-1].stopped == "stalled":
                steps = min(left, LAST_STEPS)
                runs.append(self._minimize(ob, runs[-1].x, "trust-region", steps, options))
                left -= runs[-1].nit
                if left > 0 and runs[-1].stopped == "max_iter":
                    runs[-1].stopped = "stalled"
            if runs[-1].stopped == "interrupted":
                return None
            spent = sum(run.nfev for run in runs)
            seen, down = look(ob, runs[-1].x, self._scale, self._tol, spent // SHARE)
            deep = seen.kind == "saddle" and seen.lambda_min < -DEEP * abs(seen.lambda_max)
            if left <= 0 or not deep or down is None:
                return seen
            lower = escape(ob, runs[-1].x, down)
            if not lower.fun < runs[-1].fun:
                return seen
            runs.append(self._minimize(ob, lower.x, "l-bfgs", left, options))
        return None

    def _minimize(
        self, ob: Any, theta: Any, solver: str, max_iter: int, options: Any, watch: Any = None
    ) -> Any:
        """One run, ended where no entry of the gradient of ``loss_`` is above tol, or by `watch`,
        which is shown every point. A lower loss that rounding found before does not count.
        """
        small, last = self._tol / self._scale, []

        def enough(intermediate_result: Any) -> bool:
            ended = watch is not None and watch(intermediate_result)
            g = getattr(intermediate_result, "jac", None)
            within = g is not None and bool(np.abs(g).max() <= small)
            if within and options["validation"] is None:
                last.append((np.array(intermediate_result.x), float(intermediate_result.fun)))
            return ended or within

        stops = None if solver in STOCHASTIC else enough
        if solver == "l-bfgs" and self.tol != "auto":  # which ends early, and scores with fewer
            options = options | {"memory": pairs_worth(ob.n_params, ob.n_samples)}
        if self._deadline is not None:
            options = options | {"max_time": max(self._deadline - time.monotonic(), 1e-3)}
        run: Any = minimize(
            ob,
            theta,
            solver,
            max_iter=max_iter,
            gradient_tol=0,
            callback=stops,
            verdict=False,
            **options,
        )
        if last and run.stopped == "callback":
            run.x, run.fun = last[-1]
        return run

    def _keep(self, ob: Objective, runs: list[Any], past: Any = (), epochs: int = 0) -> None:
        """The attributes of a fitted estimator, losses of epochs before among them. Ctrl-C ends the
        program, or the search over many fits, with this one as far as it came.
        """
        last = runs[-1]
        self.model_, self.theta_ = ob.model, np.asarray(last.x)
        self.loss_ = float(last.fun) * self._scale
        curves = [np.asarray(run.history["loss"], dtype=float) for run in runs]
        self.loss_curve_ = [*past, *(self._scale * np.concatenate(curves)).tolist()]
        self.best_loss_ = min(self.loss_curve_)
        self.n_iter_ = epochs + max(1, sum(int(run.nit) for run in runs))
        self.stopped_, self.out_activation_ = str(last.stopped), OUT[ob.loss]
        if "validation" in last.history:
            held = np.concatenate([run.history["validation"] for run in runs])
            self.validation_loss_curve_ = (self._scale * held).tolist()
        self._size = self._scale * float(np.abs(ob.gradient(self.theta_)).max())
        layers = self.model_.unflatten(self.theta_)
        self.coefs_ = [W.T for W, _ in layers]  # as scikit-learn has them: (in, out)
        self.intercepts_ = [b for _, b in layers]
        self.n_layers_, self.n_outputs_ = len(self.model_.sizes), self.model_.sizes[-1]
        if self.stopped_ == "interrupted":
            self.curvature_ = None
            raise KeyboardInterrupt

    def _epoch(self, X: Any, y: Any, first: bool) -> None:
        """One epoch from the theta at hand, or from a new one."""
        if first:
            validate_data(self, X, skip_check_array=True)
        X, y, loss, _, m = self._data(X, y, None, False)
        if not first and m != self.model_.sizes[-1]:
            raise ValueError(f"y has {m} outputs; wanted {self.model_.sizes[-1]}")
        rng = check_random_state(self.random_state)
        model = self._model(X.shape[1], m, X.dtype) if first else self.model_
        ob = self._objective(model, X, y, loss, None)
        theta = self._first_theta(model, y, None, rng) if first else self.theta_.copy()
        past = ([], 0) if first else (self.loss_curve_, self.n_iter_)
        options, self._deadline = self._batches(ob), None
        options["seed"] = int(rng.randint(1 << 31)) + past[1]
        run = self._minimize(ob, theta, "sgd", 1, options)
        self._keep(ob, [run], *past)
        self.curvature_ = None

    def _outputs(self, X: Any) -> np.ndarray:
        """Outputs of the network before any softmax."""
        check_is_fitted(self)
        kinds = (np.float64, np.float32)
        X = unhidden(X, "X")
        X = validate_data(self, X, accept_sparse="csr", dtype=kinds, reset=False)
        return outputs_of(self.model_, self.theta_, X)

    def objective(self, X: Any, y: Any, sample_weight: Any = None) -> Objective:
        """The objective that `fit` minimises, on these rows: for `classify`, `eigsh` and the rest.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Returns
        -------
        Objective
            ``loss_`` is its value at ``theta_`` times 1/2 for a regressor, times the number of
            labels for a multilabel classifier.
        """
        check_is_fitted(self)
        X, y, loss, weight, _ = self._data(X, y, sample_weight, False)
        return self._objective(self.model_, X, y, loss, weight)
