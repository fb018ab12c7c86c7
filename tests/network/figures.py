"""What forms of a curvature cost, and what the proofs about them come to: `test_network_figures`
holds them.

    python -m tests.network.figures > tests/network/figures.json

writes them down anew, which is to be done where a cost or a bound is meant to change.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.sparse

import fastcurv as fc
from fastcurv.network import gram, gram_bounds, spaces

from ..agreement import served_by
from ..certify.figures import drawn

SIZES = [(3, 4, 2), (4, 300, 10), (300, 5, 10), (400, 300, 7), (40, 2000, 60), (2000, 40, 60)]
NETS: dict[str, dict[str, Any]] = {
    "tanh, mse": {"l2": 1e-2},
    "gelu, cross entropy": {
        "activation": "gelu", "loss": "cross_entropy", "weighted": True, "l2": 1e-2,
    },
    "sigmoid, binary, skips": {
        "activation": "sigmoid", "loss": "binary_cross_entropy", "residual": True,
    },
    "relu, no biases": {"activation": "relu", "bias": False, "l2": 1e-3},
    "softplus, one hidden layer": {"sizes": [3, 9, 2], "activation": "softplus", "l2": 1e-3},
}  # fmt: skip


def costs() -> dict[str, float]:
    """Prices by formula: they choose the space in which a question is answered."""
    found: dict[str, float] = {}
    for m, k, N in SIZES:
        at = f"{m}x{k}, {N} rows"
        for pairs in (False, True):
            found[f"rotates, {at}, {pairs}"] = gram.rotates(m, k, N, pairs)
            for rotated in (False, True):
                case = m, k, N, pairs, rotated
                found[f"size, {case}"] = gram.layer_size(*case)
                found[f"cost, {case}"] = gram.layer_cost(*case)
        model = fc.MLP([k, m, m, 3], bias=m > k)
        for kind in ("hessian", "ggn"):
            here, there = gram.prices(model, N, kind)
            found |= {f"here, {at}, {kind}": here, f"there, {at}, {kind}": there}
        found[f"outputs, {at}"] = spaces.cost(model, N, 3 * N, 60.0)
        found[f"reach, {at}"] = gram_bounds.estimate(model, N)
        ob = fc.Objective(model, np.ones((N, k)), np.ones((N, 3)), "mse", l2=0.1)
        for kind in ("hessian", "ggn", "fisher"):
            asked: Any = SimpleNamespace(objective=ob, kind=kind, shape=(model.n_params,))
            found[f"refused, {at}, {kind}"] = len(spaces.output_refusal(asked))
    return found


def of_reach(ob: Any, theta: Any) -> dict[str, float]:
    """Of the space that a Hessian's products reach."""
    R = gram_bounds.RangeBounds(ob.hessian(theta))
    found: dict[str, float] = {"m": R.m, "leak": R.leak, "rest": R.rest}
    for l, layer in enumerate(R.layers):
        facts = {"size": layer.size, "defect": layer.defect, "turning": layer.turning}
        facts |= {"rho": layer.rho.sum(), "sigma": layer.sigma.sum()}
        found |= {f"{what} of layer {l}": x for what, x in facts.items()}
    K = R.matrix()
    return found | {"columns": K.bounds.sum(), "error": K.error}


def of_operators(ob: Any, theta: Any, v: Any) -> dict[str, float]:
    """Of products, of columns, in rows as they lie, in blocks, and in sparse rows."""
    weight = ob.sample_weight
    options = {"l2": ob.l2, "sample_weight": weight, "n_threads": 1}
    forms = {"whole": ob}
    forms["streamed"] = fc.StreamedObjective(ob.model, ob.X, ob.y, ob.loss, block_rows=6, **options)
    rows = np.where(np.abs(ob.X) > 1, ob.X, 0)
    forms["sparse"] = fc.Objective(ob.model, scipy.sparse.csr_array(rows), ob.y, ob.loss, **options)
    found: dict[str, float] = {}
    for name, form in forms.items():
        for kind in ("hessian", "ggn", "empirical_fisher"):
            H = getattr(form, kind)(theta)
            found[f"{name}, {kind}"] = H.rounding_bound(v)
            found[f"{name}, columns, {kind}"] = H.column_bounds().sum()
        found[f"{name}, gradient"] = form.rounding_bound(theta)
        found[f"{name}, third"] = form.third_bound(theta, 0.1)
        found[f"{name}, floor"] = form.curvature_floor(theta)
        found[f"{name}, margin"] = form.kink_margin(theta)
        found[f"{name}, kinks"] = form.kinks(theta, 0.02)
        found[f"{name}, lower"] = form.loss_lower_bound
        found[f"{name}, precise gradient"] = form.precise_gradient(theta)[1]
        found[f"{name}, precise value"] = form.precise_value(theta)[1]
    for space in ("samples", "outputs", "inputs"):
        H = ob.batch(slice(0, 3)).ggn(theta)
        K = H.reduced(space)
        found |= {f"{space}, m": K.shape[0], f"{space}, rest": K.n_rest}
        found[f"{space}, lies apart"] = K.rest
        if space == "outputs":
            found |= {"outputs, nothing": K._nothing() / K.norm, "outputs, norm": K.norm}
    for n in (1, 2, 7):
        chosen = spaces.by_cost(ob.batch(slice(0, n)).ggn(theta))
        found[f"chosen for {n}"] = ["NoneType", "SampleSpace", "OutputSpace"].index(
            type(chosen).__name__
        )
    return found


def figures(**net: Any) -> dict[str, float]:
    with served_by():
        ob, theta, v = drawn(**net)
        found = of_operators(ob, theta, v)
        for rows in (1, 2, 23):
            here = of_reach(ob.batch(slice(0, rows)), theta)
            found |= {f"reach of {rows}, {what}": x for what, x in here.items()}
    return {what: float(x) for what, x in found.items()}


if __name__ == "__main__":
    every = {"costs": costs()} | {name: figures(**net) for name, net in NETS.items()}
    table = {
        name: {what: float(f"{x:.14g}") for what, x in net.items()} for name, net in every.items()
    }
    json.dump(table, sys.stdout, indent=1)
    print()
