"""Statements that no two calls contradict each other about the same point."""

import warnings

import numpy as np
from scipy.sparse.linalg import LinearOperator

import fastcurv as fc
from fastcurv.common.vectors import safe_norm
from fastcurv.testing import QuadraticObjective

from .networks import LOSSES, SMOOTH, data, end_of_search, network, targets


def network_with_or_without_kinks(draw):
    """Return an objective of a network with one kind of units and l2, possibly with repeated
    samples and samples of weight 0.
    """
    N, d = int(draw.choice([3, 6, 10, 20, 40])), int(draw.integers(1, 4))
    hidden = [int(draw.integers(1, 6))] * int(draw.integers(1, 3))
    loss = str(draw.choice(LOSSES))
    c = int(draw.integers(2 if loss == "cross_entropy" else 1, 4))
    X = draw.standard_normal((N, d))
    if draw.random() < 0.4:
        X[N // 2 :] = X[: N - N // 2]
    y = targets(draw, X, c, loss)
    y = y / np.abs(y).max() if loss == "mse" else y
    weight = draw.choice([0.0, 1.0, 2.0], N) if draw.random() < 0.3 else None
    name = str(draw.choice(["relu", "leaky_relu", "tanh"]))
    return fc.Objective(
        fc.MLP([d, *hidden, c], name, bias=bool(draw.random() < 0.8)),
        X,
        y,
        loss=loss,
        l2=10.0 ** draw.uniform(-4, -0.5),
        sample_weight=None if weight is None or not weight.any() else weight,
    )


def classify_confirms_the_verdict_of_a_run(draw):
    """`classify` certifies what `minimize` certifies, and verdicts from products alone name the
    same kind, unless kinks are active.
    """
    ob = network_with_or_without_kinks(draw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = fc.minimize(ob, ob.model.init(rng=int(draw.integers(1000))), max_time=2.0, rng=0)
    said = fc.classify(ob, run.x)
    words = f"{ob}: {run.message} || {said.reason}"
    sure = run.report is not None and run.report.certified
    assert not sure or (said.certified and said.kind == run.kind), words
    other = fc.classify(ob, run.x, dense_below=1, failure_probability=1e-6)
    pair = {said.kind, other.kind} & {"minimum", "maximum", "saddle"}
    assert len(pair) < 2 or said.evidence.n_active_kinks, f"{words} || {other.reason}"
    return f"{said.kind}, certified {said.certified}"


def one_sided_labels_leave_no_critical_point(draw):
    """If a class has no samples, or all labels of an output are equal, and l2 does not apply to the
    bias of that output, no point is critical and no run succeeds.
    """
    N, d, c = int(draw.integers(1, 30)), int(draw.integers(1, 4)), int(draw.integers(2, 4))
    hidden = [int(draw.integers(1, 5)) for _ in range(int(draw.integers(0, 3)))]
    loss, X = str(draw.choice(LOSSES[1:])), data(draw, N, d)[0]
    lacking = int(draw.integers(c))
    if loss == "cross_entropy":
        y = (lacking + draw.integers(1, c, N)) % c
    else:
        y = (draw.random((N, c)) < 0.5) * 1.0
        y[:, lacking] = draw.integers(2)
    model = fc.MLP([d, *hidden, c], str(draw.choice([*SMOOTH, "relu"])))
    l2 = float(draw.choice([0.0, 1e-2]))
    ob = fc.Objective(model, X, y, loss=loss, l2=l2, l2_biases=False)
    theta, way = end_of_search(draw, ob)
    ray = ob.certificates.ray_to_infimum(theta)
    said = fc.classify(ob, theta, dense_below=float(draw.choice([1, 4096])))
    assert ray is not None and said.kind == "not_critical", f"{way}: {said.reason}"
    before, after = ob.value(theta), ob.value(theta + safe_norm(theta) * ray + ray)
    assert after <= before, f"{after} above {before}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = fc.minimize(ob, theta, max_iter=100, max_time=0.5, rng=0)
        walk = fc.find_critical_point(ob, theta, max_iter=40)
    assert not run.success and not walk.success, run.message
    return run.stopped


def overflow_of_squares_keeps_certified_kinds(draw):
    """If sample weights are multiplied by a power of two whose square overflows or underflows, no
    certified kind changes, and no minimum, maximum or saddle becomes another of these.
    """
    ob, name = network(draw)
    if ob.dtype != np.float64:
        return "float32"
    weight = np.ones(len(ob.X)) if ob.sample_weight is None else ob.sample_weight
    unit = 2.0 ** int(draw.choice([-560, -400, 400, 560]))
    one = fc.Objective(ob.model, ob.X, ob.y, loss=ob.loss, sample_weight=weight)
    two = fc.Objective(ob.model, ob.X, ob.y, loss=ob.loss, sample_weight=weight * unit)
    theta, _ = end_of_search(draw, one)
    first, second = fc.classify(one, theta), fc.classify(two, theta)
    words = f"{name} times {unit:.0e}: {first.reason} || {second.reason}"
    assert not second.certified or second.kind == first.kind, words
    assert not first.certified or second.kind == first.kind, words
    pair = {first.kind, second.kind} & {"minimum", "maximum", "saddle"}
    assert len(pair) < 2, words
    return f"{first.kind}, {second.kind}"


class BufferReusingOperator(LinearOperator):
    """A symmetric operator whose products modify their argument or the array returned before."""

    def __init__(self, A, way):
        super().__init__(A.dtype, A.shape)
        self.A, self.way, self.out = A, way, np.empty(len(A))

    def _matvec(self, v):
        out = v.reshape(-1) if self.way == "in place" else self.out
        out[:] = self.A @ v.reshape(-1)
        return out

    def _matmat(self, V):
        return np.stack([self._matvec(v).copy() for v in V.T.copy()], axis=1)


def operators_that_reuse_buffers_have_true_results(draw):
    """Eigenvalues and verdicts are correct for operators that modify their argument or reuse the
    array that they return.
    """
    n = int(draw.integers(3, 40))
    A = draw.standard_normal((n, n))
    A = A + A.T + draw.choice([0.0, 3.0 * n**0.5]) * np.eye(n)
    values, H = (
        np.linalg.eigvalsh(A),
        BufferReusingOperator(A, str(draw.choice(["in place", "one buffer"]))),
    )
    k, which = int(draw.integers(1, min(5, n) + 1)), str(draw.choice(["LA", "SA", "BE"]))
    found = fc.eigsh(H, k, which, rng=0)
    gaps = np.abs(found.values[:, None] - values).min(axis=1)
    assert np.all(gaps <= found.residuals + 1e-12 * np.abs(values).max()), gaps
    said = fc.classify(
        QuadraticObjective(H), np.zeros(n), dense_below=float(draw.choice([1, 4096])),
        failure_probability=1e-6,
    )  # fmt: skip
    truth = "minimum" if values[0] > 0 else "maximum" if values[-1] < 0 else "saddle"
    assert said.kind in (truth, "undecided", "degenerate"), f"{said.reason} {values[[0, -1]]}"
    return said.kind


STATEMENTS = (
    classify_confirms_the_verdict_of_a_run,
    one_sided_labels_leave_no_critical_point,
    overflow_of_squares_keeps_certified_kinds,
    operators_that_reuse_buffers_have_true_results,
)
