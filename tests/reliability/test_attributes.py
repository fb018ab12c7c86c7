"""Public attributes are read-only, or assigning them changes all that depends on them."""

import copy
import inspect
import pickle
import warnings
from importlib import import_module
from pkgutil import iter_modules

import numpy as np
import pytest
from scipy.sparse import csr_matrix

import fastcurv as fc
from fastcurv.common.read_only import FrozenRecord, ReadOnlyMixin
from fastcurv.network.rows import RowSource

# attributes on which nothing else depends: counters, and the figures of the last plot
COUNTERS = {"n_products", "n_passes", "n_rows_read"}
DRAWN = {"ax_", "figure_"}
# classes whose instances users do not hold: an error, a base class, the workspace of a proof
OTHERS = {"IndefiniteHessianWarning", "ErrorPass"}


def parabola(z):
    return z * z / 2, z, np.ones_like(z)


def square(z, y):
    r = z - y
    return (r * r).sum(axis=1) / 2, r, np.ones_like(r)


class Rows(RowSource):
    """A source that returns the rows of two arrays in blocks."""

    n_rows = 30

    def __init__(self, X, y):
        self.X, self.y = X, y

    def blocks(self, size):
        for start in range(0, 30, size):
            yield self.X[start : start + size], self.y[start : start + size], None


def objectives():
    """Return a list of objectives of every kind, each with its own arrays."""
    rng = np.random.default_rng(0)
    X, y, weight = rng.standard_normal((30, 6)), rng.standard_normal((30, 2)), rng.random(30)
    own, model = fc.Loss(square, lower_bound=0.0), fc.MLP([6, 4, 2])
    phi = fc.Activation(parabola)
    how = {"loss": "mse", "l2": 0.1}
    dense = fc.Objective(model, X.copy(), y.copy(), **how)
    return [
        dense,
        fc.Objective(model, X.copy(), y.copy(), sample_weight=weight, **how),
        fc.Objective(model, X.copy(), y.copy(), memory=10**6, **how),
        fc.Objective(model, X.copy(), np.arange(30) % 2, l2=0.1, l2_biases=False),
        fc.Objective(fc.MLP([6, 4, 2], phi), X.copy(), y.copy(), own, l2=0.1),
        fc.Objective(model, X.copy(), y.copy(), fc.Loss(square), l2=0.1),
        fc.Objective(fc.MLP([6, 4, 2], batch_norm=True), X.copy(), y.copy(), **how),
        fc.Objective(model, csr_matrix(X * (X > 0)), y.copy(), **how),
        fc.StreamedObjective(model, X.copy(), y.copy(), block_rows=16, **how),
        fc.StreamedObjective(model, Rows(X, y), block_rows=16, **how),
        dense.batch(slice(3, 20)),
        next(dense.batches(8, np.random.default_rng(0))),
        dense.astype("float32"),
    ]


def operators(ob):
    """Yield one operator of each kind that the objective `ob` provides."""
    theta = ob.model.init(rng=0) / 4
    H, G, J = ob.hessian(theta), ob.ggn(theta), ob.jacobian(theta)
    yield from (H, G, J, J.T, H.restrict(layers=[1]), H.shift(0.5))


def results(ob):
    """Yield results of every kind, computed from an objective and its Hessian."""
    theta = ob.model.init(rng=0) / 4
    run = fc.minimize(ob, theta, rng=0)
    H, few = ob.hessian(run.x), ob.batch(slice(0, 2)).ggn(theta)
    density = fc.spectral_density(H)
    yield from (fc.classify(ob, run.x), fc.classify(ob, theta), run.report)
    yield from (fc.eigsh(H, k=2), fc.eigsh(few, k=2))
    yield fc.spectrum.Tracker(ob)
    yield from (density, fc.inertia(H), fc.diagonal(H), fc.trace(H))
    yield from (fc.optimize.EarlyStopping(patience=2), fc.optimize.Checkpoint())
    yield fc.testing.PrescribedSpectrum([1.0, 2.0])
    yield fc.testing.QuadraticObjective(np.eye(2))
    yield fc.testing.FunctionObjective(1, np.sum, np.ones_like, np.diag)
    yield (auto := fc.testing.LinearAutoencoder([2.0, 1.0], 1))
    yield auto.cases()[0]


@pytest.fixture(scope="module")
def objects():
    """Return all objects that can be reached from objectives, operators and results through public
    attributes.
    """
    waiting = objectives()
    waiting += [pickle.loads(pickle.dumps(ob)) for ob in waiting]
    waiting += [op for ob in waiting for op in operators(ob)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        waiting += results(objectives()[0])
    return reachable(waiting)


def reachable(waiting):
    found = {}
    while waiting:
        x = waiting.pop()
        if id(x) in found:
            continue
        found[id(x)] = x
        for name in public(x):
            part = getattr(x, name, None)
            values = [*part] if isinstance(part, (list, tuple)) else [part]
            waiting += [one for one in values if isinstance(one, (ReadOnlyMixin, FrozenRecord))]
    return list(found.values())


def public(x):
    return [name for name in dir(x) if not name.startswith("_")]


def test_attribute_tests_cover_every_public_class(objects):
    """Every class of the core that the package and its subpackages export has an instance among the
    tested objects.
    """
    exported = {one for one in public_classes() if "applications" not in one.__module__}
    assert len(exported) >= 10
    assert exported <= {type(x) for x in objects}


def public_classes():
    names = [m.name for m in iter_modules(fc.__path__) if m.ispkg and m.name[0] != "_"]
    subpackages = [fc, *(import_module(f"fastcurv.{name}") for name in names)]
    return {
        part
        for subpackage in subpackages
        for name in getattr(subpackage, "__all__", ())
        if inspect.isclass(part := getattr(subpackage, name)) and name not in OTHERS
    }


def test_every_public_attribute_is_read_only_with_a_message(objects):
    """Assigning to a public attribute raises an error with a message, except for counters."""
    wrong, refused = assigned_attributes(objects)
    assert not wrong and refused > 1000, (wrong, refused)


def assigned_attributes(objects):
    """Return the attributes that could be assigned, and the number of those that could not."""
    wrong, refused = set(), 0
    for x in objects:
        for name in public(x):
            before = getattr(x, name, None)
            try:
                setattr(x, name, 7 if name in COUNTERS else object())
            except AttributeError as error:
                refused += 1
                reasons = (f"{name} is read-only. ", "cannot assign to field", "has no setter")
                if not any(reason in str(error) for reason in reasons):
                    wrong.add((type(x).__name__, name, str(error)))
                continue
            if name in vars(x):
                delattr(x, name)
            if name in COUNTERS:
                setattr(x, name, before)
            elif name not in DRAWN or not isinstance(x, ReadOnlyMixin):
                wrong.add((type(x).__name__, name, "assigned"))
    return wrong, refused


def test_public_arrays_are_read_only(objects):
    """Public arrays cannot be written to, unless each access returns a copy."""
    wrong, seen = writable_arrays(objects)
    assert not wrong and seen > 100, (wrong, seen)


def writable_arrays(objects):
    """Return the attributes whose arrays can be written to, and the number of all arrays."""
    wrong, seen = set(), 0
    for x in objects:
        for name in public(x):
            for part in arrays_of(getattr(x, name, None)):
                seen += 1
                again = [*arrays_of(getattr(x, name))]
                if part.flags.writeable and any(np.shares_memory(part, one) for one in again):
                    wrong.add((type(x).__name__, name))
    return wrong, seen


def arrays_of(x):
    """Return a list of the arrays in the value x of an attribute, which may be a list or tuple."""
    held = x if isinstance(x, (list, tuple)) else [x]
    return [one for one in held if isinstance(one, np.ndarray)]


def test_attributes_of_subclasses_survive_copies():
    """Subclasses may set attributes with names that the library does not use, copies keep them, and
    the library's own attributes stay read-only.
    """

    ob = objectives()[0]
    mine = Scaled(ob.model, ob.X, ob.y, loss="mse")
    mine.factor, mine.extra = 3.0, [1]
    theta = ob.model.init(rng=0)
    for other in (mine, copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
        assert other.value(theta) == 3 * fc.Objective.value(other, theta) and other.extra == [1]
        other.extra = other.factor = 0.0
        with pytest.raises(AttributeError, match="read-only"):
            other.l2 = 1.0


class Scaled(fc.Objective):
    """An objective with the loss multiplied by a factor, which is an attribute of its own."""

    factor = 2.0

    def value(self, theta):
        return self.factor * super().value(theta)
