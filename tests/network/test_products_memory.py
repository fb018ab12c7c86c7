"""Memory of products: chunks within a limit, no allocation per product, and `nbytes`."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ..nets import CURVATURES
from ..plans import least_memory
from .product_cases import public_results, with_options

# --- memory


def least_memory_of(p):
    """Return the smallest memory limit in bytes that the problem p accepts, which holds the state
    of one sample.
    """
    return least_memory(lambda memory: with_options(p, memory=memory).hessian(p.theta))


@pytest.mark.parametrize("net", ["tall", "wide"])
def test_chunked_products_are_right_within_the_memory_limit(arch, net, drawn, request):
    """With a memory limit, the state stays within the limit, and results summed over chunks, of
    which the last may be shorter, agree with those of a single pass to 1e-12.
    """
    if net == "wide":
        request.getfixturevalue("samples_as_rows")
    few = {"tall": 133, "wide": 7}  # fewer samples for plain loops, which are slow
    N = few[net] if arch == "reference" else {"tall": 333, "wide": 21}[net]
    p = drawn(net, N=N, n_threads=2)
    whole = public_results(p.ob, p.theta, p.V)
    free = p.ob.hessian(p.theta)
    least, seen = least_memory_of(p), set()
    for memory in (
        least,
        (9 * least + free.nbytes) // 10,
        (least + free.nbytes) // 2,
        4 * free.nbytes,
    ):
        ob = with_options(p, memory=memory, n_threads=2)
        for name, value in public_results(ob, p.theta, p.V).items():
            gap = np.linalg.norm(np.subtract(value, whole[name]))
            assert gap <= 1e-12 * np.linalg.norm(whole[name]), f"{name} with memory={memory}"
        H = ob.hessian(p.theta)
        H @ np.tile(p.V, 5)
        assert H.nbytes <= memory
        seen.add(H.layout["chunk"])
    assert 1 in seen and len(p.X) in seen and any(len(p.X) % chunk for chunk in seen)


def test_a_memory_limit_is_kept_or_rejected(drawn):
    """Every memory limit from the smallest accepted one on is kept, and smaller limits are
    rejected. A larger limit never gives shorter chunks.
    """
    p = drawn("tall", N=57)
    full, rows = p.ob.hessian(p.theta).nbytes, 0
    for memory in np.linspace(full / 20, full, 23).astype(int):
        try:
            H = with_options(p, memory=int(memory)).hessian(p.theta)
        except ValueError:
            assert rows == 0
            continue
        assert H.nbytes <= memory and H.layout["chunk"] >= rows
        rows = H.layout["chunk"]
    assert rows > 1


@pytest.mark.parametrize(
    "sizes, N", [([129, 131, 131, 257, 33], 120), ([33, 31, 17, 7], 700), ([20, 100, 2], 900)]
)
def test_chunks_do_not_depend_on_the_number_of_threads(sizes, N, rng, problem):
    """For a given memory limit, the length of chunks and all results are bitwise identical for 1 to
    64 threads, and the state stays within the limit.
    """
    p = problem(rng, sizes, "tanh", "mse", N)
    least, free = least_memory_of(p), p.ob.hessian(p.theta).nbytes
    V = rng.standard_normal((p.n, 3))
    for memory in (least, least + (free - least) // 5, (least + free) // 2, free - 1, free):
        seen = set()
        for threads in (1, 3, 64):
            ob = with_options(p, memory=memory, n_threads=threads)
            H = ob.hessian(p.theta)
            products = H @ V
            assert H.nbytes <= memory and H.layout["threads"] <= threads
            seen.add(
                (
                    H.layout["chunk"],
                    products.tobytes(),
                    H.quadratic_form(V).tobytes(),
                    ob.gradient(p.theta).tobytes(),
                    ob.value(p.theta),
                )
            )
        assert len(seen) == 1, (memory, [s[0] for s in seen])


def test_products_allocate_only_their_result(drawn):
    """A product with `out` allocates less than 2000 bytes, and a product without `out` allocates no
    more than its result in addition.
    """
    p = drawn("wide")
    H, out = p.ob.hessian(p.theta), np.empty(p.n)
    H.product(p.v, out=out)
    tracemalloc.start()
    try:
        for call, most in (
            (lambda: H.product(p.v, out=out), 2000),
            (lambda: H @ p.v, 2000 + out.nbytes),
        ):
            taken = []
            for _ in range(5):  # other threads of the process may allocate in the meantime
                tracemalloc.reset_peak()
                before = tracemalloc.get_traced_memory()[0]
                call()
                taken.append(tracemalloc.get_traced_memory()[1] - before)
            assert min(taken) <= most
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="the system does not say what a process holds"
)
def test_nbytes_equals_the_growth_of_process_memory(python):
    """When an operator is created, the process grows by `nbytes` and the copy of X, within 10%.
    When operator and objective are deleted, this memory is released.
    """
    python("""
import numpy as np, fastcurv as fc
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
rng = np.random.default_rng(0)
model = fc.MLP([100, 300, 300, 10], "softplus")
X, y = rng.standard_normal((4000, 100)), rng.standard_normal((4000, 10))
theta = model.init(rng=0)
fc.Objective(model, X[:50], y[:50], "mse").hessian(theta) @ theta
ob = fc.Objective(model, X, y, "mse")
before = resident()
H = ob.hessian(theta)
H @ theta
grown, said = resident() - before, H.nbytes + X.nbytes
assert abs(grown - said) <= 0.1 * said, (grown, said)
del H, ob
assert resident() - before <= 0.1 * said, (resident() - before, said)
""")


# --- blocks of the matrix


@pytest.mark.parametrize("memory", [None, "chunks"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_principal_blocks_equal_those_of_the_dense_matrix(
    arch, batch_norm, bias, memory, rng, problem
):
    """A principal block by layers or indices equals that part of the dense matrix, for each
    curvature, in chunks, and with batch normalisation.
    """
    how = {"l2": 0.1, "bias": bias, "residual": True, "batch_norm": batch_norm}
    how["l2_biases"] = memory is None
    p = problem(rng, [4, 6, 6, 3], "tanh", "cross_entropy", 40, **how)
    whole = p.ob.hessian(p.theta).nbytes
    ob = p.ob if memory is None else with_options(p, memory=(least_memory_of(p) + whole) // 2)
    assert (ob.hessian(p.theta).layout["chunk"] < 40) == (memory is not None)
    starts = p.model.starts
    for kind in CURVATURES[: 2 if batch_norm else 3]:
        H = getattr(ob, kind)(p.theta)
        dense = H.to_dense()
        size = np.linalg.norm(dense)
        for layers in ([0], [1], [2], 2, [0, 2], [2, 0], [0, 1, 2]):
            places = np.concatenate(
                [np.arange(starts[l], starts[l + 1]) for l in np.atleast_1d(layers)]
            )
            self_check(H.restrict(layers=layers), dense[np.ix_(places, places)], size, rng)
        for places in (np.array([0]), rng.permutation(p.n)[:17], np.arange(p.n)[::-1]):
            self_check(H.restrict(indices=places), dense[np.ix_(places, places)], size, rng)


def self_check(block, true, size, rng):
    V = rng.standard_normal((len(true), 3))
    v = V[:, 0].copy()
    assert block.shape == true.shape
    for got, expected in (
        (block.to_dense(), true),
        (block @ v, true @ v),
        (block @ V, true @ V),
        (block.product(v, np.empty(len(v))), true @ v),
        (block.T @ v, true @ v),
    ):
        assert np.linalg.norm(got - expected) <= 1e-13 * size * max(1, np.linalg.norm(V))
    forms = (V * (true @ V)).sum(0)
    assert np.all(abs(block.quadratic_form(V) - forms) <= 1e-13 * size * (V * V).sum(0))
    assert abs(block.quadratic_form(v) - forms[0]) <= 1e-13 * size * (v @ v)
