"""A run with `verdict=False` names a saddle as the kind of its final point only if that is
proved.
"""

import numpy as np

import fastcurv as fc

from .. import nets


def test_a_run_without_a_verdict_names_a_saddle_that_is_proved():
    toy = fc.Objective(fc.MLP([1, 1, 1], "identity", bias=False), [[1.0]], [1.0], loss="mse")
    X = np.random.default_rng(0).standard_normal((30, 2))
    product = fc.Objective(fc.MLP([2, 3, 1], "tanh"), X, X[:, 0] * X[:, 1], loss="mse", l2=1e-3)
    for ob in (toy, product, product.astype("float32")):
        for method in ("newton", "trust-region", "lm"):
            run = fc.minimize(ob, np.zeros(ob.n_params), method, verdict=False)
            if run.stopped != "critical":
                continue
            judged = fc.classify(ob, run.x)
            assert (run.kind == "saddle") == (judged.kind == "saddle"), (ob, method)
            assert not run.success and run.report is None
            assert run.kind is None or run.notes[-1].key == "proved_saddle"
    run = fc.minimize(toy, np.zeros(2), "newton", verdict=False)
    assert (run.kind, run.stopped, run.success) == ("saddle", "critical", False)


def test_other_points_without_a_verdict_have_no_kind():
    net = nets.draw(4, [3, 4, 1], "tanh", N=40, l2=0.05)
    run = fc.minimize(net.ob, net.theta, verdict=False)
    assert (run.stopped, run.kind, run.success) == ("critical", None, False)

    class Other(fc.Objective):
        """A network objective that overrides the loss by adding 1, so that the engine's loss is not
        its own.
        """

        def value(self, theta):
            return super().value(theta) + 1.0

        def value_and_gradient(self, theta):
            value, gradient = super().value_and_gradient(theta)
            return value + 1.0, gradient

    other = Other(fc.MLP([1, 1, 1], "identity", bias=False), [[1.0]], [1.0], loss="mse")
    assert fc.minimize(other, np.zeros(2), "newton", verdict=False).kind is None
