"""`minimize` and `escape` on networks: final points, both precisions, mini-batches and saddles."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.optimize import newton

pytestmark = pytest.mark.by_day(share=1 / 3)

SADDLE_ESCAPING = ["trust-region", "newton-cg", "saddle-free-newton", "cubic"]


def blobs(dtype="float64", l2=1e-2, seed=0):
    """Return (ob, model): 80 samples of three overlapping classes in four dimensions for a 4-5-3
    tanh network (n = 43).
    """
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=80)
    X = rng.standard_normal((80, 4)) + 1.5 * np.eye(4)[y]
    model = fc.MLP([4, 5, 3], activation="tanh", dtype=dtype)
    return fc.Objective(model, X, y, l2=l2), model


@pytest.mark.parametrize("method", [*SADDLE_ESCAPING, "gauss-newton", "l-bfgs"])
def test_a_regularised_network_ends_at_a_point_without_negative_curvature(method):
    ob, model = blobs()
    for seed in range(3):
        found = fc.minimize(ob, model.init(rng=seed), method, rng=seed)
        assert found.success and np.linalg.norm(ob.gradient(found.x)) <= 1e-6, found
        assert np.linalg.eigvalsh(ob.hessian(found.x).to_dense())[0] > -1e-9
        assert found.fun == ob.value(found.x)


def test_gauss_newton_switches_to_the_hessian_to_save_steps(monkeypatch):
    """For overlapping classes, whose residuals do not vanish, "gauss-newton" takes less than half
    the steps that it takes if it never switches to the Hessian.
    """
    ob, model = blobs(l2=1e-3)
    starts = [model.init(rng=seed) for seed in range(3)]
    ours = [fc.minimize(ob, start, "gauss-newton", rng=0, gradient_tol=1e-9) for start in starts]
    monkeypatch.setattr(newton, "MAX_SLOW_STEPS", 10**9)
    plain = [fc.minimize(ob, start, "gauss-newton", rng=0, gradient_tol=1e-9) for start in starts]
    assert all(found.success for found in ours)
    assert 2 * sum(found.nit for found in ours) < sum(found.nit for found in plain)


def test_hessian_products_are_counted_as_the_operator_counts_them():
    ob, model = blobs()
    made = []

    class Watched:
        n_params, dtype = ob.n_params, ob.dtype
        value, gradient, value_and_gradient = ob.value, ob.gradient, ob.value_and_gradient

        def hessian(self, theta):
            made.append(ob.hessian(theta))
            return made[-1]

    found = fc.minimize(Watched(), model.init(rng=0), "trust-region", max_iter=12)
    assert found.nhev == sum(H.n_products for H in made) > 12
    assert len(made) == found.nit + 1 == found.njev


@pytest.mark.parametrize("method", ["sgd", "momentum", "nesterov", "rmsprop", "adam"])
def test_mini_batches_lower_the_loss_of_all_samples(method):
    ob, model = blobs()
    theta = model.init(rng=0)
    options = {"learning_rate": 0.01} if method in ("rmsprop", "adam") else {}
    found = fc.minimize(ob, theta, method, batch_size=16, max_iter=30, rng=0, **options)
    assert found.fun < 0.75 * ob.value(theta) and found.fun == ob.value(found.x)
    assert len(found.history["loss"]) == 31 and found.nhev == 0
    assert found.njev == 31 + 30 * 5
    again = fc.minimize(
        ob, theta, method, batch_size=16, max_iter=30, rng=0, record_every=10, **options
    )
    assert list(again.history["iteration"]) == [0, 10, 20, 30]
    assert again.history["loss"][-1] == found.history["loss"][-1]


@pytest.mark.parametrize("method", SADDLE_ESCAPING)
def test_curvature_from_a_sample_of_rows_still_ends_at_a_critical_point_of_the_whole(method):
    ob, model = blobs()
    found = fc.minimize(ob, model.init(rng=0), method, sample=40, rng=0)
    assert found.success and np.linalg.norm(ob.gradient(found.x)) <= 1e-6
    again = fc.minimize(ob, model.init(rng=0), method, sample=80, rng=0)
    assert again.nit < found.nit and np.array_equal(
        again.x, fc.minimize(ob, model.init(rng=0), method, rng=0).x
    )


@pytest.mark.parametrize("method", ["trust-region", "saddle-free-newton", "cubic", "gauss-newton"])
def test_preconditioning_and_warm_starts_do_not_change_the_ending(method):
    ob, model = blobs()
    found = fc.minimize(ob, model.init(rng=0), method, rng=0, precondition=True, warm_start=True)
    assert found.success and np.linalg.norm(ob.gradient(found.x)) <= 1e-6
