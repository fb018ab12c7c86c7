"""Newton-type steps in Krylov subspaces, many per call, and evaluation of the loss at their points.

A subspace grows from the gradient at theta, and the step solves a small problem in it; see
krylov.pyx. Let rho be the ratio of the actual to the predicted decrease of the loss. The step is
accepted if rho > MIN_ACCEPT_RATIO; otherwise the problem is solved again in the same subspace. In
both cases rho determines the next parameter of the problem.
"""
from libc.math cimport INFINITY, fabs, fmax, fmin, isfinite, sqrt
from libc.string cimport memcmp

cdef enum:
    MAX_REJECTED_STEPS = 100  # maximum number of consecutive rejected steps; then the run ends
    # Consecutive steps with little decrease, although the model is accurate, that count as slow
    # progress.
    MAX_SLOW_STEPS = 3
# Minimum ratio of actual to predicted decrease of an accepted step.
cdef double MIN_ACCEPT_RATIO = 1e-4


cpdef double reduction_ratio(double old, double new, double predicted, double eps):
    """Return (old - new)/predicted, shifted towards 1 if both differences are within the rounding
    error of the values.

    A value L has an error of the order of ``10 eps |L|``. Without the shift, this error would cause
    the last steps of a converging run to be rejected (Conn, Gould and Toint, Trust-Region Methods,
    2000, section 17.4).
    """
    cdef double noise
    if not isfinite(new):
        return -INFINITY
    noise = 10 * eps * fmax(fabs(old), fabs(new))
    return (old - new + noise) / (predicted + noise) if predicted + noise > 0 else -INFINITY


cpdef double next_radius(double radius, double ratio, double length, bint bounded):
    """Return the trust radius after a trial step of the given length, whose actual decrease is
    `ratio` times the predicted one. `bounded` is True if the step was at the bound on its length.
    """
    if ratio < 0.25:
        return 0.25 * length
    return 2 * radius if ratio > 0.75 and bounded else radius


cdef double next_regularisation(
    Problem problem, double parameter, double ratio, double length, bint bounded, double size
):
    """Return the parameter of a small problem (radius, cubic weight or damping) after a trial step
    of the given length, whose actual decrease is `ratio` times the predicted one. `bounded` is True
    if the step was at the bound on its length, and `size` is the largest |eigenvalue| of the
    projection T.
    """
    if problem == TRUST_REGION:
        return next_radius(parameter, ratio, length, bounded)
    if problem == CUBIC:
        if ratio < 0.1:
            return 3 * parameter
        return fmax(parameter / 3, 1e-12) if ratio > 0.9 else parameter
    if ratio < 0.25:
        return 4 * parameter
    return fmax(parameter / 3, 1e-12 * size) if ratio > 0.75 else parameter


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

    cdef double trial_value(self, char *theta) except? -1:
        """Return the loss at the trial point theta, or infinity if theta is not finite. If theta is
        NULL, the caller has written the trial point to `at_there` and has unbound the plan for
        trial points.
        """
        cdef Plan plan = self.there
        self.finite = True
        if theta == NULL or not self.is_bound_to(plan, theta):
            plan.unbind()
            self.finite = plan.set_point(self.at_there, theta, False, True)
        return plan.value if self.finite else INFINITY

    def trial_loss(self, theta):
        """Return the loss at the trial point theta, or infinity if theta is not finite."""
        return self.trial_value(self.checked_address(theta))

    cdef int commit_trial(self) except -1:
        """Make the trial point the current point of the run."""
        self.there.prepare_products()
        self.there.compute_gradient()
        self.here, self.there = self.there, self.here
        self.at_here, self.at_there = self.at_there, self.at_here
        self.times.plan = self.here
        return 0

    def move_to(self, theta):
        """Make theta the current point. Return its loss and gradient, or an infinite loss and a
        gradient of NaN if theta is not finite. The gradient array is not reused while the caller
        refers to it.
        """
        cdef char *start = self.checked_address(theta)
        if not self.is_bound_to(self.here, start):
            self.trial_value(start)
            if not self.finite:
                self.here.unbind()
                return INFINITY, np.full(self.here.P.n, np.nan, self.here.dtype)
            self.commit_trial()
        return self.here.value, self.here.gradient


cdef bint is_negligible_step(
    Py_ssize_t n, const real *s, const real *theta, double eps
) noexcept nogil:
    """Return True if theta + s equals theta up to rounding."""
    cdef Py_ssize_t i
    for i in range(n):
        if not fabs(s[i]) <= eps * fmax(1, fabs(theta[i])):
            return False
    return True


cdef void add_vectors(Py_ssize_t n, const real *s, const real *theta, real *out) noexcept nogil:
    """Set out = theta + s."""
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = theta[i] + s[i]


cdef enum Watch:
    # Condition that ends a series of steps: slow progress or fast progress.
    NO_CONDITION, SLOW_PROGRESS, FAST_PROGRESS


cdef class NewtonSteps:
    """Newton-type steps of a run. If the run has a `LossEvaluator`, steps execute little Python
    code.

    Parameters
    ----------
    run : Run
        The run, which provides the start, the budget and tolerances.
    space : ProjectedSubspace
        The Krylov subspace of each step.
    forcing : float
        Relative residual to which the small problem is solved.
    """
    cdef object run
    cdef ProjectedSubspace space
    cdef LossEvaluator points
    cdef double forcing
    cdef public double cost_weight  # weight of cost against gain in `ProjectedSubspace.solve`
    cdef readonly object vector  # last trial step
    cdef readonly object parameter  # parameter of the small problem after the last trial step
    cdef readonly double ratio  # ratio of actual to predicted decrease of the last trial step
    cdef readonly Py_ssize_t n_steps  # number of steps of the last `take_steps`
    # number of losses evaluated at trial points in the last `take_steps`
    cdef readonly Py_ssize_t n_values
    cdef readonly double value, gradient_norm
    cdef readonly object gradient
    cdef public Py_ssize_t n_slow_steps  # number of consecutive steps with little decrease
    cdef readonly bint stop_condition_met  # True if the condition `watch` of `take_steps` was met

    def __init__(self, run, ProjectedSubspace space, double forcing):
        self.run, self.space, self.forcing, self.cost_weight = run, space, forcing, 0
        self.vector, self.stop_condition_met = np.empty_like(run.theta), False

    @property
    def theta(self):
        return self.points.at_here

    def take_steps(
        self, str problem, parameter, Py_ssize_t limit, scale, bint opened, int watch, record
    ):
        """Take at most as many steps as `record` (count, 4) has rows. Row k receives the loss, the
        gradient norm, the elapsed seconds and the number of products after step k. The series ends
        early if the gradient or the loss meets its tolerance, at the end of the budget, after a
        tenth of a second (so that the caller can report progress), and if the condition `watch` is
        met.

        Parameters
        ----------
        problem, parameter, limit
            Arguments of `ProjectedSubspace.solve`.
        scale : array (n,) or None
            Factor that converts the step, if the space uses scaled coordinates.
        opened : bool
            True if the caller has already started the space, for a single step.
        watch : int
            0: no condition; 1: three consecutive steps with little decrease; 2: a step that lowers
            the loss by a hundredth.
        record : array (count, 4) of float64
            Receives the values after each step.

        Returns
        -------
        str or None
            Key in `fastcurv.common.sentences.CLAUSES["cause"]` of the reason why no further step
            is possible, or None if a further step is possible.
        """
        cdef double *rows = <double *>pointer(record)
        cdef double before, norm_before, fallen
        cdef long long begin = now_ns()
        run, self.parameter, cause = self.run, parameter, None
        self.points, self.n_steps, self.n_values, self.stop_condition_met = run.points, 0, 0, False
        self.value, self.gradient_norm, self.gradient = run.f, run.gnorm, run.g
        if self.points is not None:
            self.points.move_to(run.theta)
        while True:
            before, norm_before = self.value, self.gradient_norm
            if not opened:
                self.space.start(run.product, self.gradient)
            cause = self.take_step(problem, limit, scale)
            if not self.ratio > MIN_ACCEPT_RATIO:
                return cause
            rows[0], rows[1], rows[2] = self.value, self.gradient_norm, (now_ns() - begin) * 1e-9
            rows[3], rows = run.n_products, rows + 4
            self.n_steps += 1
            if run.cut is not None:
                break
            fallen = before - self.value
            if (
                self.ratio > 0.75 and fallen < 1e-3 * fabs(before)
                and self.gradient_norm > 0.5 * norm_before
            ):
                self.n_slow_steps += 1
            else:
                self.n_slow_steps = 0
            self.stop_condition_met = (
                self.n_slow_steps >= MAX_SLOW_STEPS if watch == SLOW_PROGRESS
                else fallen > 1e-2 * fabs(before) if watch == FAST_PROGRESS else False
            )
            if (
                self.stop_condition_met or self.n_steps == len(record)
                or self.value <= run.fun_target
                or not run.enough < self.gradient_norm < INFINITY
                or now_ns() - begin > PROGRESS_INTERVAL_NS or run.is_out_of_budget()
            ):
                break
        return None

    cdef object take_step(self, str problem, Py_ssize_t limit, scale):
        """Take one step, after as many trial steps as needed. Return the key of the reason if no
        step is possible. If the budget ends first, return None with a `ratio` of at most
        MIN_ACCEPT_RATIO.
        """
        cdef double length, predicted, f
        cdef bint bounded
        cdef int _k
        cdef Problem which = SUBPROBLEMS[problem]
        run, self.ratio = self.run, -INFINITY
        price, stop = run.step_cost(), run.is_out_of_budget
        cdef double wanted = fmin(self.forcing, sqrt(self.gradient_norm)) * self.space.gamma
        for _k in range(MAX_REJECTED_STEPS):
            length, predicted, bounded, self.parameter = self.space.solve(
                problem, self.parameter, wanted, limit, stop, self.cost_weight, price, self.vector
            )
            if scale is not None:
                np.multiply(self.vector, scale, out=self.vector)
            if not (predicted > 0 and isfinite(length)):
                return "no_reduction"
            f = self.evaluate_trial()
            self.ratio = reduction_ratio(self.value, f, predicted, run.eps)
            self.parameter = next_regularisation(
                which, self.parameter, self.ratio, length, bounded, self.space.max_abs_eigenvalue
            )
            if self.ratio > MIN_ACCEPT_RATIO:
                self.move_to()
                return None
            if self.is_negligible_step():
                return "tiny_steps"
            if run.cut is not None:
                return None
        return "refused_steps"

    cdef double evaluate_trial(self) except? -1:
        """Return the loss at the trial point, current point plus `vector`."""
        cdef LossEvaluator points = self.points
        cdef Py_ssize_t n = self.space.n
        cdef char *s
        cdef char *theta
        cdef char *there
        cdef double f
        if points is None:
            return self.run.try_step(self.vector)
        points.there.unbind()
        s, theta, there = pointer(self.vector), pointer(points.at_here), pointer(points.at_there)
        if points.here.P.K.real_bytes == 8:
            add_vectors(n, <double *>s, <double *>theta, <double *>there)
        else:
            add_vectors(n, <float *>s, <float *>theta, <float *>there)
        f = points.trial_value(NULL)
        self.n_values += points.finite
        return f

    cdef bint is_negligible_step(self) except -1:
        """Return True if the last trial step does not change theta beyond rounding."""
        theta = self.run.theta if self.points is None else self.points.at_here
        cdef char *s = pointer(self.vector)
        cdef char *at_ = pointer(theta)
        cdef double eps = self.run.eps
        if theta.itemsize == 8:
            return is_negligible_step(self.space.n, <double *>s, <double *>at_, eps)
        return is_negligible_step(self.space.n, <float *>s, <float *>at_, eps)

    cdef int move_to(self) except -1:
        """Make the trial point the current point, and update the loss, the gradient and its norm.
        """
        cdef double square
        cdef bint wide
        cdef char *g
        run = self.run
        if self.points is None:
            run.accept_trial_point()
            self.value, self.gradient_norm, self.gradient = run.f, run.gnorm, run.g
            return 0
        self.points.commit_trial()
        self.value, self.gradient = self.points.here.value, self.points.here.gradient
        square = inner_product(self.gradient, self.gradient)
        if 1e-30 < square < 1e30:
            self.gradient_norm = sqrt(square)
        else:
            g = pointer(self.gradient)
            wide = self.gradient.itemsize == 8
            self.gradient_norm = (
                safe_norm(self.space.n, <double *>g) if wide
                else safe_norm(self.space.n, <float *>g)
            )
        return 0
