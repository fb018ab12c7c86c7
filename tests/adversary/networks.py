"""Random networks chosen to mislead, and statements about points whose truth is known or can be
found in long double.
"""

import warnings

import numpy as np

import fastcurv as fc
from fastcurv.certify import rounding_bound

from .. import nets
from ..certify.longdouble import LD
from ..certify.longdouble import Truth as InLongDouble
from .truths import Truth

SMOOTH = ["tanh", "sigmoid", "softplus", "silu", "gelu", "identity"]
LOSSES = ["mse", "cross_entropy", "binary_cross_entropy"]
OWN = ["tanh", *nets.OWN]  # user-defined activations, and a built-in one
GIVEN = ["poisson", "gamma", "log_cosh", "pseudo_huber", "quantile", "gaussian_nll"]


def data(draw, N, d):
    """Return (X, name) with samples X of a named peculiarity: repeated samples, or constant, zero,
    nearly equal or differently scaled columns.
    """
    X = draw.standard_normal((N, d))
    trick = str(draw.choice(["none", "copies", "constant", "zero", "close", "scaled", "offset"]))
    j = int(draw.integers(d))
    if trick == "copies":
        X[N // 2 :] = X[: N - N // 2]
    elif trick == "constant":
        X[:, j] = draw.choice([1.0, -3.0, 1e-3])
    elif trick == "zero":
        X[:, j] = 0.0
    elif trick == "close":
        X[:, j] = X[:, 0] + 10.0 ** draw.uniform(-9, -1) * draw.standard_normal(N)
    elif trick == "scaled":
        X = X * 10.0 ** draw.uniform(-3, 3, d)
    elif trick == "offset":
        X[:, j] += 10.0 ** draw.uniform(0, 4)
    return X, trick


def targets(draw, X, c, loss):
    if loss == "mse":
        scale = 10.0 ** draw.uniform(-3, 3)
        return scale * (X @ draw.standard_normal((X.shape[1], c)) + draw.standard_normal(c))
    if loss in GIVEN:
        return extreme_targets(draw, X, c // 2 if loss == "gaussian_nll" else c, loss)
    if loss == "cross_entropy":
        labels = draw.integers(c, size=len(X))
        return labels if draw.random() < 0.7 else draw.dirichlet(np.ones(c), len(X))
    y = draw.random((len(X), c))
    return (y > 0.5) * 1.0 if draw.random() < 0.7 else y


def extreme_targets(draw, X, c, loss):
    """Return targets of shape (N, c) that are extreme for the named loss: counts that are all 0 in
    a column or huge, outliers, or targets of tiny variance.
    """
    smooth = X @ draw.standard_normal((X.shape[1], c)) / (1 + np.abs(X).max())
    if loss == "poisson":
        y = draw.poisson(10.0 ** draw.uniform(-2, 4) * np.exp(smooth)).astype(float)
        return y * (draw.random(c) < 0.9)
    if loss == "gamma":
        return 10.0 ** draw.uniform(-6, 6) * np.exp(smooth + draw.standard_normal(smooth.shape))
    noise = 10.0 ** draw.uniform(-9, 1) * draw.standard_normal(smooth.shape)
    outliers = 10.0 ** draw.uniform(0, 6) * (draw.random(smooth.shape) < 0.1)
    y = 10.0 ** draw.uniform(-2, 2) * (smooth + noise)
    return y + outliers if draw.random() < 0.5 else y


def choose_loss(draw, names, most=4):
    """Return (name, loss, c): the name of a random loss, the loss as a name or a `Loss`, and a
    number of outputs.
    """
    loss = str(draw.choice(names))
    c = int(draw.integers(2 if loss == "cross_entropy" else 1, most))
    if loss == "gaussian_nll":
        c = 2 * int(draw.integers(1, 3))
    if loss == "quantile" and draw.random() < 0.7:
        level, width = float(draw.uniform(0.02, 0.98)), float(10.0 ** draw.uniform(-3, 1))
        return loss, fc.Loss.quantile(level, width), c
    if loss == "pseudo_huber" and draw.random() < 0.7:
        return loss, fc.Loss.pseudo_huber(float(10.0 ** draw.uniform(-3, 2))), c
    return loss, loss, c


def choose_activations(draw, names, count):
    """Return `count` random activations as a list, each the name of a built-in one or a
    user-defined one.
    """
    drawn = (str(draw.choice(names)) for _ in range(count))
    return [nets.OWN.get(name, name) for name in drawn]


def network(draw, hidden=(0, 3), activations=SMOOTH, losses=LOSSES):
    """Return a small random objective with up to two hidden layers, and its description."""
    N, d = int(draw.integers(3, 40)), int(draw.integers(1, 5))
    name, loss, c = choose_loss(draw, losses)
    sizes = [d, *(int(draw.integers(1, 6)) for _ in range(int(draw.integers(*hidden)))), c]
    names = choose_activations(draw, activations, len(sizes) - 2)
    dtype = "float32" if draw.random() < 0.15 else "float64"
    X, trick = data(draw, N, d)
    l2 = float(draw.choice([0.0, 10.0 ** draw.uniform(-6, 1), 10.0 ** draw.uniform(-3, -1)]))
    weight = draw.choice([0.0, 1.0, 3.0], N) if draw.random() < 0.2 else None
    model = fc.MLP(sizes, names, bias=bool(draw.random() < 0.8), dtype=dtype)
    ob = fc.Objective(
        model,
        X,
        targets(draw, X, c, name),
        loss=loss,
        l2=l2,
        sample_weight=weight,
        n_threads=int(draw.integers(1, 3)),
        l2_biases=bool(draw.random() < 0.8),
    )
    return ob, f"{sizes} {names} {loss} l2 {l2:.1e} {trick} {dtype} weights {weight is not None}"


def where_finite(ob, theta):
    """Return theta, divided by 4 until the gradient is finite."""
    with np.errstate(all="ignore"):
        while not np.isfinite(ob.gradient(theta)).all():
            theta = theta / 4
    return theta


def end_of_search(draw, ob):
    """Return the end point of a search from a random start, the start itself or zero, or a point
    near these, and the name of the search.
    """
    theta = ob.model.init(rng=int(draw.integers(2**31))).astype(float)
    theta = where_finite(ob, theta * 10.0 ** draw.uniform(-1, 1))
    way = str(draw.choice(["minimize", "find", "find", "start", "zero"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if way == "minimize":
            theta = fc.minimize(ob, theta, max_iter=300, max_time=1.0, rng=0).x
        elif way == "find":
            options = {"method": "newton-mr", "max_iter": 60, "verdict": False}
            theta = fc.find_critical_point(ob, theta, **options).x
        elif way == "zero":
            theta = 0 * theta
    theta = np.asarray(theta, dtype=float)
    if draw.random() < 0.3:
        theta = theta * (1 + 10.0 ** draw.uniform(-12, -4) * draw.standard_normal(len(theta)))
    return theta.astype(ob.dtype).astype(float), way


def hessian(truth):
    """Return the Hessian of a `longdouble.Truth` in long double."""
    n = len(truth.theta)
    H = np.stack([truth.product(e) for e in np.eye(n)], axis=1)
    return (H + H.T) / 2


def critical_point(ob, theta, n_symmetry):
    """Return ``(x, slack)`` by Newton's method in long double from theta.

    `slack` bounds the distance of x from the critical point. No step is taken along the weakest
    n_symmetry directions.
    """
    x = theta.astype(LD)
    values, V = np.linalg.eigh(hessian(InLongDouble(ob, x)).astype(float))
    kept = np.argsort(np.abs(values))[n_symmetry:]
    values, V = values[kept].astype(LD), V[:, kept].astype(LD)
    for _ in range(12):
        step = V @ ((V.T @ InLongDouble(ob, x).gradient) / values)
        x = x - step
    truth, sizes = InLongDouble(ob, x), np.abs(values)
    terms = sum(np.linalg.norm(np.abs(d).T @ (1 + np.abs(a))) for d, a in zip(truth.d, truth.a))
    size = sizes.max() * np.linalg.norm(theta) + terms
    rounding = 64 * np.finfo(LD).eps * size / sizes.min()
    return x, 4 * float(np.linalg.norm(step)) + float(rounding)


def products_agree_with_long_double(
    draw, losses=LOSSES, activations=(*SMOOTH, "relu", "leaky_relu", "elu")
):
    """For any network, a product differs from that in long double by at most its bound."""
    width, d = int(draw.integers(1, 9)), int(draw.integers(1, 9))
    wide = int(draw.integers(1, 40))
    hidden = [width if draw.random() < 0.7 else wide for _ in range(int(draw.integers(1, 5)))]
    kind, loss, c = choose_loss(draw, losses, 6)
    sizes = [d, *hidden, c]
    names = choose_activations(draw, activations, len(hidden))
    N, residual = int(draw.integers(1, 60)), bool(draw.random() < 0.7)
    dtype = str(draw.choice(["float32", "float64"]))
    model = fc.MLP(sizes, names, bias=bool(draw.random() < 0.8), residual=residual, dtype=dtype)
    X = data(draw, N, d)[0]
    ob = fc.Objective(
        model,
        X,
        targets(draw, X, sizes[-1], kind),
        loss=loss,
        l2=float(draw.choice([0.0, 0.1])),
        n_threads=int(draw.integers(1, 3)),
    )
    theta = model.init(rng=int(draw.integers(2**31))) * 10.0 ** draw.uniform(-1, 0.5)
    V = draw.standard_normal((model.n_params, int(draw.integers(1, 4)))).astype(dtype)
    theta = theta.astype(dtype)
    H, truth = ob.hessian(theta), InLongDouble(ob, theta.astype(float))
    words = f"{sizes} {names} {loss} {dtype} residual {residual} N {N}"
    for v, one in zip(V.T, (H @ V).T):
        off = float(np.linalg.norm(one - truth.product(v.astype(float))))
        bound = rounding_bound(H, np.ascontiguousarray(v))
        assert off <= bound * (1 + 1e-3) + 1e-300 or bound == np.inf, f"{off} > {bound}: {words}"
    off, bound = float(np.linalg.norm(H.gradient - truth.gradient)), rounding_bound(ob, theta)
    unknown = bound == np.inf
    assert off <= bound * (1 + 1e-3) + 1e-300 or unknown, f"gradient {off} > {bound}: {words}"
    return "no bound" if unknown else "held"


def products_of_user_losses_agree_with_long_double(draw):
    return products_agree_with_long_double(draw, GIVEN)


def certified_points_of_user_losses_exist(draw):
    return certified_points_exist(draw, GIVEN)


def success_of_user_losses_has_nothing_lower_nearby(draw):
    return success_has_nothing_lower_nearby(draw, GIVEN)


def success_of_user_activations_has_nothing_lower_nearby(draw):
    return success_has_nothing_lower_nearby(draw, [*LOSSES, *GIVEN], OWN)


def certified_points_exist(draw, losses=LOSSES, activations=SMOOTH):
    """Within the radius of each certified verdict, long double finds a critical point with the
    stated inertia.
    """
    ob, name = network(draw, activations=activations, losses=losses)
    theta, way = end_of_search(draw, ob)
    try:
        said = fc.classify(ob, theta)
    except ValueError:  # the error is right only if the Hessian overflows in float64
        with np.errstate(over="ignore"):
            assert not np.isfinite(hessian(InLongDouble(ob, theta)).astype(float)).all(), name
        return "overflows"
    words = f"{name} by {way}: {said.reason}"
    if not said.certified:
        return said.kind
    if said.rule == "interpolation":
        assert said.kind == "minimum" and ob.astype("float64").value(theta) <= 1e-6, words
        return "interpolates"
    if said.rule == "two_vector_saddle":
        values = np.linalg.eigvalsh(hessian(InLongDouble(ob, theta)).astype(float))
        assert said.kind == "saddle" and values[0] < 0 < values[-1], words
        assert said.n_negative + said.n_positive > 0, words
        return "two signs"
    x, slack = critical_point(ob, theta, said.evidence.n_symmetry)
    distance = float(np.linalg.norm(x - theta))
    assert distance <= said.radius * 1.01 + slack, f"{distance} beyond {words}"
    values = np.linalg.eigvalsh(hessian(InLongDouble(ob, x)).astype(float))
    off = 1e-13 * np.abs(values).max()
    assert (values < -off).sum() <= said.n_negative, words
    assert (values > off).sum() <= said.n_positive, words
    assert said.n_zero == said.evidence.n_symmetry, words
    return f"certified {said.kind}"


def success_has_nothing_lower_nearby(draw, losses=LOSSES, activations=(*SMOOTH, "relu", "elu")):
    """If `minimize` reports success, no loss at random steps of size 1e-4 and 1e-5, over the
    largest input if this is above 1, is lower by more than rounding.
    """
    ob, name = network(draw, activations=activations, losses=losses)
    theta = ob.model.init(rng=int(draw.integers(2**31))) * (draw.random() < 0.8)
    theta = where_finite(ob, theta)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = fc.minimize(ob, theta, max_iter=200, max_time=1.0, rng=0)
        # a loss with exponentials, whose curvature overflows before its value
        except ValueError as error:
            assert str(error) == "the matrix must hold finite numbers, got NaN or infinity.", name
            return "overflows"
    if not result.success:
        return "no success"
    ref, x = ob.astype("float64"), np.asarray(result.x, dtype=float)
    words, f = f"{name}: {result.message}", ref.value(x)
    rounding = (1e-5 if ob.dtype == np.float32 else 1e-11) * abs(f) + 1e-20
    room = 1e-7 * abs(f) + rounding
    scale = max(1.0, float(np.abs(ref.X).max()))  # the basin of a minimum is as narrow
    if ob.dtype == np.float32:  # changes of the loss when theta is rounded to float32
        turns = 1 + np.finfo(np.float32).eps * draw.uniform(-1, 1, (8, len(x)))
        room += 10 * max(abs(ref.value(x * turn) - f) for turn in turns)
    for size in (1e-2, 1e-3, 1e-4, 1e-5):
        for _ in range(6):
            step = size / scale * draw.standard_normal(len(x))
            lower = min(ref.value(x + way * step) for way in (1, -1))
            assert lower >= f - room or size > 1e-4, f"{lower} < {f}: {words}"
    return "certified" if result.report is not None and result.report.certified else "success"


def convex(draw):
    """Return a `Truth` for a linear network with l2, whose loss is strictly convex, so every
    critical point is the minimum.
    """
    ob, name = network(draw, hidden=(0, 1))
    if ob.l2 == 0 or not ob.l2_biases:
        ob = fc.Objective(ob.model, ob.X, ob.y, loss=ob.loss, l2=10.0 ** draw.uniform(-8, 2))
    theta, way = end_of_search(draw, ob)
    kinds = frozenset({"minimum", "not_critical"})
    return Truth(f"convex {name} by {way}", ob, theta, kinds, kinds | {"undecided", "degenerate"})


def split_unit(draw):
    """Return a `Truth` for a network with a duplicated unit whose output weights are divided, so a
    line of equal loss runs through theta and no minimum is isolated.
    """
    d, m, N = int(draw.integers(1, 4)), int(draw.integers(1, 4)), int(draw.integers(8, 40))
    name = str(draw.choice(["tanh", "sigmoid", "softplus", "gelu"]))
    X, y = draw.standard_normal((N, d)), draw.standard_normal(N)
    small = fc.Objective(fc.MLP([d, m, 1], name), X, y, loss="mse", l2=0.0)
    start = small.model.init(rng=int(draw.integers(2**31)))
    theta = fc.find_critical_point(small, start, method="newton-mr", verdict=False).x
    (W, b), (V, c) = small.model.unflatten(theta)
    share = draw.uniform(-0.5, 1.5)
    W2, b2 = np.vstack([W, W[:1]]), np.append(b, b[0])
    V2 = np.column_stack([V, (1 - share) * V[:, :1]])
    V2[:, 0] *= share
    model = fc.MLP([d, m + 1, 1], name)
    ob = fc.Objective(model, X, y, loss="mse")
    theta = np.concatenate([W2.ravel(), b2, V2.ravel(), np.ravel(c)])
    allowed = frozenset({"saddle", "degenerate", "undecided", "not_critical"})
    return Truth(f"unit twice in {model.sizes}", ob, theta, allowed - {"degenerate"}, allowed)
