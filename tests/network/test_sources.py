"""Streamed rows give the same results for every kind of storage, and the error for unsuitable rows
names them.
"""

import itertools
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.network.rows import ArrayFile, RowSource, regroup_rows

from ..nets import CURVATURES, Blocks

pytestmark = pytest.mark.by_day(share=1 / 2)

N, SIZES = 137, [5, 7, 4, 3]


def all_sources(folder, X, y, w):
    """Yield (name, X, y, weights, options) for data sources of every kind that hold the rows X, y
    and w: a class of the user's, maps, paths and lists. Files are written into `folder`.
    """
    np.save(folder / "X.npy", X)
    np.save(folder / "y.npy", y)

    cuts = (slice(0, 50), slice(50, 51), slice(51, N))
    yield "source", Blocks(*((X[i], y[i], w[i]) for i in cuts)), None, None, {}
    yield "memory-mapped", np.load(folder / "X.npy", mmap_mode="r"), y, w, {}
    yield "paths", folder / "X.npy", str(folder / "y.npy"), w, {}
    yield "strided", np.asfortranarray(X)[::1], y, w, {}
    yield "list of rows", X.tolist(), y.tolist(), w.tolist(), {}


def check_source(rng, X, y, w, source, rows, weight, options, shuffled=False):
    model = fc.MLP(SIZES)
    theta, V = model.init(rng=0), rng.standard_normal((model.n_params, 2))
    want = fc.Objective(model, X, y, sample_weight=w)
    ob = fc.StreamedObjective(model, source, rows, sample_weight=weight, block_rows=32, **options)
    same = fc.StreamedObjective(model, X, y, sample_weight=w, block_rows=32)
    assert ob.n_samples == N and np.array_equal(ob.gradient(theta), same.gradient(theta))
    assert np.abs(ob.hessian(theta) @ V - want.hessian(theta) @ V).max() <= 1e-13
    some = np.array([100, 3, 3, 50, 136])
    assert np.array_equal(ob.batch(some).gradient(theta), want.batch(some).gradient(theta))
    seen = np.concatenate([b.X for b in ob.batches(10, np.random.default_rng(0))])
    assert np.array_equal(np.unique(seen, axis=0), np.unique(X, axis=0)) and len(seen) == N
    assert not np.array_equal(seen, X)
    again = np.concatenate([b.X for b in ob.batches(10, np.random.default_rng(0))])
    assert np.array_equal(seen, again)


def rows_of(rng):
    return rng.standard_normal((N, 5)), rng.integers(3, size=N), rng.random(N)


@pytest.mark.parametrize("number", range(5))
def test_every_row_source_gives_bitwise_identical_results(rng, tmp_path, number):
    X, y, w = rows_of(rng)
    name, *given, options = next(itertools.islice(all_sources(tmp_path, X, y, w), number, None))
    check_source(rng, X, y, w, *given, options)
    if name == "paths":
        ob = fc.StreamedObjective(fc.MLP(SIZES), *given[:2], block_rows=32)
        assert pickle.loads(pickle.dumps(ob)).value(np.zeros(ob.n_params)) == ob.value(
            np.zeros(ob.n_params)
        )


@pytest.mark.parametrize("kind", CURVATURES)
def test_a_single_block_is_bitwise_identical_to_rows_in_memory(kind, rng):
    """Without l2, a stream of a single block gives value, gradient and products bitwise identical
    to those of rows in memory. (Streams add l2 in another order.)
    """
    X, y, w = rows_of(rng)
    dense = fc.Objective(fc.MLP(SIZES), X, y, sample_weight=w)
    ob = fc.StreamedObjective(dense.model, Blocks((X, y, w)), block_rows=N)
    theta, v = dense.model.init(rng=1), np.cos(np.arange(dense.n_params))
    assert ob.n_shards == 1 and ob.value(theta) == dense.value(theta)
    assert np.array_equal(ob.gradient(theta), dense.gradient(theta))
    assert np.array_equal(getattr(ob, kind)(theta) @ v, getattr(dense, kind)(theta) @ v)


def test_hdf5_rows_give_results_of_rows_in_memory(rng, tmp_path):
    """Rows streamed from the datasets of an HDF5 file give the results of rows in memory."""
    h5py = pytest.importorskip("h5py")
    X, y, w = rows_of(rng)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        parts = [file.create_dataset(name, data=a) for name, a in zip("Xyw", (X, y, w))]
        check_source(rng, X, y, w, *parts, {})


def test_zarr_rows_give_results_of_rows_in_memory(rng, tmp_path):
    """Rows streamed from Zarr arrays give the results of rows in memory."""
    zarr = pytest.importorskip("zarr")
    X, y, w = rows_of(rng)
    parts = [zarr.array(a, chunks=10) for a in (X, y, w)]
    check_source(rng, X, y, w, *parts, {})


def test_copy_on_write_changes_of_mapped_rows_are_used(rng, tmp_path):
    """Entries changed in a copy-on-write map are used by streamed gradients, and the file is
    unchanged.
    """
    X, y, _ = rows_of(rng)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="c")
    mapped[3] = 7.0
    streamed = fc.StreamedObjective(fc.MLP(SIZES), mapped, y, block_rows=32)
    whole = fc.Objective(streamed.model, np.where(np.arange(N)[:, None] == 3, 7.0, X), y)
    for theta in (np.ones(whole.n_params), np.zeros(whole.n_params)):
        assert np.abs(streamed.gradient(theta) - whole.gradient(theta)).max() <= 1e-15
    assert (mapped[3] == 7).all() and np.array_equal(np.load(tmp_path / "X.npy"), X)


def test_regrouping_keeps_rows_in_order(rng):
    X = np.arange(100.0)[:, None]
    cuts = np.sort(rng.integers(0, 101, size=12))
    blocks = [(part, part, None) for part in np.split(X, cuts)]
    for size in (1, 7, 30, 100, 200):
        found = list(regroup_rows(blocks, size))
        assert [len(b[0]) for b in found[:-1]] == [size] * (len(found) - 1)
        assert np.array_equal(np.concatenate([b[0] for b in found]), X)


class Pairs(RowSource):
    """A source whose blocks are lists."""

    def blocks(self, size):
        yield [np.ones((3, 5)), np.zeros(3, int)]


def assert_rejected(error, words, *args, **options):
    with pytest.raises(error, match=words):
        fc.StreamedObjective(fc.MLP(SIZES), *args, **options).value(
            np.zeros(fc.MLP(SIZES).n_params)
        )


def test_errors_name_the_rows(rng):
    X, y, _ = rows_of(rng)
    bad, labels = X.copy(), y.copy()
    bad[101, 2], labels[120] = np.nan, 3
    assert_rejected(
        ValueError, "in rows 96 to 127: X must hold finite numbers", bad, y, block_rows=32
    )
    assert_rejected(
        ValueError,
        "rows 96 to 127: y must hold labels from 0 to 2, got labels from 0 to 3",
        X,
        labels,
        block_rows=32,
    )
    assert_rejected(
        ValueError, r"rows 0 to 31: X must have .* got \(32, 4\)", X[:, 1:], y, block_rows=32
    )
    assert_rejected(
        TypeError,
        "rows 0 to 31: y must hold int.*loss='cross_entropy', got dtype float64",
        X,
        y + 0.0,
        block_rows=32,
    )
    assert_rejected(TypeError, "or a RowSource, got a generator. Derive", (x for x in [X]), y)
    assert_rejected(ValueError, "y must have 137 rows, .*got 5", X, y[:5])
    unknown = SimpleNamespace(shape=(np.nan, 5), dtype=X.dtype, __getitem__=X.__getitem__)
    assert_rejected(ValueError, r"known number of rows, got nan.* X\.compute_chunk", unknown, y)
    for error, words, *blocks in (
        (ValueError, "one shape", (X, y), (X[:, 1:], y)),
        (ValueError, "one shape.* of y ", (X, y), (X, np.eye(4)[y])),
        (ValueError, "y must have 137 labels, .*got 136", (X, y[1:])),
        (ValueError, "X must have at least one row"),
    ):
        assert_rejected(error, words, Blocks(*blocks), block_rows=200)
    assert_rejected(TypeError, "a block must be .*got a list", Pairs())
    assert_rejected(TypeError, "y must be None if X is a RowSource, whose", Blocks((X, y)), y)
    assert_rejected(ValueError, "y must hold the targets.*got None", X)
    assert_rejected(ValueError, "the path of a .npy file, got 'x.txt'", "x.txt", y)
    assert_rejected(ValueError, "block_rows must be .*got 0", X, y, block_rows=0)
    normed = fc.MLP(SIZES, batch_norm=True)
    with pytest.raises(
        ValueError, match="batch normalisation, whose statistics depend on all rows"
    ):
        fc.StreamedObjective(normed, X, y)


def test_a_changed_number_of_rows_raises(rng):
    X, y, _ = rows_of(rng)
    source = Blocks((X, y))
    ob = fc.StreamedObjective(fc.MLP(SIZES), source, block_rows=32)
    ob.value(np.zeros(ob.n_params))
    source.given *= 2
    with pytest.raises(ValueError, match="got 274 rows instead of 137"):
        ob.gradient(np.zeros(ob.n_params))


def test_an_error_leaves_the_objective_usable(rng):
    X, y, _ = rows_of(rng)
    X[100] = np.inf
    ob = fc.StreamedObjective(fc.MLP(SIZES), X, y, block_rows=32)
    theta = ob.model.init(rng=0)
    with pytest.raises(ValueError, match="NaN or infinity"):
        ob.value(theta)
    X[100] = 0.0
    assert ob.value(theta) == pytest.approx(fc.Objective(ob.model, X, y).value(theta), rel=1e-14)


@pytest.mark.by_day(share=1)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(300, 17), (300, 1), (1, 5)])
def test_rows_of_array_files_are_read_exactly(shape, order, tmp_path):
    given = np.random.default_rng(0).standard_normal(shape)
    for i, array in enumerate((given, given.astype(">f4"), given > 0, given[:, 0])):
        np.save(tmp_path / f"{i}.npy", np.asarray(array, order=order))
        file = ArrayFile(tmp_path / f"{i}.npy", "X")
        assert file.shape == array.shape and file.dtype == array.dtype
        n = len(array)
        for rows in (slice(0, n), slice(n // 3, n // 2), np.array([n - 1, 0, n // 2, 0])):
            found = file[rows]
            assert np.array_equal(found, array[rows]) and found.dtype == array.dtype


@pytest.mark.parametrize(
    "rows", [[0], [3], [0, 3], [4], [2, 4, 7], [11], [0, 1, 2, 11], [1, 1, 7], [2, 3]]
)
def test_selecting_rows_reads_no_block_after_the_last(rows):
    """`take_rows` of a source returns the selected rows, reads the blocks up to the last of them,
    and no block after it.
    """
    X, y, read = np.arange(24.0).reshape(12, 2), np.arange(12.0), []

    class CountedRows(RowSource):
        def blocks(self, size):
            for start in range(0, 12, 4):
                read.append(start)
                yield X[start : start + 4], y[start : start + 4], None

    found = CountedRows().take_rows(np.array(rows))
    assert np.array_equal(found[0], X[rows]) and np.array_equal(found[1], y[rows])
    assert found[2] is None and read == list(range(0, rows[-1] + 1, 4))


TEN_TIMES_MEMORY = """
import os, re, sys
import numpy as np, fastcurv as fc

kind = {kind!r}
if not os.path.exists("/proc/self/clear_refs"):
    sys.exit()
os.chdir({folder!r})
memory, d = 16_000_000, 2000 if "wide" in kind else 100
N = 10 * memory // (8 * d)
model = fc.MLP([d, 2000 // d, 3])
theta, v = model.init(rng=0), np.ones((model.n_params, 3))

def write(name, N):
    X, y = np.random.default_rng(0).standard_normal((N, d)), np.arange(N) % 3
    if "path" in kind:
        np.save(name, np.asarray(X, order=kind[0]))
    else:
        import h5py
        with h5py.File(name, "w") as file:
            file.create_dataset("X", data=X, chunks=(500, d))
    return y

def opened(name, y, **how):
    if kind == "hdf5":
        import h5py
        X = h5py.File(name)["X"]
    else:
        X = name
    return fc.StreamedObjective(model, X, y, **how)

name = "rows.npy"
if os.fork() == 0:                          # whose memory is not this process's
    write(name, N)
    os._exit(0)
os.wait()
few = opened("few" + name, write("few" + name, 500), block_rows=100)
few.hessian(theta) @ v                      # what the process needs at all
few.gradient(theta)

def peak():
    with open("/proc/self/status") as file:
        return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", file.read())[1])

with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = peak()
ob = opened(name, np.arange(N) % 3, memory=memory)
ob.hessian(theta) @ v
ob.gradient(theta)
assert ob.n_passes == 2 and ob.n_shards > 10
more, own = peak() - before, 3 * 8 * N      # y, and what NumPy makes to make it
if kind == "hdf5":                          # two chunks, unpacked, and those that HDF5 keeps
    extra = 2 * 500 * d * 8 + ob._source.X.id.get_access_plist().get_chunk_cache()[1]
else:
    extra = 2 << 21
assert more <= memory + own + extra, (more, own, extra, ob.block_rows)
"""


@pytest.mark.by_day(share=1 / 6)
@pytest.mark.parametrize("kind", ["C path", "F path", "F path, wide", "hdf5"])
def test_the_memory_limit_holds_for_every_storage(kind, python, tmp_path):
    """For a file ten times as large as `memory`, blocks, state and the source's buffers stay within
    the limit. Large arrays are allocated so that they return to the system when freed, because
    fragmentation would differ between runs.
    """
    if kind == "hdf5":
        pytest.importorskip("h5py")
    code = TEN_TIMES_MEMORY.format(kind=kind, folder=str(tmp_path))
    python(code, timeout=1200, environment={"MALLOC_MMAP_THRESHOLD_": str(1 << 16)})
