"""Statements about verdicts from products, with batch normalisation, for several threads and in
other units of the loss, for random networks.
"""

import warnings

import numpy as np

import fastcurv as fc
from fastcurv.critical.evidence import CURVATURE_TOL

from .networks import (
    LOSSES,
    SMOOTH,
    InLongDouble,
    critical_point,
    data,
    end_of_search,
    hessian,
    network,
    targets,
)


def verdicts_from_products_hold_for_networks(draw):
    """Verdicts from products alone, through Krylov spaces, hold for random networks. The Hessian
    has no eigenvalue below minus the tolerance at a minimum, and eigenvalues of both signs at a
    saddle. Critical points lie within the radius of certified minima, and counts of negative
    eigenvalues lie within their bounds.
    """
    ob, name = network(draw, activations=[*SMOOTH, "relu"] if draw.random() < 0.3 else SMOOTH)
    theta, way = end_of_search(draw, ob)
    said = fc.classify(
        ob, theta, dense_below=1, failure_probability=1e-6, rng=int(draw.integers(1000))
    )
    words = f"{name} by {way}: {said.kind}, certified {said.certified}: {said.reason}"
    if said.kind in ("not_critical", "undecided", "degenerate"):
        assert not said.certified, words
        return said.kind
    if said.evidence.n_active_kinks:
        return check_nothing_is_lower_nearby(draw, ob, theta, words)
    values = np.linalg.eigvalsh(hessian(InLongDouble(ob, theta)).astype(float))
    off = 1e-12 * np.abs(values).max()
    room = CURVATURE_TOL * (values[-1] - values[0]) * 1.01 + off
    assert said.kind != "minimum" or values[0] >= -room, words
    assert said.kind != "maximum" or values[-1] <= room, words
    assert said.kind != "saddle" or values[0] < 0 < values[-1], words
    low, high = said.evidence.n_negative_bounds
    assert (values < -off).sum() <= high and (values < off).sum() >= low, words
    assert (
        said.evidence.lambda_min_bounds[0] <= said.lambda_min <= said.evidence.lambda_min_bounds[1]
    ), words
    if not said.certified or said.kind != "minimum":
        return f"{said.kind}, certified {said.certified}"
    x, slack = critical_point(ob, theta, said.n_zero or 0)
    assert float(np.linalg.norm(x - theta)) <= said.radius * 1.01 + slack, words
    return "certified minimum"


def check_nothing_is_lower_nearby(draw, ob, theta, words):
    """Check that no loss at random steps of length 1e-5 is lower than at a minimum with active
    kinks, also along eigenvectors of the one-sided curvature. Return the outcome "held by kinks".
    """
    lowest = np.linalg.eigh(hessian(InLongDouble(ob, theta)).astype(float))[1][:, :4]
    here = ob.value(theta)
    for i in range(60):
        step = (
            lowest @ draw.standard_normal(lowest.shape[1])
            if i % 3 == 0
            else draw.standard_normal(theta.size)
        )
        step *= 1e-5 / np.linalg.norm(step)
        there = ob.value((theta + step).astype(theta.dtype))
        slack = 64 * np.finfo(ob.dtype).eps * (1 + abs(here))
        assert there >= here - slack, f"lower by {here - there:.1e} beside: {words}"
    return "held by kinks"


def few_samples(draw):
    """Return an objective with fewer samples than units, and its description. The objective has no
    l2, or l2 on the matrices alone, so most eigenvalues are l2 or 0.
    """
    N, d = int(draw.integers(1, 8)), int(draw.integers(1, 14))
    loss = str(draw.choice(LOSSES))
    c = int(draw.integers(2 if loss == "cross_entropy" else 1, 4))
    sizes = [d, *(int(draw.integers(1, 9)) for _ in range(int(draw.integers(1, 4)))), c]
    names = [str(draw.choice([*SMOOTH, "elu"])) for _ in sizes[1:-1]]
    X, trick = data(draw, N, d)
    l2 = float(draw.choice([0.0, 10.0 ** draw.uniform(-6, 0)]))
    model = fc.MLP(sizes, names, residual=bool(draw.random() < 0.2))
    y, spared = targets(draw, X, c, loss), bool(draw.random() < 0.5)
    ob = fc.Objective(model, X, y, loss=loss, l2=l2, l2_biases=not spared)
    return ob, f"{sizes} {names} {loss} l2 {l2:.1e} spared {spared} {trick} N {N}"


def measured_saddles_at_large_n_hold(draw):
    """No reported saddle rests on rounding, and both reported ends of the spectrum are those of the
    Hessian up to 10% of its norm.
    """
    ob, name = few_samples(draw)
    theta, way = end_of_search(draw, ob)
    said = fc.classify(ob, theta, dense_below=1, failure_probability=1e-6)
    words = f"{name} by {way}: {said.reason}"
    if said.kind not in ("minimum", "maximum", "saddle"):
        return said.kind
    values = np.linalg.eigvalsh(hessian(InLongDouble(ob, theta)).astype(float))
    size = np.abs(values).max()
    assert said.lambda_max >= values[-1] - 0.1 * size, words
    assert said.lambda_min <= values[0] + 0.1 * size, words
    if said.kind == "saddle" and not said.certified:
        assert said.lambda_min < -1e-11 * size and said.lambda_max > 1e-11 * size, words
    return f"{said.kind}, certified {said.certified}"


def piecewise_linear(draw):
    """Return a small network of relu or leaky_relu units without l2 on noisy targets, whose minima
    are smooth points between kinks, and its description.
    """
    N, d, c = int(draw.integers(20, 80)), int(draw.integers(1, 5)), int(draw.integers(1, 4))
    hidden = [int(draw.integers(1, 4)) for _ in range(1 + (draw.random() < 0.2))]
    model = fc.MLP(
        [d, *hidden, c],
        str(draw.choice(["relu", "leaky_relu"])),
        dtype=str(draw.choice(["float32", "float32", "float64"])),
    )
    X = draw.standard_normal((N, d))
    y = X @ draw.standard_normal((d, c)) + draw.choice([0.3, 1.0]) * draw.standard_normal((N, c))
    ob = fc.Objective(model, X, 10.0 ** draw.uniform(-3, 3) * y, loss="mse")
    return ob, f"{model.sizes} {model.activation[0]} {ob.dtype} N {N}"


def is_near_a_proved_minimum(ob, x, step, room):
    """Return True if `minimize` from x ends at a proved minimum within 1.1 `step` of x, whose loss
    is lower by at most `room`.
    """
    end = fc.minimize(ob, x, max_time=5.0, rng=0)
    near = np.linalg.norm(end.x - x) <= 1.1 * step and end.fun >= ob.value(x) - room
    return end.kind == "minimum" and end.report.certified and near


def near_a_measured_minimum_nothing_is_lower(draw):
    """Up to three lengths of Newton's step from a reported minimum, no sampled loss is lower by
    more than twice the predicted decrease, unless a proved minimum with kinks lies nearby.
    """
    ob, name = piecewise_linear(draw)
    method = str(draw.choice(["l-bfgs", "l-bfgs", "newton-cg"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theta = ob.model.init(rng=int(draw.integers(2**31)))
        theta = fc.minimize(ob, theta, method, max_iter=300, max_time=1.0, rng=0).x
    said, exact, x = fc.classify(ob, theta), ob.astype("float64"), np.asarray(theta, dtype=float)
    if said.kind != "minimum":
        return said.kind
    words = f"{name} by {method}: {said.reason}"
    f, off = exact.certificates.precise_value(x)
    g, H = exact.certificates.precise_gradient(x)[0], exact.hessian(x).to_dense()
    values, V = np.linalg.eigh(H)
    kept = np.argsort(np.abs(values))[said.evidence.n_symmetry :]
    slopes = V[:, kept].T @ g
    step = float(np.linalg.norm(slopes / values[kept]))
    # twice the decrease that the quadratic model predicts, and rounding
    room = float(slopes @ (slopes / values[kept])) + 2 * off + 1e-13 * f
    for size in (3 * step, step, 0.3 * step, 1e-6 * np.linalg.norm(x)):
        if said.certified and size > said.radius:
            continue
        for v in draw.standard_normal((30, len(x))):
            lower = exact.value(x + size * v / np.linalg.norm(v))
            if (
                lower < f - room
                and not said.certified
                and is_near_a_proved_minimum(exact, x, step, room)
            ):
                return "minimum, kinks near it"
            assert lower >= f - room, f"{f - lower} lower at {size}, room {room}: {words}"
    return f"minimum, certified {said.certified}"


def batch_normalisation_is_never_certified(draw):
    """No verdict with batch normalisation is certified, and if `minimize` reports success, the
    Hessian has no significant negative eigenvalue.
    """
    N, d = int(draw.integers(5, 40)), int(draw.integers(1, 4))
    name = str(draw.choice(["tanh", "relu", "gelu"]))
    model = fc.MLP([d, int(draw.integers(1, 5)), 1], name, batch_norm=True)
    l2 = float(draw.choice([0.0, 1e-2]))
    X, y = draw.standard_normal((N, d)), draw.standard_normal(N)
    ob = fc.Objective(model, X, y, loss="mse", l2=l2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = fc.minimize(
            ob, model.init(rng=int(draw.integers(1000))), max_iter=100, max_time=1.0, rng=0
        )
    said = fc.classify(ob, result.x)
    assert not said.certified, said.reason
    if result.success:
        values = np.linalg.eigvalsh(ob.hessian(result.x).to_dense())
        assert values[0] >= -1e-6 * values[-1], result.message
    return f"{said.kind}, success {result.success}"


def threads_change_no_bit_of_a_verdict(draw):
    """Verdicts are bitwise identical for any number of threads."""
    ob, name = network(draw)
    theta, _ = end_of_search(draw, ob)
    options = {"loss": ob.loss, "l2": ob.l2, "l2_biases": ob.l2_biases}
    other = fc.Objective(
        ob.model, ob.X, ob.y, sample_weight=ob.sample_weight, n_threads=3 - ob.n_threads, **options
    )
    one, two = fc.classify(ob, theta), fc.classify(other, theta)
    assert (one.kind, one.certified, one.reason) == (two.kind, two.certified, two.reason), name
    assert (one.radius, one.lambda_min, one.lambda_max) == (
        two.radius,
        two.lambda_min,
        two.lambda_max,
    ), name
    return one.kind


def the_unit_of_the_loss_changes_no_verdict(draw):
    """Multiplying all sample weights by a power of two changes neither kind nor certificate of a
    network without l2.
    """
    ob, name = network(draw)
    X, y, weight = ob.X, ob.y, ob.sample_weight
    weight = np.ones(len(X)) if weight is None else weight
    power = 100 if ob.dtype == np.float64 else 10
    unit = 2.0 ** int(draw.integers(-power, power))
    one = fc.Objective(ob.model, X, y, loss=ob.loss, sample_weight=weight)
    two = fc.Objective(ob.model, X, y, loss=ob.loss, sample_weight=weight * unit)
    theta, _ = end_of_search(draw, one)
    first, second = fc.classify(one, theta), fc.classify(two, theta)
    words = f"{name} times {unit:.0e}: {first.reason} || {second.reason}"
    assert (first.kind, first.certified) == (second.kind, second.certified), words
    return first.kind
