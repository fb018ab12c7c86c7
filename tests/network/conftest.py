"""Fixtures that draw networks and operators for the tests of products."""

import numpy as np
import pytest

import fastcurv as fc

from .product_cases import NETS, SPACES, objective


@pytest.fixture
def drawn(rng, problem):
    """Return a function that draws the network of a name in NETS. The network has the additional
    attributes `V` (n, 5), a random block of parameter vectors, and its first two columns `v` (n,)
    and `u` (n,).
    """

    def draw(net, dtype="float64", **options):
        p = problem(rng, **{"weights": True, "l2": 0.01, **NETS[net], **options}, dtype=dtype)
        p.V = rng.standard_normal((p.n, 5)).astype(dtype)
        p.v, p.u = np.ascontiguousarray(p.V[:, 0]), np.ascontiguousarray(p.V[:, 1])
        return p

    return draw


@pytest.fixture(params=SPACES)
def reducible(request):
    """Return (space, H, values): an operator with more parameters than the space has dimensions,
    and all eigenvalues of its dense matrix in ascending order. For inputs, X has five independent
    columns, of which the network has twelve.
    """
    rows, kind = SPACES[request.param]
    rng = np.random.default_rng(0)
    ob, theta = objective(rng, [12, 11, 9, 3], rows, loss="cross_entropy", l2=0.01)
    if request.param == "inputs":
        X = ob.X.copy()
        X[:, 5:] = X[:, :1]
        ob = fc.Objective(ob.model, X, ob.y, l2=0.01)
    H = getattr(ob, kind)(theta)
    return request.param, H, np.linalg.eigvalsh(H.to_dense())
