"""Evaluation of the loss at the trial points of a run."""
from libc.math cimport INFINITY, NAN, sqrt
from libc.string cimport memcmp


cdef class LossEvaluator:
    """The loss of a run at its current point, where products are computed, and at trial points.

    Parameters
    ----------
    here, there : Plan
        Plans with equal layouts for the current point and for trial points. No other object uses
        these plans during the run.
    spare : list of Plan or None
        Pool of plans, to which both plans are returned when this object is deleted.
    most : int
        Maximum number of plans in the pool.
    """
    cdef Plan here, there
    cdef object at_here, at_there  # memory for theta of each plan
    cdef readonly FastProduct times  # products at the current point
    cdef readonly bint finite   # True if the last trial point is finite
    cdef list spare
    cdef Py_ssize_t most

    def __init__(self, Plan here, Plan there, list spare, Py_ssize_t most):
        self.here, self.there, self.spare, self.most = here, there, spare, most
        self.at_here, self.at_there = np.empty(here.P.n, here.dtype), np.empty(here.P.n, here.dtype)
        self.times = FastProduct(here, "hessian", True)
        here.unbind()
        there.unbind()

    def __del__(self):
        return_to_pool(self.here, self.spare, self.most)
        return_to_pool(self.there, self.spare, self.most)

    def set_operator_kind(self, str kind):
        """Set the operator of later products to `kind`, a key of `PRODUCT_KINDS`."""
        self.times.kind = PRODUCT_KINDS[kind]

    cdef char *checked_address(self, theta) except NULL:
        """Return the address of theta's first element. Raise ValueError unless theta is a
        contiguous vector (n,) of the plans' dtype.
        """
        cdef char *start = vector_address(theta, self.here.P.n, self.here.dtype, False)
        if start == NULL:
            raise ValueError(
                f"theta must be an array of shape ({self.here.P.n},) and dtype {self.here.dtype}, "
                f"got {theta!r}."
            )
        return start

    cdef bint is_bound_to(self, Plan plan, char *theta) except -1:
        """Return True if `plan` is bound to theta."""
        cdef size_t size = plan.P.n * plan.P.K.real_bytes
        return plan.theta is not None and memcmp(pointer(plan.theta), theta, size) == 0

    def trial_loss(self, theta):
        """Return the loss at the trial point theta, or infinity if theta is not finite."""
        return self.trial_value(self.checked_address(theta))

    cdef double trial_value(self, char *theta) except? -1:
        """Return the loss at the trial point theta, or infinity if theta is not finite."""
        cdef Plan plan = self.there
        self.finite = True
        if not self.is_bound_to(plan, theta):
            plan.unbind()
            self.finite = plan.set_point(self.at_there, theta, False, True)
        return plan.value if self.finite else INFINITY

    cdef int commit_trial(self) except -1:
        """Make the trial point the current point of the run."""
        self.there.prepare_products()
        self.there.compute_gradient()
        self.here, self.there = self.there, self.here
        self.at_here, self.at_there = self.at_there, self.at_here
        self.times.plan = self.here
        return 0

    def move_to(self, theta):
        """Make theta the current point. Return its loss, gradient and gradient norm, or an infinite
        loss and NaN if theta is not finite. The gradient array is not reused while the caller
        refers to it.
        """
        cdef char *start = self.checked_address(theta)
        cdef Py_ssize_t n = self.here.P.n
        cdef double square
        cdef char *g
        if not self.is_bound_to(self.here, start):
            self.trial_value(start)
            if not self.finite:
                self.here.unbind()
                return INFINITY, np.full(n, np.nan, self.here.dtype), NAN
            self.commit_trial()
        gradient = self.here.gradient
        square = inner_product(gradient, gradient)
        if not 1e-30 < square < 1e30:
            g = pointer(gradient)
            if self.here.P.K.real_bytes == 8:
                return self.here.value, gradient, safe_norm(n, <double *>g)
            return self.here.value, gradient, safe_norm(n, <float *>g)
        return self.here.value, gradient, sqrt(square)
