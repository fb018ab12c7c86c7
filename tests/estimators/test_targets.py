"""Targets that change between calls, and probabilities of labels."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

import fastcurv as fc  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 3))
LABELS = (X[:, :2] > 0).astype(int)
SGD = {"hidden_layer_sizes": (4,), "solver": "sgd", "random_state": 0, "max_iter": 5}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_logarithms_of_the_probabilities_of_labels():
    net = fc.MLPClassifier(hidden_layer_sizes=(4,), random_state=0, max_iter=30).fit(X, LABELS)
    p, logs = net.predict_proba(X), net.predict_log_proba(X)
    assert p.shape == logs.shape == (60, 2)
    assert np.abs(np.exp(logs) - p).max() <= 1e-6


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_labels_after_classes_are_refused():
    net = fc.MLPClassifier(**SGD)
    net.partial_fit(X, LABELS[:, 0], classes=[0, 1])
    with pytest.raises(ValueError, match="y has 2 labels; wanted 2"):
        net.partial_fit(X, LABELS)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_single_class_is_certain():
    net = fc.MLPClassifier(**SGD).partial_fit(X, np.zeros(60, int))
    assert np.array_equal(net.predict_proba(X), np.ones((60, 1)))
    assert np.array_equal(net.predict_log_proba(X), np.zeros((60, 1)))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_number_of_outputs_stays():
    net = fc.MLPRegressor(**SGD).partial_fit(X, X[:, 0])
    with pytest.raises(ValueError, match="y has 2 outputs; wanted 1"):
        net.partial_fit(X, X[:, :2])


def test_rows_without_weight_are_no_rows():
    with pytest.raises(ValueError, match="zero"):
        fc.MLPRegressor().fit(X, X[:, 0], sample_weight=np.zeros(60))
