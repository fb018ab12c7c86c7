"""`Tracker`, which follows the ends of a spectrum that changes from step to step."""

import copy
import pickle

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.spectrum import Tracker


class Path:
    """An objective whose Hessian is the matrix in its attribute `matrix`."""

    def __init__(self, n):
        self.n_params = n

    def hessian(self, theta):
        return self.matrix


def along_path(case, steps=110):
    """Yield the Hessian and its lowest eigenvalue along a path on which this eigenvalue changes
    sign once: one eigenvalue falls or rises, or all change, in a basis that is fixed or rotates.
    """
    rng = np.random.default_rng(case)
    n = int(rng.integers(30, 120))
    Q, turn = np.linalg.qr(rng.standard_normal((n, n)))[0], np.eye(n)
    bulk = np.abs(rng.standard_normal(n)) ** rng.uniform(1, 4)
    bulk /= bulk.max()
    if case % 4 != 1:
        G = rng.standard_normal((n, n)) * 10 ** rng.uniform(-3.5, -1.3) / np.sqrt(n)
        turn = np.linalg.solve(np.eye(n) - (G - G.T) / 2, np.eye(n) + (G - G.T) / 2)
    cross, slope, j = int(rng.integers(30, 80)), 10 ** rng.uniform(-2.7, -1.5), rng.integers(n)
    for t in range(steps):
        values, height = bulk.copy(), slope * (cross - 0.5 - t)
        if case % 4 == 3:
            values += height - bulk.min()
        else:
            values[j] = min(bulk[j], max(-height if case % 4 == 2 else height, -0.5))
        Q = Q @ turn
        H = (Q * values) @ Q.T
        yield (H + H.T) / 2, values.min()


def delay(case):
    """Return the number of steps from the change of sign until the tracker reports it, 0 if it is
    reported early, and a list with the number of products of each step after the first. Check every
    20 steps that an eigenvalue lies within each residual.
    """
    changed, lows = None, []
    tracker = None
    for step, (H, low) in enumerate(along_path(case)):
        if tracker is None:
            path = Path(len(H))
            tracker = Tracker(path, rng=case)
        path.matrix = H
        record = tracker(np.zeros(len(H)))
        lows.append(low)
        exact = np.linalg.eigvalsh(H) if step % 20 == 0 else None
        # Ritz values are within the spectrum, and an eigenvalue is within each residual
        if exact is not None:
            assert exact[0] - 1e-12 <= record.values[0] <= record.values[1] <= exact[-1] + 1e-12
            gaps = np.abs(exact[:, None] - record.values).min(0)
            assert (gaps <= record.residuals + 1e-12).all()
        if changed is None and step and (low < 0) != (lows[-2] < 0):
            changed = step
    lows, signs = np.array(lows), tracker.signs
    assert (lows[signs < 0] < 0).all()
    reported = tracker.sign_changes
    assert reported.size <= 1
    # The tracked value is above the lowest eigenvalue, so a rise may be reported early if the
    # residual allows it.
    early = reported[reported < changed]
    assert (signs[early] == 0).all() and (abs(lows[early]) <= tracker.residuals[early, 0]).all()
    late = max(0, reported[0] - changed) if reported.size else len(lows)
    products = [record.n_products for record in tracker.records[1:]]
    return late, products


def test_a_change_of_sign_is_reported_within_20_steps_for_5_products_each():
    for case in range(8):
        late, products = delay(case)
        assert late <= 20, case
        assert max(products) <= 5, case


def network(rng):
    X = rng.standard_normal((120, 5))
    return fc.Objective(fc.MLP([5, 12, 3]), X, np.argmax(X[:, :3], 1))


def test_minimize_records_every_iteration_and_counts_no_products_of_its_own(rng):
    ob = network(rng)
    plain = fc.minimize(ob, rng=0, method="adam", max_iter=60, verdict=False)
    seen = []
    tracker = Tracker(ob)
    run = fc.minimize(
        ob, rng=0, method="adam", max_iter=60, verdict=False,
        callback=[tracker, lambda x: seen.append(x.copy())],
    )  # fmt: skip
    assert np.array_equal(run.x, plain.x) and run.nhev == plain.nhev
    assert len(tracker) == 60 == len(seen)
    values = np.array([np.linalg.eigvalsh(ob.hessian(x).to_dense())[[0, -1]] for x in seen])
    scale = np.abs(values).max(1, keepdims=True)
    assert (np.abs(tracker.values - values) <= 5e-2 * scale).all()
    assert np.percentile([one.n_products for one in tracker.records], 95) <= 5


def test_copied_trackers_keep_records_and_continue(rng):
    ob = network(rng)
    tracker = Tracker(ob, "SA")
    for seed in range(3):
        tracker(ob.model.init(seed))
    for other in (copy.copy(tracker), copy.deepcopy(tracker), pickle.loads(pickle.dumps(tracker))):
        assert np.array_equal(other.values, tracker.values)
        other(ob.model.init(3))
        assert len(other) == 4 and len(tracker) == 3


@pytest.mark.parametrize("which", ["SA", "BE"])
def test_signs_of_semidefinite_matrices_are_never_negative(which, rng):
    """The rounding of zero eigenvalues is no negative curvature."""
    for seed in range(12):
        path, A = Path(30), rng.standard_normal((9, 30))
        tracker = Tracker(path, which, rng=seed)
        for _ in range(8):
            path.matrix = A.T @ A
            tracker(np.zeros(30))
        assert (tracker.signs >= 0).all() and not tracker.sign_changes.size


def test_a_tracker_recovers_from_a_first_error_and_rejects_a_second_thread(rng):
    ob = network(rng)
    tracker, theta = Tracker(ob, every=3), ob.model.init(0)
    with pytest.raises(ValueError):
        tracker(theta[1:])
    assert tracker(theta) is tracker.records[0]
    inner = Path(3)
    inner.hessian = lambda theta: (outer(theta), np.eye(3))[1]
    outer = Tracker(inner)
    with pytest.raises(RuntimeError, match="one thread at a time"):
        outer(np.zeros(3))


def test_tracker_every_records_each_nth_step_only(rng):
    ob = network(rng)
    tracker, theta = Tracker(ob, "LA", every=3), ob.model.init(0)
    returned = [tracker(theta) for _ in range(7)]
    assert tracker.steps.tolist() == [0, 3, 6] and returned[1] is returned[0]
    assert tracker.values.shape == (3, 1) and "3 records" in repr(tracker)
    for name in ("sign_changes", "signs"):
        assert getattr(Tracker(ob), name).size == 0
        with pytest.raises(ValueError, match=f"for {name}, which needs the lowest eigenvalue"):
            getattr(tracker, name)


def test_invalid_trackers_and_points_raise(rng):
    ob = network(rng)
    with pytest.raises(ValueError, match="which"):
        Tracker(ob, "LM")
    with pytest.raises(ValueError):
        Tracker(ob)(np.full(ob.n_params, np.nan))
    with pytest.raises(AttributeError, match="read-only"):
        Tracker(ob).records = ()


def test_more_products_keep_the_residuals_within_the_tolerance(rng):
    """In training by mini-batches, few records with 5 products reach the tolerance. With up to 40
    products nearly all do, and their values are those of the whole spectrum.
    """
    X, y = rng.standard_normal((200, 16)), rng.integers(6, size=200)
    ob = fc.Objective(fc.MLP([16, 12, 6]), X, y, loss="cross_entropy")
    few, more = Tracker(ob, rng=0), Tracker(ob, rng=0, max_products=40)
    theta, ends = ob.model.init(rng=0), []
    for _ in range(40):
        theta = theta - 0.5 * ob.batch(rng.choice(200, 16, replace=False)).gradient(theta)
        few(theta)
        more(theta)
        ends.append(np.linalg.eigvalsh(ob.hessian(theta).to_dense())[[0, -1]])
    share = [np.mean([record.converged for record in t.records]) for t in (few, more)]
    assert share[0] < 0.5 and share[1] > 0.95
    error = np.abs(more.values - ends).max(axis=1) / np.abs(ends).max(axis=1)
    assert np.mean(error <= 0.02) > 0.9
    assert more.n_products <= 40 * 40 + 100
    one = Tracker(ob, max_products=1)  # each value needs a product, so every record has both
    for _ in range(3):
        one(theta)
    assert one.values.shape == (3, 2)
    with pytest.raises(ValueError, match="max_products"):
        Tracker(ob, max_products=0)
