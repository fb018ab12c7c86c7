"""Newton-type steps in Krylov spaces, many in one call, and the points that they lead to.

A space grows from the gradient at theta, and the step solves a small problem in it; see krylov.pyx.
With rho the ratio of what the loss falls by to what the model promises, the step is taken if
rho > 1e-4, and the problem's parameter follows rho; else it is solved again in the same space.
"""
from libc.math cimport INFINITY, fabs, fmax, fmin, isfinite, sqrt
from libc.string cimport memcmp

cdef enum:
    REFUSALS = 100              # trial steps in a row
    SLOW = 3                    # steps in a row that hardly lower the loss, by a good model
cdef double ENOUGH = 1e-4       # ratio of a step that is taken


cpdef double reduction_ratio(double old, double new, double predicted, double eps):
    """Return (old - new)/predicted, drawn to 1 where both are within the rounding of the values.

    A value of size L carries an error of the order of ``10 eps |L|``; without this term the last
    steps of a converging run are refused because of noise (Conn, Gould and Toint, Trust-Region
    Methods, 2000, section 17.4).
    """
    cdef double noise
    if not isfinite(new):
        return -INFINITY
    noise = 10 * eps * fmax(fabs(old), fabs(new))
    return (old - new + noise) / (predicted + noise) if predicted + noise > 0 else -INFINITY


cpdef double next_radius(double radius, double ratio, double length, bint bounded):
    """Return the radius after a trial step of this length, at the bound or not."""
    if ratio < 0.25:
        return 0.25 * length
    return 2 * radius if ratio > 0.75 and bounded else radius


cdef double next_parameter(
    Problem problem, double parameter, double ratio, double length, bint bounded, double size
):
    """The parameter of a small problem after a trial step: its length, whether that is at its
    bound, and the size of the curvature.
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


cdef class Points:
    """The loss at a run's point, where products are made, and at trial points beside it.

    Parameters
    ----------
    here, there : Plan
        Alike, and its own.
    spare, most : list, int
        Gets them, up to so many in all, once the points are gone: see `leave`.
    """
    cdef Plan here, there
    cdef object at_here, at_there       # their memory for theta
    cdef readonly Times times           # products here
    cdef readonly bint finite           # the last trial point
    cdef list spare
    cdef Py_ssize_t most

    def __init__(self, Plan here, Plan there, list spare, Py_ssize_t most):
        self.here, self.there, self.spare, self.most = here, there, spare, most
        self.at_here, self.at_there = np.empty(here.P.n, here.dtype), np.empty(here.P.n, here.dtype)
        self.times = Times(here, "hessian", True)
        here.unbind()
        there.unbind()

    def __del__(self):
        leave(self.here, self.spare, self.most)
        leave(self.there, self.spare, self.most)

    def turn(self, str kind):
        """Products are those of another curvature from here on."""
        self.times.kind = KINDS[kind]

    cdef char *start(self, theta) except NULL:
        cdef char *start = ready(theta, self.here.P.n, self.here.dtype, False)
        if start == NULL:
            raise ValueError(f"theta is {theta!r}; wanted ({self.here.P.n},) {self.here.dtype}")
        return start

    cdef bint is_at(self, Plan plan, char *theta) except -1:
        """Whether a plan is at theta."""
        cdef size_t size = plan.P.n * plan.P.K.real_bytes
        return plan.theta is not None and memcmp(pointer(plan.theta), theta, size) == 0

    cdef double beside(self, char *theta) except? -1:
        """The loss at a trial point, infinite where that is not finite; NULL: it is in `at_there`,
        and the plan is nowhere.
        """
        cdef Plan plan = self.there
        self.finite = True
        if theta == NULL or not self.is_at(plan, theta):
            plan.unbind()
            self.finite = plan.be_at(self.at_there, theta, False, True)
        return plan.value if self.finite else INFINITY

    def value(self, theta):
        """Return the loss at a trial point, infinite where that is not finite."""
        return self.beside(self.start(theta))

    cdef int settle(self) except -1:
        """The trial point is the run's from here on."""
        self.there.prepare()
        self.there.finish()
        self.here, self.there = self.there, self.here
        self.at_here, self.at_there = self.at_there, self.at_here
        self.times.plan = self.here
        return 0

    def arrive(self, theta):
        """Go to theta, where the loss is finite. Returns it and its gradient, which stays as it is
        while anyone has it.
        """
        cdef char *start = self.start(theta)
        if not self.is_at(self.here, start):
            self.beside(start)
            if not self.finite:
                self.here.unbind()
                return INFINITY, np.full(self.here.P.n, np.nan, self.here.dtype)
            self.settle()
        return self.here.value, self.here.gradient


cdef bint is_short(Py_ssize_t n, const real *s, const real *theta, double eps) noexcept nogil:
    """Whether theta + s is theta to rounding."""
    cdef Py_ssize_t i
    for i in range(n):
        if not fabs(s[i]) <= eps * fmax(1, fabs(theta[i])):
            return False
    return True


cdef void added(Py_ssize_t n, const real *s, const real *theta, real *out) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = theta[i] + s[i]


cdef enum Watch:
    NOTHING, CRAWLING, FALLING  # what steps end at


cdef class NewtonSteps:
    """Steps of a run, with little Python in them where the run has `points`.

    Parameters
    ----------
    run : Run
    space : Space
    forcing, thrift : float
        Residual of the small problem, relative to the gradient, and when to be content with more:
        see `Space.solve`.
    """
    cdef object run
    cdef Space space
    cdef Points points
    cdef double forcing, thrift
    cdef readonly object vector         # the last trial step
    cdef readonly object parameter      # after it, of the small problem
    cdef readonly double ratio          # of its reduction to that of the model
    cdef readonly Py_ssize_t steps      # of the last `take`
    cdef readonly Py_ssize_t values     # at its trial points
    cdef readonly double value, gradient_norm
    cdef readonly object gradient
    cdef public Py_ssize_t slow         # steps in a row that hardly lowered the loss
    cdef readonly bint turned           # what was watched for has come

    def __init__(self, run, Space space, double forcing, double thrift):
        self.run, self.space, self.forcing, self.thrift = run, space, forcing, thrift
        self.vector, self.turned = np.empty_like(run.theta), False

    @property
    def theta(self):
        return self.points.at_here

    def take(
        self, str problem, parameter, Py_ssize_t limit, scale, bint opened, int watch, record
    ):
        """Take as many steps, at most, as `record` (count, 4) has rows, which get the loss, the
        norm of the gradient, the seconds and the products so far. They end early at a gradient or a
        loss that is enough, where the budget ends, after a tenth of a second, where others should
        have a turn, and at what is watched for: three steps in a row that hardly lower the loss (1)
        or one that lowers it by a hundredth (2).

        Parameters
        ----------
        problem, parameter, limit
            See `Space.solve`.
        scale : array (n,) or None
            Of the step, whose space is in other coordinates.
        opened : bool
            The space has been started for the only step.

        Returns
        -------
        str or None
            Why there is no further step.
        """
        cdef double *rows = <double *>pointer(record)
        cdef double before, norm_before, fallen
        cdef long long begin = now()
        run, self.parameter, sentence = self.run, parameter, None
        self.points, self.steps, self.values, self.turned = run.points, 0, 0, False
        self.value, self.gradient_norm, self.gradient = run.f, run.gnorm, run.g
        if self.points is not None:
            self.points.arrive(run.theta)
        while True:
            before, norm_before = self.value, self.gradient_norm
            if not opened:
                self.space.start(run.product, self.gradient)
            sentence = self.step(problem, limit, scale)
            if not self.ratio > ENOUGH:
                return sentence
            rows[0], rows[1], rows[2] = self.value, self.gradient_norm, (now() - begin) * 1e-9
            rows[3], rows = run.n_products, rows + 4
            self.steps += 1
            if run.cut is not None:
                break
            fallen = before - self.value
            if (
                self.ratio > 0.75 and fallen < 1e-3 * fabs(before)
                and self.gradient_norm > 0.5 * norm_before
            ):
                self.slow += 1
            else:
                self.slow = 0
            self.turned = (
                self.slow >= SLOW if watch == CRAWLING
                else fallen > 1e-2 * fabs(before) if watch == FALLING else False
            )
            if (
                self.turned or self.steps == len(record) or self.value <= run.fun_target
                or not run.enough < self.gradient_norm < INFINITY
                or now() - begin > SLICE_NS or run.out_of_budget()
            ):
                break
        return None

    cdef object step(self, str problem, Py_ssize_t limit, scale):
        """Take one step, after as many trials as it takes; or return why there is none, or None
        where the budget has ended, with too small a ratio.
        """
        cdef double length, predicted, f
        cdef bint bounded
        cdef int _k
        cdef Problem which = PROBLEMS[problem]
        run, self.ratio = self.run, -INFINITY
        price, stop = run.step_price(), run.out_of_budget
        cdef double wanted = fmin(self.forcing, sqrt(self.gradient_norm)) * self.space.gamma
        for _k in range(REFUSALS):
            length, predicted, bounded, self.parameter = self.space.solve(
                problem, self.parameter, wanted, limit, stop, self.thrift, price, self.vector
            )
            if scale is not None:
                np.multiply(self.vector, scale, out=self.vector)
            if not (predicted > 0 and isfinite(length)):
                return (
                    "the model promises no reduction: the gradient is within rounding of zero"
                )
            f = self.trial()
            self.ratio = reduction_ratio(self.value, f, predicted, run.eps)
            self.parameter = next_parameter(
                which, self.parameter, self.ratio, length, bounded, self.space.size
            )
            if self.ratio > ENOUGH:
                self.arrive()
                return None
            if self.is_short():
                return "steps have become as short as rounding without lowering the loss"
            if run.cut is not None:
                return None
        return "a hundred trial steps in a row were refused"

    cdef double trial(self) except? -1:
        """The loss at theta + vector."""
        cdef Points points = self.points
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
            added(n, <double *>s, <double *>theta, <double *>there)
        else:
            added(n, <float *>s, <float *>theta, <float *>there)
        f = points.beside(NULL)
        self.values += points.finite
        return f

    cdef bint is_short(self) except -1:
        theta = self.run.theta if self.points is None else self.points.at_here
        cdef char *s = pointer(self.vector)
        cdef char *at_ = pointer(theta)
        cdef double eps = self.run.eps
        if theta.itemsize == 8:
            return is_short(self.space.n, <double *>s, <double *>at_, eps)
        return is_short(self.space.n, <float *>s, <float *>at_, eps)

    cdef int arrive(self) except -1:
        """Go to the trial point."""
        cdef double square
        cdef bint wide
        cdef char *g
        run = self.run
        if self.points is None:
            run.arrive()
            self.value, self.gradient_norm, self.gradient = run.f, run.gnorm, run.g
            return 0
        self.points.settle()
        self.value, self.gradient = self.points.here.value, self.points.here.gradient
        square = inner(self.gradient, self.gradient)
        if 1e-30 < square < 1e30:
            self.gradient_norm = sqrt(square)
        else:
            g = pointer(self.gradient)
            wide = self.gradient.itemsize == 8
            self.gradient_norm = (
                length_of(self.space.n, <double *>g) if wide
                else length_of(self.space.n, <float *>g)
            )
        return 0
