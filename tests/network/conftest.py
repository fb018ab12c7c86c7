"""Fixtures that draw networks and operators for the tests of products."""

import numpy as np
import pytest

from .product_cases import NETS


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
