"""Networks and errors that the tests of bounds share."""

import numpy as np
import pytest

import fastcurv as fc

from .longdouble import LD

DTYPES = ["float32", "float64"]
KINDS = {"hessian": "hessian", "ggn": "ggn", "fisher": "empirical_fisher"}
ORACLE = float(np.finfo(LD).eps)

every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def problem(
    sizes,
    act="tanh",
    loss="mse",
    dtype="float64",
    N=30,
    seed=0,
    X=None,
    weighted=False,
    soft=False,
    l2=0.0,
    memory=None,
    **model,
):
    """(objective, theta, v), random."""
    rng = np.random.default_rng(seed)
    net = fc.MLP(sizes, activation=act, dtype=dtype, **model)
    X = rng.standard_normal((N, sizes[0])) if X is None else X
    if loss == "cross_entropy" and not soft:
        y = rng.integers(sizes[-1], size=len(X))
    else:
        y = (
            rng.standard_normal((len(X), sizes[-1]))
            if loss == "mse"
            else rng.uniform(0, 1, (len(X), sizes[-1]))
        )
    weight = rng.uniform(0, 2, len(X)) if weighted else None
    ob = fc.Objective(net, X, y, loss=loss, l2=l2, sample_weight=weight, memory=memory)
    return ob, net.init(seed=rng), rng.standard_normal(net.n_params).astype(dtype)
