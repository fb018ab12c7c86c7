"""Copies and pickles of public objects give bitwise identical values, products, proofs and
verdicts.
"""

import copy
import gc
import pickle
import re
import threading
import warnings
import weakref
from itertools import chain
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

import fastcurv as fc
from fastcurv.certify import rounding_bound
from fastcurv.common.checks import MatrixOperator
from fastcurv.network.engine_steps import has_gauss_newton_matrix
from fastcurv.network.rows import RowSource, regroup_rows
from fastcurv.testing import PrescribedSpectrum

from . import nets
from .structure.test_functions import cauchy, cross_entropy, squares

WAYS = {
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
N = 24
SECONDS = re.compile(r"[\d.e+-]+ (s|ms|us|seconds)\b|0x\w+")  # durations and addresses


def correlated(z, y):
    """Return the Gaussian loss (N,) with a full covariance matrix, which couples the outputs, and
    its first and second derivatives of shapes (N, d) and (N, d, d), as `fc.Loss` expects.
    """
    P = np.eye(z.shape[1], dtype=z.dtype) + z.dtype.type(0.5)
    r = z - y
    Pr = r @ P
    return (r * Pr).sum(axis=1) / 2, Pr, np.broadcast_to(P, (len(z), *P.shape)).copy()


OWN_LOSSES = {  # (loss, targets)
    "own": (fc.Loss(squares, lower_bound=0.0), "mse"),
    "own, not convex": (fc.Loss(cauchy), "mse"),
    "own, coupled": (fc.Loss(cross_entropy, lower_bound=0.0), "column"),
    "own, correlated": (fc.Loss(correlated, lower_bound=0.0), "mse"),
}
LOSSES = [*nets.LOSSES, "gaussian_nll", "quantile(0.8, 0.1)", *OWN_LOSSES]
ACTIVATIONS = [*nets.ACTIVATIONS, *nets.OWN]


class Waves(RowSource):
    """A user-defined source of the rows of two arrays, in two parts."""

    n_rows = N

    def __init__(self, X, y):
        self.X, self.y = X, y

    def blocks(self, size):
        return regroup_rows([(self.X[:7], self.y[:7], None), (self.X[7:], self.y[7:], None)], size)


KINDS = {
    "dense": fc.Objective,
    "in chunks": lambda *rows, **how: fc.Objective(*rows, memory=450_000, **how),
    "sparse": lambda m, X, *rest, **how: fc.Objective(m, csr_matrix(X), *rest, **how),
    "streamed": lambda *rows, **how: fc.StreamedObjective(*rows, block_rows=13, **how),
    "streamed sparse": lambda m, X, y, loss, **how: fc.StreamedObjective(
        m, csr_matrix(X), y, loss=loss, block_rows=13, **how
    ),
    "own source": lambda m, X, y, loss, **how: fc.StreamedObjective(
        m, Waves(X, y), loss=loss, block_rows=13, **how
    ),
}


def drawn(loss, activation="tanh", kind="dense", dtype="float64", **model):
    """Return (objective, theta) with random data for a loss, an activation, a kind of samples in
    KINDS and options of the model.
    """
    rng = np.random.default_rng(len(loss) + len(activation))
    X = rng.standard_normal((N, 3))
    if loss in OWN_LOSSES:
        loss, of = OWN_LOSSES[loss]
        y = rng.integers(3, size=(N, 1)).astype(float)
        y = y if of == "column" else rng.standard_normal((N, 3))
    else:
        d = 4 if loss == "gaussian_nll" else 3
        y = nets.targets(rng, loss.partition("(")[0], N, 3 - (d == 4))
    d = 4 if isinstance(loss, str) and loss == "gaussian_nll" else 3
    m = fc.MLP([3, 4, d], nets.OWN.get(activation, activation), dtype=dtype, **model)
    ob = KINDS[kind](m, X, y, loss, l2=0.02, l2_biases=len(activation) % 2 == 0)
    return ob, m.init(rng=1)


# --- results of objects


def contents(x, depth=4):
    """Return all public contents of a result as nested dicts and lists of arrays, numbers and
    strings, down to `depth` levels of attributes.
    """
    if isinstance(x, str):
        return SECONDS.sub("# s", x)
    if isinstance(x, (np.ndarray, int, float, type(None), np.generic)):
        return x
    if isinstance(x, dict):
        return {str(key): contents(value, depth) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [contents(part, depth) for part in x]
    home = type(x).__module__
    if callable(x) or not home.startswith(("fastcurv", "sklearn")) or not depth:
        return type(x).__name__
    said = contents(repr(x))
    if isinstance(x, (fc.Objective, fc.MLP)) or hasattr(x, "matvec"):
        return said
    public = {name: value for name, value in vars(x).items() if not name.startswith("_")}
    return {"": said} | contents(public, depth - 1)


def result_or_error(function, *arguments):
    """Return the contents of the result of a function call, or the class and message of its
    error.
    """
    try:
        return contents(function(*arguments))
    except (AttributeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def of_operator(op, v):
    """Return a dict of the results of an operator for the vector v. Products of a principal block
    or a sum are not counted, because the operators that they are made of count them.
    """
    whole = hasattr(op, "whole") or hasattr(op, "terms")
    found = {
        "": repr(op),
        "dtype": str(op.dtype),
        "products": whole or getattr(op, "n_products", 0),
    }
    v = np.resize(v, op.shape[1]).astype(op.dtype)
    u = np.resize(v, op.shape[0])
    found |= {"H V": op @ np.stack([v, v[::-1]], axis=1), "H v": op @ v, "v' H": op.T @ u}
    for name in ("theta", "value", "gradient", "kind", "mu", "indices"):
        found[name] = contents(getattr(op, name, None))
    found["quadratic_form"] = result_or_error(lambda: op.quadratic_form(v))
    found["rounding_bound"] = result_or_error(lambda: rounding_bound(op, v))
    found["to_dense"] = result_or_error(lambda: op.to_dense())
    return found


def of_objective(ob, theta, proofs=True):
    v = np.cos(np.arange(len(theta))).astype(ob.dtype)
    V, J = np.stack([v, v[::-1]], axis=1), ob.jacobian(theta)
    found = {"": repr(ob), "value": ob.value(theta), "g": ob.gradient(theta), "N": ob.n_samples}
    found |= {"hessp": ob.hessp(theta, v), "J": J @ v, "J'": J.T @ np.resize(v, J.shape[0])}
    for kind in nets.CURVATURES:
        found[kind] = result_or_error(lambda kind=kind: getattr(ob, kind)(theta) @ V)
    found["form"] = ob.hessian(theta).quadratic_form(V)
    found["batch"], found["matrix"] = (
        ob.batch(slice(2, 9)).gradient(theta),
        has_gauss_newton_matrix(ob),
    )
    if proofs:
        found["float32"] = ob.astype("float32").value(theta.astype("float32"))
        found["bound"] = result_or_error(lambda: rounding_bound(ob, theta))
        found["lower"] = result_or_error(lambda: ob.certificates.loss_lower_bound)
        found["third"] = result_or_error(lambda: ob.certificates.third_bound(theta, 1e-3))
        found["verdict"] = contents(fc.classify(ob, theta))
    return found


def of_network(model, theta):
    rows = np.linspace(-2, 2, 12).reshape(4, 3).astype(model.dtype)
    return [
        repr(model),
        model.init(rng=3),
        model.predict(theta, rows),
        model.shapes,
        model.n_params,
    ]


# --- objects that are copied, as (name, object, function that returns its results, arguments)


def objectives():
    for i, loss in enumerate(LOSSES):
        ob, theta = drawn(loss, ACTIVATIONS[i % len(ACTIVATIONS)])
        yield f"objective, {loss}", ob, of_objective, (theta,)
    for i, activation in enumerate(ACTIVATIONS):
        loss = list(OWN_LOSSES)[i % len(OWN_LOSSES)]
        ob, theta = drawn(loss, activation, residual=True, dtype=("float32", "float64")[i % 2])
        yield f"objective, {activation}, {loss}", ob, of_objective, (theta, False)
        yield f"model, {activation}", ob.model, of_network, (theta,)
    for kind in KINDS:
        for loss in ("mse", "own", "own, coupled"):
            ob, theta = drawn(loss, "wave" if loss == "own" else "tanh", kind)
            proofs = loss == "own, coupled"
            if loss != "mse":  # caches of previous calls are copied as well
                ob.hessian(theta) @ theta, ob.value(theta)
            yield f"objective, {kind}, {loss}", ob, of_objective, (theta, proofs)
    ob, theta = drawn("own, coupled", batch_norm=True)
    yield "objective, batch norm", ob, of_objective, (theta,)


def operators():
    for loss in ("mse", "own, coupled", "own, not convex"):
        for dtype in nets.DTYPES:
            ob, theta = drawn(loss, dtype=dtype)
            H = ob.hessian(theta)
            ops = {"hessian": H, "block": H.restrict(layers=[1]), "shift": H.shift(0.5)}
            ops |= {"some": H.restrict(indices=[0, 3]), "jacobian": ob.jacobian(theta)}
            ops |= {"J'": ob.jacobian(theta).T}
            for name, op in ops.items():
                yield f"operator, {name}, {loss}, {dtype}", op, of_operator, (theta,)
                op @ np.ones(op.shape[1])  # so that the count of products is not 0
                yield f"operator, {name}, {loss}, {dtype}, used", op, of_operator, (theta,)
    A = np.diag(np.arange(1.0, 9))
    yield "matrix", MatrixOperator(A), of_operator, (A[0],)
    yield "spectrum", PrescribedSpectrum(np.arange(1.0, 9), rng=0), of_operator, (A[0],)


def results():
    ob, theta = drawn("own, coupled")
    run = fc.minimize(ob, theta, rng=0)
    assert run.kind == "minimum"
    yield "objective at a minimum", ob, of_objective, (run.x,)
    H = ob.hessian(run.x)
    results = {"run": run, "verdict": run.report, "eigenpairs": fc.eigsh(H, 2, rng=0)}
    results |= {"density": fc.spectral_density(H, rng=0), "inertia": fc.inertia(H)}
    results |= {"trace": fc.trace(H, rng=0), "diagonal": fc.diagonal(H, rng=0)}
    results |= {"norm": fc.frobenius_norm(H, rng=0), "eigenvalues": fc.eigvalsh(H)}
    results |= {"diagnosis": fc.diagnose(ob, run.x), "search": fc.find_critical_point(ob, theta)}
    results["sample"] = fc.sample_critical_points(ob, 2, rng=0)
    for method in ("adam", "lbfgs", "gauss-newton"):
        results[method] = fc.minimize(drawn("mse")[0], theta, method=method, max_iter=5, rng=0)
    for name, result in results.items():
        yield f"result, {name}", result, contents, ()


def differences(x, y, place=""):
    """Yield a description of each entry in which two nested results differ, with its path."""
    if type(x) is not type(y):
        yield f"{place}: {type(x).__name__} is {type(y).__name__}"
    elif isinstance(x, dict):
        if list(x) != list(y):
            yield f"{place}: {list(x)} are {list(y)}"
        for key in x.keys() & y.keys():
            yield from differences(x[key], y[key], f"{place}/{key}")
    elif isinstance(x, (list, tuple)):
        if len(x) != len(y):
            yield f"{place}: {len(x)} are {len(y)}"
        for i, (one, other) in enumerate(zip(x, y)):
            yield from differences(one, other, f"{place}[{i}]")
    elif isinstance(x, np.ndarray):
        if (x.dtype, x.shape) != (y.dtype, y.shape):
            yield f"{place}: {x.dtype} {x.shape} is {y.dtype} {y.shape}"
        elif x.dtype == object:
            yield from differences(x.tolist(), y.tolist(), place)
        elif x.tobytes() != y.tobytes():
            yield f"{place}: {x!r} is {y!r}"
    elif not (x == y or x != x and y != y):
        yield f"{place}: {x!r} is {y!r}"


def without_times(x):
    """Return nested results without entries whose names contain "time"."""
    if isinstance(x, dict):
        return {key: without_times(y) for key, y in x.items() if "time" not in key}
    return [without_times(y) for y in x] if isinstance(x, list) else x


def check_copies(things):
    """Assert that copies of all things, (name, object, function of its results, arguments), give
    identical results. Return the number of things.
    """
    gaps, count = [], 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, thing, function, more in things:
            copies = {way: duplicate(thing) for way, duplicate in WAYS.items()}
            expected = without_times(function(thing, *more))
            for way, other in copies.items():
                assert type(other) is type(thing)
                result = without_times(function(other, *more))
                gaps += [f"{name}, {way}{gap}" for gap in differences(expected, result)]
            count += 1
    assert not gaps, "\n".join(gaps)
    return count


def test_copies_give_bitwise_identical_results():
    assert check_copies(chain(objectives(), operators(), results())) > 100


USES = {
    "a value": lambda ob, theta: ob.value(theta),
    "a gradient": lambda ob, theta: ob.gradient(theta),
    "hessp": lambda ob, theta: ob.hessp(theta, theta),
    "a product": lambda ob, theta: ob.hessian(theta) @ theta,
    "a matrix": lambda ob, theta: ob.ggn(theta).to_dense(),
    "blocks": lambda ob, theta: ob.hessian(theta).restrict(layers=[1]).shift(1.0) @ np.ones(15),
    "a Jacobian": lambda ob, theta: ob.jacobian(theta).T @ np.ones(3 * N),
    "a bound": lambda ob, theta: rounding_bound(ob, theta),
    "an inertia": lambda ob, theta: fc.inertia(ob.hessian(theta)).values,
    "eigenpairs": lambda ob, theta: fc.eigsh(ob.hessian(theta), 2, rng=0),
    "pairs of the GGN": lambda ob, theta: fc.eigsh(ob.ggn(theta), 2, rng=0),
    "a density": lambda ob, theta: fc.spectral_density(ob.hessian(theta), rng=0),
    "a verdict": lambda ob, theta: fc.classify(ob, theta),
    "a run": lambda ob, theta: fc.minimize(ob, theta, max_iter=3, rng=0),
    "L-BFGS": lambda ob, theta: fc.minimize(ob, theta, method="lbfgs", max_iter=3),
    "adam": lambda ob, theta: fc.minimize(ob, theta, method="adam", max_iter=3, rng=0),
    "least squares": lambda ob, theta: fc.minimize(ob, theta, method="gauss-newton", max_iter=3),
    "a batch": lambda ob, theta: ob.batch(slice(1, 9)).gradient(theta),
    "batches": lambda ob, theta: [
        batch.gradient(theta) for batch in ob.batches(10, np.random.default_rng(0))
    ],
    "other precision": lambda ob, theta: ob.astype("float32").value(theta.astype("float32")),
    "a copy": lambda ob, theta: copy.deepcopy(ob).value(theta),
}


def open_files():
    """Return the number of open files of this process, or 0 if the system does not list them."""
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0


def uses_that_leak(make, uses):
    """Return the names of the `uses` after which an objective, a file or a thread outlives the last
    reference to the objective. `make()` returns (objective, theta).
    """
    kept = []
    for name in uses:
        files, threads = open_files(), threading.active_count()
        ob, theta = make()
        USES[name](ob, theta)
        alive = weakref.ref(ob)
        del ob
        if alive() is not None or open_files() > files or threading.active_count() > threads:
            kept.append(name)
            gc.collect()
    return kept


def test_unused_objectives_are_freed_without_garbage_collection(tmp_path):
    """After any use, an objective with its files and threads is freed with its last reference,
    without garbage collection.
    """
    X = np.random.default_rng(0).standard_normal((N, 3))
    for name in "Xy":
        np.save(tmp_path / f"{name}.npy", X)
    m = fc.MLP([3, 4, 3])
    theta = m.init(rng=0)

    def of_files():
        names = tmp_path / "X.npy", tmp_path / "y.npy"
        return fc.StreamedObjective(m, *names, loss="mse", block_rows=13), theta

    makers = {kind: lambda kind=kind: drawn("own, coupled", kind=kind) for kind in KINDS}
    makers |= {"files": of_files, "dense, mse": lambda: drawn("mse")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in USES:  # caches that are made once
            USES[name](*drawn("mse"))
        gc.collect()
        gc.disable()
        try:
            found = {name: uses_that_leak(make, USES) for name, make in makers.items()}
        finally:
            gc.enable()
    assert not any(found.values()), found
