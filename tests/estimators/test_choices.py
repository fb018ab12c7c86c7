"""What is chosen by size alone."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from fastcurv.cli.datasets import _standard  # noqa: E402
from fastcurv.estimators.choices import pairs_worth, threads_worth  # noqa: E402


@pytest.mark.parametrize(
    ("n", "rows", "pairs"),
    [
        (601, 1000, 80), (601, 960, 80), (601, 600, 50), (601, 100, 20), (601, 0, 20),
        (7510, 1000, 20), (1310, 1000, 50), (1 << 16, 1000, 20),
    ],
)  # fmt: skip
def test_pairs_of_l_bfgs(n, rows, pairs):
    """A twelfth of the rows, as many as stay in cache, 20 at least and 80 at most."""
    assert pairs_worth(n, rows) == pairs


@pytest.mark.parametrize(
    ("given", "n", "rows", "threads"),
    [
        (None, 500, 499, 1),
        (None, 500, 500, None),
        (None, 500, 501, None),
        (3, 2, 2, 3),
        (1, 9, 9, 1),
    ],
)
def test_threads_of_a_small_gradient(given, n, rows, threads):
    """One below a million and a half of operations, unless told otherwise."""
    assert threads_worth(given, n, rows) == threads


def test_columns_are_brought_to_mean_0_and_deviation_1():
    """A constant one is shifted alone, however large."""
    A = np.array([[1.0, 1e9, 0.0], [3.0, 1e9, 0.0]])
    mean, scale = _standard(A)
    assert mean.tolist() == [2, 1e9, 0] and scale.tolist() == [1, 1, 1]
    assert _standard(4 * A)[1].tolist() == [4, 1, 1]
