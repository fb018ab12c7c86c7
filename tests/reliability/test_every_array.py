"""Array arguments of every public function: masked, complex, foreign and scalar arrays are used as
they are, or rejected with a short error.
"""

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.certify import rounding_bound

RNG = np.random.default_rng(0)
N, D, K = 24, 4, 3
X, LABELS, WEIGHT = RNG.standard_normal((N, D)), np.arange(N) % K, 0.5 + RNG.random(N)
MODEL, TANH = fc.MLP([D, 3, K]), fc.MLP([D, 3, K], "tanh")
OB, THETA = fc.Objective(MODEL, X, LABELS, l2=0.125), MODEL.init(rng=0)
v, V = RNG.standard_normal(len(THETA)), RNG.standard_normal((len(THETA), 2))
H, ORDER = OB.hessian(THETA), np.array([2, 0, 1])
A = RNG.standard_normal((10, 10))
A = A + A.T


def gradient(X, y, weight):
    return fc.Objective(MODEL, X, y, sample_weight=weight).gradient(THETA)


def streamed(X, y, weight):
    ob = fc.StreamedObjective(MODEL, X, y, sample_weight=weight, block_rows=10)
    return ob.gradient(THETA)


def minimized(theta):
    return fc.minimize(OB, theta, "newton-cg", max_iter=2, verdict=False).x


CALLS = {
    "Objective": (gradient, X, LABELS, WEIGHT),
    "StreamedObjective": (streamed, X, LABELS, WEIGHT),
    "value": (OB.value, THETA),
    "hessp": (OB.hessp, THETA, v),
    "hessian": (lambda theta: OB.hessian(theta).gradient, THETA),
    "product": (H.product, v),
    "quadratic_form": (H.quadratic_form, V),
    "rounding_bound": (lambda v: rounding_bound(H, v), v),
    "restrict": (lambda i: H.restrict(indices=i).to_dense(), ORDER),
    "layers": (lambda i: H.restrict(layers=i).shape[0], np.array([0])),
    "batch": (lambda rows: OB.batch(rows).value(THETA), ORDER),
    "outputs": (MODEL.predict, THETA, X),
    "preactivations": (lambda *given: MODEL.preactivations(*given)[1], THETA, X),
    "input_hessian": (MODEL.input_hessian, THETA, X, np.ones(K) + X[:, :K]),
    "eigsh": (lambda A, v0: fc.eigsh(A, 2, v0=v0, rng=0).values, A, v[:10]),
    "eigvalsh": (lambda A: np.asarray(fc.eigvalsh(A)), A),
    "inertia": (lambda A: fc.inertia(A).n_negative, A),
    "trace": (lambda A: fc.trace(A, 20, rng=0).estimate, A),
    "diagonal": (lambda A: np.asarray(fc.diagonal(A, 20, rng=0).estimate), A),
    "frobenius_norm": (lambda A: fc.frobenius_norm(A, 20, rng=0).estimate, A),
    "density": (lambda A: fc.spectral_density(A, n_probes=3, n_steps=5, rng=0).nodes, A),
    "newton_step": (lambda A, g: fc.newton_step(A, g, damping=50.0), A, v[:10]),
    "saddle_free_newton_step": (fc.saddle_free_newton_step, A, v[:10]),
    "classify": (lambda theta: fc.classify(OB, theta, rng=0).gradient_norm, THETA),
    "minimize": (minimized, THETA),
    "find": (lambda theta: fc.find_critical_point(OB, theta, max_iter=2).x, THETA),
    "escape": (lambda theta, v: fc.escape(OB, theta, direction=v).x, 0 * THETA, v),
    "permute_hidden": (
        lambda *given: fc.structure.permute_hidden(MODEL, given[0], 0, given[1]),
        THETA,
        ORDER,
    ),
    "flip_tanh": (
        lambda *given: fc.structure.flip_tanh(TANH, given[0], 0, given[1]),
        THETA,
        ORDER[:2],
    ),
}
EACH = [(name, i) for name, (_, *given) in CALLS.items() for i in range(len(given))]
each = pytest.mark.parametrize("name, at", EACH, ids=[f"{name}-{i}" for name, i in EACH])


def called(call, given, at, other):
    return call(*given[:at], other, *given[at + 1 :])


@each
def test_masked_arrays_are_accepted_only_if_nothing_is_masked(name, at):
    call, *given = CALLS[name]
    check_masked(call, given, at)


def check_masked(call, given, at):
    plain, expected = given[at], call(*given)
    assert np.array_equal(called(call, given, at, np.ma.array(plain, mask=False)), expected)
    before, mask = plain.copy(), np.zeros(plain.shape, bool)
    mask.flat[-1] = True
    with pytest.raises(ValueError, match="must have no masked entries, got 1 of"):
        called(call, given, at, np.ma.array(plain, mask=mask))
    assert np.array_equal(plain, before)


@each
def test_tensors_and_data_frames_are_accepted_as_arrays(name, at):
    call, *given = CALLS[name]
    check_foreign(call, given, at)


def check_foreign(call, given, at):
    torch, pd = pytest.importorskip("torch"), pytest.importorskip("pandas")
    plain, expected = given[at], call(*given)
    framed = pd.DataFrame(plain) if plain.ndim == 2 else pd.Series(plain)
    for other in (torch.from_numpy(plain.copy()), framed):
        assert np.allclose(called(call, given, at, other), expected, rtol=1e-12, atol=0)
    if plain.dtype.kind == "f":
        with pytest.raises(ValueError, match="tensor without requires_grad"):
            called(call, given, at, torch.from_numpy(plain.copy()).requires_grad_())


@each
def test_errors_name_arguments_that_are_not_real_arrays(name, at):
    """If an argument is not an array of real numbers, the error uses the function's own name for
    the argument.
    """
    call, *given = CALLS[name]
    plain = given[at]
    odd = [plain.astype(complex), plain.astype(str), plain.astype("M8[s]"), np.float64(1.5), {1}]
    for other in [*odd, {"a": 1}, int, object(), plain[None, ..., None]]:
        with pytest.raises((TypeError, ValueError)) as caught:
            called(call, given, at, other)
        text = str(caught.value)
        assert "\n" not in text and 0 < len(text) < 300, text
        assert " must " in text, text
