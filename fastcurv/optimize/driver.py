"""The loop of `minimize`: iterations until something ends them, then the verdict and the result."""

from __future__ import annotations

import inspect
import time

import numpy as np
from scipy.optimize import OptimizeResult

from ..checks import check_positive, check_positive_int
from ..files import write_tensors
from ..progress import bar
from .line_search import first_length, line_minimum
from .negative_curvature import lowest_curvature, suspects
from .verdict import final_verdict

#: `OptimizeResult.status`
STATUS = {
    "critical": 0,
    "max_iter": 1,
    "max_time": 2,
    "max_products": 3,
    "callback": 4,
    "patience": 5,
    "stalled": 6,
    "diverged": 7,
    "interrupted": 8,
}
IDLE = 100  # iterations of a second-order method without progress
_ENDINGS = {
    "max_iter": "max_iter was reached",
    "max_time": "max_time was reached",
    "max_products": "max_products was reached",
    "callback": "the callback asked to stop",
    "patience": "the validation loss has not improved for `patience` records",
    "diverged": "the loss is no longer finite",
    "interrupted": "interrupted from the keyboard: this is the best point known",
}


def named_options(options):
    """Options as text, so that any object can be compared after a trip through a file."""
    return {name: repr(value) for name, value in sorted(options.items())}


class Loop:
    """Iterations until something ends them; then the verdict."""

    def __init__(
        self,
        run,
        method,
        options,
        gtol,
        max_iter,
        callback,
        patience,
        checkpoint,
        checkpoint_every,
        verdict,
    ):
        self.run, self.name, self.options = run, method, options
        default = 1e-6 if run.theta.dtype == np.float64 else 1e-3
        self.gtol = default if gtol is None else check_positive(gtol, "gtol", zero=True)
        epochs = options.get("batch_size") is not None
        self.max_iter = (
            (100 if epochs else 1000)
            if max_iter is None
            else check_positive_int(max_iter, "max_iter")
        )
        self.callback = _as_callback(callback)
        self.patience = None if patience is None else check_positive_int(patience, "patience")
        self.checkpoint, self.verdict = checkpoint, bool(verdict)
        self.every = (
            None
            if checkpoint_every is None
            else check_positive_int(checkpoint_every, "checkpoint_every")
        )
        self.why, self.sentence, self.report, self.snapshot = None, None, None, None
        self.saved_at = time.perf_counter()
        self.mark, self.small_gains = [0, np.inf, np.inf], 0

    def go(self, maker, arrays, facts, progress):
        run = self.run
        if facts:
            run.load(_part(arrays, "run."), facts["run"])
            self.mark, self.small_gains = facts["loop"]
        spent = run.n_gradients
        run.bind()
        if facts:
            run.n_gradients = spent  # this gradient was counted before the run was saved
        if not (np.isfinite(run.f) and np.isfinite(run.gnorm)):
            raise ValueError(
                f"the objective is not finite at theta0: value {run.f}, gradient norm {run.gnorm}"
            )
        self.method = maker(run, **self.options)
        if facts:
            self.method.load(_part(arrays, "method."), facts["method_facts"])
        else:
            run.record()
        try:
            with bar(
                None if self.method.curvature else self.max_iter, self.name, progress
            ) as shown:
                shown.update(run.iteration)
                self.shown = shown
                getattr(self.method, "drive", self._iterate)(self)
        except KeyboardInterrupt:
            self.why = "interrupted"
        return self._finish()

    def _iterate(self, _):
        run = self.run
        while True:
            self.why = self.ending()
            if self.why is None and self.critical():
                self._snapshot()
                self.why = self._at_critical_point()
                if self.why is None:
                    self.after_step()
                    continue
            if self.why is not None:
                return
            self._snapshot()
            before = run.theta
            self.sentence = self.method.step()
            if self.sentence is not None:
                self.why = "stalled"
                return
            if run.cut and before is run.theta and self.method.curvature:
                self.why = run.exhausted()
                return
            self.after_step()

    def after_step(self):
        run = self.run
        run.iteration += 1
        if not run.stale:
            run.record()
            self.shown.note(f"loss {run.f:.6g}  |g| {run.gnorm:.2g}")
        self.shown.update(1)
        if self.callback is not None and self.callback(self._intermediate()):
            self.why = "callback"
        self._save_now_and_then()

    def ending(self):
        run = self.run
        if self.why is not None:
            return self.why
        if not (np.isfinite(run.f) and np.isfinite(run.gnorm)):
            return "diverged"
        if self.patience is not None and run.since_best >= self.patience:
            return "patience"
        if self._idle_too_long():
            self.sentence = (
                f"for {IDLE} iterations neither has the loss fallen by 1e-8 of itself nor the "
                "gradient by half: "
                "steps have become too short"
            )
            return "stalled"
        if not self.critical():
            if run.iteration >= self.max_iter:
                return "max_iter"
            return run.exhausted()
        return None

    def critical(self):
        """Is the gradient, where it is known, zero?"""
        return self.run.gnorm <= self.gtol and not self.run.stale

    def _idle_too_long(self):
        """Second-order steps that improve neither loss nor gradient over many iterations are held
        by something.
        """
        run = self.run
        if self.method.curvature is None:
            return False
        since, f, gnorm = self.mark
        if run.f < f - 1e-8 * abs(f) or run.gnorm < 0.5 * gnorm:
            self.mark = [run.iteration, run.f, run.gnorm]
        return run.iteration - since >= IDLE

    def _at_critical_point(self):
        """Where the gradient is zero: None after a step along negative curvature, else why the run
        ends here.
        """
        run, method = self.run, self.method
        if run.iteration >= self.max_iter or run.exhausted() or not method.leaves_saddles:
            return "critical"
        H = run.ob.hessian(run.theta)
        starts = suspects(run.ob, run.theta, H)
        curvature, v, rounding, spent = lowest_curvature(
            H, len(run.theta), run.theta.dtype, run.rng, starts, 40, run.out_of_budget
        )
        run.n_products += spent
        if curvature < -rounding and self._go_along(v):
            return None
        if self.verdict:
            self._judge(run.theta)
            v = getattr(self.report, "escape_direction", None)
            if v is not None and self._go_along(np.asarray(v, dtype=run.theta.dtype)):
                self.report = None
                return None
        return "critical"

    def _go_along(self, v):
        """Move to the lowest point of a line; False where none is lower by more than rounding."""
        run = self.run
        t, f = line_minimum(run.value, run.theta, v, run.f, first_length(run.theta))
        gain = run.f - f
        if not gain > 10.0 * run.eps * abs(run.f):
            return False
        self.small_gains = self.small_gains + 1 if gain < 1e-8 * abs(run.f) else 0
        if self.small_gains > 5:  # curvature of the size of rounding, followed without end
            return False
        run.try_step(v, t)
        run.arrive()
        return True

    # checkpoints

    def _snapshot(self):
        """The state at the start of a step: what is saved where the budget or the keyboard ends
        inside it.
        """
        if self.checkpoint is None:
            return
        run_arrays, run_facts = self.run.state()
        arrays, facts = self.method.state()
        named = {"run." + key: value for key, value in run_arrays.items()}
        named.update({"method." + key: value for key, value in arrays.items()})
        self.snapshot = named, {
            "what": "minimize", "method": self.name, "options": named_options(self.options), "run": run_facts,
            "method_facts": facts, "loop": [self.mark, self.small_gains],
        }  # fmt: skip

    def _save_now_and_then(self):
        if self.checkpoint is None:
            return
        if self.every is not None:
            due = self.run.iteration % self.every == 0
        else:
            due = time.perf_counter() - self.saved_at > 30.0
        if due and not self.run.cut:
            self._snapshot()
            self._write()

    def _write(self):
        arrays, facts = self.snapshot
        past = {
            "run." + key: values for key, values in self.run.past(facts["run"]["records"]).items()
        }
        write_tensors(self.checkpoint, {**arrays, **past}, facts)
        self.saved_at = time.perf_counter()

    # what is handed out

    def _intermediate(self):
        run = self.run
        return OptimizeResult(
            x=run.theta.copy(), fun=run.f, jac=run.g.copy(), nit=run.iteration, nhev=run.n_products
        )

    def _judge(self, theta):
        run = self.run
        self.report = final_verdict(run.ob, theta, self.gtol)
        run.n_products += int(getattr(self.report, "n_products", 0) or 0)

    def _choose(self):
        """The point returned, with its loss and gradient norm."""
        run = self.run
        best_wanted = (
            run.validation is not None
            or self.method.curvature is None
            or self.why in ("interrupted", "diverged")
        )
        if best_wanted and run.best is not None:
            same = np.array_equal(run.best, run.theta) and not run.stale
            if not same:
                self.report = None
            return run.best, run.best_f, run.best_gnorm
        return run.theta, run.f, run.gnorm

    def _name_a_kink(self):
        """Where a run has stalled: does the gradient jump?

        Of a smooth function its change shrinks with the step.
        """
        run = self.run
        step = run.g * run.theta.dtype.type(
            -np.sqrt(run.eps) * max(1.0, float(np.linalg.norm(run.theta))) / run.gnorm
        )
        further, close = (float(np.linalg.norm(run.value_and_gradient(run.theta + run.theta.dtype.type(t) * step)[1] - run.g))
                          for t in (100.0, 1.0))  # fmt: skip
        if close > 0.1 * further and close > 1e-3 * run.gnorm:
            self.sentence += (
                f"; the gradient jumps by {close / run.gnorm:.2g} of its norm within "
                f"{np.linalg.norm(step):.1g}: "
                "a kink, such as ReLU's at 0, holds the run, and its Hessian there says nothing "
                "of the other side"
            )

    def _finish(self):
        run = self.run
        elapsed = run.elapsed()
        if self.why == "stalled" and self.method.curvature and run.gnorm > self.gtol:
            self._name_a_kink()
        if self.checkpoint is not None:
            if self.snapshot is None or not (run.cut or self.why in ("interrupted", "critical")):
                self._snapshot()
            self._write()
        x, fun, gnorm = self._choose()
        if (
            self.report is None
            and gnorm <= self.gtol
            and self.verdict
            and self.why != "interrupted"
        ):
            self._judge(x)
        return _result(self, x.copy(), fun, gnorm, elapsed)


def _part(arrays, prefix):
    return {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}


def _as_callback(callback):
    """SciPy's convention: a parameter named intermediate_result gets the result, any other the
    point.
    """
    if callback is None:
        return None
    if not callable(callback):
        raise TypeError(f"callback must be callable, got {type(callback).__name__}")
    try:
        whole = "intermediate_result" in inspect.signature(callback).parameters
    except (TypeError, ValueError):
        whole = False
    wrapped = hasattr(
        callback, "stop_iteration"
    )  # by scipy.optimize.minimize, which unpacks the result itself

    def call(result):
        try:
            if wrapped:
                return bool(callback(result))
            return bool(callback(intermediate_result=result) if whole else callback(result.x))
        except StopIteration:
            return True

    return call


def _result(loop, x, fun, gnorm, elapsed):
    """The OptimizeResult of a finished loop."""
    run, report = loop.run, loop.report
    kind, success, evidence = (
        "not_critical",
        False,
        f"the gradient has norm {gnorm:.3g}, above gtol = {loop.gtol:.3g}",
    )
    if gnorm <= loop.gtol:
        kind, success, evidence = (
            None,
            False,
            f"the gradient has norm {gnorm:.3g}; no verdict was asked for",
        )
        if report is not None:
            kind, success, evidence = report.kind, report.success, report.evidence
    ending = loop.sentence or _ENDINGS.get(loop.why)
    message = evidence if ending is None else f"{ending}; {evidence}"
    jac = run.g if np.array_equal(x, run.theta) and not run.stale else run.value_and_gradient(x)[1]
    return OptimizeResult(
        x=x, fun=fun, jac=np.array(jac), nit=run.iteration, nfev=run.n_values + run.n_gradients, njev=run.n_gradients,
        nhev=run.n_products, status=STATUS[loop.why], stopped=loop.why, success=success, kind=kind,
        message=message[0].upper() + message[1:].rstrip(".") + ".", report=getattr(report, "report", None),
        history={key: np.asarray(values) for key, values in run.history.items()}, method=loop.name, wall_time=elapsed,
    )  # fmt: skip
