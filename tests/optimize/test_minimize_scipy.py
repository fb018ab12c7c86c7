"""`minimize` beside SciPy's: the same doors, and what each says of a saddle."""

import warnings

import numpy as np
import pytest
import scipy.optimize

from fastcurv.optimize.minimize import minimize
from fastcurv.optimize.scipy import newton_cg, saddle_free_newton, trust_region
from fastcurv.testing import lecture_toy


def test_scipy_says_success_on_a_saddle_and_we_do_not():
    ob = lecture_toy()
    fun = lambda x: (ob.value(x), ob.gradient(x))  # noqa: E731
    hessp = lambda x, p: ob.hessian(x) @ p  # noqa: E731
    theirs = scipy.optimize.minimize(fun, np.zeros(2), jac=True, hessp=hessp, method="newton-cg")
    assert theirs.success and not theirs.x.any()
    for method in (newton_cg, trust_region, saddle_free_newton):
        ours = scipy.optimize.minimize(fun, np.zeros(2), jac=True, hessp=hessp, method=method)
        assert ours.fun <= 1e-12 and ours.success == (ours.kind == "minimum")
        assert ours.success or (ours.stopped == "degenerate" and "no descent" in ours.message)
    stuck = minimize(ob, np.zeros(2), "newton")
    assert not stuck.success and stuck.kind == "saddle"


def test_scipy_passes_its_options_and_callback_through():
    seen = []
    found = scipy.optimize.minimize(
        scipy.optimize.rosen,
        np.full(4, 2.0),
        jac=scipy.optimize.rosen_der,
        hess=scipy.optimize.rosen_hess,
        tol=1e-9,
        method=trust_region,
        callback=lambda xk: seen.append(xk),
        options={"maxiter": 500, "radius": 0.5},
    )
    assert found.success and np.linalg.norm(found.jac) <= 1e-9 and len(seen) == found.nit
    with pytest.raises(ValueError, match="hessp"):
        scipy.optimize.minimize(
            scipy.optimize.rosen, np.zeros(2), jac=scipy.optimize.rosen_der, method=newton_cg
        )
    with pytest.raises(ValueError, match="bounds"):
        scipy.optimize.minimize(
            scipy.optimize.rosen,
            np.zeros(2),
            jac=scipy.optimize.rosen_der,
            hess=scipy.optimize.rosen_hess,
            bounds=[(0, 1)] * 2,
            method=newton_cg,
        )


def test_scipys_own_name_of_the_tolerance_is_no_old_one():
    problem = {"jac": scipy.optimize.rosen_der, "hess": scipy.optimize.rosen_hess}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scipy.optimize.minimize(
            scipy.optimize.rosen,
            np.full(3, 2.0),
            method=trust_region,
            options={"gtol": 1e-7, "maxiter": 3},
            **problem,
        )
    assert found.stopped == "max_iter" and "above gradient_tol = 1e-07" in found.message
    assert found.message.startswith("Ended by max_iter;")


@pytest.mark.parametrize("x0", [np.ones(2) * 1j, ["a", "b"]])
def test_a_start_that_is_not_real_is_refused_by_name(x0):
    how = {"jac": scipy.optimize.rosen_der, "hess": scipy.optimize.rosen_hess}
    with pytest.raises((TypeError, ValueError), match="x0"):
        scipy.optimize.minimize(scipy.optimize.rosen, x0, method=trust_region, **how)
