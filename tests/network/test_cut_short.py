"""Memory-mapped files that are cut short while rows are read from them."""

import pytest

BEGIN = """
import os
import numpy as np
import fastcurv as fc

def refused(asks, words):
    for i, ask in enumerate(asks):
        try:
            ask()
        except ValueError as error:
            assert words in str(error) and str(error).startswith("the file of"), error
        else:
            raise AssertionError(f"ask {i} was answered")

"""


@pytest.fixture
def program(python, tmp_path):
    """Runs a program with `refused` in a process and a folder of its own."""
    return lambda code: python(f"{BEGIN}os.chdir({str(tmp_path)!r})\n{code}")


@pytest.mark.parametrize("cut", ["X", "y"])
def test_a_file_that_is_cut_short_is_refused_and_ends_no_process(cut, program):
    """Between passes, amid one, and for a batch, views and plain arrays of its pages among them."""
    program(
        f"""
N, model = 20_000, fc.MLP([20, 5, 3])
theta = model.init(seed=0)
for as_given in (lambda a: a, lambda a: a[100:], lambda a: np.asarray(a)):
    np.save("X.npy", np.ones((N, 20)))
    np.save("y.npy", np.arange(N) % 3)
    X, y = (as_given(np.load(name, mmap_mode="r")) for name in ("X.npy", "y.npy"))
    ob = fc.StreamedObjective(model, X, y, block_rows=1000)
    value, blocks = ob.value(theta), ob.source.blocks(1000)
    next(blocks)
    os.truncate("{cut}.npy", 5000)
    asks = lambda: ob.gradient(theta), lambda: ob.batch([N - 200]), lambda: next(blocks)
    refused(asks, "the file of {cut} has 5000 bytes now and had")
"""
    )


def test_a_file_that_is_cut_short_while_a_block_is_multiplied(program):
    """The rows of the block behind and the one ahead are looked at in the file, too."""
    program(
        """
from fastcurv.network.shard_parts import value_part

model, theta = fc.MLP([16, 8, 1]), fc.MLP([16, 8, 1]).init(seed=0)
for after in range(1, 9):
    np.save("X.npy", np.ones((4000, 16)))
    ob = fc.StreamedObjective(model, "X.npy", np.ones((4000, 1)), block_rows=500)
    ob.value(theta)
    done = []

    def part(shard, theta):
        done.append(value_part(shard, theta))
        if len(done) == after:
            os.truncate("X.npy", 128)
        return done[-1]

    refused([lambda: ob._fold(part, (theta,))], "the file of X has 128 bytes now and had")
    assert len(done) == after
"""
    )


@pytest.mark.parametrize("memory", [None, 2_000_000])
def test_a_plain_objective_of_a_file_that_is_cut_short_refuses_too(memory, program):
    """Its operators as well; only what is known already needs no rows."""
    program(
        f"""
N, model = 20_000, fc.MLP([20, 5, 2])
theta = model.init(seed=0)
names = "X.npy", "y.npy", "w.npy"
ways = (lambda a: a), (lambda a: a[100:]), np.asarray
for cut, as_given in zip(names, ways):
    for name, numbers in zip(names, (np.ones((N, 20)), np.ones((N, 2)), np.ones(N))):
        np.save(name, numbers)
    X, y, w = (as_given(np.load(name, mmap_mode="r")) for name in names)
    ob = fc.Objective(model, X, y, "mse", sample_weight=w, memory={memory})
    ob.value(theta)
    H, J = ob.hessian(theta), ob.jacobian(theta)
    os.truncate(cut, 5000)
    asks = (
        lambda: ob.gradient(theta), lambda: ob.value(2 * theta), lambda: H @ theta,
        lambda: H.quadratic(theta), lambda: J @ theta, lambda: ob.hessian(theta),
        lambda: ob.batch([N - 200]), lambda: fc.classify(ob, theta),
        lambda: fc.minimize(ob, theta, max_iter=1),
    )
    refused(asks, "has 5000 bytes now and had")
"""
    )


def test_labels_of_a_file_that_is_cut_short(program):
    """Those that are referenced as they lie, too."""
    program(
        """
N, model = 20_000, fc.MLP([2, 5, 3])
theta = model.init(seed=0)
np.save("y.npy", (np.arange(N) % 3).astype(np.int32))
ob = fc.Objective(model, np.ones((N, 2)), np.load("y.npy", mmap_mode="r"))
H = ob.hessian(theta)
os.truncate("y.npy", 5000)
refused((lambda: ob.value(2 * theta), lambda: H @ theta), "the file of y has 5000 bytes")
"""
    )


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_what_is_cut_amid_a_verdict(activation, program):
    """Proofs read rows in Python, after the engine's passes: they refuse what is gone, too."""
    program(
        f"""
N, model = 20_000, fc.MLP([20, 3, 2], activation={activation!r})
theta = model.init(seed=0)
rng = np.random.default_rng(0)
for cut in ("X.npy", "y.npy", "w.npy"):
    for name, size in (("X.npy", (N, 20)), ("y.npy", (N, 2)), ("w.npy", N)):
        np.save(name, rng.normal(size=size) ** 2)

    class Cut(fc.Objective):
        def hessian(self, theta):
            answer = super().hessian(theta)
            os.truncate(cut, 5000)
            return answer

    X, y, w = (np.load(name, mmap_mode="r") for name in ("X.npy", "y.npy", "w.npy"))
    ob = Cut(model, X, y, "mse", sample_weight=w)
    refused([lambda: fc.classify(ob, theta)], "has 5000 bytes now and had")
    assert f"N={{N}}" in repr(ob)
"""
    )
