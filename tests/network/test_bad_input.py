"""Invalid input raises an error of one line that names the invalid value and the accepted ones, and
the next call returns correct results.
"""

import warnings

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from fastcurv import MLP, Objective

from ..nets import OWN

N, SIZES = 12, [4, 5, 3]
MODEL = MLP(SIZES)
WAVE = MLP(SIZES, OWN["wave"])
n = MODEL.n_params
X = np.random.default_rng(0).standard_normal((N, 4))
LABELS = np.arange(N) % 3
Y = np.random.default_rng(1).standard_normal((N, 3))
THETA = MODEL.init(rng=0)
NAN, INF = np.nan, np.inf


def with_one_bad_entry(array, what, place=0):
    other = np.array(array, float)
    other.flat[place] = what
    return other


def assert_short_message(error):
    """Return the message of an error, after asserting that it is a single line of fewer than 300
    characters.
    """
    text = str(error)
    assert text and "\n" not in text and len(text) < 300, text
    assert text[0].isalpha() and not text.startswith("Traceback")
    return text


def assert_raises(call, kind, *words):
    """Assert that the call raises an error of class `kind`, ValueError or TypeError, without a
    warning, and that its message contains all `words`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, TypeError)) as caught:
            call()
    assert issubclass(caught.type, kind), f"{caught.type.__name__}: {caught.value}"
    text = assert_short_message(caught.value)
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


# --- the model


@pytest.mark.parametrize(
    "arguments, kind, words",
    [
        ({"sizes": [4]}, ValueError, ["[4]", "two"]),
        ({"sizes": [4, 0, 3]}, ValueError, ["0", ">= 1"]),
        ({"sizes": [4, 2.5]}, TypeError, ["2.5", "int"]),
        ({"sizes": [4, True]}, TypeError, ["True", "int"]),
        ({"sizes": "4-3"}, TypeError, ["4-3", "widths"]),
        ({"sizes": np.array(3)}, TypeError, ["array(3)", "widths"]),
        ({"sizes": [1 << 40, 1 << 40]}, ValueError, ["parameters", "memory"]),
        ({"activation": "tan"}, ValueError, ["'tan'", "tanh"]),
        ({"activation": ["tanh", "relu"]}, ValueError, ["2", "1"]),
        ({"activation": ["tahn"]}, ValueError, ["'tahn'", "tanh"]),
        ({"activation": [3]}, TypeError, ["int", "tanh"]),
        ({"activation": 3}, TypeError, ["int", "name"]),
        ({"bias": 1}, TypeError, ["1", "True or False"]),
        ({"residual": "yes"}, TypeError, ["'yes'", "True or False"]),
        ({"dtype": "float16"}, ValueError, ["float16", "float32"]),
        ({"dtype": "complex128"}, ValueError, ["complex128", "float64"]),
        ({"dtype": "real"}, ValueError, ["'real'", "float64"]),
        ({"dtype": int}, ValueError, ["int", "float64"]),
        ({"dtype": ",f8"}, ValueError, ["',f8'", "float64"]),  # a SyntaxError of NumPy
    ],
)
def test_invalid_models_are_rejected(arguments, kind, words):
    assert_raises(lambda: MLP(**{"sizes": SIZES, **arguments}), kind, *words)


@pytest.mark.parametrize(
    "call, kind, words",
    [
        (lambda m: m.init(scheme="glorot"), ValueError, ["'glorot'", "xavier"]),
        (lambda m: m.init(scheme=None), TypeError, ["NoneType", "xavier"]),
        (lambda m: m.init(rng="one"), TypeError, ["str", "Generator"]),
        (lambda m: m.init(rng=-1), ValueError, ["-1"]),
        (lambda m: m.unflatten(THETA[:-1]), ValueError, [f"({n - 1},)", f"({n},)"]),
        (lambda m: m.unflatten(THETA[None]), ValueError, ["theta", f"(1, {n})"]),
        (lambda m: m.flatten([]), ValueError, ["0", "2"]),
        (
            lambda m: m.flatten([(np.zeros((4, 5)), np.zeros(5)), (np.zeros((3, 5)), np.zeros(3))]),
            ValueError,
            ["(4, 5)", "(5, 4)", "(out, in)", "Transpose"],
        ),
        (
            lambda m: m.flatten([(np.zeros((5, 4)), None), (np.zeros((3, 5)), np.zeros(3))]),
            TypeError,
            ["b of layers[0]"],
        ),
        (lambda m: m.flatten([3, 4]), TypeError, ["layers"]),
        (lambda m: m.flatten(None), TypeError, ["layers"]),
        (lambda m: m.predict(THETA, X[:, :3]), ValueError, [f"({N}, 3)", "(N, 4)"]),
        (lambda m: m.predict(THETA, X[0]), ValueError, ["(4,)", "(N, 4)"]),
        (lambda m: m.predict(THETA, csr_matrix(X)), TypeError, ["dense array", "sparse matrix"]),
        (lambda m: m.predict(THETA, X[:0]), ValueError, ["(0, 4)", "N >= 1"]),
        (lambda m: m.predict(THETA, with_one_bad_entry(X, NAN)), ValueError, ["X", "NaN"]),
        (lambda m: m.predict(with_one_bad_entry(THETA, INF), X), ValueError, ["theta", "infinity"]),
        (lambda m: m.preactivations(THETA[:3], X), ValueError, ["theta", "(3,)"]),
        (lambda m: m.input_jacobian(THETA[1:], X), ValueError, ["theta", f"({n - 1},)"]),
        (lambda m: m.input_jacobian(THETA, X[:, 1:]), ValueError, ["X", f"({N}, 3)"]),
        (lambda m: m.input_jacobian(THETA, X[:0]), ValueError, ["X", "(0, 4)"]),
        (lambda m: m.input_hessian(THETA, X, np.ones(4)), ValueError, ["weights", "(4,)"]),
        (lambda m: m.input_hessian(THETA, X, INF * Y), ValueError, ["weights", "infinity"]),
        (lambda m: m.input_jacobian(THETA, X, statistics=[]), ValueError, ["statistics"]),
        (
            lambda m: MLP(SIZES, OWN["wave"]).input_jacobian(THETA, X),
            ValueError,
            ["built-in", "wave"],
        ),
    ],
)
def test_invalid_arguments_of_model_methods_are_rejected(call, kind, words):
    assert_raises(lambda: call(MODEL), kind, *words)
    assert MODEL.predict(THETA, X).shape == (N, 3)


# --- the objective


@pytest.mark.parametrize(
    "arguments, kind, words",
    [
        ({"model": SIZES}, TypeError, ["list", "MLP"]),
        ({"model": None}, TypeError, ["NoneType", "MLP"]),
        ({"X": X[:, :3]}, ValueError, [f"({N}, 3)", "(N, 4)"]),
        ({"X": csr_matrix(X[:, :3])}, ValueError, [f"({N}, 3)", "(N, 4)"]),
        ({"X": csr_matrix(with_one_bad_entry(X, NAN))}, ValueError, ["X", "finite", "NaN"]),
        ({"X": csr_matrix(X + 1j)}, TypeError, ["X", "complex128"]),
        (
            {"X": csr_matrix(X), "model": MLP(SIZES, batch_norm=True)},
            ValueError,
            ["batch normalisation", "dense X"],
        ),
        ({"X": X.ravel()}, ValueError, [f"({N * 4},)", "(N, 4)"]),
        ({"X": X[None]}, ValueError, [f"(1, {N}, 4)", "(N, 4)"]),
        ({"X": X[:0], "y": LABELS[:0]}, ValueError, ["(0, 4)", "N >= 1"]),
        ({"X": []}, ValueError, ["X", "(N, 4)"]),
        ({"y": LABELS[:-1]}, ValueError, ["11", "12"]),
        ({"y": np.r_[LABELS[:-1], 3]}, ValueError, ["3", "0 to 2"]),
        ({"y": np.r_[LABELS[:-1], -1]}, ValueError, ["-1", "0 to 2"]),
        ({"y": LABELS.astype(float)}, TypeError, ["float64", "integer"]),
        ({"y": LABELS.astype(str)}, TypeError, ["y", "integer"]),
        ({"y": np.zeros(N, bool)}, TypeError, ["bool", "integer"]),
        ({"y": None}, TypeError, ["y must hold", "got None"]),
        ({"y": Y[:, :2]}, ValueError, [f"({N}, 2)", f"({N}, 3)"]),
        ({"y": np.uint64(2**63) + LABELS.astype(np.uint64)}, ValueError, ["labels", "0 to 2"]),
        ({"y": Y, "loss": "mse", "X": X[:-1]}, ValueError, [f"({N}, 3)", f"({N - 1}, 3)"]),
        ({"y": Y[:, 0], "loss": "mse"}, ValueError, [f"({N},)", f"({N}, 3)"]),
        ({"y": LABELS, "loss": "binary_cross_entropy"}, ValueError, [f"({N},)", f"({N}, 3)"]),
        ({"loss": "hinge"}, ValueError, ["'hinge'", "cross_entropy"]),
        ({"loss": None}, TypeError, ["NoneType", "cross_entropy"]),
        ({"l2": -1}, ValueError, ["l2", "-1", ">= 0"]),
        ({"l2": "0.1"}, TypeError, ["l2", "'0.1'"]),
        ({"l2": True}, TypeError, ["l2", "True"]),
        ({"l2": 1j}, TypeError, ["l2", "1j"]),
        (
            {"sample_weight": np.ones(N - 1)},
            ValueError,
            ["sample_weight", f"({N - 1},)", f"({N},)"],
        ),
        ({"sample_weight": np.ones((N, 1))}, ValueError, ["sample_weight", f"({N}, 1)"]),
        ({"sample_weight": np.r_[np.ones(N - 1), -1e-3]}, ValueError, ["sample_weight", "-0.001"]),
        ({"y": Y, "loss": "binary_cross_entropy"}, ValueError, ["y", "0 to 1"]),
        ({"y": np.eye(3)[LABELS] * 2, "loss": "binary_cross_entropy"}, ValueError, ["0 to 2"]),
        ({"l2_biases": 1}, TypeError, ["l2_biases", "True or False"]),
        ({"sample_weight": "balanced"}, TypeError, ["sample_weight"]),
        ({"n_threads": 0}, ValueError, ["n_threads", "0", ">= 1"]),
        ({"n_threads": 2**31}, ValueError, ["n_threads", "2147483648", "<= 2147483647"]),
        ({"memory": 2**70}, ValueError, ["memory", str(2**70), "<="]),
        ({"memory": 1e30}, ValueError, ["memory", "<="]),
        ({"n_threads": 1.5}, TypeError, ["n_threads", "1.5"]),
        ({"n_threads": "all"}, TypeError, ["n_threads", "'all'"]),
        ({"memory": 0}, ValueError, ["memory", "0", ">= 1"]),
        ({"memory": "1GB"}, TypeError, ["memory", "'1GB'"]),
        ({"memory": NAN}, TypeError, ["memory", "nan"]),
    ],
)
def test_invalid_objectives_are_rejected(arguments, kind, words):
    assert_raises(
        lambda: Objective(**{"model": MODEL, "X": X, "y": LABELS, **arguments}), kind, *words
    )
    assert Objective(MODEL, X, LABELS).value(THETA) > 0
    assert Objective(MODEL, X, LABELS, n_threads=2**31 - 1).n_threads == 2**31 - 1


def test_numbers_beyond_float32_are_rejected():
    """A finite float64 number beyond the range of float32 is rejected in X and theta without a
    warning, and the message names float32.
    """
    model = MLP(SIZES, dtype="float32")
    assert_raises(
        lambda: Objective(model, with_one_bad_entry(X, 1e300), LABELS), ValueError, "X", "float32"
    )
    assert_raises(
        lambda: Objective(model, X, LABELS).value(with_one_bad_entry(THETA, 1e300)),
        ValueError,
        "theta",
        "beyond the range of float32",
    )
    assert Objective(model, X, LABELS).value(THETA) > 0


def test_a_memory_limit_below_one_sample_is_rejected():
    ob = Objective(MODEL, X, LABELS, memory=100)
    assert_raises(lambda: ob.value(THETA), ValueError, "memory must be at least", "got 100")
    assert_raises(lambda: ob.hessian(THETA), ValueError, "memory must be at least", "got 100")
    ob = Objective(MODEL, X, LABELS, memory=10**6)
    assert ob.hessian(THETA).nbytes <= 10**6


BAD_THETAS = [
    (THETA[:-1], ValueError, ["theta", f"({n - 1},)", f"({n},)"]),
    (THETA[:, None], ValueError, ["theta", f"({n}, 1)", f"({n},)"]),
    (0.0, ValueError, ["theta", "()", f"({n},)"]),
    (with_one_bad_entry(THETA, NAN), ValueError, ["theta", "NaN"]),
    (with_one_bad_entry(THETA, INF, -1), ValueError, ["theta", "infinity"]),
    (None, TypeError, ["theta must hold real numbers, got a NoneType"]),
]


@pytest.mark.parametrize(
    "name",
    [
        "value",
        "gradient",
        "value_and_gradient",
        "hessian",
        "ggn",
        "empirical_fisher",
        "jacobian",
    ],
)
def test_invalid_theta_is_rejected(name):
    ob = Objective(MODEL, X, LABELS)
    for theta, kind, words in BAD_THETAS:
        assert_raises(lambda: getattr(ob, name)(theta), kind, *words)  # noqa: B023
        assert_raises(lambda: ob.hessp(theta, THETA), kind, *words)  # noqa: B023
        assert getattr(ob, name)(THETA) is not None


BAD_VECTORS = [
    (THETA[:-1], ValueError, ["v", f"({n - 1},)", f"({n},)"]),
    (0.0, ValueError, ["v", "()", f"({n},)"]),
    (None, TypeError, ["v", "real"]),
]


def test_invalid_vectors_are_rejected():
    """Products, quadratic forms, `hessp` and the quadratic model reject vectors of wrong shape or
    dtype. NaN in a vector is accepted, and the next product is finite.
    """
    ob = Objective(MODEL, X, LABELS)
    for H in (
        ob.hessian(THETA),
        ob.ggn(THETA),
        ob.empirical_fisher(THETA),
        ob.hessian(THETA).restrict(layers=[0, 1]),
    ):
        for v, kind, words in BAD_VECTORS:
            assert_raises(lambda: H.product(v), kind, *words)  # noqa: B023
            assert_raises(lambda: H.quadratic_form(v), kind, *words)  # noqa: B023
            assert_raises(lambda: ob.hessp(THETA, v), kind, *words)  # noqa: B023
        for V in (THETA[None], np.zeros((n + 1, 2)), np.zeros((n, 2, 2))):
            with pytest.raises(ValueError):
                H @ V
            assert_raises(lambda: H.quadratic_form(V), ValueError, str(V.shape))  # noqa: B023
        assert (
            np.isnan(H.product(with_one_bad_entry(THETA, NAN))).any()
            and np.isfinite(H.product(THETA)).all()
        )


def test_invalid_out_arrays_are_rejected():
    """`out` is rejected if its shape, dtype, byte order, strides, alignment or writability is
    wrong. No product is then counted. A masked array without masked entries is accepted.
    """
    H = Objective(MODEL, X, LABELS).hessian(THETA)
    read_only = np.zeros(n)
    read_only.flags.writeable = False
    before, part = H.n_products, H.restrict(indices=np.arange(n))
    for out in (
        np.zeros(n - 1),
        np.zeros((n, 1)),
        np.zeros(n, "f4"),
        np.zeros(n, ">f8"),
        np.zeros(2 * n)[::2],
        np.zeros(8 * n + 1, np.uint8)[1:].view(float),
        read_only,
        np.frombuffer(bytes(8 * n)),
        [0.0] * n,
        3,
    ):
        for op in (H, part):
            words = "out", f"({n},)", "must be a writeable contiguous aligned float64 array"
            assert_raises(lambda: op.product(THETA, out=out), ValueError, *words)  # noqa: B023
    assert not read_only.any() and H.n_products == before
    for out in (np.zeros(n), np.ma.zeros(n)):
        assert H.product(THETA, out=out) is out and np.isfinite(out).all()


@pytest.mark.parametrize(
    "arguments, kind, words",
    [
        ({}, ValueError, ["neither"]),
        ({"layers": [0], "indices": [0]}, ValueError, ["both"]),
        ({"layers": [2]}, ValueError, ["2", "0 to 1"]),
        ({"layers": [0, 0]}, ValueError, ["once"]),
        ({"layers": []}, TypeError, ["layers", "int"]),
        ({"layers": [0.5]}, TypeError, ["0.5", "int"]),
        ({"layers": "first"}, ValueError, ["first", "0.weight"]),
        ({"layers": ["0.bias", "0.bias"]}, ValueError, ["once"]),
        ({"indices": [n]}, ValueError, [str(n), f"0 to {n - 1}"]),
        ({"indices": [1, 1]}, ValueError, ["distinct"]),
        ({"indices": []}, TypeError, ["indices", "int"]),
        ({"indices": [0.0]}, TypeError, ["float64", "int"]),
        ({"indices": [[0]]}, TypeError, ["(1, 1)", "int"]),
        ({"indices": "all"}, TypeError, ["indices", "int"]),
    ],
)
def test_invalid_layers_and_indices_are_rejected(arguments, kind, words):
    H = Objective(MODEL, X, LABELS).hessian(THETA)
    assert_raises(lambda: H.restrict(**arguments), kind, *words)
    assert H.restrict(layers=[1]).shape == (18, 18)


@pytest.mark.parametrize(
    "rows, kind, words",
    [
        ([N], ValueError, [str(N), "12"]),
        ([-N - 1], ValueError, ["rows", "12"]),
        ([], (TypeError, ValueError), ["rows"]),
        (slice(3, 3), ValueError, ["at least one sample"]),
        (np.zeros(N, bool), ValueError, ["at least one sample"]),
        (np.ones(N - 1, bool), ValueError, ["rows", "12"]),
        ([0.5], TypeError, ["float64", "indices"]),
        (3, TypeError, ["()", "indices"]),
        ("all", TypeError, ["rows", "indices"]),
        (None, TypeError, ["rows", "indices"]),
        ([[0]], TypeError, ["(1, 1)", "indices"]),
    ],
)
def test_invalid_batches_are_rejected(rows, kind, words):
    ob = Objective(MODEL, X, LABELS)
    with warnings.catch_warnings(), pytest.raises(kind) as caught:
        warnings.simplefilter("error")
        ob.batch(rows)
    assert all(word in assert_short_message(caught.value) for word in words), caught.value
    assert ob.batch([0, 1]).n_samples == 2


def test_other_precisions_are_rejected():
    ob = Objective(MODEL, X, LABELS)
    assert_raises(lambda: ob.astype("float16"), ValueError, "float16", "float32")
    assert_raises(lambda: ob.hessian(THETA).astype("float16"), ValueError, "float16", "float32")
    assert_raises(lambda: ob.hessian(THETA).astype("number"), ValueError, "'number'", "float32")
