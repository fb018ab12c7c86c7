"""What one verdict does once: the state at theta serves matrix, bounds, kinks and symmetries."""

from collections import Counter

import pytest

import fastcurv as fc
from fastcurv.certify import majorants, passes, precise


@pytest.fixture
def counted(monkeypatch):
    """Counts of states, walks of the majorants, gradients in extended precision, operators and
    values.
    """
    counts = Counter()

    def count(owner, name):
        made = getattr(owner, name)

        def call(*args, **options):
            counts[owner.__name__.rpartition(".")[2], name] += 1
            return made(*args, **options)

        monkeypatch.setattr(owner, name, call)

    count(passes.State, "__init__")
    count(majorants, "propagate")
    count(precise.Precise, "__init__")
    for name in ("hessian", "value", "gradient"):
        count(fc.Objective, name)
    return counts


@pytest.mark.parametrize("sizes", [(4, 6, 3), (12, 20, 12, 3)])
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_a_certified_verdict_makes_one_state(sizes, activation, counted, rng):
    X, y = rng.standard_normal((60, sizes[0])), rng.integers(3, size=60)
    ob = fc.Objective(fc.MLP(list(sizes), activation), X, y, "cross_entropy", l2=1e-2)
    theta = fc.minimize(ob, ob.model.init(seed=0), "newton-cg", max_iter=80).x
    again = fc.Objective(ob.model, X, y, "cross_entropy", l2=1e-2)
    counted.clear()
    said = fc.classify(again, theta)
    assert said.kind == "minimum" and said.certified
    assert counted == {
        ("State", "__init__"): 1,
        ("majorants", "propagate"): 1,
        ("Precise", "__init__"): 1,
        ("Objective", "hessian"): 1,
        # first by products alone, whether theta is far from rest; of a state that is held
        ("Objective", "value"): 1 + (again.n_params > 256),
    }
