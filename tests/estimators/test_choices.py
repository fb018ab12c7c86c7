"""What is chosen by size alone."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

pytest.importorskip("sklearn")

import fastcurv as fc  # noqa: E402
from fastcurv.cli.data import _standard  # noqa: E402
from fastcurv.estimators.base import pairs_worth, single_worth, threads_worth  # noqa: E402


@pytest.mark.parametrize(
    ("n", "rows", "pairs"),
    [
        (601, 1000, 80), (601, 960, 80), (601, 600, 50), (601, 100, 20), (601, 0, 20),
        (7510, 1000, 20), (1310, 1000, 50), (1 << 16, 1000, 20),
        (7510, 6000, 50), (7510, 60_000, 80), (1 << 20, 60_000, 20),
    ],
)  # fmt: skip
def test_pairs_of_l_bfgs(n, rows, pairs):
    """A twelfth of the rows, as many as stay in cache, or a 120th, 20 at least and 80 at most."""
    assert pairs_worth(n, rows) == pairs


@pytest.mark.parametrize(
    ("given", "n", "rows", "threads"),
    [
        (None, 1000, 1666, 1),
        (None, 1000, 1667, None),
        (None, 5000, 1000, None),
        (3, 2, 2, 3),
        (1, 9, 9, 1),
    ],
)
def test_threads_of_a_small_gradient(given, n, rows, threads):
    """One below ten million operations, unless told otherwise."""
    assert threads_worth(given, n, rows) == threads


def test_float32_where_it_serves():
    """For many rows of numbers that it tells apart, in X and in y."""
    X, y = np.random.default_rng(0).standard_normal((1000, 3)), np.arange(1000) % 2
    assert single_worth(X, y, 4000) and not single_worth(X, y, 3000)
    assert single_worth(np.c_[X, np.full(1000, 7.0)], y, 4000)  # a constant
    for bad in (X + 20_000, 1e7 * X, 1e-7 * X, X.astype(np.float32), csr_matrix(X)):
        assert not single_worth(bad, y, 4000)
    assert single_worth(X, X[:, 0], 4000) and not single_worth(X, 1e5 + X, 4000)


def test_columns_are_brought_to_mean_0_and_deviation_1():
    """A constant one is shifted alone, however large."""
    A = np.array([[1.0, 1e9, 0.0], [3.0, 1e9, 0.0]])
    mean, scale = _standard(A)
    assert mean.tolist() == [2, 1e9, 0] and scale.tolist() == [1, 1, 1]
    assert _standard(4 * A)[1].tolist() == [4, 1, 1]


@pytest.mark.parametrize(
    "verdict, kind",
    [
        (1, "CriticalPoint"),
        (np.True_, "CriticalPoint"),
        (np.False_, "NoneType"),
        ("quick", "SpectrumCheck"),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_verdict_that_is_true_in_other_words(verdict, kind):
    """A grid of parameters hands out NumPy's True."""
    net = fc.MLPRegressor((2,), "tanh", verdict=verdict, max_iter=3, random_state=0)
    net.fit(np.arange(8.0).reshape(4, 2) / 4, np.arange(4.0))
    assert type(net.curvature_).__name__ == kind
