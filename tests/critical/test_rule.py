"""The rule about proofs: they are given for objects whose exact class is one of the library's, and
for objects whose own class body states them. Nothing is inherited or forwarded, and results belong
to the loss that an object has, not to one that it replaces.
"""

import copy
import functools
import pickle
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest

import fastcurv as fc
from fastcurv.certify import gradient_bound, rounding_bound
from fastcurv.certify.bounds import assembled
from fastcurv.certify.certificates import Certificates
from fastcurv.common import protocols
from fastcurv.common.checks import check_symmetric_operator
from fastcurv.common.objectives import (
    cast_to_float64,
    certificate_method,
    gradient_error_bound_at,
    has_consistent_hessian,
    why_unproved,
)
from fastcurv.common.protocols import (
    OPTIONAL_OPERATOR_METHODS,
    PRODUCT_METHODS,
    Certificate,
    capability,
    missing_bound_reason,
    registered,
)
from fastcurv.critical.evidence import curvature_floor, third_bound
from fastcurv.network.engine_steps import engine_steps_of
from fastcurv.testing import FunctionObjective, QuadraticObjective

from .. import nets

X = np.linspace(-1, 1, 20)[:, None]
GIVEN = fc.MLP([1, 3, 1]), X, np.sin(2 * X), "mse", 1e-2
INNER = fc.Objective(*GIVEN)
ZERO = np.zeros(INNER.n_params)
PROOFS = ("third_bound", "precise_gradient", "orbits", "curvature_floor", "loss_lower_bound")
STATED = {"certificates": fc.Objective.certificates}


def subclass(**body):
    return type("Sub", (fc.Objective,), body)


def wrapper(**body):
    return type("Around", (nets.Around,), body)


def shifted(name):
    """Return a method that calls the method `name` of the wrapped or inherited objective."""
    return lambda self, *given: getattr(INNER, name)(*given)


class Slotted(fc.Objective):
    __slots__ = ("extra",)


class Annotated(fc.Objective):
    certificates: object


class Dispatching(fc.Objective):
    def __getattribute__(self, name):
        return object.__getattribute__(self, name)


# Objects with a replaced, wrapped or forwarded loss, none of which states a proof in its own class.
UNPROVED = {
    "subclass": subclass()(*GIVEN),
    "slotted subclass": Slotted(*GIVEN),
    "annotated subclass": Annotated(*GIVEN),
    "subclass with __getattribute__": Dispatching(*GIVEN),
    "subclass of a stating subclass": type("Below", (subclass(**STATED),), {})(*GIVEN),
    "stating mixin": type("Mixed", (type("Mixin", (), STATED), fc.Objective), {})(*GIVEN),
    "streamed subclass": type("Streamed", (fc.StreamedObjective,), {})(*GIVEN),
    "copied subclass": copy.copy(subclass()(*GIVEN)),
    "batch of a subclass": subclass()(*GIVEN).batch(slice(0, 9)),
    "disowning subclass": subclass(certificates=None, rounding_bound=None)(*GIVEN),
    "wrapper": nets.Around(INNER),
    "wrapper of a wrapper": nets.Around(nets.Around(INNER)),
    "wrapper of a stating subclass": nets.Around(subclass(**STATED)(*GIVEN)),
    "disowning wrapper": wrapper(certificates=None, rounding_bound=None)(INNER),
    **{
        f"subclass with its own {name}": subclass(**{name: shifted(name)})(*GIVEN)
        for name in ("value", "gradient", "value_and_gradient", "hessian", "ggn", "jacobian")
    },
    **{
        f"subclass with a property {name}": subclass(
            **{name: property(lambda self, name=name: getattr(INNER, name))}
        )(*GIVEN)
        for name in ("X", "y", "l2", "model", "n_params", "n_samples", "dtype", "sample_weight")
    },
    **{
        f"wrapper with its own {name}": wrapper(**{name: shifted(name)})(INNER)
        for name in ("value", "gradient", "hessian")
    },
    "wrapped method": subclass(value=functools.wraps(fc.Objective.value)(shifted("value")))(*GIVEN),
}


@pytest.mark.parametrize("kind", UNPROVED)
def test_inherited_and_forwarded_facts_are_no_proofs(kind):
    ob = UNPROVED[kind]
    assert all(certificate_method(ob, name) is None for name in PROOFS)
    assert gradient_error_bound_at(ob, ZERO) is None and not has_consistent_hessian(ob)
    assert engine_steps_of(ob) is None and cast_to_float64(ob) is ob
    assert why_unproved(ob)
    assert not fc.classify(ob, ZERO).certified


def test_library_objects_and_stating_classes_have_proofs():
    kept = [INNER, copy.copy(INNER), copy.deepcopy(INNER), pickle.loads(pickle.dumps(INNER))]
    kept += [INNER.batch(slice(0, 9)), INNER.astype("float32")]
    bound = {"rounding_bound": gradient_bound}
    kept += [subclass(**STATED, **bound, gradient=shifted("gradient"))(*GIVEN)]
    delegated = property(lambda self: self.ob.certificates)
    kept += [
        wrapper(
            certificates=delegated, rounding_bound=lambda self, theta: rounding_bound(INNER, theta)
        )(INNER)
    ]
    for ob in kept:
        assert all(certificate_method(ob, name) is not None for name in PROOFS), ob
        assert gradient_error_bound_at(ob, ZERO) > 0 and not why_unproved(ob)
        assert has_consistent_hessian(ob)
    theta = fc.minimize(INNER, rng=0).x
    assert all(fc.classify(ob, theta).certified for ob in (kept[3], *kept[6:]))
    assert gradient_error_bound_at(subclass(**STATED)(*GIVEN), ZERO) is None


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

    class Stated(Quartic):
        def third_bound(self, theta, radius):
            return 24.0 * (abs(theta[0]) + radius)

    at = np.zeros(1)
    assert fc.classify(Square(), at).certified and fc.classify(Stated(), at).certified
    assert not fc.classify(Quartic(), at).certified
    assert not fc.classify(nets.Around(Square()), at).certified
    assigned = Quartic()
    assigned.third_bound = lambda theta, radius: 0.0
    assert not fc.classify(assigned, at).certified
    bowl = QuadraticObjective(np.eye(2))
    assert fc.classify(bowl, np.zeros(2)).certified
    assert not fc.classify(type("Sub", (QuadraticObjective,), {})(np.eye(2)), np.zeros(2)).certified
    saddle = FunctionObjective(
        1, lambda t: -(t[0] ** 2), lambda t: -2 * t, lambda t: -2 * np.eye(1), lambda t, r: 0.0
    )
    assert fc.classify(saddle, at).certified


def squares(z, y):
    r = z - y
    return (r * r).mean(axis=1), 2 * r / r.shape[1], np.full_like(r, 2 / r.shape[1])


def arctan(z):
    w = 1 / (1 + z * z)
    return np.arctan(z), w, -2 * z * w * w


class Equal:
    """A mixin of objects that compare equal to any other and have the same hash."""

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 1


class Tilted(Equal, fc.Loss):
    """A loss with another value and gradient than its function returns."""

    def __call__(self, z, y):
        value, first, second = super().__call__(z, y)
        return value + 0.7 * z.sum(axis=1) + 9, first + 0.7, second


class Steeper(Equal, fc.Activation):
    """An activation with other values than its function returns."""

    def __call__(self, z):
        a, p, q = super().__call__(z)
        return a + 0.4 * z, p + 0.4, q


class Skipping(fc.MLP):
    """A network with skip connections around all layers of equal widths."""

    @property
    def skips(self):
        return tuple(m == k for m, k in self.shapes[:-1])


class Name(Equal, str):
    """A name that compares equal to every name."""


class Offset(fc.Objective):
    """An objective with a term of its own."""

    def value(self, theta):
        return super().value(theta) + 0.3 * float(np.sum(theta))

    def value_and_gradient(self, theta):
        value, gradient = super().value_and_gradient(theta)
        return value + 0.3 * float(np.sum(theta)), gradient + 0.3


class Alike(Equal, fc.Objective):
    """An objective that compares equal to any other and states its proofs."""

    certificates = fc.Objective.certificates


class Doubled(np.ndarray):
    """Rows that read as twice their numbers."""

    def __getitem__(self, rows):
        return 2 * np.asarray(self)[rows]


class Tripled(float):
    """A number that multiplies as three times its value."""

    def __mul__(self, other):
        return 3 * float(self) * other

    __rmul__ = __mul__


def reclassed(ob):
    """Return the objective after it was made one of the class `Offset`."""
    ob.__class__ = Offset
    return ob


class Forwarding:
    """The documented wrapper: it states the proofs of the objective that it holds."""

    def __init__(self, ob):
        self.ob = ob

    certificates = property(lambda self: self.ob.certificates)

    def rounding_bound(self, theta):
        return rounding_bound(self.ob, theta)

    def __getattr__(self, name):
        return getattr(self.ob, name)


ROWS = np.random.default_rng(0).standard_normal((30, 3)), np.random.default_rng(1).random((30, 3))
RELU = fc.Objective(fc.MLP([3, 3, 3], "relu"), *ROWS, "mse", 0.05)


def plain(phi="tanh", loss="mse", model=fc.MLP, kind=fc.Objective, **options):
    return kind(model([3, 3, 3], phi, **options), *ROWS, loss, 0.05)


# For each object: an objective with a replaced part, and one at whose minimum proofs that ignore
# the replacement would hold.
REPLACED = {
    "model": lambda: (plain(model=Skipping), plain()),
    "model, relu": lambda: (plain("relu", model=Skipping), RELU),
    "model, cast": lambda: (plain(model=Skipping, dtype="float32").astype("float64"), plain()),
    "loss": lambda: (plain(loss=Tilted(squares, lower_bound=0.0)), plain(loss=fc.Loss(squares))),
    "built-in loss": lambda: (
        plain(loss=type("Own", (Tilted, type(fc.Loss.quantile())), {})(
            "own", fc.Loss.pseudo_huber().function, 0.0, third_bound=0.86
        )),
        plain(loss="pseudo_huber"),
    ),
    "activation": lambda: (plain(Steeper(arctan)), plain(fc.Activation(arctan))),
    "rows": lambda: (
        fc.Objective(fc.MLP([3, 3, 3]), ROWS[0].view(Doubled), ROWS[1], "mse", 0.05), plain()
    ),
    "l2": lambda: (fc.Objective(fc.MLP([3, 3, 3]), *ROWS, "mse", Tripled(0.05)), plain()),
    "targets of an equal objective": lambda: (
        Alike(fc.MLP([3, 3, 3]), ROWS[0], ROWS[1] + 0.2, "mse", 0.05),
        Alike(fc.MLP([3, 3, 3]), *ROWS, "mse", 0.05),
    ),
    "class of the object": lambda: (reclassed(plain()), plain()),
    "name of the loss": lambda: (plain(loss=Name("log_cosh")), plain()),
    "name of the activation": lambda: (plain(Name("sigmoid")), plain()),
    "objective": lambda: (plain(kind=Offset), plain()),
    "objective, cast": lambda: (plain(kind=Offset, dtype="float32").astype("float64"), plain()),
    "objective, batch": lambda: (plain(kind=Offset).batch(slice(None)), plain()),
    "objective, other l2": lambda: (plain(kind=Offset).with_l2(0.05), plain()),
    "objective, weights": lambda: (plain(kind=Offset).reweighted(np.ones(30)), plain()),
}  # fmt: skip


@pytest.mark.parametrize("part", REPLACED)
def test_no_certificate_contradicts_differences_of_the_value(part):
    """At minima of an objective and of what its replaced part was before, no certificate is given
    if the objective's own value decreases along a parameter.
    """
    ob, before = REPLACED[part]()
    fc.classify(before, before.model.init(rng=0))  # what is cached belongs to the other objective
    theta = fc.minimize(before, before.model.init(rng=0), rng=0).x
    for at in (theta, fc.minimize(ob, theta, rng=0).x, np.zeros(len(theta))):
        step = 1e-5
        lowest = min(
            ob.value(at + e) for e in step * np.vstack([np.eye(len(at)), -np.eye(len(at))])
        )
        # At a minimum, values differ from the lowest one by rounding errors only.
        assert lowest >= ob.value(at) - 1e-3 * step or not fc.classify(ob, at).certified


def test_a_wrapper_whose_objective_is_replaced_is_proved_anew():
    theta = fc.minimize(RELU, RELU.model.init(rng=0), rng=0).x
    ob = Forwarding(RELU)
    assert fc.classify(ob, theta).certified
    ob.ob = RELU.with_l2(0.07)
    assert not fc.classify(ob, theta).certified
    assert fc.classify(ob, fc.minimize(ob.ob, theta, rng=0).x).certified


def test_casts_of_subclasses_keep_their_loss():
    for one in (plain(kind=Offset, dtype="float32"), plain(model=Skipping, dtype="float32")):
        other = one.astype("float64")
        assert type(other) is type(one) and type(other.model) is type(one.model)
        theta = one.model.init(rng=0)
        assert other.value(theta) == pytest.approx(one.value(theta), rel=1e-5)


def test_user_defined_parts_state_why_nothing_is_proved():
    ob = fc.Objective(GIVEN[0], X, GIVEN[2], fc.Loss(squares), l2=1e-2)
    assert why_unproved(ob) == "Loss(squares) is user-defined"
    assert why_unproved(plain(model=Skipping)) == "the class Skipping of the model is user-defined"
    assert rounding_bound(ob, ZERO) is None and certificate_method(ob, "kinks") is not None
    H = ob.hessian(ZERO)
    for op in (H, H.shift(1.0), H.restrict(layers=[0])):
        assert missing_bound_reason(op) and rounding_bound(op, ZERO[: op.shape[0]]) is None
    assert assembled(H) is None
    assert why_unproved(object()) and why_unproved(INNER) == ""
    assert why_unproved(wrapper()(INNER)) == (
        "the class Around does not define certificates itself"
    )


def test_proofs_defined_by_an_objective_override_its_certificates():
    """Methods that a subclass or wrapper defines replace its certificates of the same name. An
    objective without either proves nothing.
    """

    class Floorless(fc.Objective):
        certificates = fc.Objective.certificates

        def curvature_floor(self, theta):
            return -np.inf

    class Bounded(nets.Around):
        certificates = property(lambda self: self.ob.certificates)
        kinks = None  # the wrapper has no certificate of this name

        def third_bound(self, theta, radius):
            return 7.0

    X, y = np.array([[1.0], [2.0]]), np.array([[1.0], [1.0]])
    plain, floorless = (
        kind(fc.MLP([1, 1]), X, y, loss="mse", l2=0.5) for kind in (fc.Objective, Floorless)
    )
    theta = np.ones(2)
    assert curvature_floor(plain, theta) > 0 and curvature_floor(floorless, theta) == -np.inf
    assert third_bound(plain, theta, 1.0) == 0 and third_bound(Bounded(plain), theta, 1.0) == 7.0
    assert curvature_floor(Bounded(plain), theta) == curvature_floor(plain, theta)
    assert certificate_method(Bounded(plain), "kinks", "nothing") == "nothing"
    bare = SimpleNamespace(n_params=2)
    assert (
        certificate_method(QuadraticObjective(np.eye(2)), "orbits") is None
        and third_bound(bare, theta, 1.0) == np.inf
    )


def test_every_certificate_that_is_used_exists():
    assert set(get_args(Certificate)) <= set(dir(Certificates))


# --- operators


def make_registered():
    """Return {class: constructor arguments} of the classes for which capabilities are entered."""
    H = INNER.hessian(ZERO)
    made = [INNER, H, H.restrict(layers=[0]), H.shift(2.0), INNER.jacobian(ZERO)]
    return {type(x): GIVEN if x is INNER else x.__reduce__()[1] for x in made}


def test_subclasses_have_the_capabilities_that_their_body_states():
    """A capability is entered for a class and not for its subclasses, for which a method in the
    body counts.
    """
    classes = make_registered()
    registered(fc.Objective, "rounding_bound")  # fills the table
    assert {kind for kind, _ in protocols._REGISTERED} == set(classes)
    for kind, name in protocols._REGISTERED:
        whole = kind(*classes[kind])
        inherited = type("Sub", (kind,), {})(*classes[kind])
        own = type("Sub", (kind,), {name: lambda self: "own"})(*classes[kind])
        if name != "certificates":  # a property of objectives, which calls the function
            assert callable(capability(whole, name))
            assert capability(own, name)() == "own"
        assert capability(inherited, name) is None, (kind, name)


def doubled(name):
    """Return ``{name: method}`` with a method that returns twice the product of the operator's
    matrix `A`.
    """
    return {name: lambda self, V, out=None: 2 * (self.A @ V)}


@pytest.mark.parametrize("name", PRODUCT_METHODS)
def test_eigenvalues_and_bounds_use_the_operators_own_products(name):
    """If a subclass or a wrapper replaces an operator's products, eigenvalues and bounds are those
    of the replaced products.
    """
    theta = INNER.model.init(rng=0)
    H, n = INNER.hessian(theta), INNER.n_params
    A = H.to_dense()
    kind = type("Doubled", (type(H),), {"A": A, **doubled(name)})
    around = type("Doubled", (nets.Around,), {"A": A, "shape": (n, n), **doubled(name)})
    own = kind(INNER, theta, "hessian")
    some = np.ix_([1, 4, 5], [1, 4, 5])
    for op, matrix in (
        (own, 2 * A),
        (around(H), 2 * A),
        (own.shift(0.5), 2 * A + 0.5 * np.eye(n)),
        (3 * own - H, 5 * A),
        (own.restrict(indices=[1, 4, 5]), 2 * A[some]),
    ):
        seen = check_symmetric_operator(op)
        for offer in OPTIONAL_OPERATOR_METHODS:
            assert not hasattr(seen, offer), offer
        exact = np.linalg.eigvalsh(matrix)
        assert np.allclose(fc.eigvalsh(op), exact, rtol=1e-9, atol=1e-12)
        assert np.allclose(fc.eigsh(op, 2, "LA", rng=0).values, exact[-2:], rtol=1e-8)
        assert fc.trace(op, 60, rng=0).estimate == pytest.approx(exact.sum(), rel=1e-6)
