"""Spectra, inertia and estimates of every operator, compared with the matrix
from independent passes.
"""

import warnings

import numpy as np
from scipy import sparse
from scipy.special import stdtrit

import fastcurv as fc
from fastcurv.common.vectors import safe_norm
from fastcurv.spectrum.results import MIN_MISSED_WITHIN_TOLS

from ..nets import CURVATURES, Net
from ..network import product_cases
from .networks import LOSSES, SMOOTH, InLongDouble

KINKED = ["relu", "leaky_relu", "elu"]
FEW_PROBES = (
    2,
    3,
    4,
    6,
    8,
    10,
)  # few probes are drawn from the sphere, since fewer than `MIN_SIGN_PROBES` signs may be all alike
MIN_SIGN_PROBES = 60
RISK = 1e-9
MAX_WHOLE_SPACE_DIM = 64  # the number of rows up to which `eigsh` misses no eigenvalue


def random_samples(draw, N, d):
    """Return (X, grid): samples with zeros, repeated rows, and columns that are zero, constant or
    copies of others, and True if all numbers but the constants are multiples of 1/2.
    """
    grid = draw.random() < 0.5  # sums of products are exact there, and kinks are hit
    X = draw.integers(-2, 3, (N, d)) / 2.0 if grid else draw.standard_normal((N, d))
    if draw.random() < 0.4:
        X[draw.integers(N, size=max(1, N // 4))] = 0.0
    if draw.random() < 0.4:
        X[draw.integers(N, size=max(1, N // 3))] = X[draw.integers(N)]
    if draw.random() < 0.4:
        X[:, draw.integers(d)] = draw.choice([0.0, 1.0, -0.5])
    if draw.random() < 0.3:
        X[:, draw.integers(d)] = X[:, draw.integers(d)]
    return X, grid


def random_point(draw, model, grid):
    """Return (theta, exact): a point from `init`, from a grid, zero or normally distributed,
    sometimes with a unit of zero weights, and True if samples and theta lie on a grid.
    """
    way = str(draw.choice(["init", "grid", "zero", "any"], p=[0.35, 0.35, 0.05, 0.25]))
    theta = np.asarray(model.init(rng=int(draw.integers(2**31))), dtype=float)
    if way == "grid":
        theta = draw.integers(-2, 3, len(theta)) / 2.0
    elif way == "any":
        theta = draw.standard_normal(len(theta))
    elif way == "zero":
        theta[:] = 0.0
    if draw.random() < 0.2:
        layers = model.unflatten(theta.astype(model.dtype))
        W = layers[int(draw.integers(len(layers)))][0]
        W[int(draw.integers(len(W)))] = 0.0
        theta = np.asarray(model.flatten(layers), dtype=float)
    return theta.astype(model.dtype), way in ("grid", "zero") and grid


def drawn(draw):
    """Return (objective, theta, exact) at random, where `exact` is True if data and theta lie on a
    grid on which the slopes of the units are exact.
    """
    N = int(draw.choice([1, 2, 3, 5, 9, 30]))
    d, L = int(draw.choice([1, 2, 3, 7, 12, 30])), int(draw.integers(1, 4))
    loss = str(draw.choice(LOSSES))
    c = int(draw.integers(2 if loss == "cross_entropy" else 1, 4))
    residual = bool(draw.random() < 0.25)
    hidden = [int(draw.integers(1, 9)) for _ in range(L - 1)]
    hidden = [hidden[0]] * len(hidden) if residual and hidden else hidden
    names = [str(draw.choice(KINKED + SMOOTH, p=[0.25, 0.15, 0.12] + [0.08] * 6)) for _ in hidden]
    model = fc.MLP(
        [d, *hidden, c],
        names,
        bias=bool(draw.random() < 0.8),
        residual=residual,
        dtype="float32" if draw.random() < 0.15 else "float64",
        batch_norm=bool(hidden and N > 2 and draw.random() < 0.1),
    )
    X, grid = random_samples(draw, N, d)
    y = draw.standard_normal((N, c))
    if loss == "cross_entropy":
        y = draw.integers(c, size=N) if draw.random() < 0.6 else draw.dirichlet(np.ones(c), N)
    elif loss == "binary_cross_entropy":
        y = draw.random((N, c)).round(int(draw.choice([0, 2])))
    weight = draw.choice([0.0, 0.5, 1.0, 3.0], N) if draw.random() < 0.3 else None
    l2 = float(draw.choice([0.0, 10.0 ** draw.uniform(-8, 1)]))
    theta, exact = random_point(draw, model, grid)
    if model.dtype == np.float64 and draw.random() < 0.08:
        X, exact = X * 10.0 ** draw.uniform(-150, 150), False
    ob = fc.Objective(
        model,
        X,
        y,
        loss=loss,
        l2=l2,
        sample_weight=weight if weight is None or weight.any() else None,
        l2_biases=bool(draw.random() < 0.6),
        memory=None,
    )
    return ob, theta, exact and not set(names) - {"relu", "identity"}


def matrix_by_passes(ob, theta, kind):
    """Return the matrix of the operator `kind` at theta from passes in long double, or from complex
    steps with batch normalisation.
    """
    I = np.eye(len(theta))
    if ob.model.batch_norm:
        net = Net(ob.model, ob.X, ob.y, ob.sample_weight, theta,
                  {"loss": ob.loss, "l2": ob.l2, "l2_biases": ob.l2_biases})  # fmt: skip
        u = np.zeros((len(ob.X), ob.model.sizes[-1]))
        return product_cases.truth(net.ref, theta, I, u)["HV" if kind == "hessian" else "GV"]
    truth = InLongDouble(ob, theta)
    return np.stack([truth.product(v, kind.removeprefix("empirical_")) for v in I], axis=1)


def in_shards(draw, ob, theta, kind):
    """Return the operator `kind` at theta of an objective that reads the samples of `ob` in blocks,
    dense or sparse.
    """
    X = sparse.csr_array(ob.X) if draw.random() < 0.5 else ob.X
    other = fc.StreamedObjective(
        ob.model, X, ob.y, loss=ob.loss, l2=ob.l2, sample_weight=ob.sample_weight,
        l2_biases=ob.l2_biases, block_rows=int(draw.integers(1, len(ob.X) + 1)),
    )  # fmt: skip
    return getattr(other, kind)(theta)


def student_factor(m):
    """Return the multiple of the standard error of m samples that an error exceeds with probability
    `RISK` on each side, if two standard errors cover 95% and the error has Student's distribution.
    """
    return 2 * float(stdtrit(m - 1, 1 - RISK) / stdtrit(m - 1, 0.975))


def estimates_hold(draw, op, A, values, room, words):
    """Check that trace, Frobenius norm and diagonal are exact if they are stated to be, and
    otherwise within a multiple of their standard errors. `room` is the allowed rounding error.
    """
    n, seed = len(A), int(draw.integers(2**31))
    m = int(draw.choice([*FEW_PROBES, MIN_SIGN_PROBES, n, 3 * MIN_SIGN_PROBES]))
    for call, truth in ((fc.trace, values.sum()), (fc.frobenius_norm, safe_norm(values))):
        methods = ["auto", "hutchinson"]
        method = str(draw.choice(methods))
        told = call(op, m, method, rng=seed)
        gap = abs(told.estimate - truth)
        many = m if method == "hutchinson" or m in FEW_PROBES else MIN_SIGN_PROBES // 2
        allowed = student_factor(many) * told.stderr if told.method != "exact" else 0.0
        assert told.method != "exact" or told.stderr == 0
        assert gap <= allowed + n * room, f"{words}: {call.__name__} {method} {m}: {told}, {truth}"
    told = fc.diagonal(op, max(n, 12), rng=seed)
    gap = np.abs(told.estimate - np.diag(A)).max()
    assert gap <= student_factor(12) * told.stderr.max() + room, f"{words}: diagonal {gap}"


def pairs_hold(draw, op, A, values, room, words):
    """Check that every value of `eigsh` lies within its residual of an eigenvalue, that vectors
    confirm the residuals, and that no eigenvalue is missed for n <= 64. `room` is the allowed
    rounding error. Return the outcome as a string.
    """
    n, which = len(A), str(draw.choice(["LA", "SA", "LM", "BE"]))
    k = int(draw.integers(1, min(6, n) + 1))
    found = fc.eigsh(op, k, which, rng=int(draw.integers(2**31)))
    words = f"{words}: eigsh {k} {which} {found.values} +- {found.residuals}"
    assert len(found.values) == k and (np.diff(found.values) >= 0).all(), words
    gaps = np.abs(found.values[:, None] - values).min(axis=1)
    assert (gaps <= found.residuals + room).all(), f"{words}: {gaps}"
    V = found.vectors.astype(float)
    unit = np.abs(A).max() or 1.0
    left = unit * np.linalg.norm(A / unit @ V - V * (found.values / unit), axis=0)
    assert (left <= found.residuals + room).all(), f"{words}: {left}"
    slack = max(1e-6, 1e3 * np.finfo(op.dtype).eps)
    assert np.abs(V.T @ V - np.eye(k)).max() <= slack, f"{words}: not orthonormal"
    low = {"SA": k, "LA": 0, "BE": k // 2}.get(which)
    order = np.argsort(-np.abs(values), kind="stable")[:k]
    wanted = np.sort(values[order]) if low is None else np.r_[values[:low], values[n - k + low :]]
    sure = (
        found.converged.all()
        and found.missed_within <= MIN_MISSED_WITHIN_TOLS * found.tol * found.scale
    )
    if which == "LM":
        gaps = np.abs(np.sort(np.abs(found.values)) - np.sort(np.abs(wanted)))
    else:
        gaps = np.abs(found.values - wanted)
    missed = sure and (gaps > room + found.residuals.max() + found.missed_within).any()
    assert n > MAX_WHOLE_SPACE_DIM or not missed, f"{words}: {wanted}"
    return "missed" if missed else "sure" if sure else "not sure"


def spectra_agree_with_the_matrix(draw):
    """Eigenvalues, inertia, estimates and densities of an operator agree with the dense matrix
    of the operator.
    """
    ob, theta, exact = drawn(draw)
    kind = str(draw.choice(CURVATURES))
    if kind == "empirical_fisher" and ob.model.batch_norm:
        return "no such operator"
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        op = getattr(ob, kind)(theta)
        A = op.to_dense().astype(float)
    words = f"{ob} {kind}"
    largest = np.abs(A).max()
    if not np.isfinite(A).all() or not largest < 1e290:
        return "not finite"
    values, eps = (
        np.linalg.eigvalsh(A / (largest or 1.0)) * (largest or 1.0),
        np.finfo(op.dtype).eps,
    )
    size = largest * len(A) ** 0.5
    if kind == "hessian":  # terms of the Hessian may cancel
        with np.errstate(all="ignore"):
            size = max(size, np.abs(ob.ggn(theta).to_dense().astype(float)).max())
    room = (1e4 if not ob.model.batch_norm else 1e7) * eps * size + 1e-290
    at_kinks = ob.certificates.kinks(theta)
    if op.dtype == np.float64 and not at_kinks and 1e-9 < np.abs(ob.X).max() < 1e9:
        with np.errstate(all="ignore"):
            gap = np.abs(matrix_by_passes(ob, np.asarray(theta, float), kind) - A).max()
        near_a_fit = eps * len(ob.X) if kind == "empirical_fisher" else 0.0
        assert gap <= room + near_a_fit, f"{words}: {gap} off the passes"
    if not ob.model.batch_norm and (exact or not at_kinks):
        gap = np.abs(in_shards(draw, ob, theta, kind).to_dense().astype(float) - A).max()
        assert gap <= room, f"{words}: {gap} off in shards"
        part = op.restrict(layers=[int(draw.integers(len(ob.model.shapes)))])
        gap = np.abs(part.to_dense().astype(float) - A[np.ix_(part.indices, part.indices)]).max()
        assert gap <= room, f"{words}: {gap} off in a block"
    got = fc.eigvalsh(op)
    assert np.abs(got - values).max() <= room, f"{words}: eigvalsh {np.abs(got - values).max()}"
    told = fc.inertia(op)
    bound = told.error_bound + room
    assert told.n_positive + told.n_negative + told.n_zero == len(A)
    assert (values > bound).sum() <= told.n_positive <= (values > -room).sum(), f"{words}: {told}"
    assert (values < -bound).sum() <= told.n_negative <= (values < room).sum(), f"{words}: {told}"
    estimates_hold(draw, op, A, values, room, words)
    density_holds(draw, op, values, room, words)
    return pairs_hold(draw, op, A, values, room, words)


def density_holds(draw, op, values, room, words):
    """Check that the mean of an exact density is the mean eigenvalue."""
    n, size = len(values), np.abs(values).max()
    if not 1e-100 < size < 1e100:
        return
    told = fc.spectral_density(op, 12, min(n, 60), rng=int(draw.integers(2**31)))
    if told.n_deflated == n:
        gap = abs(float(told.nodes[0] @ told.weights[0]) - values.mean())
        assert gap <= room, f"{words}: density {gap}"
