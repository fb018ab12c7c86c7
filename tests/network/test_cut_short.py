"""Memory-mapped files that are truncated while their rows are read."""

import mmap

import numpy as np
import pytest

from fastcurv._engine import copy_if_mapped

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
    """Return a function that runs a string of code after the lines of BEGIN, in a new process whose
    current directory is a temporary folder.
    """
    return lambda code: python(f"{BEGIN}os.chdir({str(tmp_path)!r})\n{code}", timeout=1200)


@pytest.mark.parametrize("cut", ["X", "y"])
def test_truncated_files_raise_instead_of_crashing(cut, program):
    """If the mapped file of X or y is truncated between or during passes, the gradient, a batch and
    the next block raise ValueError, and the process receives no SIGBUS. This also holds for views
    of the map and plain arrays of its pages.
    """
    program(
        f"""
N, model = 20_000, fc.MLP([20, 5, 3])
theta = model.init(seed=0)
for as_given in (lambda a: a, lambda a: a[100:], lambda a: np.asarray(a)):
    np.save("X.npy", np.ones((N, 20)))
    np.save("y.npy", np.arange(N) % 3)
    X, y = (as_given(np.load(name, mmap_mode="r")) for name in ("X.npy", "y.npy"))
    ob = fc.StreamedObjective(model, X, y, block_rows=1000)
    value, blocks = ob.value(theta), ob._source.blocks(1000)
    next(blocks)
    os.truncate("{cut}.npy", 5000)
    asks = lambda: ob.gradient(theta), lambda: ob.batch([N - 200]), lambda: next(blocks)
    words = "must keep its size while its rows are read, got 5000 bytes instead of"
    refused(asks, "the file of {cut} " + words)
"""
    )


def test_truncation_during_a_block_raises_for_the_rows_not_yet_read(program):
    """If the file is truncated while a block is processed, ValueError is raised at most one block
    later, because only the prefetched block was already read.
    """
    program(
        """
from fastcurv.network.sums import shard_value

model, theta = fc.MLP([16, 8, 1]), fc.MLP([16, 8, 1]).init(seed=0)
for after in range(1, 7):
    np.save("X.npy", np.ones((4000, 16)))
    ob = fc.StreamedObjective(model, "X.npy", np.ones((4000, 1)), block_rows=500)
    ob.value(theta)
    done = []

    def part(shard, theta):
        done.append(shard_value(shard, theta))
        if len(done) == after:
            os.truncate("X.npy", 128)
        return done[-1]

    words = "the file of X must keep its size while its rows are read, got 128 bytes instead of"
    refused([lambda: ob._sum_over_shards(part, (theta,))], words)
    assert after <= len(done) <= after + 1
"""
    )


@pytest.mark.by_day(share=1 / 2)
@pytest.mark.parametrize("memory", [None, 2_000_000])
def test_an_objective_copies_mapped_rows_into_memory(memory, program):
    """Objectives keep their values, gradients, products and verdicts after the mapped files of X, y
    and weights are truncated. This holds for maps, views and plain arrays of the mapped pages.
    """
    program(
        f"""
N, model, rng = 2000, fc.MLP([20, 5, 2], "relu"), np.random.default_rng(0)
theta = model.init(seed=0)
names = "X.npy", "y.npy", "w.npy"
ways = (lambda a: a), (lambda a: a[100:]), np.asarray, lambda a: a[::-2]
given = rng.standard_normal((N, 20)), rng.standard_normal((N, 2)), rng.random(N)
for mode in "r", "r+", "c":
    for as_given in ways:
        for name, numbers in zip(names, given):
            np.save(name, numbers)
        X, y, w = (as_given(np.load(name, mmap_mode=mode)) for name in names)
        rows = [as_given(numbers) for numbers in given]
        ob = fc.Objective(model, X, y, "mse", sample_weight=w, memory={memory})
        few, same = ob.batch(slice(0, None, 7)), fc.Objective(model, *rows[:2], "mse", 0.0, rows[2])
        for name in names:
            os.truncate(name, 5000)
        for one, other in (ob, same), (few, same.batch(slice(0, None, 7))):
            for ask in ("value", "gradient"):
                assert np.array_equal(getattr(one, ask)(theta), getattr(other, ask)(theta))
            assert fc.classify(one, theta).kind == fc.classify(other, theta).kind
        assert np.array_equal(ob.X, rows[0]) and np.array_equal(ob.jacobian(theta) @ theta,
                                                                same.jacobian(theta) @ theta)
"""
    )


def test_files_truncated_before_use_are_rejected(program):
    """Networks, objectives and sparse matrices raise ValueError for arrays of a mapped
    file that was truncated before the call.
    """
    program(
        """
import scipy.sparse

N, model = 20_000, fc.MLP([20, 5, 3])
theta = model.init(seed=0)
rng = np.random.default_rng(0)
X, y = rng.standard_normal((N, 20)), rng.integers(3, size=N).astype(np.int32)
for order in "CF":
    np.save("X.npy", np.asarray(X, order=order)), np.save("y.npy", y), np.save("w.npy", np.ones(N))
    A, b, w = (np.load(name, mmap_mode="r") for name in ("X.npy", "y.npy", "w.npy"))
    np.save("ends.npy", np.arange(N + 1, dtype=np.int32)), np.save("at.npy", np.zeros(N, np.int32))
    at = np.load("at.npy", mmap_mode="r")
    S = scipy.sparse.csr_matrix((np.ones(N), at, np.arange(N + 1)), shape=(N, 20))
    S.indices = at
    for name in ("X.npy", "y.npy", "w.npy", "at.npy"):
        os.truncate(name, 5000)
    asks = [
        lambda: model.predict(theta, A), lambda: model.predict(theta, np.asarray(A)[50:]),
        lambda: model.preactivations(theta, A),
        lambda: fc.Objective(model, A, y), lambda: fc.Objective(model, X, b),
        lambda: fc.Objective(model, X, y, sample_weight=w),
        lambda: fc.StreamedObjective(model, A, y, block_rows=999).value(theta),
        lambda: fc.StreamedObjective(model, [(A[:500], y[:500]), (A[500:], y[500:])]).value(theta),
        lambda: fc.StreamedObjective(model, [A[:500], A[500:]], b).value(theta),
        lambda: fc.Objective(model, S, y), lambda: fc.StreamedObjective(model, S, y).value(theta),
    ]
    for i, ask in enumerate(asks):
        try:
            ask()
        except ValueError as error:
            assert "got 5000 bytes instead of" in str(error), (i, error)
        else:
            raise AssertionError(f"ask {i} was answered")
"""
    )


@pytest.mark.by_day(share=1 / 3)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("asked", ["streamed", "batches", "predict", "objective"])
def test_truncation_and_growth_during_passes_never_crash(asked, order, program):
    """While another thread truncates and extends mapped files a hundred times, each call returns or
    raises ValueError or OSError. After a final truncation, each call raises and names the file.
    """
    program(
        f"""
import threading, time, warnings

N, model = 60_000, fc.MLP([20, 5, 3])
theta = model.init(seed=0)
np.save("X.npy", np.ones((N, 20), order={order!r}))
np.save("y.npy", np.zeros(N, np.int32))
whole = {{name: os.stat(name).st_size for name in ("X.npy", "y.npy")}}
mapped, labels = (np.load(name, mmap_mode="r") for name in whole)

def cut():
    rng = np.random.default_rng(0)
    for _ in range(100):
        name = ("X.npy", "X.npy", "y.npy")[rng.integers(3)]
        os.truncate(name, int(rng.integers(128, whole[name])))
        time.sleep(1e-3 * rng.random())
        os.truncate(name, whole[name])
        time.sleep(3e-3 * rng.random())

def streamed(X):
    ob = fc.StreamedObjective(model, X, labels, block_rows=1000)
    ob.value(theta)
    return ob.batch(np.arange(0, N, 997))

def batches(X):
    ob = fc.StreamedObjective(model, X, labels, block_rows=1000)
    return [batch.n_samples for batch in ob.batches(500, np.random.default_rng(0))]

asks = {{
    "streamed": [lambda: streamed("X.npy"), lambda: streamed(mapped)],
    "batches": [lambda: batches("X.npy"), lambda: batches(mapped)],
    "predict": [lambda: model.predict(theta, mapped), lambda: model.predict(theta, mapped[7::3])],
    "objective": [lambda: fc.Objective(model, mapped, labels).batch([N - 1]).value(theta)],
}}[{asked!r}]
warnings.simplefilter("ignore")
thread, tried = threading.Thread(target=cut), 0
thread.start()
while thread.is_alive() or tried < len(asks):
    try:
        asks[tried % len(asks)]()
    except (ValueError, OSError) as error:
        assert str(error) and "\\n" not in str(error)
    tried += 1
thread.join()
for name in whole:
    os.truncate(name, 5000)
for ask in asks:
    try:
        ask()
    except (ValueError, OSError) as error:
        assert "the file of" in str(error) or "X.npy" in str(error), error
    else:
        raise AssertionError("rows of a file that was cut short were read")
"""
    )


def test_mapped_rows_are_copied_exactly_for_every_layout(tmp_path):
    """`copy_if_mapped` returns exact copies of mapped rows by both system calls, for every memory
    layout and for selected rows. Arrays that are not mapped are returned without a copy.
    """
    X = np.random.default_rng(0).standard_normal((300, 17))
    for i, given in enumerate((X, np.asfortranarray(X), X.astype(">f4"), X > 0)):
        np.save(tmp_path / f"{i}.npy", given)
        m = np.load(tmp_path / f"{i}.npy", mmap_mode="r")
        views = m, m[7:90], m[::3], m[:, ::2], m[::-1], m[:, 3], m[5], m.T, m[:0], m[3:4]
        for v in (*views, np.asarray(m)[10:20], m[:, None, :], np.broadcast_to(m[0], (5, 17))):
            for by_pipe in (False, True):
                found = copy_if_mapped(v, "X", None, by_pipe)
                assert np.array_equal(found, v) and type(found) is np.ndarray
                assert found.flags.writeable and found.dtype == v.dtype
                assert v.flags.c_contiguous <= found.flags.c_contiguous
                assert v.flags.f_contiguous <= found.flags.f_contiguous
                if v.ndim > 1 and len(v):
                    rows = np.random.default_rng(1).integers(len(v), size=50)
                    assert np.array_equal(copy_if_mapped(v, "X", rows, by_pipe), v[rows])
        with pytest.raises(IndexError, match="rows must be indices of the 300 rows of X"):
            copy_if_mapped(m, "X", [300])
        with (tmp_path / f"{i}.npy").open("r+b") as file:
            raw = np.frombuffer(mmap.mmap(file.fileno(), 0), np.uint8)
            copied = copy_if_mapped(raw, "X")
            assert np.array_equal(copied, raw) and copied is not raw
    raw = np.frombuffer(mmap.mmap(-1, 1000), np.uint8)  # an anonymous map
    assert np.array_equal(copy_if_mapped(raw, "X"), raw)
    assert copy_if_mapped(X, "X") is X and np.array_equal(copy_if_mapped(X, "X", [3, 1]), X[[3, 1]])
