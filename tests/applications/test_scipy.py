"""fastcurv's methods called through `scipy.optimize.minimize`, compared with SciPy's own
methods.
"""

import warnings

import numpy as np
import pytest
from scipy.optimize import minimize as by_scipy
from scipy.optimize import rosen, rosen_der, rosen_hess

import fastcurv as fc
from fastcurv.applications.scipy import newton_cg, saddle_free_newton, trust_region
from fastcurv.optimize.minimize import minimize
from fastcurv.testing import LinearAutoencoder, lecture_toy

DERIVATIVES = {"jac": rosen_der, "hess": rosen_hess}


def test_scipy_reports_success_on_a_saddle_and_minimize_does_not():
    ob = lecture_toy()
    fun = lambda x: (ob.value(x), ob.gradient(x))  # noqa: E731
    hessp = lambda x, p: ob.hessian(x) @ p  # noqa: E731
    theirs = by_scipy(fun, np.zeros(2), jac=True, hessp=hessp, method="newton-cg")
    assert theirs.success and not theirs.x.any()
    for method in (newton_cg, trust_region, saddle_free_newton):
        ours = by_scipy(fun, np.zeros(2), jac=True, hessp=hessp, method=method)
        assert ours.fun <= 1e-12 and ours.success == (ours.kind == "minimum")
        assert ours.success or (
            ours.stopped == "degenerate" and ours.notes[-1].key.startswith("no_lower_point")
        )
    stuck = minimize(ob, np.zeros(2), "newton")
    assert not stuck.success and stuck.kind == "saddle"


def test_scipy_minimize_accepts_objective_and_method_directly():
    net = LinearAutoencoder([4.0, 2.0, 1.0], 1, rng=0)
    ob, saddle = net.objective, net.case({2}).theta
    found = by_scipy(ob.value_and_gradient, saddle, jac=True, hessp=ob.hessp, method=newton_cg)
    assert found.fun == pytest.approx(net.case({1}).value, rel=1e-8)
    assert found.stopped == "degenerate"  # a function states no symmetries
    assert fc.classify(ob, found.x).kind == "minimum"


def test_scipy_passes_its_options_and_callback_through():
    seen, how = [], {"maxiter": 500, "radius": 0.5}
    found = by_scipy(
        rosen, np.full(4, 2.0), tol=1e-9, method=trust_region, options=how, **DERIVATIVES,
        callback=lambda xk: seen.append(xk),
    )  # fmt: skip
    assert found.success and np.linalg.norm(found.jac) <= 1e-9 and len(seen) == found.nit
    with pytest.raises(ValueError, match="hessp"):
        by_scipy(rosen, np.zeros(2), jac=rosen_der, method=newton_cg)
    with pytest.raises(ValueError, match="jac must be a function"):
        by_scipy(rosen, np.ones(3), hess=rosen_hess, method=newton_cg)
    with pytest.raises(ValueError, match="bounds"):
        by_scipy(rosen, np.zeros(2), bounds=[(0, 1)] * 2, method=newton_cg, **DERIVATIVES)


def test_scipys_callbacks_end_a_run():
    seen = []

    def third(intermediate_result):
        seen.append(intermediate_result.fun)
        if len(seen) == 3:
            raise StopIteration

    found = by_scipy(rosen, np.full(4, 2.0), method=trust_region, callback=third, **DERIVATIVES)
    assert len(seen) == 3 == found.nit and not found.success and seen == sorted(seen)[::-1]


def test_scipys_name_of_the_tolerance_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        how = {"gtol": 1e-7, "maxiter": 3}
        found = by_scipy(rosen, np.full(3, 2.0), method=trust_region, options=how, **DERIVATIVES)
    assert found.stopped == "max_iter" and found.notes[1].numbers["gradient_tol"] == 1e-7
    assert found.report is None and "classify" not in found.message  # there is no objective to pass


@pytest.mark.parametrize("x0", [np.ones(2) * 1j, ["a", "b"]])
def test_errors_name_a_start_that_is_not_real(x0):
    with pytest.raises((TypeError, ValueError), match="x0"):
        by_scipy(rosen, x0, method=trust_region, **DERIVATIVES)


@pytest.mark.parametrize("method", [trust_region, newton_cg, saddle_free_newton])
@pytest.mark.parametrize("args", [(2.0,), 2.0, (2.0, 0.5)])
def test_further_arguments_reach_the_function(method, args):
    """`args` are passed to the function and its derivatives, as a tuple or, as in SciPy, as a
    single argument, and may be absent.
    """
    fun = lambda x, centre=0.0, size=1.0: size * float((x - centre) @ (x - centre))  # noqa: E731
    how = {
        "jac": lambda x, centre=0.0, size=1.0: 2 * size * (x - centre),
        "hess": lambda x, centre=0.0, size=1.0: 2 * size * np.eye(3),
    }
    assert np.abs(method(fun, np.ones(3), args=args, **how).x - 2).max() < 1e-6
    assert np.abs(method(fun, np.ones(3), **how).x).max() < 1e-6
