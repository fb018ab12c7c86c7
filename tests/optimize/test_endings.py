"""Endings of runs: for each ending, one constructed run with its status, success and message."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.common.sentences import CALL_NOTES
from fastcurv.optimize import EarlyStopping
from fastcurv.optimize.loop import _slow_progress_note
from fastcurv.optimize.run import STATUS_CODES, ending_of_kind, is_success

from .problems import FunctionObjective, random_network


def sine(activation="tanh", l2=0.0):
    x = np.linspace(-3, 3, 41)[:, None]
    return fc.Objective(fc.MLP([1, 5, 1], activation), x, np.sin(x), "mse", l2=l2)


def cube():
    return FunctionObjective(1, lambda t: t[0] ** 3, lambda t: 3 * t**2, lambda t: np.diag(6 * t))


def decay():
    return FunctionObjective(
        1, lambda t: np.exp(-t[0]), lambda t: -np.exp(-t), lambda t: np.diag(np.exp(-t))
    )


def noisy(seed=0):
    """Return an objective of 200 samples of a noisy sine for a network of ten hidden units, without
    weight decay.
    """
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (200, 1))
    return fc.Objective(
        fc.MLP([1, 10, 1], "tanh"), x, np.sin(2 * x) + 0.1 * rng.standard_normal((200, 1)), "mse"
    )


def interrupt(_):
    raise KeyboardInterrupt


# ending: (function that returns the objective, options, success, key of the first note)
ENDINGS = {
    "critical": (lambda: sine(l2=1e-2), {}, True, "verdict"),
    "max_iter": (sine, {"max_iter": 2}, False, "max_iter"),
    "max_time": (sine, {"max_time": 1e-9}, False, "max_time"),
    "max_products": (sine, {"max_products": 3}, False, "max_products"),
    "callback": (sine, {"callback": lambda _: True}, False, "callback"),
    "patience": (
        sine,
        {"method": "sgd", "learning_rate": 0.5, "callback": EarlyStopping(None, 2)},
        False,
        "patience",
    ),
    "diverged": (sine, {"method": "sgd", "learning_rate": 1e6}, False, "diverged"),
    "interrupted": (sine, {"callback": interrupt}, False, "interrupted"),
    "infinity": (decay, {}, False, "infinity"),
    "unbounded": (cube, {"theta0": [-1.0]}, False, "unbounded"),
    "target": (sine, {"fun_target": 0.1}, True, "target"),
    "slow": (sine, {}, False, "slow"),
}


def stationary(ob, run):
    """Return True if the gradient at the end of the run is 0 and its difference quotients form a
    matrix without negative eigenvalues, both up to rounding.
    """
    steps = 1e-5 * np.eye(len(run.x))
    H = np.array([ob.gradient(run.x + s) - ob.gradient(run.x - s) for s in steps]) / 2e-5
    return np.linalg.norm(ob.gradient(run.x)) <= 1e-6 and np.linalg.eigvalsh(H + H.T)[0] > -1e-8


def keeps_falling(ob, run):
    """Return True if the loss decreases over ever longer steps along minus the signs of the
    gradient from the end of the run.
    """
    d = -np.sign(ob.gradient(run.x)) * np.abs(run.x).max()
    losses = [ob.value(run.x + t * d) for t in (0.0, 1.0, 2.0, 4.0, 8.0)]
    return (np.diff(losses) < 0).all()


def no_record_below_the_best(ob, run):
    losses = run.history["loss"]
    return min(losses[-2:]) >= min(losses[:-2]) >= run.fun - 1e-15


def numbers_of_slow_progress(ob, run):
    """Return True if the losses in the run's note are those before and after its last 50
    iterations.
    """
    before, after = (float(run.notes[0].numbers[name]) for name in ("before", "after"))
    losses = run.history["loss"]
    return [before, after] == pytest.approx([losses[-51], losses[-1]], rel=1e-3)


# ending: function of (objective, run) that returns True if the claim of the message holds
TRUTHS = {
    "critical": stationary,
    "max_iter": lambda ob, run: run.nit == 2,
    "max_time": lambda ob, run: run.history["time"][-1] >= 1e-9,
    "max_products": lambda ob, run: run.nhev <= 3,
    "callback": lambda ob, run: run.nit == 1,
    "patience": no_record_below_the_best,
    "diverged": lambda ob, run: not run.history["loss"][-1] < 1e3 * run.fun,
    "interrupted": lambda ob, run: run.nit <= 1,
    "infinity": keeps_falling,
    "unbounded": keeps_falling,
    "target": lambda ob, run: ob.value(run.x) <= 0.1 < run.history["loss"][0],
    "slow": numbers_of_slow_progress,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_has_a_status_and_notes_that_are_true(ending):
    """For every ending, the claim of the message holds for the objective, the final point and the
    history of the run.
    """
    make, words, success, first = ENDINGS[ending]
    ob = make()
    start = ob.model.init(rng=0) if hasattr(ob, "model") else np.ones(1)
    run = fc.minimize(ob, **{"theta0": start, "rng": 0} | words)
    assert run.stopped == ending and run.status == STATUS_CODES[ending]
    keys = [note.key for note in run.notes]
    assert run.success is success and keys[0] == first, keys
    assert (run.report is None) == ("classify" in keys)
    assert ("continue" in keys) == (ending == "slow")
    assert ("penalty" in keys) == (ending == "infinity")
    assert run.fun == pytest.approx(ob.value(run.x), rel=1e-12)
    assert TRUTHS[ending](ob, run), run
    if run.report is None:
        assert fc.classify(ob, run.x).kind


def test_slow_progress_is_reported_with_digits_that_differ():
    numbers = _slow_progress_note(0.123456789, 0.123456788).numbers
    assert float(numbers["before"]) > float(numbers["after"])
    assert _slow_progress_note(0.1, 0.1).key == "no_decrease"


def test_plateau_at_the_start_is_not_a_success():
    """From saturated units, where the gradient is within the tolerance, a run is a success only if
    its loss is below a thousandth of the initial loss.
    """
    ob = sine()
    start = 200 * ob.model.init(rng=0)
    run = fc.minimize(ob, start, "trust-region", max_iter=200, rng=0)
    assert not run.success or run.fun < 1e-3 * ob.value(start)


def advised(ob, run):
    """Assert that each call of `minimize` or `escape` that the run's message or verdict advises
    lowers the loss or changes the verdict, and return the number of advised functions.
    """
    verdict = run.report or fc.classify(ob, run.x)
    calls = {note.key for note in run.notes if note.key in CALL_NOTES}
    if "classify" in calls:
        assert run.report is None
    calls = {{"continue": "minimize"}.get(key, key) for key in calls}
    if verdict._advice_sentence:
        calls.add({"escape": "escape"}.get(verdict._advice, "minimize"))
    for name in calls & {"minimize", "escape"}:
        limit = {"max_iter": 100} if name == "minimize" else {}
        x = getattr(fc, name)(ob, run.x, **limit).x
        lower = ob.value(x) < run.fun
        assert lower or fc.classify(ob, x).kind != verdict.kind, (run, verdict)
    return len(calls)


def test_following_the_advice_of_a_run_has_an_effect():
    """Each call that a run or its verdict advises lowers the loss or changes the verdict, and at
    least ten calls are advised for 20 runs.
    """
    count = 0
    for seed in range(5):
        for words in ({"max_iter": 3}, {"max_iter": 60}, {"fun_target": 0.1}, {"max_products": 40}):
            ob = sine(l2=1e-3 * (seed % 2))
            count += advised(ob, fc.minimize(ob, ob.model.init(rng=seed), rng=0, **words))
    assert count >= 10


def test_a_fit_without_a_gain_left_is_finished_without_success():
    """A degenerate fit of noise is finished, and 1000 more steps lower its loss by less than 1e-4
    of it. Unfinished runs, saddles and plateaus are not finished.
    """
    x = np.linspace(-1, 1, 100)[:, None]
    y = np.sin(3 * x) + 0.1 * np.random.default_rng(0).standard_normal(x.shape)
    ob = fc.Objective(fc.MLP([1, 5, 1], "tanh"), x, y, "mse")
    run = fc.minimize(ob, rng=0)
    assert run.finished and not run.success and run.report.evidence.gain_left <= 1e-4
    later = fc.minimize(ob, run.x, "l-bfgs", gradient_tol=0, verdict=False)
    assert run.fun - later.fun <= 1e-4 * run.fun
    assert not fc.minimize(ob, rng=0, max_iter=5).finished
    zero = fc.minimize(ob, np.zeros(ob.n_params), "newton", rng=0)
    assert zero.kind == "saddle" and not zero.finished and zero.report.evidence.gain_left == np.inf
    saturated = fc.minimize(ob, 60 * np.sign(ob.model.init(rng=1)), rng=0, max_iter=3)
    assert saturated.fun > 2 * run.fun and not saturated.finished


KINDS = (None, "minimum", "maximum", "saddle", "degenerate", "not_critical", "undecided")


def test_success_follows_from_the_ending_and_the_kind():
    """A success is a minimum, the lower bound of the loss or the requested loss. A point that is
    not critical never ends a run as critical or degenerate.
    """
    for stopped in STATUS_CODES:
        for kind in KINDS:
            ending = ending_of_kind(stopped, kind)
            assert is_success(ending, kind) == (
                kind == "minimum" or stopped in ("lower_bound", "target")
            )
            if kind == "not_critical":
                assert ending not in ("critical", "degenerate")
            if ending == "degenerate":
                assert kind == "degenerate"


def contradictions(run):
    """Return the statements of a result that contradict one another."""
    keys = {note.key for note in run.notes}
    statements = {
        "success": run.success != is_success(run.stopped, run.kind),
        "kind": run.success and run.kind not in (None, "minimum", "degenerate"),
        "ending": run.stopped != ending_of_kind(run.stopped, run.kind),
        "report": run.report is not None and run.report.kind != run.kind,
        "status": run.status != STATUS_CODES[run.stopped],
        "growth": bool(keys & {"growth", "infinity", "no_minimum"}) != (run.stopped == "infinity"),
        "rounded": "rounded" in keys and (run.stopped != "stalled" or np.abs(run.x).max() > 1e3),
        "bound": bool(keys & {"at_lower_bound", "above_lower_bound"})
        != (run.stopped == "lower_bound"),
        "target": ("target" in keys) != (run.stopped == "target"),
        "finished": run.success and not run.finished,
    }
    return [name for name, wrong in statements.items() if wrong]


@pytest.mark.parametrize(
    "first, after", [(0, 24), pytest.param(24, 300, marks=pytest.mark.nightly)]
)
def test_no_statement_of_a_run_contradicts_another(first, after):
    """Of runs on random networks (six losses, noisy and separable targets, kinks, starts at 0 and
    far away), no result contradicts itself.
    """
    for i in range(first, after):
        ob, start = random_network(i)
        run = fc.minimize(ob, start, rng=0)
        assert not contradictions(run), (i, contradictions(run), run)


def test_growth_without_a_minimum_is_said_to_lead_to_infinity():
    """On labels that no small network fits, parameters grow by orders of magnitude. The ending
    states this, and not that rounding limits further progress.
    """
    X = np.random.default_rng(5).standard_normal((40, 3))
    ob = fc.Objective(fc.MLP([3, 4, 3]), X, np.arange(40) % 3)
    run = fc.minimize(ob, rng=1)
    assert run.stopped == "infinity" and run.kind == "not_critical" and not run.success
    assert [note.key for note in run.notes][0] == "growth" and np.abs(run.x).max() > 50
