"""The representation of an operator with the least estimated time is used: products, a dense matrix
or a smaller space.
"""

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator

import fastcurv as fc
from fastcurv.spectrum.forms import (
    N_TYPICAL_RUN_PRODUCTS,
    SEARCH_ALWAYS_DENSE_MAX_N,
    choose_reduction,
    choose_representation,
    matrix_of,
)

from ..nets import draw


class CostedOperator:
    """A diagonal operator with given estimates of the time of a product and of the time to sum its
    matrix. If `possible` is False, the matrix cannot be summed.
    """

    dtype = np.dtype(float)

    def __init__(self, n, product, summed=np.inf, possible=True):
        self.shape, self.estimated_seconds, self.possible = (n, n), (product, summed), possible
        self.d = np.arange(1.0, n + 1)

    def __matmul__(self, v):
        return (self.d * v.T).T

    def summed_matrix(self):
        return np.diag(self.d) if self.possible else None


def test_the_form_of_least_estimated_time_is_chosen():
    """`choose_representation` returns products, a dense matrix or a matrix summed over samples by
    the least estimated time, here computed independently, for cases in which each of them is
    fastest.
    """
    kinds = set()
    for n in (10, 100, 400, 900, 1100):
        for product in (1e-7, 1e-5, 1e-3):
            for summed in (1e-6, 1e-4, 1e-2, np.inf):
                form = choose_representation(CostedOperator(n, product, summed), 40, summed=True)
                entry, pairs = 1e-10 * n**2, 45e-6 + 1e-6 * n + 2e-8 * n**2 + 1.2e-10 * n**3
                prices = {
                    "products": 1.5e-4 + 40 * (product + 3e-6),
                    "summed": 1.5e-4 + summed + 40 * (entry + 3e-6) if n <= 512 else np.inf,
                    "matrix": min(summed, n * product) + pairs if n <= 1000 else np.inf,
                }
                assert form.kind == min(prices, key=prices.get)
                assert form.price == pytest.approx(prices[form.kind], rel=1e-12)
                kinds.add(form.kind)
                others = choose_representation(CostedOperator(n, product, summed), 40, matrix=False)
                assert others.kind == "products" and others.product == product
    assert kinds == {"products", "summed", "matrix"}


def test_operators_without_costs_are_dense_only_if_small():
    for n in (2, SEARCH_ALWAYS_DENSE_MAX_N, SEARCH_ALWAYS_DENSE_MAX_N + 1, 2000):
        op = aslinearoperator(np.eye(n))
        form = choose_representation(op, 1e9)
        assert form.kind == ("matrix" if n <= SEARCH_ALWAYS_DENSE_MAX_N else "products")
        if form.kind == "products":
            assert form.make() is op and form.price == np.inf
        else:
            P, count = form.make()
            assert np.array_equal(P, np.eye(n)) and count == n


def test_operators_whose_matrix_overflows_are_searched_by_products():
    """If summing the matrix of an operator overflows, the search uses products."""
    op = CostedOperator(300, 1e-3, 1e-6, possible=False)
    assert choose_representation(op, 40, matrix=False, summed=True).make() is None
    assert matrix_of(op)[1] == 300
    found = fc.eigsh(op, 2, "LA", max_products=200, rng=0)
    assert 0 < found.n_products <= 200
    assert np.allclose(found.values, [299, 300], rtol=1e-6)


def test_a_smaller_space_is_chosen_if_its_run_is_faster():
    seen = set()
    for sizes, N in (([200, 100, 2], 3), ([4, 6, 2], 50), ([600, 400, 200, 5], 100)):
        net = draw(0, sizes, "tanh", "mse", N=N, n_threads=1)
        for H in (net.ob.hessian(net.theta), net.ob.ggn(net.theta)):
            prices = {form.kind: form.price for form in H.reduction_forms(N_TYPICAL_RUN_PRODUCTS)}
            prices["parameters"] = N_TYPICAL_RUN_PRODUCTS * H.estimated_seconds[0]
            best = min(prices, key=prices.get)
            small = choose_reduction(H, None)
            assert (small.space if small else "parameters") == best
            assert (H.reduced() is None) == (small is None)
            assert choose_representation(H, 40, "parameters", matrix=False).make() is H
            assert choose_representation(H, 40, "samples").make().space == "samples"
            seen.add(best)
    assert seen == {"samples", "outputs", "inputs", "parameters"}
    with pytest.raises(ValueError, match="space must be 'parameters'"):
        choose_representation(np.eye(3), 40, "samples")


def test_a_matrix_is_summed_over_rows_where_that_costs_less_than_products(rng):
    """`to_dense` and `factor` sum the matrix over samples if that costs less than products with
    unit vectors.
    """
    ob = draw(rng, [3, 4, 2], "tanh", "mse", 20, l2=1e-2).ob
    G = ob.ggn(ob.model.init(rng=0))
    found = []
    for seconds, products in (((1e-3, 1e-5), 0), ((1e-9, 1.0), G.shape[0])):
        vars(G)["estimated_seconds"] = seconds
        for make in (G.to_dense, lambda: G.factor().lower @ G.factor().lower.T):
            before = G.n_products
            found.append(make())
            assert G.n_products - before == products * (1 if make == G.to_dense else 2)
    assert all(np.allclose(A, found[0], rtol=1e-12, atol=1e-14) for A in found)
