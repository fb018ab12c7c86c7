"""Callbacks that call the objective or operator that is calling them."""

PROGRAM = """
import numpy as np
import fastcurv as fc

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((40, 2)), rng.standard_normal((40, 1))
inside = lambda: None  # what callbacks do

def square(z, y):
    inside()
    r = z - y
    return (r * r).sum(axis=1), 2 * r, np.full_like(r, 2.0)

def parabola(z):
    inside()
    return z * z, 2 * z, np.full_like(z, 2.0)

def objectives():
    for phi in ("tanh", fc.Activation(parabola)):
        model = fc.MLP([2, 3, 1], phi)
        for loss in ("mse", fc.Loss(square)):
            yield fc.Objective(model, X, Y, loss)
            yield fc.Objective(model, X, Y, loss, memory=10**6)

def calls(ob, theta):
    H = ob.hessian(theta)
    return [
        lambda x: ob.value(x), lambda x: ob.gradient(x), lambda x: ob.hessp(x, x),
        lambda x: ob.hessian(x).value, lambda x: H @ x,
    ]
"""


def test_callbacks_that_call_their_own_objective_raise(python):
    """A callback that calls its own objective raises an error that mentions callbacks, and the
    objective stays usable.
    """
    python(
        PROGRAM
        + """
refused = 0
for ob in objectives():
    theta = ob.model.init(rng=0)
    for call in calls(ob, theta):
        asked = []
        def inside():
            if not asked:
                asked.append(1)
                call(theta)
        try:
            call(theta + 0.1)
        except (RuntimeError, ValueError) as error:
            assert "a callback (a loss, an activation, a source of rows)" in str(error), error
            assert "copy.copy()" in str(error)
            refused += 1
        inside = lambda: None
        assert np.isfinite(call(theta + 0.1)).all()
assert refused >= 6, refused
""",
    )
