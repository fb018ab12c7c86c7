"""Results are bitwise identical over a thousand repetitions and for any number of threads, with and
without `memory=`.
"""

from functools import partial

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine
from fastcurv.network.gram import gram_matrix
from fastcurv.optimize.minimize import METHODS
from fastcurv.testing import QuadraticObjective

from .. import nets
from ..plans import least_memory, limited

NETS = {"tall": ([5, 9, 9, 3], 700), "wide": ([33, 65, 47, 7], 260), "across": ([4, 10, 1], 3000)}


def memory_for_chunks(ob, theta):
    """Return a memory limit in bytes that holds the state of some samples but not of all."""

    def bounded(memory):
        return limited(ob, memory).hessian(theta)

    memory = int(1.5 * least_memory(bounded))
    assert bounded(memory).layout["chunk"] < ob.n_samples
    return memory


@pytest.mark.by_day(share=1 / 3)
@pytest.mark.parametrize("net", NETS)
def test_a_thousand_repetitions_are_bitwise_identical(net, dtype, rng):
    sizes, N = NETS[net]
    p = nets.draw(rng, sizes, "gelu", N=N, dtype=dtype, l2=0.1)
    theta, v = p.theta, p.direction(rng)
    V = np.tile(v[:, None], 3)
    for memory in (None, memory_for_chunks(p.ob, theta)):
        first, count = None, 0
        while count < 1000:
            threads = 1 + count // 8 % 8
            H = p.objective(n_threads=threads, memory=memory).hessian(theta)
            found = [H.value, H.gradient, H.quadratic_form(v), (H @ V)[:, 2]]
            first = first or [*found, H @ v]
            assert all(np.array_equal(a, b) for a, b in zip(first, found)), (memory, threads)
            for _ in range(24 if memory is None else 120):
                assert np.array_equal(H @ v, first[-1]), (memory, threads)
                count += 1


def network_products(p, kind=fc.Objective, **changes):
    ob, V = p.objective(kind, **changes), np.cos(np.outer(np.arange(p.n), [1.0, 2.3, 3.1]))
    H = ob.hessian(p.theta)
    return ob.value(p.theta), ob.gradient(p.theta), H @ V, fc.diagonal(H, rng=0).estimate


def gram_products(p):
    gram = gram_matrix(p.ob.ggn(p.theta))
    return gram.K, gram.multiply_factor(np.cos(np.arange(len(gram.K)))[:, None])


def eigenpairs(p, seed=0):
    found = fc.eigsh(p.ob.hessian(p.theta), 5, rng=seed)
    return found.values, found.vectors


def seeded_runs(p):
    density = fc.spectral_density(p.ob.hessian(p.theta), n_probes=3, n_steps=20, rng=5)
    return density.density, fc.minimize(p.ob, p.theta, max_iter=6, rng=5).x


def levenberg_marquardt_run(p):
    run = _engine.LevenbergRun(p.ob._new_plan(), p.theta.copy())
    run.run(5, 0.0, -np.inf, np.inf, np.zeros((5, 3)))
    return (run.theta,)


WIDE, OWN = [40, 300, 200, 4], [nets.OWN["hyperbolic"], nets.OWN["wave"]]
# by name: the function whose results are compared, layer sizes, and options of the network
THREADED = {
    "l2": (network_products, WIDE, {"N": 30, "l2": 0.3}),
    "l2 of matrices": (network_products, WIDE, {"N": 30, "l2": 0.3, "l2_biases": False}),
    "blocks": (partial(network_products, kind=fc.StreamedObjective, block_rows=64), [5, 7, 4, 3],
               {"loss": "cross_entropy", "N": 400}),
    "batch normalisation": (network_products, [32, 48, 48, 10],
                            {"N": 1000, "batch_norm": True, "residual": True}),
    "a loss by a function": (network_products, [5, 30, 2], {"loss": "poisson", "N": 900}),
    "one that couples outputs": (network_products, [5, 30, 2],
                                 {"loss": "gaussian_nll", "N": 900, "y": np.ones((900, 1))}),
    "activations by functions": (network_products, [20, 30, 30, 2],
                                 {"activation": OWN, "N": 3000, "residual": True}),
    "outputs": (gram_products, [70, 90, 80, 4], {"loss": "cross_entropy", "N": 40}),
    "a matrix, by any seed": (lambda p: eigenpairs(p, p.ob.n_threads), [10, 4, 1], {"N": 200}),
    "a search": (eigenpairs, [10, 10, 1], {"N": 200}),
    "a matrix of many samples": (eigenpairs, [8, 16, 3], {"N": 3000}),
    "a search over many samples": (eigenpairs, [20, 30, 3], {"N": 3000}),
    "seeded runs": (seeded_runs, [6, 8, 8, 2], {"N": 90, "l2": 0.01}),
    "steps": (levenberg_marquardt_run, [6, 10, 3], {"loss": "cross_entropy", "N": 900}),
}  # fmt: skip


@pytest.mark.parametrize("what", THREADED)
def test_results_are_bitwise_identical_for_any_number_of_threads(what):
    ask, sizes, options = THREADED[what]
    one, *others = (ask(nets.draw(1, sizes, n_threads=t, **options)) for t in (1, 2, 3, 5))
    for other in others:
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


SADDLE = QuadraticObjective(np.diag(np.r_[-1.0, np.linspace(0.1, 2, 9)]))
SEEDED = {
    "eigsh": lambda ob, theta: fc.eigsh(ob.hessian(theta), 2, rng=0),
    "density": lambda ob, theta: fc.spectral_density(ob.hessian(theta), n_steps=8, rng=0),
    "trace": lambda ob, theta: fc.trace(ob.hessian(theta), 9, rng=0),
    "diagonal": lambda ob, theta: fc.diagonal(ob.hessian(theta), 9, rng=0),
    "norm": lambda ob, theta: fc.frobenius_norm(ob.hessian(theta), 9, rng=0),
    "classify": lambda ob, theta: fc.classify(ob, theta, rng=0),
    "by products": lambda ob, theta: fc.classify(ob, theta, dense_below=0, rng=0),
    "of a saddle": lambda ob, theta: fc.classify(SADDLE, np.zeros(10), dense_below=0, rng=0),
    "escape": lambda ob, theta: fc.escape(SADDLE, np.zeros(10), rng=0),
    "escape of a net": lambda ob, theta: fc.escape(ob, 0 * theta, rng=0),
    "init": lambda ob, theta: ob.model.init(rng=0),
    **{
        f"minimize, {method}": lambda ob, theta, method=method: fc.minimize(
            ob, theta, method, max_iter=8, rng=0
        )
        for method in METHODS
    },
}


@pytest.mark.parametrize("call", SEEDED)
def test_seeded_calls_draw_no_unseeded_numbers(call, monkeypatch):
    """Calls with a seed create no unseeded random generator, not even for numbers that would seldom
    change a result.
    """
    check_seeded(SEEDED[call], monkeypatch)


def check_seeded(call, monkeypatch):
    p = nets.draw(1, [3, 4, 2], N=23, l2=1e-2)
    whole = np.random.default_rng

    def require_seed(seed=None):
        assert seed is not None, "drawn from the system's entropy"
        return whole(seed)

    monkeypatch.setattr(np.random, "default_rng", require_seed)
    call(p.ob, p.theta)
