"""The statement that every plan gives equal results up to rounding: tables of kernels, layouts,
threads, chunks and blocks.
"""

from contextlib import contextmanager

import numpy as np

import fastcurv as fc
from fastcurv import _engine as engine

from ..plans import LAYOUTS, laid_out, least_memory

WIDTHS = (1, 2, 3, 7, 16, 17, 31, 64, 65, 100, 130, 257)
ROWS = (1, 2, 3, 4, 5, 8, 9, 17, 33, 64, 100, 257, 601)
MAX_ENTRIES = 3e6  # maximum number of parameters times samples of a case


@contextmanager
def forced_plan(arch, across, unpacked):
    """Use one table of kernels and one layout for plans created inside the context."""
    before = engine.set_arch(arch)
    try:
        with laid_out(across, unpacked):
            yield
    finally:
        engine.set_arch(before)


def drawn(draw):
    """Return ((model, X, y), options, theta) for a random case, with or without weights, skip
    connections, biases and l2.
    """
    L, loss = int(draw.integers(1, 5)), str(draw.choice(["mse", "cross_entropy"]))
    residual = bool(draw.random() < 0.3)
    sizes = [int(m) for m in draw.choice(WIDTHS, L + 1)]
    if residual:
        sizes[1:-1] = [sizes[1]] * (L - 1)
    phi = str(draw.choice(["tanh", "relu", "sigmoid", "softplus", "silu", "gelu", "identity"]))
    facts = {
        "dtype": str(draw.choice(["float32", "float64"])),
        "bias": bool(draw.random() < 0.8),
        "residual": residual,
        "batch_norm": bool(L > 1 and draw.random() < 0.15),
    }
    model = fc.MLP(sizes, phi, **facts)
    N = min(int(draw.choice(ROWS)), max(1, int(MAX_ENTRIES / model.n_params)))
    if facts["batch_norm"]:  # batch normalisation is ill-conditioned where a unit hardly varies
        N, facts["dtype"] = max(N, 20), "float64"
    model, dtype = fc.MLP(sizes, phi, **facts), facts["dtype"]
    X = draw.standard_normal((N, sizes[0])).astype(dtype)
    y = draw.standard_normal((N, sizes[-1])).astype(dtype)
    if loss == "cross_entropy":
        y = draw.integers(sizes[-1], size=N)
    weight = draw.random(N) + 0.1 if draw.random() < 0.4 else None
    options = {"loss": loss, "l2": float(draw.choice([0, 0.3])), "sample_weight": weight}
    theta = (model.init(rng=int(draw.integers(99))) + 0.01).astype(dtype)
    return (model, X, y), options, theta


def results_of_passes(ob, theta, V, U):
    """Return a list of (result, size) for each pass at theta, with blocks V of parameters and a
    vector U of outputs. Rounding errors are relative to `size`.
    """
    v, norm = np.ascontiguousarray(V[:, 0]), np.linalg.norm
    found = [(x, norm(x)) for x in (ob.value(theta), ob.gradient(theta))]
    operators = [ob.hessian(theta), ob.ggn(theta)]
    if not ob.model.batch_norm:
        operators.append(ob.empirical_fisher(theta))
    for op in operators:
        block = op @ V
        assert np.array_equal(block[:, 0], op @ v), "a column is no product"
        found += [(block, norm(block)), (op.quadratic_form(V), norm(block) * norm(V))]
    J, half = ob.jacobian(theta), ob.hessian(theta / 2) @ V
    forth, back = J @ v, J.T @ U
    size = max(norm(forth), norm(back) / norm(U) * norm(v))
    return [*found, (forth, size), (back, norm(back)), (half, norm(half))]


def every_plan_gives_the_same_results(draw):
    """Results agree up to rounding for any kernel table, layout, number of threads and limit of
    memory.
    """
    data, options, theta = drawn(draw)
    dtype, N = theta.dtype, len(data[1])
    V = draw.standard_normal((len(theta), int(draw.integers(1, 10)))).astype(dtype)
    U = draw.standard_normal(N * data[0].sizes[-1]).astype(dtype)
    with forced_plan("reference" if len(theta) * N < 1e5 else "baseline", 0, 0):
        wanted = results_of_passes(fc.Objective(*data, n_threads=1, **options), theta, V, U)
    arch = str(draw.choice([name for name in engine.available_archs() if name != "reference"]))
    options["n_threads"] = int(draw.integers(1, 4))
    with forced_plan(arch, *LAYOUTS[str(draw.choice(list(LAYOUTS)))]):
        least = least_memory(
            lambda memory: fc.Objective(*data, memory=memory, **options).hessian(theta)
        )
        full = fc.Objective(*data, **options).hessian(theta).nbytes
        share = float(draw.choice([0, draw.random(), 2]))
        ob = fc.Objective(*data, memory=int(least + share * (full - least)), **options)
        found = results_of_passes(ob, theta, V, U)
        served = ob.hessian(theta).layout
    room = (1e-6 if data[0].batch_norm else 1e-11) if dtype == np.float64 else 3e-4
    for i, ((one, _), (other, size)) in enumerate(zip(found, wanted)):
        gap = np.linalg.norm(np.subtract(one, other, dtype=float))
        assert gap <= room * (size + 1e-3), (i, data[0], N, options, served)
    return "in chunks" if served["chunk"] < N else "whole"
