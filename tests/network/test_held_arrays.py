"""Arrays of every memory layout and library are accepted for every argument, or rejected with a
short error, and are never modified.
"""

import hashlib
import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import fastcurv as fc
from fastcurv.certify import rounding_bound
from fastcurv.common.checks import as_numpy

pytestmark = pytest.mark.by_day(one_of="dtype")

RNG = np.random.default_rng(5)
MODEL = fc.MLP([3, 4, 2])
FOLDER = tempfile.TemporaryDirectory()
ARGUMENTS = {
    "X": RNG.integers(-3, 4, (11, 3)).astype(float),
    "y": RNG.integers(0, 2, (11, 2)).astype(float),
    "sample_weight": RNG.integers(0, 3, 11).astype(float),
    "theta": RNG.integers(-4, 5, MODEL.n_params) / 4,
    "v": RNG.integers(-4, 5, MODEL.n_params) / 4,
    "V": RNG.integers(-4, 5, (MODEL.n_params, 3)) / 4,
}  # numbers that every real dtype below represents exactly


def misaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    raw[...] = a
    assert not raw.flags.aligned
    return raw


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def mapped(a):
    path = Path(FOLDER.name, f"{a.dtype}-{a.shape}.npy")
    np.save(path, a)
    return np.load(path, mmap_mode="r")


def view_of_larger(a):
    """Return an array equal to `a` that is a strided view of a larger array, whose other entries
    are 7.
    """
    wide = np.full((2 * len(a), 3 * a[0].size), 7.0)
    held = wide[::2, 1 : 1 + a[0].size]
    held[...] = a.reshape(len(a), -1)
    return held if a.ndim == 2 else held[:, 0]


class OnlyDlpack:
    """An array that supports the DLPack protocol and no other."""

    def __init__(self, a):
        self.a = a

    def __dlpack__(self, **options):
        return self.a.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.a.__dlpack_device__()


class OnlyArray:
    def __init__(self, a):
        self.a = a

    def __array__(self, dtype=None, copy=None):
        return self.a if dtype is None else self.a.astype(dtype)


def torch_tensor(a):
    return pytest.importorskip("torch").from_numpy(a.copy())


def frame(a):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(a) if a.ndim == 2 else pandas.Series(a)


LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "strided": lambda a: (
        np.repeat(np.repeat(a, 2, axis=0), 3, axis=-1)[::2][..., ::3]
        if a.ndim == 2
        else np.repeat(a, 3)[::3]
    ),
    "reversed": lambda a: a[::-1].copy()[::-1],
    "both reversed": lambda a: np.flip(np.flip(a).copy()),
    "part of a larger one": view_of_larger,
    "memory-mapped": mapped,
    "read-only": read_only,
    "misaligned": misaligned,
    "big-endian": lambda a: a.astype(">f8"),
    "big-endian, single": lambda a: a.astype(">f4"),
    "single": lambda a: a.astype(np.float32),
    "half": lambda a: a.astype(np.float16),
    "long double": lambda a: a.astype(np.longdouble),
    "a list": lambda a: a.tolist(),
    "masked, nothing hidden": lambda a: np.ma.array(a, mask=False),
    "masked, no mask": np.ma.array,
    "torch": torch_tensor,
    "jax": lambda a: pytest.importorskip("jax.numpy").asarray(a.astype(np.float32)),
    "pandas": frame,
    "__dlpack__ alone": lambda a: OnlyDlpack(a.copy()),
    "__array__ alone": lambda a: OnlyArray(a.copy()),
}


def all_results(X, y, sample_weight, theta, v, V, dtype="float64"):
    """Return a list of values, gradients, products, quadratic forms, predictions and bounds of an
    objective with these arguments, as arrays and numbers.
    """
    model = MODEL.astype(dtype)
    ob = fc.Objective(model, X, y, "binary_cross_entropy", 0.125, sample_weight)
    H, J = ob.hessian(theta), ob.jacobian(theta)
    return [
        *(np.asarray(x) for x in (ob.value(theta), ob.gradient(theta), ob.hessp(theta, v))),
        *(np.asarray(x) for x in (H @ v, H @ V, H.product(v))),
        *(np.asarray(x) for x in (H.quadratic_form(v), H.quadratic_form(V), J @ v, J @ V)),
        *(np.asarray(x) for x in (H.shift(2.0) @ v, model.predict(theta, X))),
        *(np.asarray(x) for x in (ob.ggn(theta) @ v, ob.empirical_fisher(theta) @ v)),
        rounding_bound(H, v),
        H.n_products,
    ]


def digest(x):
    return hashlib.sha256(np.ascontiguousarray(as_numpy(x, "x")).tobytes()).hexdigest()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout_of_arguments_does_not_change_results_bitwise(layout, dtype):
    """If one argument has another memory layout or container but equal entries, all results are
    bitwise identical, and the argument is not modified.
    """
    for argument in ARGUMENTS:
        held = LAYOUTS[layout](ARGUMENTS[argument])
        before = digest(held)
        given = {**ARGUMENTS, argument: held}
        for one, other in zip(
            all_results(**ARGUMENTS, dtype=dtype), all_results(**given, dtype=dtype)
        ):
            assert np.array_equal(one, other)
        assert digest(held) == before


def test_integer_arguments_are_accepted(dtype):
    for kind, argument in itertools.product(["i8", "i2", "u2", "u1", "bool"], ARGUMENTS):
        numbers = (np.abs(np.sign(ARGUMENTS[argument]))).astype(kind)
        expected = all_results(**{**ARGUMENTS, argument: numbers.astype(float)}, dtype=dtype)
        for one, other in zip(
            expected, all_results(**{**ARGUMENTS, argument: numbers}, dtype=dtype)
        ):
            assert np.array_equal(one, other)


def test_suitable_arrays_are_not_copied():
    """An X of the model's dtype and a supported memory layout is not copied, for NumPy, masked and
    torch arrays and for arrays with a single protocol.
    """
    X = ARGUMENTS["X"].copy()
    for held in (X, torch_tensor(X), np.ma.array(X), OnlyDlpack(X), OnlyArray(X)):
        ob = fc.Objective(MODEL, held, ARGUMENTS["y"], "mse")
        assert np.shares_memory(ob.X, as_numpy(held, "held"))


def test_products_with_torch_tensors_return_tensors():
    torch = pytest.importorskip("torch")
    ob = fc.Objective(MODEL, ARGUMENTS["X"], ARGUMENTS["y"], "mse")
    v, V = torch_tensor(ARGUMENTS["v"]), torch_tensor(ARGUMENTS["V"])
    J, u = ob.jacobian(ARGUMENTS["theta"]), torch.ones(22, dtype=torch.float64)
    H = ob.hessian(ARGUMENTS["theta"])
    for op, x in (
        (H, v),
        (H, V),
        (H.restrict(layers=[1]), v[:10]),
        (H.shift(1.0), v),
        (J, v),
        (J.T, u),
    ):
        result = op @ x
        assert isinstance(result, torch.Tensor) and result.dtype == torch.float64
        assert np.array_equal(result.numpy(), op @ x.numpy())


def test_theta_is_accepted_as_a_list_of_layers():
    """Results for theta given as a list of layers ``[(W, b), ...]`` equal those for the flat
    vector. Matrices of shape ``(in, out)`` are rejected with advice to transpose them.
    """
    theta, ob = (
        ARGUMENTS["theta"],
        fc.Objective(MODEL, ARGUMENTS["X"], ARGUMENTS["y"], "mse", l2=0.1),
    )
    layers = MODEL.unflatten(theta)
    tensors = [(torch_tensor(W), torch_tensor(b)) for W, b in layers]
    for given in (layers, tensors, [[W.tolist(), b.tolist()] for W, b in layers]):
        assert ob.value(given) == ob.value(theta)
        assert np.array_equal(ob.hessian(given).gradient, ob.gradient(theta))
        assert fc.classify(ob, given).gradient_norm == fc.classify(ob, theta).gradient_norm
        assert fc.minimize(ob, given, max_iter=1).fun == fc.minimize(ob, theta, max_iter=1).fun
    with pytest.raises(ValueError, match=r"Transpose it: \(out, in\)"):
        ob.value([(W.T, b) for W, b in layers])


def test_adding_identity_gives_shifted_hessian_and_other_sums_scipy_operators(rng):
    """The sum ``H + mu I``, for any form of the identity, is a shifted Hessian that agrees with the
    dense matrix within its error bound. Sums with other operators, and products of operators, are
    SciPy operators with correct results.
    """
    ob = fc.Objective(MODEL, ARGUMENTS["X"], ARGUMENTS["y"], "mse")
    H, n = ob.hessian(ARGUMENTS["theta"]), MODEL.n_params
    A, v, V = H.to_dense(), rng.standard_normal(n), rng.standard_normal((n, 3))
    dense = A + 2.5 * np.eye(n)
    for S in (
        H.shift(2.5), H + 2.5 * sparse.identity(n), H.shift(5).shift(-2.5),
        H - -2.5 * sparse.identity(n, "f4"), H.shift(3) - 0.5 * sparse.identity(n, format="csr"),
    ):  # fmt: skip
        assert type(S) is type(H.shift(1)) and "Hessian" in repr(S) and S.n_products >= 0
        assert np.allclose(S @ V, dense @ V, rtol=1e-12) and np.allclose(S.to_dense(), dense)
        assert np.linalg.norm(S @ v - dense @ v) <= rounding_bound(S, v)
        assert S.quadratic_form(v) == pytest.approx(v @ dense @ v)
        assert np.allclose(S.product(v, v.copy()), dense @ v)
    with pytest.raises(ValueError):
        H - sparse.identity(n + 1, format="csr")
    other = sparse.diags(np.arange(float(n)))
    for B in (other, other.toarray(), aslinearoperator(other)):
        summed = H + B
        assert isinstance(summed, LinearOperator)
        assert np.allclose(summed @ v, H @ v + np.arange(n) * v)
    for squared in (H @ H, H.dot(H)):
        assert np.allclose(squared @ v, A @ (A @ v), rtol=1e-12)
    assert np.allclose(H.dot(2.0) @ v, 2 * (H @ v), rtol=1e-13)
    G = ob.ggn(ARGUMENTS["theta"])
    B, half = G.to_dense(), 0.5 * sparse.identity(n)
    for S, matrix in (
        (2 * H, 2 * A), (H * np.float64(0.3), 0.3 * A), (-H, -A), (H - G, A - B), (H + H, 2 * A),
        (3 * (H - 0.1 * G) + half, 3 * A - 0.3 * B + 0.5 * np.eye(n)),
        (half - H.shift(2.0), -A - 1.5 * np.eye(n)),
    ):  # fmt: skip
        part = S.restrict(layers=[1])
        some = np.ix_(part.terms[0][1].indices, part.terms[0][1].indices)
        assert np.linalg.norm(S @ v - matrix @ v) <= rounding_bound(S, v) < 1e-11
        assert np.allclose(S @ V, matrix @ V, rtol=1e-12)
        assert np.allclose(part.to_dense(), matrix[some], rtol=1e-12)
        w = v[: part.shape[0]]
        assert np.linalg.norm(part @ w - matrix[some] @ w) <= rounding_bound(part, w)
        single = S.astype("float32")
        assert np.array_equal(single @ V, np.stack([single @ x for x in V.T], axis=1))
        assert S.quadratic_form(v) == pytest.approx(v @ matrix @ v, rel=1e-10)
        assert np.allclose(fc.diagonal(S).estimate, np.diagonal(matrix))
        assert np.allclose(fc.eigvalsh(S), np.linalg.eigvalsh(matrix))
    with pytest.raises(ValueError):
        H - G.restrict(layers=[1])
    block = H.restrict(layers=[1]).shift(1.0)
    assert np.allclose(block.to_dense(), H.restrict(layers=[1]).to_dense() + np.eye(block.shape[0]))
    assert fc.eigsh(H.shift(2.5), 1, which="SA").values[0] == pytest.approx(
        np.linalg.eigvalsh(dense)[0]
    )
