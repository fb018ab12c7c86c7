"""The Gram matrix of a GGN or Fisher has its eigenvalues, and gives its eigenvectors."""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.network.gram import gram_matrix

from ..nets import EPS, LOSSES, draw


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", ["ggn", "empirical_fisher"])
def test_the_gram_matrix_has_the_eigenvalues_of_the_curvature(kind, loss, dtype):
    """Eigenvalues, density, norm and eigenpairs from the Gram matrix are those of the matrix, with
    copies of l2 outside the range.
    """
    net = draw(0, [9, 8, 7, 3], "tanh", loss, N=5, dtype=dtype, l2=0.01, residual=True)
    G = getattr(net.ob, kind)(net.theta)
    A = G.to_dense().astype(float)
    exact = np.linalg.eigvalsh(A)
    gram = gram_matrix(G)
    size = exact[-1]
    close = 500 * EPS[dtype] * size
    assert gram is not None and len(gram.K) + gram.n_outside == G.shape[0]
    assert np.abs(gram.all_eigenvalues(np.linalg.eigvalsh(gram.K)) - exact).max() <= close
    assert np.abs(fc.eigvalsh(G) - exact).max() <= close
    assert abs(float(fc.frobenius_norm(G)) - np.linalg.norm(A)) <= close
    assert fc.spectral_density(G, rng=0).exact
    pairs = fc.eigsh(G, 3, "LA", rng=0)
    assert np.abs(pairs.values - exact[-3:]).max() <= close and pairs.converged.all()
    left = np.linalg.norm(A @ pairs.vectors - pairs.vectors * pairs.values, axis=0)
    assert (left <= pairs.residuals + close).all()
    assert np.abs(pairs.vectors.T @ pairs.vectors - np.eye(3)).max() <= 100 * EPS[dtype]


def test_certain_predictions_keep_their_small_eigenvalues(rng):
    """Eigenvalues of rows whose predictions are certain up to 1e-12 keep their relative
    accuracy.
    """
    model = fc.MLP([6, 3], [], bias=False)
    X = np.eye(6)[:4]
    theta = np.zeros(model.n_params)
    theta[:6] = 28.0
    K = gram_matrix(fc.Objective(model, X, [0, 0, 1, 2]).ggn(theta)).K
    p = 1 / (np.exp(28.0) + 2)
    expected = np.repeat([p / 4, p * (1 - 2 * p) * 3 / 4], 4)
    assert np.allclose(np.linalg.eigvalsh(K), np.sort(expected), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    "change",
    [{"N": 90}, {"batch_norm": True}, {"l2": 0.1, "l2_biases": False}],
)
def test_some_curvatures_have_no_gram_matrix(change):
    """With more outputs than parameters, batch normalisation, or an l2 without biases there is no
    Gram matrix, and a Hessian has none.
    """
    net = draw(0, [4, 5, 2], "tanh", "mse", **({"N": 5} | change))
    assert gram_matrix(net.ob.ggn(net.theta)) is None
    assert gram_matrix(net.ob.hessian(net.theta)) is None
    assert fc.eigvalsh(net.ob.ggn(net.theta)).shape == net.theta.shape
