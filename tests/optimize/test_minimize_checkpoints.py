"""A stopped run resumes bit for bit. Its checkpoint is a safetensors file, which is either complete
or absent.
"""

import copy
import errno
import os

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.common.files import read_tensors, write_tensors
from fastcurv.optimize import Checkpoint, EarlyStopping, checkpoint
from fastcurv.optimize.minimize import METHODS as ALL
from fastcurv.optimize.minimize import minimize
from fastcurv.testing import QuadraticObjective

from .problems import regression, rosenbrock, same

# L-BFGS and Levenberg-Marquardt have tests of resumed runs in their own files.
METHODS = [name for name in ALL if name not in ("l-bfgs", "levenberg-marquardt")]


def problem(method):
    if method == "gauss-newton":
        ob = rosenbrock(8)
        ob.ggn = lambda t: np.diag(2.0 + 800 * np.r_[t[:-1], 0] ** 2 + 200 * np.r_[0, np.ones(7)])
        return ob, np.full(8, -1.2)
    return rosenbrock(8), np.full(8, -1.2)


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_equals_an_uninterrupted_one(method, tmp_path):
    ob, start = problem(method)
    options = {"learning_rate": 1e-4} if method in ("sgd", "momentum", "nesterov") else {}
    path = tmp_path / "run.safetensors"
    whole = minimize(ob, start, method, max_iter=9, rng=3, **options)
    first = minimize(ob, start, method, max_iter=4, rng=3, checkpoint=path, **options)
    resumed = minimize(
        ob,
        None,
        method,
        max_iter=9,
        rng=99,
        checkpoint=Checkpoint(resume=path),
        **options,
    )
    same(whole, resumed)
    assert resumed.history["time"][4] == first.history["time"][4]


@pytest.mark.parametrize(
    "seed", [0, np.random.Generator(np.random.MT19937(5))], ids=["PCG64", "MT19937"]
)
def test_resumed_runs_keep_the_order_of_mini_batches(seed, tmp_path):
    ob, path = regression(), tmp_path / "run.safetensors"
    options = {"method": "adam", "batch_size": 7, "learning_rate": 0.05}
    options["callback"] = EarlyStopping(regression(seed=1))
    whole = minimize(ob, np.zeros(5), max_iter=12, rng=copy.deepcopy(seed), **options)
    minimize(ob, np.zeros(5), max_iter=5, rng=copy.deepcopy(seed), checkpoint=path, **options)
    same(whole, minimize(ob, max_iter=12, checkpoint=Checkpoint(resume=path), **options))


@pytest.mark.parametrize("options", [{"method": "trust-region"}, {"batch_size": 7}])
def test_resuming_with_another_objective_raises(options, tmp_path):
    """Resuming a run with an objective of another loss raises ValueError with both losses, because
    the history would mix two losses.
    """
    path, options = tmp_path / "run.safetensors", {"method": "adam", "max_iter": 3} | options
    minimize(regression(), np.zeros(5), checkpoint=path, verdict=False, **options)
    with pytest.raises(
        ValueError,
        match=r"ob must be the objective of the checkpoint.*got a loss of [\d.e-]+.*instead of ",
    ):
        minimize(
            regression(seed=1),
            None,
            checkpoint=Checkpoint(resume=path),
            verdict=False,
            **options,
        )


@pytest.mark.parametrize("method", ["adam", "saddle-free-newton", "newton-cg"])
def test_an_interrupt_inside_an_evaluation_can_be_resumed(method, tmp_path):
    base, start, path = regression(N=40), np.zeros(5), tmp_path / "run.safetensors"
    options = {"method": method, "max_iter": 6, **({"batch_size": 9} if method == "adam" else {})}
    whole = minimize(base, start, rng=2, **options)
    calls = {"left": 12}

    class Interrupted(type(base)):
        def _count(self):
            calls["left"] -= 1
            if calls["left"] == 0:
                raise KeyboardInterrupt

        def batch(self, rows):
            self._count()
            return super().batch(rows)

        def value(self, theta):
            if method != "adam":
                self._count()
            return super().value(theta)

    ob = Interrupted(base.X, base.y)
    found = minimize(ob, start, rng=2, checkpoint=path, **options)
    if calls["left"] <= 0:
        assert found.stopped == "interrupted"
    same(whole, minimize(base, None, checkpoint=Checkpoint(resume=path), **options))


def test_checkpoints_are_written_during_a_run(tmp_path):
    path, sizes = tmp_path / "run.safetensors", []

    def look(intermediate_result):
        sizes.append(read_tensors(path)[1]["run"]["iteration"] if path.exists() else None)

    how = {"checkpoint": Checkpoint(path, 3), "callback": look}
    minimize(rosenbrock(), np.full(6, -1.5), "trust-region", max_iter=7, **how)
    assert sizes == [None, None, None, 3, 3, 3, 6]
    assert read_tensors(path)[1]["run"]["iteration"] == 7
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]


def test_file_that_is_not_a_checkpoint_raises(tmp_path):
    path = tmp_path / "run.safetensors"
    minimize(rosenbrock(), np.zeros(6), "adam", max_iter=2, checkpoint=path)
    with pytest.raises(ValueError, match="method must be 'adam' to resume"):
        minimize(rosenbrock(), None, "sgd", checkpoint=Checkpoint(resume=path))
    with pytest.raises(ValueError, match="got other values of learning_rate"):
        minimize(
            rosenbrock(),
            None,
            "adam",
            learning_rate=0.5,
            checkpoint=Checkpoint(resume=path),
        )
    with pytest.raises(ValueError, match="parameters"):
        minimize(rosenbrock(5), None, "adam", checkpoint=Checkpoint(resume=path))
    write_tensors(path, {"run.theta": np.zeros(6)})
    with pytest.raises(ValueError, match="must be a checkpoint of minimize"):
        minimize(rosenbrock(), None, "adam", checkpoint=Checkpoint(resume=path))


@pytest.mark.parametrize("watched", [True, False])
def test_a_run_with_validation_is_not_resumed_without(watched, tmp_path):
    """A run with a validation loss cannot be resumed without one, nor the reverse: ValueError is
    raised, because the best point was chosen by another loss.
    """
    ob, path = regression(), tmp_path / "run"
    one, other = ({"callback": EarlyStopping(regression(seed=1))}, {})[:: 1 if watched else -1]
    minimize(ob, np.zeros(5), "adam", max_iter=3, checkpoint=path, **one)
    with pytest.raises(ValueError, match=f"run was made {'with' if watched else 'without'} it"):
        minimize(ob, None, "adam", max_iter=6, checkpoint=Checkpoint(resume=path), **other)


def test_a_full_disk_loses_no_result(tmp_path, monkeypatch):
    """If the disk becomes full, the run warns once and ends at the point of a run without a
    checkpoint. The run resumed from the last complete checkpoint ends bitwise at that point.
    """

    ob, path, saves = QuadraticObjective(np.diag([1.0, 10.0, 100.0])), tmp_path / "c", []
    options = {"method": "momentum", "learning_rate": 1e-3, "max_iter": 9, "rng": 0}

    def write(*given):
        saves.append(given)
        if len(saves) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_tensors(*given)

    alone = minimize(ob, np.ones(3), **options)
    monkeypatch.setattr(checkpoint, "write_tensors", write)
    with pytest.warns(RuntimeWarning, match="since step 5 .*: .*No space left") as warned:
        run = minimize(ob, np.ones(3), **options, checkpoint=Checkpoint(path, 1))
    assert np.array_equal(run.x, alone.x) and len(saves) >= 9
    assert [warning.filename for warning in warned] == [__file__]
    assert np.array_equal(minimize(ob, checkpoint=Checkpoint(resume=path), **options).x, alone.x)


# --- malformed checkpoints are rejected with a short error

OB = fc.Objective(fc.MLP([2, 3, 1]), np.eye(2), [0.0, 1.0], "mse")
OPTIONS = {"sgd": {"batch_size": 1}, "adam": {"batch_size": 1}}


@pytest.fixture
def saved(tmp_path):
    """Return a function that saves a run of a method, applies `change(arrays, facts)` to its
    checkpoint, and resumes the run.
    """

    def go_on(method, change, bits=np.random.PCG64):
        path, options = tmp_path / "run", OPTIONS.get(method, {}) | {"verdict": False}
        theta, rng = OB.model.init(rng=0), np.random.Generator(bits(1))
        minimize(OB, theta, method, checkpoint=path, max_iter=3, rng=rng, **options)
        arrays, facts = read_tensors(path)
        change(arrays, facts)
        write_tensors(path, arrays, facts)
        return minimize(OB, None, method, checkpoint=Checkpoint(resume=path), max_iter=6, **options)

    return go_on


def put(where, name, value):
    """Return a function of (arrays, facts) that sets one entry of a checkpoint. `where` is
    "arrays", "facts" or the name of a dict within the facts.
    """

    def change(arrays, facts):
        (arrays if where == "arrays" else facts if where == "facts" else facts[where])[name] = value

    return change


BAD_CHECKPOINTS = {
    "facts": ("adam", put("facts", "run", [1]), "entries for a run"),
    "shape": (
        "adam",
        put("arrays", "run.best", np.zeros(4)),
        "'best' of a run is not a float64 vector of length 13",
    ),
    "dtype": (
        "adam",
        put("arrays", "run.best", np.zeros(13, "f4")),
        "'best' of a run is not a float64 vector",
    ),
    "NaN": ("adam", put("arrays", "run.best", np.full(13, np.nan)), "'best' of a run holds NaN"),
    "rows": ("adam", put("arrays", "run.rows", np.array([0, 2])), "the rows are not"),
    "float rows": ("adam", put("arrays", "run.rows", np.array([0.0])), "the rows are not"),
    "history": ("adam", put("arrays", "run.history.loss", np.zeros(9)), "history of loss"),
    "counts": (
        "adam",
        put("arrays", "run.history.iteration", np.full(4, 1e300)),
        "counts of 1e15 or more",
    ),
    "method": ("trust-region", put("method_facts", "radius", "wide"), "radius' of .* value 'wide'"),
    "negative": ("trust-region", put("method_facts", "radius", -1.0), "radius' of .* is negative"),
    "no facts": ("trust-region", put("facts", "method_facts", {}), "entries for this method"),
    "average": (
        "adam",
        put("arrays", "method.average", np.zeros(2)),
        "'average' of this .* is not",
    ),
    "missing": ("adam", lambda arrays, _: arrays.pop("method.squares"), "'squares' of .* missing"),
    "infinite": ("adam", put("arrays", "method.squares", np.full(13, np.inf)), "holds NaN"),
}


@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_checkpoints_with_invalid_entries_raise(name, saved):
    method, change, words = BAD_CHECKPOINTS[name]
    with pytest.raises(ValueError, match=f"is damaged: .*{words}") as error:
        saved(method, change)
    assert "\n" not in str(error.value)
