"""Fits with default parameters on standardised features reach good scores without a warning."""

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn import datasets  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

import fastcurv as fc  # noqa: E402


def data_set(seed, largest=2000):
    """Return (is_classification, X, y): 50 to `largest` samples with standardised features. The
    last digit of the seed selects one of ten generators of data.
    """
    rng = np.random.default_rng(seed)
    n, d = int(np.exp(rng.uniform(np.log(50), np.log(largest)))), int(rng.integers(6, 21))
    k, noise, words = int(rng.integers(2, 6)), rng.uniform(), {"random_state": seed}
    made = {
        0: lambda: datasets.make_moons(n, noise=0.05 + 0.35 * noise, **words),
        1: lambda: datasets.make_circles(n, noise=0.02 + 0.28 * noise, factor=0.5, **words),
        2: lambda: datasets.make_blobs(n, d, centers=k, cluster_std=0.5 + 5 * noise, **words),
        3: lambda: datasets.make_gaussian_quantiles(
            n_samples=n, n_features=d, n_classes=k, **words
        ),
        4: lambda: datasets.make_classification(
            n, d, n_informative=5, n_redundant=0, n_classes=k, flip_y=0.2 * noise, **words
        ),
        5: lambda: datasets.make_friedman1(n, d, noise=2 * noise, **words),
        6: lambda: datasets.make_friedman2(n, noise=100 * noise, **words),
        7: lambda: datasets.make_friedman3(n, noise=0.3 * noise, **words),
        8: lambda: datasets.make_regression(n, d, n_informative=5, noise=50 * noise, **words),
        9: lambda: (X := rng.standard_normal((n, d)), X[:, 0] * X[:, 1] + noise * X[:, 2]),
    }
    X, y = made[seed % 10]()
    return seed % 10 < 5, StandardScaler().fit_transform(X), y


def fit(seed, largest=2000):
    """Return (estimator, messages): an estimator fitted with default parameters, and the messages
    of its warnings.
    """
    labels, X, y = data_set(seed, largest)
    net = (fc.MLPClassifier if labels else fc.MLPRegressor)(random_state=seed)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        net.fit(X, y)
    return net, [str(one.message) for one in seen]


def test_standardised_features_give_no_warning():
    for seed in (0, 1, 2, 4, 5, 6, 8, 9):
        net, said = fit(seed, largest=400)
        assert not said, (seed, net.stopped_, said)


@pytest.mark.nightly
def test_standardised_features_give_no_warning_on_100_data_sets():
    for seed in range(100):
        net, said = fit(seed)
        assert not said, (seed, net.stopped_, said)


def test_reaching_the_final_step_limit_gives_no_warning():
    X, y = datasets.make_moons(300, noise=0.3, random_state=0)
    found = [fc.MLPClassifier(random_state=seed, max_iter=2000).fit(X, y) for seed in range(5)]
    assert {net.stopped_ for net in found} <= {"held_out", "callback"}
    assert all(net.n_iter_ < 2000 for net in found)
