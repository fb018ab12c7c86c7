"""The names and habits that users bring from SciPy: unpacking, which, rng, n_samples, maxiter."""

import numpy as np
import pytest
import scipy.sparse.linalg as sla

import fastcurv as fc

A = np.diag([-7.0, 1.0, 2.0, 3.0, 5.0])


def test_eigsh_is_called_as_in_scipy():
    w, V = fc.eigsh(A, 2, rng=0)
    theirs = np.sort(sla.eigsh(A, 2, v0=np.ones(5))[0])
    assert np.allclose(w, theirs) and np.allclose(A @ V, V * w), "the largest magnitudes"
    pairs = fc.eigsh(A, k=3, which="LA", seed=0)
    assert len(pairs) == 3 and np.array_equal(next(iter(pairs)), pairs.values)
    assert np.allclose(fc.spectrum.Krylov(A).eigsh(1).values, [-7])


@pytest.mark.parametrize(
    "ask",
    [
        lambda **how: fc.eigsh(A, 2, **how).vectors,
        lambda **how: fc.trace(A, 3, **how).estimate,
        lambda **how: fc.diagonal(A, 3, **how).estimate,
        lambda **how: fc.frobenius_norm(A, 3, **how).estimate,
        lambda **how: fc.spectral_density(A, 2, 3, **how).weights,
    ],
)
def test_rng_is_seed(ask):
    assert np.array_equal(ask(seed=3), ask(rng=3))
    assert np.array_equal(ask(rng=np.random.default_rng(3)), ask(seed=3))
    with pytest.raises(TypeError, match="seed and rng"):
        ask(seed=1, rng=1)
    with pytest.raises(TypeError, match="no argument 'colour'"):
        ask(colour=1)


def test_warnings_name_the_line_of_the_caller():
    ob = fc.Objective(fc.MLP([2, 3, 1]), np.eye(2), np.ones(2), loss="mse")
    theta = ob.model.init(seed=0)
    with pytest.warns(Warning) as caught:
        fc.newton_step(ob.hessian(theta), np.ones(ob.n_params), damping=0.0)
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize(
    "call, name",
    [
        (lambda: fc.eigsh(A, 1, maxiter=10), "max_products"),
        (lambda: fc.eigsh(A, 1, ncv=10), "max_basis"),
        (lambda: fc.trace(A, maxiter=10), "n_probes"),
        (lambda: fc.spectral_density(A, maxiter=10), "n_steps"),
        (lambda: fc.spectral_density(A, n_samples=10), "n_probes"),
        (lambda: fc.trace(A, n_samples=3), "n_probes"),
        (lambda: fc.diagonal(A, n_samples=3, n_probes=3), "n_probes"),
        (lambda: fc.frobenius_norm(A, n_samples=3), "n_probes"),
    ],
)
def test_names_of_others_are_answered_with_ours(call, name):
    with pytest.raises(TypeError, match=name):
        call()


def test_results_have_a_picture_of_themselves_in_a_notebook():
    """Well-formed, with the numbers in it and nothing that is not escaped."""
    from xml.etree import ElementTree

    for result in (
        fc.eigsh(A, 2, seed=0),
        fc.inertia(A),
        fc.trace(A),
        fc.spectral_density(A, 2, 3, seed=0),
        fc.classify(fc.testing.lecture_toy(), np.zeros(2)),
    ):
        text = "".join(ElementTree.fromstring(result._repr_html_()).itertext())
        assert any(c.isdigit() for c in text)
    assert "-7" in fc.eigsh(A, 2, seed=0)._repr_html_()


def test_eigenpairs_are_read_as_scipys_answer_is():
    pairs = fc.eigsh(A, 2, seed=0)
    values, vectors = pairs
    assert pairs[0] is values is pairs.values and pairs[1] is vectors is pairs.vectors
    with pytest.raises(IndexError):
        pairs[2]


def test_asymmetry_that_lanczos_sees_is_in_the_residuals_and_named(rng):
    """No product is symmetric: what is returned as certain allows for what was seen."""
    for noise in (1e-3, 1e-7):
        S = rng.standard_normal((60, 60))
        S = (S + S.T) / 8
        P = S + noise * rng.standard_normal((60, 60)) / 60**0.5
        truth = np.linalg.eigvalsh(S)
        op = sla.aslinearoperator(P)
        for pairs in (
            fc.eigsh(op, 4, "BE", tol=1e-10, seed=0),
            fc.spectrum.Krylov(op).eigsh(4, "BE"),
        ):
            off = np.abs(pairs.values[:, None] - truth).min(axis=1)
            assert (off <= pairs.residuals).all() and 0.1 * noise <= pairs.asymmetry <= 5 * noise
            assert not pairs.converged.any() and "asymmetry" in repr(pairs)
    assert fc.eigsh(sla.aslinearoperator(S), 4, "BE", seed=0).asymmetry == 0


def test_what_is_seen_at_a_glance():
    """The public names and no others; operators that say what they are, of what, and how large."""
    assert dir(fc) == sorted([*fc.__all__, "__version__"])
    X = np.random.default_rng(0).standard_normal((9, 2))
    ob = fc.Objective(fc.MLP([2, 3, 1]), X, X[:, 0], loss="mse", l2=0.5)
    theta = ob.model.init(seed=0)
    kinds = {"Hessian": ob.hessian, "GGN": ob.ggn, "Fisher": ob.empirical_fisher}
    for word, make in kinds.items():
        said = repr(make(theta))
        assert all(part in said for part in (word, "mse", "n=13")), said
    assert repr(ob.hessian(theta).shift(2.0)).startswith("<2 I + 13x13 Hessian of mse")
    for part in ("[2, 3, 1]", "N=9", "'mse'", "l2=0.5"):
        assert part in repr(ob)
