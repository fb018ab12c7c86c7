"""Shards of a distributed objective, loaded from recipes as workers do, without a cluster."""

import pickle

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.distributed import ShardRecipe, load_shard
from fastcurv.network.sums import ShardSettings

MODEL = fc.MLP([2, 3, 1])
X, Y, W = np.arange(12.0).reshape(6, 2), np.ones(6), np.linspace(0.5, 1, 6)


def computed_rows():
    return X, Y, W


def shard_recipe(source, stored="float64"):
    return ShardRecipe(3, source, np.dtype(stored))


def test_shards_are_loaded_from_functions_and_tasks():
    every = [
        shard_recipe(lambda: (X, Y, W)).load_rows(MODEL, "mse"),
        shard_recipe(None).load_rows(MODEL, "mse", given=(X, Y, W)),
    ]
    for rows, targets, weight in every:
        assert np.array_equal(rows, X) and np.array_equal(np.ravel(targets), Y)
        assert np.array_equal(weight, W)
    assert shard_recipe(lambda: (X, Y)).load_rows(MODEL, "mse")[2] is None


def test_shards_are_rounded_to_the_stored_dtype():
    """Rows of a recipe with stored="float32" are loaded as float64 arrays of float32 values, so
    that every copy of the objective has equal data. Class labels are not rounded.
    """
    third = np.full((6, 2), 1 / 3)
    rows = shard_recipe(lambda: (third, Y), stored="float32").load_rows(MODEL, "mse")[0]
    assert rows.dtype == np.float64 and np.array_equal(rows, third.astype("float32"))
    classes = fc.MLP([2, 3, 4])
    kept = shard_recipe(lambda: (third, np.arange(6) % 4), stored="float32")
    assert np.array_equal(kept.load_rows(classes, "cross_entropy")[1], np.arange(6) % 4)


@pytest.mark.parametrize("part", [X, (X,), (X, Y, W, W), {"X": X}])
def test_errors_for_malformed_shards_name_the_shard(part):
    with pytest.raises(TypeError, match=r"in shard 3: the rows must be \(X, y\)"):
        shard_recipe(lambda: part).load_rows(MODEL, "mse")


def test_pickled_shards_are_loaded_by_the_receiver():
    """The pickle of a shard contains its rows if the rows were passed as arrays, and not if the
    receiver can load them. Rows and gradient of the copy equal those of the original.
    """
    frame, theta = ShardSettings(MODEL, "mse", 6, 1, 4), MODEL.init(rng=0)
    for source, given in ((computed_rows, None), (None, (X, Y, W))):
        placed = load_shard(shard_recipe(source), frame, 0, given)
        sent = pickle.dumps(placed)
        assert (X.tobytes() in sent) == (source is None)
        other = pickle.loads(sent)
        assert type(other) is type(placed)
        assert np.array_equal(other.X, X) and np.array_equal(other.sample_weight, W)
        assert np.array_equal(other.gradient(theta), placed.gradient(theta))
