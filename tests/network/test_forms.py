"""Every form in which rows can be given has the results of the same rows in one dense array."""

from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp

import fastcurv as fc

from ..nets import ACTIVATIONS, LENGTHS, LOSSES, Blocks, draw
from .product_cases import assert_same_results

pytestmark = pytest.mark.by_day(one_of="dtype")


def sparse_blocks(model, X, y, loss, sample_weight, **options):
    """Return a stream of sparse blocks in several formats, among them an empty and a dense one."""
    weight = np.ones(len(X)) if sample_weight is None else sample_weight
    cut = len(X) // 2
    kinds = (sp.csr_matrix, 0, cut), (sp.csr_array, 0, 0), (sp.coo_matrix, cut, 2 * cut)
    parts = [(kind(X[i:j]), y[i:j], weight[i:j]) for kind, i, j in kinds]
    parts.append((X[2 * cut :], y[2 * cut :], weight[2 * cut :]))
    return fc.StreamedObjective(
        model, Blocks(*parts, entries=2.0), loss=loss, block_rows=9, **options
    )


FORMS = {
    "sparse": lambda model, X, *more, **options: fc.Objective(
        model, sp.csr_array(X), *more, **options
    ),
    "blocks": partial(fc.StreamedObjective, block_rows=20),
    "blocks of a sparse matrix": lambda model, X, *more, **options: fc.StreamedObjective(
        model, sp.coo_matrix(X), *more, block_rows=9, **options
    ),
    "sparse blocks": sparse_blocks,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_rows_has_the_results_of_a_dense_array(form, dtype, rng):
    """All results agree for networks of every activation and loss, with and without biases, skip
    connections, weights and l2, for numbers of rows around those of SIMD vectors and blocks.
    """
    tol = {"float64": 1e-12, "float32": 2e-5}[dtype]
    for i in range(2 * len(LOSSES)):
        sizes = [(9, 9, 9, 3), (17, 9, 5), (6, 2)][i % 3]
        loss, N = LOSSES[i % len(LOSSES)], LENGTHS[i % len(LENGTHS)]
        X = rng.standard_normal((N, sizes[0])) * (rng.random((N, sizes[0])) < 0.3)
        how = {"bias": i % 4 > 0, "residual": i % 5 > 1, "l2": 0.1 * (i % 2), "dtype": dtype}
        net = draw(rng, sizes, ACTIVATIONS[i % 9], loss, X=X.astype(dtype), **how)
        options = {"loss": loss, "l2": 0.1 * (i % 2), "l2_biases": i % 3 > 0}
        options["sample_weight"] = rng.integers(0, 3, N) + (N < 3) if i % 2 else None
        whole = fc.Objective(net.model, net.X, net.y, **options)
        ob = FORMS[form](net.model, net.X, net.y, **options)
        assert sp.issparse(ob.batch([0]).X) == ("sparse" in form)
        theta = net.direction(rng) / 2
        assert_same_results(ob, whole, theta, net.direction(rng, 3), tol)
        if dtype == "float32":  # `astype` must use the rows as rounded to float32
            wide = [one.astype("float64").gradient(theta) for one in (ob, whole)]
            assert np.linalg.norm(wide[0] - wide[1]) <= 1e-13 * np.linalg.norm(wide[1])
