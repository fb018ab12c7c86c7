"""Class labels and sparse indices, which the engine uses as addresses, are checked copies. Later
writes to the caller's arrays change nothing or raise, and never crash.
"""

import pickle

import numpy as np
import pytest
import scipy.sparse

import fastcurv as fc

pytestmark = pytest.mark.by_day(one_of="dtype")

N, MODEL = 200, fc.MLP([4, 8, 3])
THETA = MODEL.init(rng=0)


def test_class_labels_changed_after_their_check_have_no_effect(python, tmp_path):
    """If labels are overwritten after an objective is constructed, its values and products are
    unchanged. A streamed objective, which reads labels again, raises ValueError.
    """
    python(f"""
import os
import itertools
import numpy as np, scipy.sparse
import fastcurv as fc
from tests.nets import Blocks

os.chdir({str(tmp_path)!r})
rng = np.random.default_rng(0)
model, X = fc.MLP([4, 8, 3]), rng.standard_normal(({N}, 4))
theta = model.init(rng=0)
ways = "plain", "mapped", "batch", "sparse", "streamed", "blocks"
changes = {{"5000": lambda y: 5000, "y + 1": lambda y: y + 1, "-400_000": lambda y: -400_000}}
for way, dtype, change in itertools.product(ways, ("int32", "int64", "uint8", ">i4"), changes):
    print(way, dtype, change, flush=True)  # the last line names the case that ended the process
    y = rng.integers(3, size={N}).astype(dtype)
    given = y
    if way == "mapped":
        np.save("y.npy", y)
        y, given = np.load("y.npy", mmap_mode="r+"), np.load("y.npy", mmap_mode="r")
    ob = {{
        "sparse": lambda: fc.Objective(model, scipy.sparse.csr_matrix(X), given),
        "streamed": lambda: fc.StreamedObjective(model, X, given, block_rows=64),
        "blocks": lambda: fc.StreamedObjective(model, Blocks((X, given)), block_rows=64),
    }}.get(way, lambda: fc.Objective(model, X, given))()
    if way == "batch":
        ob = ob.batch(slice(0, None, 2))
    H = ob.hessian(theta)
    value, product = ob.value(1.01 * theta), H @ theta
    with np.errstate(over="ignore"):
        y[...] = np.array(changes[change](y)).astype(dtype)
    try:
        values = ob.value(1.01 * theta), ob.value(1.02 * theta), ob.value(1.01 * theta)
        again = H @ theta
    except ValueError as error:
        assert way in ("streamed", "blocks"), error
        assert "must hold labels from" in str(error) or "differ from the previous" in str(error)
    else:
        assert way not in ("streamed", "blocks")
        assert values[0] == values[2] == value and np.array_equal(again, product)
""")


BROKEN = {
    "beyond": ("csr csc bsr", "A.indices[3] = 1 << 28"),
    "below": ("csr csc bsr", "A.indices[3] = -(1 << 28)"),
    "ends": ("csr csc bsr", "A.indptr[3] = 1 << 28"),
    "negative ends": ("csr csc bsr", "A.indptr[3] = -(1 << 28)"),
    "rows": ("coo", "A.row[3] = 1 << 28"),
    "columns": ("coo", "A.col[3] = -(1 << 28)"),
}


def test_sparse_indices_out_of_range_are_rejected(python):
    """Indices of a sparse matrix that are out of range, which SciPy does not detect, raise
    ValueError when the matrix is passed to an objective. The same error is raised when
    a stream reads the rows again.
    """
    python(f"""
import numpy as np, scipy.sparse
import fastcurv as fc
from tests.nets import Blocks

rng = np.random.default_rng(0)
model, y = fc.MLP([40, 4, 3]), rng.integers(3, size=60)
theta = model.init(rng=0)
dense = rng.standard_normal((60, 40)) * (rng.random((60, 40)) < 0.3)

def refused(call):
    try:
        call()
    except ValueError as error:
        assert "sparse matrix" in str(error), error
    else:
        raise AssertionError("accepted")

for name, (kinds, harm) in {BROKEN!r}.items():
    for kind in kinds.split():
        print(name, kind, flush=True)  # the last line names the case that ended the process
        A = getattr(scipy.sparse, kind + "_matrix")(dense)
        later = fc.Objective(model, A, y)
        streams = [
            fc.StreamedObjective(model, A, y, block_rows=16),
            fc.StreamedObjective(model, Blocks((A, y), entries=9.0), block_rows=16),
        ]
        values = [ob.value(theta) for ob in (later, *streams)]
        for ob in (later, *streams):  # where the rows are read again for theta
            ob.value(2 * theta)
        exec(harm)
        assert later.value(theta) == values[0]
        assert streams[0].value(theta) == values[1]
        refused(lambda: streams[1].value(theta))
        refused(lambda: fc.Objective(model, A, y))
        refused(lambda: fc.StreamedObjective(model, A, y).value(theta))
""")


def test_sparse_matrices_are_copied_and_not_modified(rng):
    """The indices of an objective's sparse matrix are read-only copies, and the caller's matrix is
    neither modified nor shared.
    """
    A = scipy.sparse.random(60, 40, 0.2, format="csr", random_state=0)
    A.data[3] = 0.0
    before = [part.copy() for part in (A.data, A.indices, A.indptr)]
    model, y = fc.MLP([40, 4, 3]), rng.integers(3, size=60)
    ob = fc.Objective(model, A, y)
    fc.StreamedObjective(model, A, y, block_rows=7).value(model.init(rng=0))
    for old, part in zip(before, (A.data, A.indices, A.indptr)):
        assert np.array_equal(old, part) and part.flags.writeable
        assert not any(np.shares_memory(part, own) for own in (ob.X.data, ob.X.indices))
    for part in (ob.X.indices, ob.X.indptr):
        with pytest.raises(ValueError, match="read-only"):
            part[0] = 7
    few = ob.batch([3, 1]).value(model.init(rng=0))
    assert few == fc.Objective(model, A[[3, 1]], y[[3, 1]]).value(model.init(rng=0))


def test_later_changes_of_indices_and_shapes_have_no_effect(rng):
    """Later changes of the indices passed to `restrict`, or of the `shape` of X, soft targets and
    weights, do not change products, values, batches or pickled copies.
    """
    X, y, w = rng.standard_normal((N, 4)), rng.random((N, 3)), rng.random(N)
    y /= y.sum(axis=1, keepdims=True)
    plain = fc.Objective(MODEL, X.copy(), y.copy(), sample_weight=w.copy())
    ob = fc.Objective(MODEL, X, y, sample_weight=w)
    indices = np.array([1, 5, 9])
    part = ob.hessian(THETA).restrict(indices=indices)
    known, want = part @ np.ones(3), plain.certificates.precise_value(THETA)
    indices[:] = 1 << 40
    assert np.array_equal(part @ np.ones(3), known)
    X.shape, y.shape, w.shape = (2 * N, 2), (3 * N, 1), (N, 1)
    for one in (ob, pickle.loads(pickle.dumps(ob))):
        assert one.X.shape == (N, 4) and one.y.shape == (N, 3) and one.n_samples == N
        assert (
            one.value(THETA) == plain.value(THETA) and one.certificates.precise_value(THETA) == want
        )
    assert np.shares_memory(ob.X, X) and np.shares_memory(ob.y, y), "rows are not copied"
    few = ob.batch([3, 1]).gradient(THETA)
    assert np.array_equal(few, plain.batch([3, 1]).gradient(THETA))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_epochs_in_shared_memory_equal_separate_batches(loss, weighted, batch_norm, rng):
    """Values and gradients of the batches of an epoch, which share memory, are bitwise those of
    batches constructed one by one, in three epochs and for the smaller last batch. Operators of
    earlier batches stay valid.
    """
    X, weight = rng.standard_normal((101, 5)), rng.random(101) if weighted else None
    y = rng.integers(3, size=101) if loss == "cross_entropy" else rng.standard_normal((101, 3))
    model = fc.MLP((5, 7, 3), "tanh", batch_norm=batch_norm)
    ob, theta = fc.Objective(model, X, y, loss, sample_weight=weight), model.init(rng=0)
    kept = []
    for epoch in range(3):
        order = np.random.default_rng(epoch).permutation(101)
        batches = ob.batches(20, np.random.default_rng(epoch))
        for start, batch in zip(range(0, 120, 20), batches, strict=True):
            alone = ob.batch(order[start : start + 20])
            assert np.array_equal(batch.X, alone.X) and np.array_equal(batch.y, alone.y)
            for point in (theta, theta + 1):
                (value, g), (same, h) = (each.value_and_gradient(point) for each in (batch, alone))
                assert value == same and np.array_equal(g, h)
            if epoch == 2:
                kept.append((batch.hessian(theta), alone.hessian(theta)))
    for here, there in kept:  # an operator keeps its own rows
        assert np.array_equal(here @ theta, there @ theta)
    assert not pickle.loads(pickle.dumps(ob))._made


def test_rows_of_a_damaged_pickle_are_checked(rng):
    X, y = rng.standard_normal((8, 3)), np.arange(8) % 3
    model = fc.MLP([3, 4, 3])
    sparse = scipy.sparse.csr_matrix(X)
    sparse.indices[3] = 10**9
    for ob, name, damaged, words in (
        (fc.Objective(model, X, y), "_y", np.r_[5, y[1:]].astype(np.int32), "y must"),
        (fc.Objective(model, X, y), "_X", X[:, :2], "X must"),
        (fc.Objective(model, scipy.sparse.csr_matrix(X), y), "_X", sparse, "X must"),
    ):
        state = ob.__getstate__() | {name: damaged}
        with pytest.raises(ValueError, match=words):
            object.__new__(fc.Objective).__setstate__(state)
