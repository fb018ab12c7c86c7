"""Networks shared by the tests of products, with two oracles: complex steps through plain NumPy,
and double backward in torch.
"""

import functools
import zlib

import numpy as np

from fastcurv import Objective
from fastcurv.network.operators import exact_diagonal
from fastcurv.structure import tables
from fastcurv.structure.parameters import l2_diagonal

from ..nets import CURVATURES, draw

SLACK = {"float64": 1e-11, "float32": 3e-4}
STEP = 1e-100


NETS = {  # `test_products.py` asserts which layout the engine uses for each
    "tiny": {"sizes": [2, 5, 1], "activation": "gelu", "loss": "mse", "N": 9},
    "tall": {
        "sizes": [33, 31, 31, 7],
        "activation": ["tanh", "silu"],
        "loss": "cross_entropy",
        "N": 333,
        "residual": True,
    },
    "wide": {
        "sizes": [129, 130, 130, 257, 33],
        "activation": "softplus",
        "loss": "binary_cross_entropy",
        "N": 65,
        "residual": True,
    },
}


def objective(
    rng, sizes, N, activation="tanh", loss="mse", dtype="float64", copies=False, **options
):
    """Return (objective, theta) for N samples, with parameters theta far from their usual initial
    values. With `copies`, the first half of the samples are equal.
    """
    X = rng.standard_normal((N, sizes[0])).astype(dtype)
    if copies:
        X[: N // 2] = X[0]
    net = draw(rng, sizes, activation, loss, dtype=dtype, X=X, **options)
    return net.ob, net.direction(rng) / 2


def public_results(ob, theta, V):
    """Return a dict of values, gradients and products of the objective at theta, by expression. `V`
    (n, k) holds the vectors, and its first column is used where one is needed.
    """
    u = np.cos(np.arange(ob.n_samples * ob.model.sizes[-1])).astype(theta.dtype)
    return {route: x for route, _, x in engine_results(ob, theta, V, u.reshape(ob.n_samples, -1))}


def summed_results(ob, theta, V):
    """Return a dict of the results that are sums over samples: values, gradients, products, parts
    of matrices, Jacobian products and results of batches. `V` (n, k) holds the vectors.
    """
    n, N, rng = len(theta), ob.n_samples, np.random.default_rng(0)
    some, rows = rng.permutation(n)[:9], rng.permutation(N)[:31]
    value, gradient = ob.value_and_gradient(theta)
    found = {"value": value, "gradient": gradient, "Hv": ob.hessp(theta, V[:, 0])}
    for kind in CURVATURES[
        : 2 if ob.model.batch_norm else 3
    ]:  # batch normalisation has no per-sample gradients
        A = getattr(ob, kind)(theta)
        part = A.restrict(layers=[len(ob.model.shapes) - 1])
        found |= {
            f"{kind} @ V": A @ V,
            f"{kind} @ v": A @ V[:, 1],
            f"V'V, {kind}": A.quadratic_form(V),
            f"{kind}, shifted": A.shift(0.5) @ V,
            f"{kind}, a layer": part @ V[: part.shape[0]],
            f"{kind}, some": A.restrict(indices=some).to_dense(),
            f"{kind}, dense": A.to_dense(),
        }
        if not ob.model.batch_norm:
            found[f"{kind}, diagonal"] = exact_diagonal(A)
    J = ob.jacobian(theta)
    u = rng.standard_normal(J.shape[0]).astype(theta.dtype)
    found |= zip(("z", "first", "second"), ob.outputs(theta))
    found |= {"Jv": J @ V[:, 0], "J'u": J.T @ u, "batch": ob.batch(rows).gradient(theta)}
    return found | {"mask": ob.batch(np.arange(N) % 3 == 0).value(theta)}


def assert_same_results(ob, whole, theta, V, tol):
    """Assert that the results of `summed_results` of two objectives differ by at most `tol` times
    their norm. Quadratic forms, whose terms may cancel, have ten times that tolerance.
    """
    found = summed_results(ob, theta, V)
    for name, x in summed_results(whole, theta, V).items():
        y, room = found[name], 10 * tol if "V'V" in name else tol
        assert np.shape(x) == np.shape(y) and np.asarray(x).dtype == np.asarray(y).dtype, name
        gap = np.linalg.norm(np.subtract(x, y, dtype=float))
        assert gap <= room * np.linalg.norm(x), (name, gap / np.linalg.norm(x))


def with_options(p, **options):
    """Return an objective with the model, data and l2 of the problem p, constructed with other
    options.
    """
    ob = p.ob
    options = {"l2": ob.l2, "l2_biases": ob.l2_biases, "sample_weight": p.weight} | options
    return Objective(ob.model, p.X, p.y, ob.loss, **options)


def draw_batch_norm(
    sizes, activation="tanh", loss="mse", N=33, *, bias=True, residual=False, **options
):
    """Return a network with batch normalisation and its data. The attributes `V` (n, 2) and `u` (N,
    d_out) are random vectors of parameters and of outputs.
    """
    key = repr((sizes, activation, loss, N, bias, residual)).encode()
    rng = np.random.default_rng(zlib.crc32(key))
    how = {"bias": bias, "residual": residual, "batch_norm": True, **options}
    p = draw(rng, sizes, activation, loss, N, **how)
    p.V, p.u = p.direction(rng, 2), rng.standard_normal((N, sizes[-1])).astype(p.theta.dtype)
    return p


# --- oracles


def truth(ref, theta, V, u):
    """Return a dict of true results for `V` (n, k) and `u` (N, d_out), computed by complex steps
    through the NumPy model `ref` in float64. Its keys are "value", "gradient", "HV", "GV", "FV"
    (products of the three curvatures), "Jv" and "J'u".
    """
    theta, V, u = (np.asarray(x, np.float64) for x in (theta, V, u))
    N = len(ref.X)
    zs, below = ref.model.forward(theta, ref.X)
    back = functools.partial(ref.model.backward, theta, zs, below)
    value, gradient = ref.value_and_gradient(theta)
    delta = ref.scale() * tables.loss_spec(ref.loss).terms(zs[-1], ref.y)[1]
    known = {"value": value, "gradient": gradient, "J'u": back(u)}
    hv, ggn, fisher, jv = [], [], [], []
    for v in V.T:
        hv.append(ref.value_and_gradient(theta + 1j * STEP * v)[1].imag / STEP)
        rz = ref.model.predict(theta + 1j * STEP * v, ref.X).imag / STEP
        jv.append(rz)
        rdelta = tables.loss_spec(ref.loss).terms(zs[-1] + 1j * STEP * rz, ref.y)[1].imag / STEP
        ggn.append(back(ref.scale() * rdelta) + l2_diagonal(ref) * v)
        fisher.append(back(N * delta * (delta * rz).sum(axis=1, keepdims=True)))
    known["HV"], known["GV"], known["FV"] = np.stack(hv, 1), np.stack(ggn, 1), np.stack(fisher, 1)
    known["Jv"] = jv[0]
    return known


def engine_results(ob, theta, V, u):
    """Yield (method, name, result) for every public method of the engine, for `V` (n, k) and `u`
    (N, d_out). The name is the key of the true value in `scale_of`.
    """
    H, G, J = ob.hessian(theta), ob.ggn(theta), ob.jacobian(theta)
    v = np.ascontiguousarray(V[:, 0])
    yield "ob.value", "value", ob.value(theta)
    yield "ob.gradient", "gradient", ob.gradient(theta)
    yield "H.value", "value", H.value
    yield "H.gradient", "gradient", H.gradient
    yield "H @ v", "HV[0]", H @ v
    yield "H @ V", "HV", H @ V
    yield "ob.hessp", "HV[0]", ob.hessp(theta, v)
    yield "H.quadratic_form(v)", "vHv", H.quadratic_form(v)
    yield "H.quadratic_form(V)", "VHV", H.quadratic_form(V)
    yield "G @ V", "GV", G @ V
    yield "G.quadratic_form(V)", "VGV", G.quadratic_form(V)
    if not ob.model.batch_norm:  # batch normalisation couples samples
        F = ob.empirical_fisher(theta)
        yield "F @ V", "FV", F @ V
        yield "F.quadratic_form(v)", "vFv", F.quadratic_form(v)
    yield "J @ v", "Jv", (J @ v).reshape(u.shape)
    yield "J.T @ u", "J'u", J.T @ u.ravel()


def scale_of(known, V, name):
    """Return (true value, scale), where the error of the result `name` is measured relative to the
    scale. The scale is the norm of the true value. For quadratic forms, whose terms may cancel, the
    scale is ||v|| ||Hv||.
    """
    V = np.asarray(V, np.float64)
    forms = {"vHv": "HV", "VHV": "HV", "VGV": "GV", "vFv": "FV"}
    if name in forms:
        product = known[forms[name]]
        form, size = (
            (V * product).sum(0),
            np.linalg.norm(V, axis=0) * np.linalg.norm(product, axis=0),
        )
        return (form[0], size[0]) if name[0] == "v" else (form, size)
    true = known["HV"][:, 0] if name == "HV[0]" else known[name]
    return true, np.linalg.norm(true)


def compare(p, known, V, u, slack, what):
    """Assert that the result of every method of the engine differs from the true results `known` by
    at most `slack` times its scale, as returned by `scale_of`. `what` describes the case in
    messages.
    """
    for route, name, got in engine_results(p.ob, p.theta, V, u):
        true, size = scale_of(known, V, name)
        assert np.shape(got) == np.shape(true), f"{route}: shape {np.shape(got)}, {what}"
        gap = (
            np.abs(got - true)
            if name[1:] in ("HV", "GV", "Fv", "Hv") and name not in known
            else np.linalg.norm(got - true)
        )
        assert np.all(gap <= slack * size), (
            f"{route}: relative error {np.max(gap / size):.2g}, {what}"
        )


def double_backward(loss, parameters, v):
    """Return (g, Hv) as NumPy vectors: the gradient of a torch scalar with respect to the
    parameters, and its Hessian times v.
    """
    import torch

    def assign_vector(x, **how):
        parts = torch.autograd.grad(x, parameters, materialize_grads=True, **how)
        return torch.cat([part.reshape(-1) for part in parts])

    g = assign_vector(loss, create_graph=True)
    return g.detach().numpy(), assign_vector(g @ torch.tensor(v)).numpy()
