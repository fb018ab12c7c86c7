"""Objectives or operators whose functions were replaced by subclasses, attributes or wrappers have
no proofs, and unchanged ones keep theirs.
"""

import copy
import functools
import pickle

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import fastcurv as fc
from fastcurv.common.checks import check_symmetric_operator
from fastcurv.common.objectives import (
    cast_to_float64,
    certificate_method,
    gradient_bound_method,
    has_consistent_hessian,
    why_unproved,
)
from fastcurv.common.protocols import (
    LOSS_AND_PRODUCT_METHODS,
    LOSS_METHODS,
    OBJECTIVE_DATA_ATTRIBUTES,
    OPTIONAL_OPERATOR_METHODS,
    PRODUCT_METHODS,
    missing_reason,
)
from fastcurv.testing import FunctionObjective, QuadraticObjective

from .. import nets

X = np.linspace(-1, 1, 20)[:, None]
GIVEN = fc.MLP([1, 3, 1]), X, np.sin(2 * X), "mse", 1e-2
PROOFS = ("third_bound", "precise_gradient", "orbits", "curvature_floor", "loss_lower_bound")


def claims_nothing(ob):
    """Return True if no function gives a proof for the objective and a reason is stated."""
    ways = [certificate_method(ob, name) for name in PROOFS]
    ways += [gradient_bound_method(ob), ob.certificates if isinstance(ob, fc.Objective) else None]
    return (
        all(way is None for way in ways)
        and bool(why_unproved(ob))
        and not has_consistent_hessian(ob)
    )


def claims_all(ob):
    ways = [certificate_method(ob, name) for name in PROOFS] + [gradient_bound_method(ob)]
    return (
        all(way is not None for way in ways) and not why_unproved(ob) and has_consistent_hessian(ob)
    )


def with_linear_term(name):
    """Return a function for the named method of an objective. The value and gradient are those of
    the loss plus a linear term, and other methods call the original.
    """

    def value(self, theta):
        return fc.Objective.value(self, theta) + float(theta.sum())

    def gradient(self, theta):
        return fc.Objective.gradient(self, theta) + 1

    def value_and_gradient(self, theta):
        f, g = fc.Objective.value_and_gradient(self, theta)
        return f + float(theta.sum()), g + 1

    def other(self, theta):
        return getattr(fc.Objective, name)(self, theta)

    return {"value": value, "gradient": gradient, "value_and_gradient": value_and_gradient}.get(
        name, other
    )


def test_unchanged_objectives_keep_their_proofs():
    class Named(fc.Objective):
        """A subclass whose additional functions do not replace those of the loss."""

        colour = "red"

        def __repr__(self):
            return "Named"

        def hessp(self, theta, v):
            return super().hessp(theta, v)

        def taylor(self, theta):
            return super().taylor(theta)

    ob = fc.Objective(*GIVEN)
    kept = [ob, copy.copy(ob), copy.deepcopy(ob), pickle.loads(pickle.dumps(ob)), Named(*GIVEN)]
    kept += [ob.batch(slice(0, 9)), ob.astype("float32"), nets.Around(ob)]
    kept += [nets.Around(nets.Around(ob)), fc.StreamedObjective(*GIVEN, block_rows=16)]
    for one in kept:
        assert claims_all(one), one
        assert one.rounding_bound(np.zeros(ob.n_params)) > 0
    theta = fc.minimize(ob, seed=0).x
    assert all(fc.classify(one, theta).certified for one in (kept[3], kept[4], kept[8]))


@pytest.mark.parametrize("name", LOSS_METHODS)
def test_replaced_functions_of_the_loss_disable_proofs(name):
    """If a subclass, an attribute or a wrapper replaces a method of the loss, even under the name
    and signature of the original, nothing is proved, also for copies.
    """
    function = with_linear_term(name)
    hidden = functools.wraps(getattr(fc.Objective, name))(lambda self, theta: function(self, theta))
    changed = [type("Sub", (fc.Objective,), {name: part})(*GIVEN) for part in (function, hidden)]
    changed.append(type("Below", (type(changed[0]),), {})(*GIVEN))
    mixin = type("Mixin", (), {name: function})
    changed.append(type("Mixed", (mixin, fc.Objective), {})(*GIVEN))
    changed.append(type("Streamed", (fc.StreamedObjective,), {name: function})(*GIVEN))
    changed.append(type("Property", (fc.Objective,), {name: property(lambda self: 0.0)})(*GIVEN))
    late = type("Late", (fc.Objective,), {})
    changed.append(late(*GIVEN))
    assert claims_all(changed[-1])
    setattr(late, name, function)  # replaced after proofs were requested
    if name != "jacobian":
        patched = fc.Objective(*GIVEN)
        setattr(patched, name, lambda theta: 0.0)
        changed += [patched, copy.copy(patched), patched.batch(slice(0, 9))]
    inner = fc.Objective(*GIVEN)
    around = type("Changed", (nets.Around,), {name: lambda self, theta: 0.0})
    changed += [around(inner), nets.Around(around(inner)), around(nets.Around(inner))]
    changed += [nets.Around(one) for one in changed[:3]]
    assigned = nets.Around(inner)
    setattr(assigned, name, lambda theta: 0.0)
    changed.append(assigned)
    for ob in changed:
        assert claims_nothing(ob), (type(ob).__name__, name)
        assert name in why_unproved(ob) or isinstance(ob, nets.Around)
        assert cast_to_float64(ob) is ob and missing_reason(ob, "engine_steps")


def test_replaced_loss_is_classified_without_certificate():
    inner = fc.Objective(*GIVEN)
    theta = fc.minimize(inner, seed=0).x
    parts = {name: with_linear_term(name) for name in ("value", "gradient", "value_and_gradient")}
    for ob in (type("Sub", (fc.Objective,), parts)(*GIVEN),):
        said = fc.classify(ob, theta)
        assert said.kind == "not_critical" and not said.certified
        assert "replaces value, so proofs about the original do not apply" in why_unproved(ob)
    for name in LOSS_METHODS:
        function = with_linear_term(name)
        ob = type("Sub", (fc.Objective,), {name: function})(*GIVEN)
        assert not fc.classify(ob, theta).certified, name

    class Bare:
        """An objective with another loss, whose Hessian is an operator of the wrapped objective."""

        n_params = inner.n_params

        def value(self, theta):
            return inner.value(theta) + 0.05 * float(theta.sum())

        def gradient(self, theta):
            return inner.gradient(theta) + 0.05

        def hessian(self, theta):
            return inner.hessian(theta)

        ggn = hessian

    for method in ("auto", "newton", "trust-region", "newton-cg", "lm", "l-bfgs"):
        found = fc.minimize(Bare(), theta, method, max_iter=20)
        assert found.fun == pytest.approx(Bare().value(found.x), rel=1e-12), method
        assert np.allclose(found.jac, Bare().gradient(found.x), rtol=1e-9, atol=1e-12), method
    said = fc.classify(Bare(), theta)
    assert said.kind == "not_critical"
    assert said.gradient_norm == pytest.approx(0.05 * theta.size**0.5, rel=1e-6)


@pytest.mark.parametrize("name", OBJECTIVE_DATA_ATTRIBUTES)
def test_replaced_data_of_proofs_disable_proofs(name):
    plain = fc.Objective(*GIVEN)
    if name == "__getattribute__":
        part = lambda self, other: object.__getattribute__(self, other)  # noqa: E731
    else:
        part = property(lambda self: getattr(plain, name))
    ob = type("Sub", (fc.Objective,), {name: part})(*GIVEN)
    assert claims_nothing(ob), name


def test_methods_replaced_on_the_class_objective_void_its_certificates(monkeypatch):
    ob = fc.Objective(*GIVEN)
    assert claims_all(ob)
    with monkeypatch.context() as patch:
        patch.setattr(fc.Objective, "value", lambda self, theta: 0.0)
        assert claims_nothing(ob)
    assert claims_all(ob)


def test_a_class_may_declare_an_unchanged_loss_but_not_for_its_subclasses():
    class Counted(fc.Objective):
        certificates = fc.Objective.certificates

        def gradient(self, theta):
            return super().gradient(theta)

    class Changed(Counted):
        def value(self, theta):
            return super().value(theta) + 1.0

    ob = Counted(*GIVEN)
    assert certificate_method(ob, "third_bound") is not None and ob.rounding_bound is None
    ob.value = lambda theta: 0.0
    assert claims_nothing(ob) and claims_nothing(Changed(*GIVEN))


def test_proofs_of_user_objectives_hold_for_their_own_class_only():
    class Square:
        n_params = 1

        def value(self, theta):
            return float(theta[0] ** 2)

        def gradient(self, theta):
            return 2 * theta

        def hessian(self, theta):
            return 2 * np.eye(1)

        def third_bound(self, theta, radius):
            return 0.0

    class Quartic(Square):
        def value(self, theta):
            return float(theta[0] ** 2 - theta[0] ** 4)

        def gradient(self, theta):
            return 2 * theta - 4 * theta**3

    class Said(Quartic):
        def third_bound(self, theta, radius):
            return 24.0 * (abs(theta[0]) + radius)

    class Template:
        """A class that states a bound on the third derivative but defines no loss, which derived
        classes add.
        """

        n_params, third_bound = 1, Square.third_bound

    class Filled(Template):
        value, gradient, hessian = Square.value, Square.gradient, Square.hessian

    at = np.zeros(1)
    assert fc.classify(Square(), at).certified and fc.classify(Said(), at).certified
    assert fc.classify(Filled(), at).certified and fc.classify(nets.Around(Square()), at).certified
    assert not fc.classify(Quartic(), at).certified
    assert "Quartic replaces value, so proofs" in why_unproved(Quartic())
    assigned = Square()
    assigned.gradient = lambda theta: 2 * theta
    assert not fc.classify(assigned, at).certified
    assigned.third_bound = lambda theta, radius: 0.0
    assert fc.classify(assigned, at).certified
    bowl = QuadraticObjective(np.eye(2))
    assert fc.classify(bowl, np.zeros(2)).certified
    for name in ("value", "gradient", "hessian"):
        sub = type("Sub", (QuadraticObjective,), {name: getattr(QuadraticObjective, name)})
        changed = type("Below", (sub,), {name: functools.partial(getattr(bowl, name))})
        assert not fc.classify(changed(np.eye(2)), np.zeros(2)).certified
    saddle = FunctionObjective(
        1, lambda t: -(t[0] ** 2), lambda t: -2 * t, lambda t: -2 * np.eye(1), lambda t, r: 0.0
    )
    assert fc.classify(saddle, at).certified


def test_losses_without_bounds_state_why():
    def squares(z, y):
        r = z - y
        return (r * r).sum(axis=1) / 2, r, np.ones_like(r)

    ob = fc.Objective(GIVEN[0], X, GIVEN[2], fc.Loss(squares), l2=1e-2)
    assert why_unproved(ob) == "Loss(squares) was given without third_bound and error_ulps"
    assert gradient_bound_method(ob) is None and certificate_method(ob, "kinks") is not None
    H = ob.hessian(np.zeros(ob.n_params))
    assert missing_reason(H, "rounding_bound") and not hasattr(H, "rounding_bound")
    assert why_unproved(object()) and why_unproved(fc.Objective(*GIVEN)) == ""


# --- operators


def doubled(name):
    """Return ``{name: method}`` with a method that returns twice the product of the operator's
    matrix `A`.
    """

    def matrix(self, V, out=None):
        return 2 * (self.A @ V)

    return {name: matrix}


@pytest.mark.parametrize("name", PRODUCT_METHODS)
def test_eigenvalues_and_bounds_use_the_operators_own_products(name):
    """If a subclass or a wrapper replaces an operator's products, eigenvalues and bounds are those
    of the replaced products.
    """
    ob = fc.Objective(*GIVEN)
    theta = ob.model.init(seed=0)
    H, n = ob.hessian(theta), ob.n_params
    A = H.to_dense()
    kind = type("Doubled", (type(H),), {"A": A, **doubled(name)})
    around = type("Doubled", (nets.Around,), {"A": A, "shape": (n, n), **doubled(name)})
    for op in (kind(ob, theta, "hessian"), around(H)):
        seen = check_symmetric_operator(op)
        for offer in OPTIONAL_OPERATOR_METHODS:
            assert not hasattr(seen, offer), offer
        exact = 2 * np.linalg.eigvalsh(A)
        assert np.allclose(fc.eigvalsh(op), exact, rtol=1e-9, atol=1e-12)
        assert np.allclose(fc.eigsh(op, 2, "LA", seed=0).values, exact[-2:], rtol=1e-8)
        assert fc.trace(op, 60, seed=0).estimate == pytest.approx(exact.sum(), rel=1e-6)
    assert check_symmetric_operator(H) is H
    for op in (aslinearoperator(A), H.shift(1.0), H.restrict(layers=[0]), 2 * H):
        assert check_symmetric_operator(op) is op


def test_own_bounds_of_an_operator_are_used_unless_products_are_replaced():
    class Diagonal(LinearOperator):
        def __init__(self, d):
            super().__init__(np.dtype(float), (len(d),) * 2)
            self.d = d

        def _matvec(self, v):
            return self.d * np.reshape(v, -1)

        def rounding_bound(self, v):
            return 1e-300

    class Other(Diagonal):
        def _matvec(self, v):
            return -self.d * np.reshape(v, -1)

    one, other = Diagonal(np.array([1.0, 2.0])), Other(np.array([1.0, 2.0]))
    assert check_symmetric_operator(one) is one and not missing_reason(one, "rounding_bound")
    assert not hasattr(check_symmetric_operator(other), "rounding_bound")
    assert np.allclose(fc.eigvalsh(other), [-2, -1]) and set(PRODUCT_METHODS) < set(
        LOSS_AND_PRODUCT_METHODS
    )
