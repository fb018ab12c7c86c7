"""The same bits a thousand times over, for any number of threads, with and without `memory=`."""

import re

import numpy as np
import pytest

import fastcurv as fc

NETS = {"tall": ([5, 9, 9, 3], 700), "wide": ([33, 65, 47, 7], 260), "across": ([4, 10, 1], 3000)}


def in_chunks(ob, theta):
    """Bytes that hold the state of some rows and not of all."""
    least = ob.batch(slice(None))
    least.memory = 1
    with pytest.raises(ValueError) as said:
        least.hessian(theta)
    least.memory = int(1.5 * int(re.search(r"(\d+) are needed", str(said.value))[1]))
    assert least.hessian(theta).layout["chunk"] < ob.n_samples
    return least.memory


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("net", NETS)
def test_a_thousand_repeats(net, dtype, rng):
    sizes, N = NETS[net]
    model = fc.MLP(sizes, "gelu", dtype=dtype)
    X, y = rng.standard_normal((N, sizes[0])), rng.standard_normal((N, sizes[-1]))
    theta = model.init(seed=0)
    v = rng.standard_normal(model.n_params).astype(dtype)
    V = np.tile(v[:, None], 3)
    whole = fc.Objective(model, X, y, "mse", l2=0.1)
    for memory in (None, in_chunks(whole, theta)):
        first, count = None, 0
        while count < 1000:
            threads = 1 + count // 8 % 8
            ob = fc.Objective(model, X, y, "mse", l2=0.1, n_threads=threads, memory=memory)
            H = ob.hessian(theta)
            found = [H.value, H.gradient, H.quadratic(v), (H @ V)[:, 2]]
            first = first or [*found, H @ v]
            assert all(np.array_equal(a, b) for a, b in zip(first, found)), (memory, threads)
            for _ in range(24 if memory is None else 120):
                assert np.array_equal(H @ v, first[-1]), (memory, threads)
                count += 1


def test_algorithms_repeat_their_bits(rng):
    """From one seed, whatever number of threads the products had."""
    model = fc.MLP([6, 8, 8, 2], "tanh")
    X, y = rng.standard_normal((90, 6)), rng.standard_normal((90, 2))
    theta, seen = model.init(seed=1), []
    for threads in (1, 2, 3, 1):
        ob = fc.Objective(model, X, y, "mse", l2=0.01, n_threads=threads)
        H = ob.hessian(theta)
        pairs = fc.eigsh(H, 3, seed=5)
        density = fc.spectral_density(H, n_probes=3, n_steps=20, seed=5)
        end = fc.minimize(ob, theta, max_iter=6, seed=5)
        seen.append([pairs.values, pairs.vectors, density.density, end.x, np.array(end.fun)])
    for other in seen[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(seen[0], other))
