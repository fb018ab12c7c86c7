"""Files of rows that become shorter while a `StreamedObjective` reads them."""

import os

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.network.sums import shard_value

N, MODEL = 20_000, fc.MLP([20, 5, 3])
THETA = MODEL.init(rng=0)


@pytest.fixture
def paths(tmp_path):
    X, y = tmp_path / "X.npy", tmp_path / "y.npy"
    np.save(X, np.ones((N, 20)))
    np.save(y, np.arange(N) % 3)
    return {"X": X, "y": y}


@pytest.mark.parametrize("cut", ["X", "y"])
def test_truncated_files_raise_in_each_later_call(cut, paths):
    """If the file of X or y is truncated between or during passes, the gradient, a batch and the
    next block raise ValueError.
    """
    ob = fc.StreamedObjective(MODEL, paths["X"], str(paths["y"]), block_rows=1000)
    ob.value(THETA)
    blocks = ob._source.blocks(1000)
    next(blocks)
    os.truncate(paths[cut], 5000)
    words = f"the file of {cut} must keep its size while its rows are read, got 5000 bytes instead"
    for call in (lambda: ob.gradient(THETA), lambda: ob.batch([N - 200]), lambda: next(blocks)):
        with pytest.raises(ValueError, match=words):
            call()


def test_truncation_during_a_block_raises_for_the_rows_not_yet_read(paths):
    """If the file is truncated while a block is processed, ValueError is raised at most one block
    later, because only the prefetched block was already read.
    """
    for after in (1, 3, 6):
        np.save(paths["X"], np.ones((N, 20)))
        ob = fc.StreamedObjective(MODEL, paths["X"], np.arange(N) % 3, block_rows=2500)
        ob.value(THETA)
        done = []

        def part(shard, theta, done=done, after=after):
            done.append(shard_value(shard, theta))
            if len(done) == after:
                os.truncate(paths["X"], 128)
            return done[-1]

        with pytest.raises(ValueError, match="the file of X must keep its size .* got 128 bytes"):
            ob._sum_over_shards(part, (THETA,))
        assert after <= len(done) <= after + 1
