"""Estimators reject memory-mapped files that are truncated."""

from ...network.test_cut_short import program  # noqa: F401 - a fixture


def test_files_truncated_before_use_are_rejected(program):  # noqa: F811
    """Networks, objectives, estimators and sparse matrices raise ValueError for arrays of a mapped
    file that was truncated before the call.
    """
    program(
        """
import scipy.sparse
from fastcurv import MLPClassifier, MLPRegressor

N, model = 20_000, fc.MLP([20, 5, 3])
theta = model.init(seed=0)
rng = np.random.default_rng(0)
X, y = rng.standard_normal((N, 20)), rng.integers(3, size=N).astype(np.int32)
for order in "CF":
    np.save("X.npy", np.asarray(X, order=order)), np.save("y.npy", y), np.save("w.npy", np.ones(N))
    A, b, w = (np.load(name, mmap_mode="r") for name in ("X.npy", "y.npy", "w.npy"))
    net = MLPClassifier((3,), max_iter=2, random_state=0, solver="sgd").fit(X[:50], y[:50])
    line = MLPRegressor((3,), max_iter=2, random_state=0, solver="sgd").fit(X[:50], X[:50, 0])
    np.save("ends.npy", np.arange(N + 1, dtype=np.int32)), np.save("at.npy", np.zeros(N, np.int32))
    at = np.load("at.npy", mmap_mode="r")
    S = scipy.sparse.csr_matrix((np.ones(N), at, np.arange(N + 1)), shape=(N, 20))
    S.indices = at
    for name in ("X.npy", "y.npy", "w.npy", "at.npy"):
        os.truncate(name, 5000)
    asks = [
        lambda: model.predict(theta, A), lambda: model.predict(theta, np.asarray(A)[50:]),
        lambda: model.preactivations(theta, A),
        lambda: fc.Objective(model, A, y), lambda: fc.Objective(model, X, b),
        lambda: fc.Objective(model, X, y, sample_weight=w),
        lambda: fc.StreamedObjective(model, A, y, block_rows=999).value(theta),
        lambda: fc.StreamedObjective(model, [(A[:500], y[:500]), (A[500:], y[500:])]).value(theta),
        lambda: fc.StreamedObjective(model, [A[:500], A[500:]], b).value(theta),
        lambda: fc.Objective(model, S, y), lambda: fc.StreamedObjective(model, S, y).value(theta),
        lambda: net.fit(A, y), lambda: net.fit(X, b), lambda: net.fit(X, y, w),
        lambda: net.predict(A), lambda: net.predict_proba(A), lambda: net.score(A, y),
        lambda: net.score(X, b), lambda: net.score(X, y, w), lambda: net.partial_fit(A, y),
        lambda: net.partial_fit(X, b), lambda: net.objective(A, y), lambda: net.objective(X, b),
        lambda: line.fit(A, y), lambda: line.fit(X, b), lambda: line.predict(A),
        lambda: line.score(X, b), lambda: line.score(A, y), lambda: line.partial_fit(X, b),
    ]
    for i, ask in enumerate(asks):
        try:
            ask()
        except ValueError as error:
            assert "got 5000 bytes instead of" in str(error), (i, error)
        else:
            raise AssertionError(f"ask {i} was answered")
"""
    )
