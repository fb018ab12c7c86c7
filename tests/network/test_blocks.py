"""The product with a block of vectors is bitwise identical to the products with its columns,
whatever the block's memory layout and number of columns.
"""

import numpy as np
import pytest

import fastcurv as fc

from ..plans import least_memory

pytestmark = pytest.mark.by_day(one_of="dtype")

NETS = {  # widths around one, two, three and four vectors of every instruction set
    "narrow": {"sizes": [5, 3, 7, 2], "activation": "tanh", "loss": "mse", "N": 200},
    "digits": {
        "sizes": [64, 32, 16, 10],
        "activation": ["relu", "sigmoid"],
        "loss": "cross_entropy",
        "N": 301,
    },
    "ragged": {
        "sizes": [19, 17, 33, 15],
        "activation": ["gelu", "identity"],
        "loss": "binary_cross_entropy",
        "N": 150,
    },
    "residual": {
        "sizes": [8, 24, 24, 24, 3],
        "activation": "silu",
        "loss": "cross_entropy",
        "N": 97,
        "residual": True,
    },
    "no bias": {
        "sizes": [10, 48, 9, 1],
        "activation": "leaky_relu",
        "loss": "mse",
        "N": 130,
        "bias": False,
    },
    "many rows": {"sizes": [2, 4, 3], "activation": "tanh", "loss": "cross_entropy", "N": 9001},
    "wide": {"sizes": [130, 257, 259, 11], "activation": "tanh", "loss": "cross_entropy", "N": 37},
    "long panels": {"sizes": [6, 9, 3], "activation": "tanh", "loss": "cross_entropy", "N": 1797},
}
SLOW = ("reference", "baseline")  # slow kernel tables
SLOW_TABLE_SAMPLES = {"wide": 3, "digits": 83, "ragged": 49}  # number of samples for slow tables
every_net = pytest.mark.parametrize("net", NETS)


def operators(ob, theta):
    H = ob.hessian(theta)
    return {
        "hessian": H,
        "ggn": ob.ggn(theta),
        "fisher": ob.empirical_fisher(theta),
        "upper layers": H.restrict(layers=sorted({1, len(ob.model.shapes) - 1})),
        "first layer": H.restrict(layers=[0]),
    }


@pytest.mark.usefixtures("samples_as_rows")
@every_net
def test_block_products_equal_single_products(arch, net, dtype, rng, problem):
    """Columns of block products are bitwise equal to products with single vectors, for every
    operator, blocks of 1 to 9 vectors, one to three threads, and samples in chunks.
    """
    plain = arch in SLOW and net in SLOW_TABLE_SAMPLES
    facts = NETS[net] | ({"N": SLOW_TABLE_SAMPLES[net]} if plain else {})
    p = problem(rng, **facts, l2=0.1, weights=True, dtype=dtype)
    if net == "many rows":  # some groups must have one panel, others two
        layout = p.ob.hessian(p.theta).layout
        assert (
            layout["panel"] * layout["groups"]
            < p.X.shape[0]
            < 2 * layout["panel"] * layout["groups"]
        )

    def objective(**options):
        return fc.Objective(
            p.model, p.X, p.y, p.ob.loss, l2=p.ob.l2, sample_weight=p.weight, **options
        )

    least = least_memory(lambda memory: objective(n_threads=2, memory=memory).hessian(p.theta))
    for options in (
        {"n_threads": 1},
        {"n_threads": 3},
        {"n_threads": 2, "memory": (least + objective(n_threads=2).hessian(p.theta).nbytes) // 2},
    ):
        ob = objective(**options)
        for name, operator in operators(ob, p.theta).items():
            V = rng.standard_normal((operator.shape[0], 9)).astype(dtype)
            single = np.stack([operator.product(np.ascontiguousarray(v)) for v in V.T], 1)
            for k in (
                (1, 3, 4, 9) if options == {"n_threads": 1} and arch != "reference" else (5, 9)
            ):
                before = V.copy()
                assert np.array_equal(operator @ V[:, :k], single[:, :k]), (
                    f"{name}, {k} vectors, {options}"
                )
                assert np.array_equal(V, before)
        assert ob.hessian(p.theta).nbytes <= options.get("memory", np.inf)


def test_limited_memory_reduces_the_vectors_per_pass(rng, problem):
    """The state of a plan grows from that of one vector to that of several vectors as `memory`
    allows, stays within the limit, and gives bitwise identical block products.
    """
    p = problem(rng, **NETS["digits"])
    V = rng.standard_normal((p.n, 8))
    H = fc.Objective(p.model, p.X, p.y, p.ob.loss, n_threads=2).hessian(p.theta)
    alone, expected = H.nbytes, H @ V
    grown = []
    for memory in (alone, alone * 2, alone * 8):
        ob = fc.Objective(p.model, p.X, p.y, p.ob.loss, memory=memory, n_threads=2)
        H = ob.hessian(p.theta)
        assert np.array_equal(H @ V, expected)
        assert H.nbytes <= memory
        grown.append(H.nbytes)
    assert grown[0] == alone < grown[1] < grown[2]


def test_principal_blocks_embed_few_vectors_at_a_time(problem, rng, monkeypatch):
    """If MAX_EMBEDDED_BYTES is exceeded, a principal block extends its vectors to all parameters
    eight at a time. Products, dense matrix and forms are bitwise those computed at once.
    """
    from fastcurv.network import operators

    p = problem(rng, **NETS["narrow"])
    H = p.ob.hessian(p.theta)
    block = H.restrict(layers=[1])
    V = rng.standard_normal((block.shape[0], 21))
    whole, dense, forms = block @ V, block.to_dense(), block.quadratic_form(V)
    monkeypatch.setattr(operators, "MAX_EMBEDDED_BYTES", 1)
    longest, embed = [], operators.CurvatureBlock._embed
    monkeypatch.setattr(
        operators.CurvatureBlock,
        "_embed",
        lambda self, Vt: longest.append(len(Vt)) or embed(self, Vt),
    )
    assert np.array_equal(block @ V, whole)
    assert np.array_equal(block.to_dense(), dense)
    assert np.array_equal(block.quadratic_form(V), forms)
    assert max(longest) == 8
    rows = block.indices
    assert np.abs(dense - H.to_dense()[np.ix_(rows, rows)]).max() <= 1e-12 * np.abs(dense).max()


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"batch_norm": True}])
def test_parts_by_name_are_those_of_unflatten_and_select_blocks(options):
    """Names count the modules of a torch Sequential: a linear layer, its batch normalisation, its
    activation. Blocks of named parts are those of the parts' entries of theta.
    """
    model = fc.MLP([2, 3, 4, 1], **options)
    theta, norm = np.arange(float(model.n_params)), "batch_norm" in options
    parts = model.named_parts(theta)
    flat = [part for layer in model.unflatten(theta) for part in layer if part is not None]
    assert all(a.base is not None and np.array_equal(a, b) for a, b in zip(parts.values(), flat))
    names = [f"{m}.{kind}" for m in ((0, 1, 3, 4, 6) if norm else (0, 2, 4))
             for kind in ("weight", "bias")]  # fmt: skip
    assert list(parts) == [n for n in names if "bias" not in options or "weight" in n]
    H = fc.Objective(model, np.eye(2), [0.0, 1.0], loss="mse").ggn(0.1 * np.cos(theta))
    chosen = [list(parts)[-1], "0.weight"]
    where = np.concatenate([parts[name].ravel() for name in chosen]).astype(int)
    assert np.array_equal(H.restrict(layers=chosen).indices, where)
    assert np.array_equal(H.restrict(layers="0.weight").indices, np.arange(6))
    assert model.named_parts(np.stack([theta, theta], axis=1))["0.weight"].shape == (2, 3, 2)
