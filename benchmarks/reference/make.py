"""Write the reference networks: 60 certificates in `networks`, and certified values in `values`.

    PYTHONPATH=. python benchmarks/reference/make.py [NAME ...]

The points are found by fastcurv. All values are computed from the written files alone, by the
arithmetic of the checker (`check_certificate.py`): integers with a bound on the error. A value is
written if both ends of its interval round to the same 15 digits.
"""

import copy
import json
import math
import sys
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
from mpmath import mp

import fastcurv as fc
from fastcurv.applications.certificate import check_certificate as checker
from fastcurv.applications.certificate import save
from fastcurv.applications.certificate.check_certificate import ONE, UNIT, ZERO, Ball, dot, norm

FOLDER = Path(__file__).resolve().parent
N_DIGITS = 15  # significant digits of a value; the last three are room for comparisons of 12
MAX_LEFT_OUT_SECONDS = 4.0  # estimated time of the leave-one-out losses of a network
NOISE_STD = 0.5  # assumed noise of the log evidence for mse
BITS_LEFT_OUT = 86  # of a ball in approximate eigenpairs
SCALE = ONE >> BITS_LEFT_OUT
MIN_GAP_INVERSE = 10**9  # closer eigenvalues, relative to the largest, are a cluster


# --------------------------------------------------------------------------------------------------
# Values


def digits(x):
    """Return 15 digits of a ball as text, or up to 18 if rounding to 15 is a tie, or "0" if all its
    numbers are below 1e-20.
    """
    if max(-x.low, x.high) < ONE // 10**20:
        return "0"
    with localcontext() as context:
        context.prec = 100
        for n_digits in range(N_DIGITS, N_DIGITS + 4):
            ends = {f"{Decimal(end) / ONE:.{n_digits - 1}e}" for end in (x.low, x.high)}
            if len(ends) == 1:
                return ends.pop()
    raise AssertionError(f"{ends} are too far apart")


def all_digits(xs):
    return [digits(x) for x in xs]


def test_vectors(n):
    """Return three vectors of short binary fractions."""
    rng = np.random.default_rng(n)
    return [np.ones(n), np.where(np.arange(n) % 2, -0.5, 1.0), rng.integers(-64, 65, n) / 64]


def eigenvalues(H):
    """Return balls of the eigenvalues of a symmetric matrix of balls, in ascending order.

    With approximate eigenvectors V and values D, let H V - V D = R and ||V'V - I|| <= e < 1. V has
    the polar factors Q and S, and ||H Q - Q D|| <= (||R|| + 2 e ||D||) / (1 - e). So eigenvalues
    of H are within this distance from the entries of D (Weyl). R and V'V are computed exactly, from
    integers.
    """
    V, D = approximate_eigenpairs(H)
    A = np.array([[x.mid for x in row] for row in H], dtype=object)
    R = A.dot(V) - V * np.array(D, dtype=object)  # in units of 1 / (ONE SCALE)
    gram = V.T.dot(V) - identity(len(H), SCALE**2)  # in units of 1 / SCALE^2

    def length(entries, unit):
        return checker.ratio(math.isqrt(sum(int(x) ** 2 for x in np.ravel(entries))) + 1, unit)

    radii = length([x.rad for row in H for x in row], ONE)
    e = length(gram, SCALE**2)
    largest = Ball(max(abs(x) for x in D))
    # H differs from its midpoints by at most `radii`, and ||V|| <= 2.
    error = (length(R, ONE * SCALE) + (radii + e * largest) * checker.TWO) / (UNIT - e)
    return [Ball(x, error.high) for x in sorted(D)]


def identity(n, unit):
    return np.diag([unit] * n).astype(object)


def approximate_eigenpairs(H):
    """Return eigenvectors, as columns in units of 1 / SCALE, and eigenvalues, in units of 1 / ONE,
    to some 45 digits. Those of float64 are refined by steps of Ogita and Aishima (2018), each of
    which doubles the digits. Within a cluster of eigenvalues, mpmath rotates the vectors.
    """
    n = len(H)
    S = np.array([[x.mid / ONE for x in row] for row in H])
    V = np.array([[int(x * SCALE) for x in row] for row in np.linalg.eigh(S)[1]], dtype=object)
    A = np.array([[x.mid >> BITS_LEFT_OUT for x in row] for row in H], dtype=object)
    for step in range(6):
        R = identity(n, SCALE) - V.T.dot(V) // SCALE
        S = V.T.dot(A.dot(V) // SCALE) // SCALE
        D = [S[i, i] * SCALE // (SCALE - R[i, i]) for i in range(n)]
        far = max(map(abs, D)) // MIN_GAP_INVERSE
        E = np.zeros((n, n), dtype=object)
        for i in range(n):
            for j in range(n):
                gap = D[j] - D[i]
                numerator = S[i, j] + D[j] * R[i, j] // SCALE
                E[i, j] = numerator * SCALE // gap if abs(gap) > far else R[i, j] // 2
        V = V + V.dot(E) // SCALE
        if step in (3, 4):
            rotate_clusters(V, A, D, far)
    return V, [d << BITS_LEFT_OUT for d in D]


def rotate_clusters(V, A, D, far):
    """Diagonalise A within the span of the columns of V, in place, for each group of columns whose
    eigenvalues D differ by at most `far` from the next one.
    """
    mp.dps, order = 60, sorted(range(len(D)), key=lambda i: D[i])
    groups = [[order[0]]]
    for i, j in zip(order, order[1:]):
        if D[j] - D[i] <= far:
            groups[-1].append(j)
        else:
            groups.append([j])
    for group in groups:
        if len(group) > 1:
            W = V[:, group]
            S = W.T.dot(A.dot(W) // SCALE) // SCALE
            S = [[mp.mpf(int(x + y)) / 2 for x, y in zip(*rows)] for rows in zip(S, S.T)]
            Q = mp.eigsy(mp.matrix(S))[1]
            Q = [[int(Q[i, j] * SCALE) for j in range(len(group))] for i in range(len(group))]
            V[:, group] = W.dot(np.array(Q, dtype=object)) // SCALE


def jacobian(net, layers, sample):
    """Return the derivatives of each output of a sample by theta."""
    rows = []
    for k in range(net.sizes[-1]):
        delta = [UNIT if i == k else ZERO for i in range(net.sizes[-1])]
        parts, e = [], []
        for l in range(len(layers) - 1, -1, -1):
            entries = [d * a for d in delta for a in sample.a[l]]
            parts = entries + (delta if net.bias else []) + parts
            if l:
                e = sample.with_skip(l, [dot(column, delta) for column in layers[l][2]], e)
                delta = checker.multiply(e, sample.slope[l - 1])
        rows.append(parts)
    return rows


class Factor:
    """The factors U D U' of a positive definite matrix of balls."""

    def __init__(self, A):
        self.U, self.D = [], []
        for i, row in enumerate(A):
            unit, products = [], []
            for j in range(i):
                products.append(row[j] - dot(products, self.U[j]))
                unit.append(products[j] / self.D[j])
            self.D.append(row[i] - dot(products, unit))
            self.U.append(unit)
            assert self.D[i].low > 0

    def half_solve(self, b):
        """Return x with ``x' D^-1 x = b' A^-1 b``."""
        x = []
        for i, row in enumerate(self.U):
            x.append(b[i] - dot(row, x))
        return x

    def log_determinant(self):
        return checker.total([checker.log(d) for d in self.D])


def laplace_values(net, point):
    """Return the log evidence and the standard deviations of the outputs of the first three rows,
    by the Gauss-Newton matrix.
    """
    n, N, d_out = len(net.theta), len(net.rows), net.sizes[-1]
    jacobians = [jacobian(net, point.layers, s) for s in point.samples]
    left, right = [], []
    for s, J in zip(point.samples, jacobians):
        mean = [dot(s.p, column) for column in zip(*J)]
        for q, row in zip(s.q, J):
            left.append(row)
            right.append([q * (x - m) for x, m in zip(row, mean)])
    left, right = list(zip(*left)), list(zip(*right))
    G = [[dot(left[i], right[j]) for j in range(n)] for i in range(n)]
    for i in range(n):
        G[i][i] = G[i][i] + net.l2
    n_terms = N if net.loss == "cross_entropy" else N * d_out
    T = checker.ratio(n_terms)
    mp.dps = 90
    pi = Ball(int(mp.pi * ONE), 1)
    noise = checker.from_float(NOISE_STD)
    two_pi = checker.TWO * pi
    if net.loss == "mse":
        factor = T / (checker.TWO * noise * noise)
        constant = T * checker.log(two_pi * noise * noise) / checker.TWO
    else:
        factor, constant = T, ZERO
    if net.loss == "poisson":
        # log y! - y log y + y
        for _, y, _ in net.rows:
            for t in y:
                count = t.mid >> checker.BITS
                assert count * ONE == t.mid
                factorial = checker.ratio(int(np.prod([*range(1, count + 1)], dtype=object) or 1))
                constant = constant + checker.log(factorial) + t
                constant = constant - (t * checker.log(t) if count else ZERO)
    tau = factor * net.l2
    P = [[factor * x for x in row] for row in G]
    factored = Factor(P)
    prior = checker.ratio(n, 2) * checker.log(tau / two_pi)
    integral = checker.ratio(n, 2) * checker.log(two_pi)
    integral = integral - factored.log_determinant() / checker.TWO
    evidence = prior + integral - factor * point.loss() - constant
    deviations = []
    for J in jacobians[:3]:
        for row in J:
            x = factored.half_solve(row)
            deviations.append(checker.sqrt(dot(x, [t / d for t, d in zip(x, factored.D)])))
    return evidence, deviations


def left_out_losses(ob, net):
    """Return the loss of each row, before weights and divisor, at the minimum of the objective
    without this row that Newton's method reaches from theta. The entry of a row is None if there is
    no proof of such a minimum.
    """
    losses = []
    for i, (x, y, _) in enumerate(net.rows):
        other = copy.copy(net)
        other.rows = net.rows[:i] + net.rows[i + 1 :]
        weight = np.ones(ob.n_samples)
        weight[i] = 0.0
        without = fc.Objective(ob.model, ob.X, ob.y, ob.loss, ob.l2, weight, l2_biases=ob.l2_biases)
        at, smallest = newton(without, other, net.theta)
        if not smallest > 1e-8:
            losses.append(None)
            continue
        point, m = checker.Point(other, at), checker.from_float(0.5 * smallest)
        slope = norm(point.gradient())
        r = Ball((slope / m).high * 2 + 4)
        mu = Ball((m + checker.lipschitz(point, r) * r).high)
        assert (
            checker.eigenvalues_above(point.hessian(), mu) == len(at) and slope.high <= (m * r).low
        )
        near = [Ball(t.mid, r.mid) for t in at]
        losses.append(checker.Sample(other, other.layers(near), x, y, UNIT).value)
    return losses


def newton(ob, net, theta):
    """Return the point that Newton's method reaches from theta, to 60 digits, and the smallest
    eigenvalue of the Hessian, or -1 if it does not converge in 14 steps of at most the length 0.5.
    """
    at, smallest = list(theta), -1.0
    for _ in range(14):
        H = ob.hessian(np.array([t.mid / ONE for t in at])).to_dense()
        gradient = np.array([g.mid / ONE for g in checker.Point(net, at).gradient()])
        step = np.linalg.solve(H, gradient)
        if np.linalg.norm(step) > 0.5:
            break
        at = [Ball(t.mid - checker.from_float(float(s)).mid) for t, s in zip(at, step)]
        if np.abs(step).max() < 1e-60:
            smallest = float(np.linalg.eigvalsh(H)[0])
            break
    return at, smallest


def values_of(document, ob):
    """Return the values of a network as text, from its certificate."""
    net, claim, _ = checker.read_certificate(json.dumps(document).encode())
    point, n = checker.Point(net, net.theta), len(net.theta)
    vectors = test_vectors(n)
    H = point.hessian()
    products = [
        all_digits(point.product([checker.from_float(float(x)) for x in v])) for v in vectors
    ]
    values = {
        "loss": digits(point.loss()),
        "gradient": all_digits(point.gradient()),
        "vectors": [save.hex_list(v) for v in vectors],
        "products": products,
        "eigenvalues": all_digits(eigenvalues(H)),
        "trace": digits(checker.total([H[i][i] for i in range(n)])),
    }
    plain = document["data"]["sample_weight"] is None
    if claim["kind"] == "minimum" and plain:
        if net.l2.mid and net.l2_biases:
            evidence, deviations = laplace_values(net, point)
            values["log_evidence"] = digits(evidence)
            values["standard_deviations"] = all_digits(deviations)
        if net.seconds * len(net.rows) <= MAX_LEFT_OUT_SECONDS:
            losses = left_out_losses(ob, net)
            values["leave_one_out"] = [None if x is None else digits(x) for x in losses]
    return values


# --------------------------------------------------------------------------------------------------
# Networks


def rounded(x):
    """Return an array rounded to multiples of 2^-8, whose hexadecimal numbers are short."""
    return np.round(np.asarray(x) * 256) / 256


def data(loss, d_in, d_out, n_rows, seed):
    rng = np.random.default_rng([seed, d_in, d_out])
    X = rounded(rng.standard_normal((n_rows, d_in)))
    signal = np.sin(X @ rng.standard_normal((d_in, d_out))) + 0.3 * rng.standard_normal(
        (n_rows, d_out)
    )
    y = {
        "mse": rounded(signal),
        "cross_entropy": np.argmax(signal + rng.gumbel(size=signal.shape) / 2, axis=1),
        "binary_cross_entropy": (signal + rng.standard_normal(signal.shape) / 2 > 0) * 1.0,
        "poisson": rng.poisson(np.exp(signal)).astype(float),
    }[loss]
    return X, y


def objective(sizes, activation, loss, l2, n_rows=12, seed=0, weights=False, l2_biases=True, **net):
    X, y = data(loss, sizes[0], sizes[-1], n_rows, seed)
    weight = rounded(np.random.default_rng(seed).uniform(0.5, 2, n_rows)) if weights else None
    model = fc.MLP(sizes, activation, **net)
    return fc.Objective(model, X, y, loss, l2, weight, l2_biases=l2_biases)


def minimum(*arguments, **options):
    """Return an objective and a proved minimum without zero eigenvalues."""
    for seed in range(30):
        ob = objective(*arguments, seed=options.get("seed", 0) + seed, **without_seed(options))
        run = fc.minimize(ob, ob.model.init(rng=seed), max_time=20)
        point = run.report
        if point is not None and point.certified and point.kind == "minimum" and point.n_zero == 0:
            hidden = ob.model.unflatten(run.x)[:-1]
            if all(np.abs(W).max() > 1e-3 for W, _ in hidden):
                return ob, run.x
    raise AssertionError(f"no minimum of {arguments}")


def without_seed(options):
    return {name: value for name, value in options.items() if name != "seed"}


def saddle(index, *arguments, **options):
    """Return an objective and a proved saddle with `index` negative eigenvalues and no zeros."""
    ob = objective(*arguments, **options)
    rng = np.random.default_rng(index)
    for _ in range(400):
        start = rng.standard_normal(ob.n_params)
        run = fc.find_critical_point(ob, start, max_time=5)
        point = run.report
        if point is None or not point.certified or point.kind != "saddle":
            continue
        if point.n_negative == index and point.n_zero == 0:
            return ob, run.x
    raise AssertionError(f"no saddle of index {index} of {arguments}")


def at_zero(width, activation, l2, d=1):
    """Return an objective and theta = 0, a saddle with ``d width`` negative eigenvalues if the
    targets are not too small.
    """
    X, y = data("mse", d, d, 8, width)
    ob = fc.Objective(fc.MLP([d, width, d], activation, bias=False), X, 2 * X - y, "mse", l2)
    return ob, np.zeros(ob.n_params)


def random_point(*arguments, scale=0.5, **options):
    ob = objective(*arguments, **options)
    rng = np.random.default_rng(options.get("seed", 0))
    return ob, rounded(scale * rng.standard_normal(ob.n_params))


def on_kinks(sizes, seed):
    """Return an objective and a theta of short binary fractions at which the first hidden unit is
    at the kink of relu for some rows.
    """
    ob = objective(sizes, "relu", "mse", 0.0, seed=seed, n_rows=8)
    theta = rounded(0.5 * np.random.default_rng(seed).standard_normal(ob.n_params))
    W, b = ob.model.unflatten(theta)[0]
    W[0] = 0
    W[0, 0], b[0] = 1, -ob.X[2, 0]
    return ob, theta


def duplicated(scale):
    """Return an objective and the minimum of a smaller network with one unit split into two."""
    small, x = minimum([2, 2, 1], "tanh", "mse", 0.0, n_rows=14, seed=3)
    (W, b), (v, c) = small.model.unflatten(x)
    model = fc.MLP([2, 3, 1])
    theta = model.flatten(
        [
            (np.vstack([W, W[1]]), np.append(b, b[1])),
            (np.array([[v[0, 0], scale * v[0, 1], (1 - scale) * v[0, 1]]]), c),
        ]
    )
    return fc.Objective(model, small.X, small.y, "mse"), theta


def with_unit_off():
    """Return an objective and the minimum of a smaller network, with a third unit whose weights are
    all 0.
    """
    small, x = minimum([2, 2, 1], "tanh", "mse", 0.0, n_rows=14, seed=3)
    (W, b), (v, c) = small.model.unflatten(x)
    model = fc.MLP([2, 3, 1])
    layers = [(np.vstack([W, [0, 0]]), np.append(b, 0)), (np.append(v, [[0]], axis=1), c)]
    return fc.Objective(model, small.X, small.y, "mse"), model.flatten(layers)


def flat_linear(sizes, seed):
    ob = objective(sizes, "identity", "mse", 0.0, seed=seed)
    return ob, fc.minimize(ob, ob.model.init(rng=0), max_time=20).x


LOWER, AVERAGE, HIGHER = "lower", "average", "higher"
MSE, CE, BCE, POISSON = checker.LOSSES


CASES = {}  # name: (level of difficulty, function that returns the objective and theta)


def put(name, level, function, *arguments, **options):
    CASES[name] = (level, lambda: function(*arguments, **options))


put("linear-mse", LOWER, minimum, [4, 1], [], MSE, 0.0, n_rows=20)
put("linear-mse-l2", LOWER, minimum, [6, 2], [], MSE, 2.0**-6, n_rows=16)
put("linear-mse-weights", LOWER, minimum, [4, 3], [], MSE, 2.0**-6, weights=True)
put("linear-cross-entropy", LOWER, minimum, [3, 3], [], CE, 2.0**-6, n_rows=20)
put("linear-binary", LOWER, minimum, [4, 1], [], BCE, 2.0**-6, n_rows=20)
put("linear-binary-weights", LOWER, minimum, [3, 2], [], BCE, 2.0**-6, weights=True)
put("linear-poisson", LOWER, minimum, [4, 1], [], POISSON, 2.0**-7, n_rows=20)
put("linear-poisson-2", LOWER, minimum, [2, 2], [], POISSON, 0.0, n_rows=20)
for loss in checker.LOSSES:
    d_out = 3 if loss == CE else 1
    for activation in ("tanh", "sigmoid", "softplus"):
        l2 = 2.0**-9 if activation == "sigmoid" else 2.0**-6
        name = f"{activation}-{loss.replace('_', '-')}"
        put(name, AVERAGE, minimum, [2, 3, d_out], activation, loss, l2, n_rows=24)
put("tanh-two-layers", HIGHER, minimum, [3, 4, 4, 1], "tanh", MSE, 2.0**-9, n_rows=20)
put("tanh-two-layers-classes", HIGHER, minimum, [2, 4, 3, 3], "tanh", CE, 2.0**-10, n_rows=24)
put("softplus-two-layers", HIGHER, minimum, [2, 4, 3, 1], "softplus", BCE, 2.0**-12, n_rows=24)
put("sigmoid-two-layers", HIGHER, minimum, [2, 3, 3, 1], "sigmoid", POISSON, 2.0**-14, n_rows=20)
put(
    "mixed-two-layers",
    HIGHER,
    minimum,
    [3, 4, 3, 2],
    ["tanh", "softplus"],
    MSE,
    2.0**-10,
    n_rows=20,
)
put("skips", HIGHER, minimum, [2, 4, 4, 1], "tanh", MSE, 2.0**-9, n_rows=20, residual=True)
put(
    "skips-weights",
    HIGHER,
    minimum,
    [3, 3, 3, 2],
    "tanh",
    BCE,
    2.0**-9,
    n_rows=20,
    residual=True,
    weights=True,
)
put("small-penalty", HIGHER, minimum, [2, 4, 1], "tanh", MSE, 2.0**-20, n_rows=30)
put("no-penalty", HIGHER, minimum, [2, 2, 1], "tanh", MSE, 0.0, n_rows=30)
put(
    "penalty-without-biases",
    HIGHER,
    minimum,
    [2, 3, 2],
    "tanh",
    MSE,
    2.0**-8,
    n_rows=16,
    l2_biases=False,
)
put(
    "without-biases",
    HIGHER,
    minimum,
    [3, 4, 2],
    "tanh",
    POISSON,
    2.0**-8,
    n_rows=16,
    bias=False,
)
put("three-layers", HIGHER, minimum, [2, 3, 3, 3, 1], "tanh", MSE, 2.0**-11, n_rows=16)
put(
    "three-layers-skips",
    HIGHER,
    minimum,
    [3, 4, 4, 4, 2],
    "softplus",
    CE,
    2.0**-8,
    n_rows=20,
    residual=True,
)
put("three-layers-120", HIGHER, minimum, [3, 6, 6, 6, 1], "tanh", MSE, 2.0**-11, n_rows=24)
put("saddle-1", AVERAGE, saddle, 1, [1, 2, 1], "tanh", MSE, 2.0**-10)
put("saddle-2", AVERAGE, saddle, 2, [2, 3, 1], "tanh", MSE, 2.0**-10)
put("saddle-3", HIGHER, saddle, 3, [2, 4, 1], "tanh", MSE, 2.0**-12)
put("saddle-4", HIGHER, saddle, 4, [2, 3, 2], "sigmoid", BCE, 2.0**-12, n_rows=16)
for index in range(5, 11):
    d = 2 if index in (6, 8, 10) else 1
    activation = "identity" if index == 7 else "tanh"
    put(f"saddle-{index}", AVERAGE, at_zero, index // d, activation, 2.0**-8, d)
put("saddle-toy", LOWER, at_zero, 1, "identity", 0.0)
put("saddle-unit-off", HIGHER, with_unit_off)
put("duplicate-units", HIGHER, duplicated, 0.5)
put("duplicate-units-opposite", HIGHER, duplicated, 1.5)
put("flat-linear", HIGHER, flat_linear, [3, 2, 2], 0)
put("flat-linear-deep", HIGHER, flat_linear, [2, 2, 2, 1], 1)
put("interpolation", HIGHER, flat_linear, [6, 4, 1], 2)
put("kink-1", HIGHER, on_kinks, [2, 3, 1], 0)
put("kink-2", HIGHER, on_kinks, [2, 3, 2, 1], 1)
put("kink-3", HIGHER, on_kinks, [3, 4, 2], 2)
put("relu", AVERAGE, random_point, [3, 5, 2], "relu", MSE, 0.0)
put("relu-two-layers", AVERAGE, random_point, [3, 4, 4, 3], "relu", CE, 2.0**-6, residual=True)
put("relu-poisson", AVERAGE, random_point, [2, 6, 1], "relu", POISSON, 0.0)
put("saturated", HIGHER, random_point, [2, 4, 2], "tanh", BCE, 0.0, scale=8.0)
put("large-outputs", HIGHER, random_point, [2, 3, 3], "softplus", CE, 0.0, scale=40.0)
put("random-120", AVERAGE, random_point, [3, 8, 8, 2], "sigmoid", MSE, 2.0**-8, n_rows=16)


def interval(ball):
    """Return a list of two numbers, as text, that enclose a ball, or its midpoint twice if that is
    an exact float.
    """
    low, high = ball.low / ONE, ball.high / ONE
    ends = np.nextafter(low, -np.inf), np.nextafter(high, np.inf)
    return [float(end).hex() for end in ends]


def certificate(ob, theta):
    """Return the certificate of a proved verdict that the checker covers, otherwise of values."""
    point = fc.classify(ob, theta)
    try:
        return save.certificate_document(ob, theta, point)
    except ValueError:
        document = save.problem_document(ob, theta)
        exact = save.ExactPoint(document, theta).point
        ends = interval(exact.loss()), interval(norm(exact.gradient()))
        claim = {"kind": "values", "loss": ends[0], "gradient_norm": ends[1]}
        return document | {"claim": claim, "correction": [save.ZERO] * len(theta)}


def write(path, document):
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in document.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main(names):
    assert len(CASES) == 60
    for name in names or CASES:
        level, function = CASES[name]
        ob, theta = function()
        document = certificate(ob, theta)
        status, sentence = checker.check(json.dumps(document).encode())
        assert status == 0, sentence
        values = {"level": level, "claim": document["claim"]["kind"], **values_of(document, ob)}
        write(FOLDER / "networks" / f"{name}.json", document)
        write(FOLDER / "values" / f"{name}.json", values)
        extra = [key for key in ("log_evidence", "leave_one_out") if key in values]
        print(f"{name:<26} {ob.n_params:>4} {document['claim']['kind']:<8} {' '.join(extra)}")


if __name__ == "__main__":
    main(sys.argv[1:])
