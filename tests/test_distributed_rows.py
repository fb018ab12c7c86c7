"""Rows of shards that workers of Dask hold: their order, their numbers, what is said of them."""

import pickle
from functools import partial

import numpy as np
import pytest

import fastcurv as fc

dask = pytest.importorskip("distributed")
MODEL = fc.MLP([5, 7, 3])


def rows(number):
    rng = np.random.default_rng(number)
    return rng.standard_normal((30 + number, 5)), rng.integers(3, size=30 + number)


@pytest.fixture(scope="module")
def client():
    with dask.Client(
        processes=False, n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as c:
        yield c


@pytest.mark.parametrize("asked", [[300, 0, 150, 7, 7, -1], slice(None, None, -7), [12, 3, 40]])
def test_outputs_of_a_batch_come_as_asked(client, asked):
    parts = [rows(i) for i in range(11)]
    a = fc.Objective(MODEL, *(np.concatenate(p) for p in zip(*parts)))
    b = fc.distributed.Objective(MODEL, [partial(rows, i) for i in range(11)], client=client)
    theta = MODEL.init(seed=0)
    for _ in range(2):
        a, b = a.batch(asked), b.batch(asked)
        J, ours = a.jacobian(theta), b.jacobian(theta)
        v, u = (np.random.default_rng(0).standard_normal(n) for n in J.shape[::-1])
        assert np.abs(ours @ v - J @ v).max() <= 1e-12
        assert np.abs(ours.T @ u - J.T @ u).max() <= 1e-12
        same = b.astype("float32").jacobian(theta.astype("f4")) @ v.astype("f4")
        assert np.abs(same - J @ v).max() <= 1e-4
        asked = [2, 0, 1]


def integers():
    return np.array([[2**24 + 1, 1], [5, 2**24 + 3]]), np.array([2**24 + 1, 3])


def test_a_shard_that_is_loaded_again_has_the_numbers_it_had(client):
    """Integers beyond float32 in an objective that became one of float64."""
    ob = fc.distributed.Objective(fc.MLP([2, 1], dtype="float32"), [integers], "mse", client=client)
    shard = ob.astype("float64")._shards[0].result()
    again = pickle.loads(pickle.dumps(shard))
    assert np.array_equal(again.X, shard.X) and np.array_equal(again.y, shard.y)
    assert shard.X[0, 0] == 2**24


def undecodable():
    return b"\xff".decode()


def test_errors_of_shards_keep_their_words(client, tmp_path):
    """Those of classes that want more than a sentence, and files without targets."""
    np.savez(tmp_path / "some.npz", X=np.ones((3, 1)), sample_weight=np.ones(3))
    for shard, words in (
        (undecodable, "in shard 0: 'utf-8' codec can't decode"),
        (tmp_path / "some.npz", "in shard 0: the file some.npz has no y; wanted X and y"),
    ):
        with pytest.raises(ValueError, match=words):
            fc.distributed.Objective(fc.MLP([1, 1]), [shard], "mse", client=client)


def test_delayed_values_are_computed(client):
    delayed = pytest.importorskip("dask").delayed
    ob = fc.distributed.Objective(MODEL, [delayed(rows)(i) for i in range(2)], client=client)
    parts = [rows(i) for i in range(2)]
    a, theta = fc.Objective(MODEL, *(np.concatenate(p) for p in zip(*parts))), MODEL.init(seed=0)
    assert ob.value(theta) == pytest.approx(a.value(theta), rel=1e-13)
    ob.close()
    with pytest.raises(ValueError, match="the objective is closed"):
        ob.value(theta + 1)
