"""What smaller spaces, passes, prices and parts of data are made of, as numbers:
`test_network_figures` holds them.

    python -m tests.agreement network.states

writes them down anew, which is to be done where one of them is meant to change.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fastcurv as fc
from fastcurv.network import gram, gram_bounds, pairwise_sum, sharded, spaces
from fastcurv.network.gram import LossCurve, RowState, SampleSpace
from fastcurv.network.spaces import InputSpace

from ..agreement import lined, rounded, served_by, told
from ..certify.figures import drawn

NETS: dict[str, dict[str, Any]] = {
    "tanh, mse": {"sizes": [7, 6, 5, 2], "l2": 1e-2, "residual": True},
    "gelu, cross entropy": {
        "sizes": [9, 5, 4, 3], "activation": "gelu", "loss": "cross_entropy", "weighted": True,
    },
    "sigmoid, binary": {
        "sizes": [6, 8, 1], "activation": "sigmoid", "loss": "binary_cross_entropy", "l2": 0.1,
    },
    "identity, no biases": {"sizes": [9, 6, 7, 2], "activation": "identity", "bias": False},
    "relu, soft targets": {
        "sizes": [5, 6, 3], "activation": "relu", "loss": "cross_entropy", "soft": True,
    },
}  # fmt: skip


def reached(ob: Any, theta: Any) -> dict[str, list[Any]]:
    """The proved space of few rows, alike rows and none."""
    found: dict[str, list[Any]] = {}
    for name, rows in (("one", [0]), ("three", [1, 4, 7]), ("twice", [2, 2, 5])):
        K = gram_bounds.RangeBounds(ob.batch(np.array(rows)).hessian(theta))
        made = K.matrix()
        layers = [
            [x.defect, x.turning, x.rho, x.sigma, x.size, x.first, x.r, x.s, x.weights, x.out]
            for x in K.layers
        ]
        found |= told(**{name: [K.cuts, K.leak, K.n_rest, K.rest, layers]})
        found |= told(**{f"{name}, matrix": [made.bounds, made.error]})
        x = np.cos(np.arange(K.m) ** 1.2)
        up = K.embed(x)
        found |= told(**{f"{name}, maps": [np.linalg.norm(up), K.project(np.array([up, 2 * up]))]})
        left = gram_bounds._left(np.diag([1.0, 2.0, 3.0]), np.full((3, 1), 1e-3), np.eye(3)[:, :2])
        found |= told(**{f"{name}, parts": [left, gram_bounds._defect(np.eye(4)[:, :2] * 1.1)]})
    return found


def priced(ob: Any) -> dict[str, list[Any]]:
    """What is thought to be cheaper, from one row to a million."""
    found: dict[str, list[Any]] = {}
    wide = fc.MLP([784, 300, 100, 10])
    for name, model in (("net", ob.model), ("wide", wide)):
        for N in (1, 7, 60, 500, 1_000_000):
            made = [gram.prices(model, N, kind) for kind in ("hessian", "ggn")]
            made += [gram_bounds.estimate(model, N), spaces.cost(model, N, 3 * N, 40.0)]
            made += [gram.rotates(m, k, N, l) for l in (0, 1) for m, k in model.shapes]
            found |= told(**{f"{name}, {N} rows": made})
    return found


def curves(ob: Any) -> dict[str, list[Any]]:
    """The loss at outputs that are alike, far apart and small."""
    found: dict[str, list[Any]] = {}
    d = ob.model.sizes[-1]
    f = np.cos(np.add.outer(np.arange(len(ob.X)) ** 1.3, np.arange(d) ** 1.7))
    for scale in (0.0, 1e-9, 1.0, 40.0, 900.0):
        loss = LossCurve(ob, scale * f)
        known = {k: x for k, x in vars(loss).items() if isinstance(x, (float, np.ndarray))}
        found |= told(**{f"loss, {scale}": known})
        for kind in ("ggn", "fisher"):
            S = spaces.factor(loss, kind)
            found |= told(**{f"loss, {scale}, {kind}": [S, loss.curve(f, kind)]})
    return found


def small(ob: Any, theta: Any, v: Any) -> dict[str, list[Any]]:
    """Smaller operators: what they are off by, and what they carry over."""
    found: dict[str, list[Any]] = {}
    few = ob.batch(slice(0, 3))
    state = RowState(few, theta)
    found |= told(state=[state.a, state.delta, state.loss.value])
    for kind in ("hessian", "ggn"):
        H = getattr(few, kind)(theta)
        turned = SampleSpace(H, [True] * len(ob.model.shapes))
        for name, K in {
            "samples": SampleSpace(H),
            "turned": turned,
            "inputs": InputSpace(H),
        }.items():
            x = np.cos(np.arange(K.shape[0]) ** 1.2)
            x /= np.linalg.norm(x)
            found |= told(**{f"{kind}, {name}": [K.defect(x), K.rounding_bound(x), K.rest]})
    return found


def streamed(ob: Any, theta: Any, v: Any) -> dict[str, list[Any]]:
    """Facts that are summed over parts of the rows, against those of all."""
    found: dict[str, list[Any]] = {}
    form = fc.StreamedObjective(
        ob.model, ob.X, ob.y, ob.loss, l2=ob.l2, sample_weight=ob.sample_weight, n_threads=1,
        block_rows=7,
    )  # fmt: skip
    for name, one in (("whole", ob), ("parts", form)):
        made = [one.third_bound(theta, r) for r in (0.0, 1e-3, 0.2)]
        made += [one.third_bound_in(theta, 0.1, 1 + np.arange(theta.size) % 3)]
        made += [one.curvature_floor(theta), one.kink_margin(theta), one.kinks(theta, 0.01)]
        made += [one.precise_gradient(theta)[1], one.precise_value(theta)[1]]
        made += [one.loss_lower_bound, one.attains_lower_bound, one.rounding_bound(theta)]
        found |= told(**{name: made, f"{name}, saturation": one.saturation(theta)})
        for kind in ("hessian", "ggn", "empirical_fisher"):
            H = getattr(one, kind)(theta)
            found |= told(**{f"{name}, {kind}": [H.rounding_bound(v), H.column_bounds()]})
    seen = sharded.witnesses(np.asarray(ob.X, float))
    total = seen + sharded.witnesses(2 * np.asarray(ob.X[:4], float))
    found |= told(prices=form._prices(), seen=[vars(seen), vars(total)])
    one = pairwise_sum.SumBound(1e-20, 2.0)
    for dtype in ("float64", "float32"):
        sums = [pairwise_sum.sum_rounding(one + one, k, k * np.ones(3), dtype) for k in (0, 5)]
        found |= told(**{f"sums, {dtype}": sums})
    return found


def figures(name: str) -> dict[str, list[Any]]:
    with served_by(), np.errstate(all="ignore"):
        ob, theta, v = drawn(**NETS[name])
        found = reached(ob, theta) | priced(ob) | curves(ob) | small(ob, theta, v)
        return rounded(found | streamed(ob, theta, v), 9)


if __name__ == "__main__":
    print(lined({name: figures(name) for name in NETS}))
