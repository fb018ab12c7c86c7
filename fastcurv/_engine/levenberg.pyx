"""Levenberg-Marquardt steps for a small network, as a compiled loop without Python code.

Let G be the Gauss-Newton matrix at theta (with the diagonal L of the l2 penalty), g the gradient,
and mu the damping. The trial step is s = -(G + mu I)^-1 g. Let rho be the ratio of the actual to
the predicted decrease of the loss. Nielsen's rule (Damping parameter in Marquardt's method, 1999)
accepts the step if rho > 0, and then multiplies mu by max(c, 1 - (2 rho - 1)^3). Otherwise mu is
multiplied by 2, and by 4, 8, ... if further steps are rejected. Nielsen uses c = 1/3. Here c is 1/3
after a corrected step and 1/10 otherwise, which saves a tenth of the steps in small networks. The
initial mu is the largest diagonal element of G. A thousandth of this value was tried on ten
problems with 100 starts or more each. The final losses of three problems (cancer, diabetes, a
teacher network) were higher and those of one other problem lower, and no problem took less than
five sixths of the time.

If the actual decrease is less than 3/4 of the predicted one, the outputs at theta + s differ from
the linear model, and s is corrected. With z the outputs at theta + s, z0 those at theta, J their
Jacobian and H the second derivative of the loss with respect to z, the correction is

    s -= (G + mu I)^-1 (g + (L + mu I) s + J' H (z - z0))

It reuses the factorisation of G + mu I. This is geodesic acceleration (Transtrum and Sethna,
Improvements to the Levenberg-Marquardt algorithm, 2012), with the trial step as the step of its
finite difference, so it costs nothing where the linear model holds. Fits that follow a curved
valley take a third to a half as many steps.
"""
from libc.math cimport INFINITY, fabs, isfinite, sqrt

cdef enum:
    CHOLESKY_PANEL_ROWS = 24      # rows per panel of the Cholesky factorisation
    ELIMINATION_ROWS = 4          # rows per elimination step within a panel
    MAX_CORRECTIONS = 2         # maximum number of corrections per step

cdef double MIN_DAMPING_FACTOR = 0.1  # minimum factor for mu after a step
cdef double MIN_DAMPING_FACTOR_CORRECTED = 1 / 3.0  # minimum factor for mu after a corrected step
# Maximum ratio of the actual to the predicted decrease of a step at which a correction of the step
# is tried.
cdef double MAX_DECREASE_RATIO_TO_CORRECT = 0.75
# maximum length of a correction, relative to that of s
cdef double MAX_RELATIVE_CORRECTION_LENGTH = 0.375
# Minimum gain of a correction, relative to the predicted decrease, at which a further correction is
# tried.
cdef double MIN_CORRECTION_GAIN = 0.1

# Reason for the end of a run. OUT_OF_TIME: `seconds` have elapsed. CANCELLED: a signal handler
# raised an exception.
cdef enum Ending:
    NOT_ENDED, CRITICAL, TARGET, STALLED, OUT_OF_TIME, CANCELLED


cdef class LevenbergRun:
    """A Levenberg-Marquardt run: theta with its loss, gradient, Gauss-Newton matrix and damping.

    Parameters
    ----------
    plan : Plan
        A plan without batch normalisation, which no other object uses during the run.
    theta : array (n,) of the plan's dtype, contiguous
        The initial point, which is updated in place.
    spare : list of Plan, optional
        Pool of plans, to which the plan is returned when this object is deleted.
    most : int
        Maximum number of plans in the pool.
    """
    cdef CurvatureMatrix normal
    cdef Plan plan
    cdef readonly object theta
    cdef readonly object gradient
    cdef readonly double value, gradient_norm
    cdef double lowest          # lowest loss so far
    cdef public double damping, growth
    cdef public bint corrects   # True if steps are corrected by geodesic acceleration
    cdef readonly Py_ssize_t n_values
    cdef object room, trial, penalty_gradient
    cdef list spare
    cdef Py_ssize_t most
    cdef double *G              # upper triangle of the Gauss-Newton matrix
    cdef double *A              # upper triangle: Cholesky factor of G + mu I
    cdef double *minus          # negated columns of the factor, for one panel
    cdef Py_ssize_t ld          # leading dimension of A
    cdef double *s              # trial step
    cdef double *more           # correction of s
    cdef double *g              # gradient as doubles
    cdef double *l2             # diagonal that the l2 penalty adds to G, or NULL
    # True if the predicted decrease of the last step was below the rounding error of the loss.
    cdef bint blind
    # True if G is the matrix at theta; the last point of a run needs no matrix
    cdef bint formed

    def __cinit__(self, Plan plan, theta, list spare=None, Py_ssize_t most=1):
        cdef PlanS *P = &plan.P
        cdef Py_ssize_t n = P.n, i
        if vector_address(theta, n, plan.dtype, True) == NULL:
            raise ValueError(
                f"theta must be an array of shape ({n},) and dtype {plan.dtype}, got {theta!r}."
            )
        self.plan, self.normal, self.spare, self.most = plan, CurvatureMatrix(plan), spare, most
        self.theta, self.trial = theta, np.empty_like(theta)
        self.gradient = np.empty_like(theta)
        self.ld = padded_ld(n, sizeof(double))
        self.room = np.empty(n * (n + self.ld + CHOLESKY_PANEL_ROWS + 3) + DOUBLES_PER_CACHE_LINE)
        self.A = <double *>align_up(pointer(self.room))
        self.minus = self.A + n * self.ld
        self.G = self.minus + n * CHOLESKY_PANEL_ROWS
        self.s = self.G + n * n
        self.more = self.s + n
        self.g = self.more + n
        self.n_values, self.growth, self.damping, self.corrects = 0, 2, 0, True
        if plan.l2 != 0:
            ones = np.ones(n, theta.dtype)
            write_penalty_gradient(P, plan.l2, pointer(ones), pointer(ones))
            self.penalty_gradient = ones.astype(np.float64)
            self.l2 = <double *>pointer(self.penalty_gradient)
        cdef char *at_ = pointer(theta)
        cdef char *gradient = pointer(self.gradient)
        cdef fc_watch before
        plan.theta = None
        with plan.lock, nogil:
            before = begin_signal_watch()
            self.value = self.evaluate_at(P, at_)
            self.update_gradient(P, gradient)
            self.update_matrix(P)
            plan.end_watch(before)
        self.lowest = self.value
        for i in range(n):
            self.damping = max(self.damping, self.G[i * (n + 1)])

    def __del__(self):
        return_to_pool(self.plan, self.spare, self.most)

    def run(self, Py_ssize_t count, double gradient_tol, double target, double seconds, record):
        """Take at most `count` steps. Row k of `record` (count, 3) receives the loss, the gradient
        norm and the elapsed seconds after step k.

        Returns
        -------
        steps : int
            Number of steps taken.
        ending : str
            Reason for the end: ``critical``, ``target``, ``stalled`` or ``max_time``, or ``""`` if
            all steps were taken.
        """
        cdef Py_ssize_t done
        cdef Ending ending = NOT_ENDED
        if len(record) < count:
            raise ValueError(f"record must have {count} rows, got {len(record)}.")
        check_float64_array(record, "record", (len(record), 3))
        cdef double *rows = <double *>pointer(record)
        cdef char *theta = pointer(self.theta)
        cdef char *trial = pointer(self.trial)
        cdef char *gradient = pointer(self.gradient)
        cdef fc_watch before
        with self.plan.lock:
            self.plan.theta = None
            with nogil:
                before = begin_signal_watch()
                done = self.take_steps(
                    theta, trial, gradient, count, gradient_tol, target, seconds, rows, &ending
                )
                self.plan.end_watch(before)
        return done, ("", "critical", "target", "stalled", "max_time", "")[ending]

    cdef Py_ssize_t take_steps(
        self, char *theta, char *trial, char *gradient, Py_ssize_t count, double gradient_tol,
        double target, double seconds, double *rows, Ending *ending
    ) noexcept nogil:
        """Take at most `count` steps and write their values to `rows`. Return the number of steps
        taken, and the reason for the end in `ending`.
        """
        cdef PlanS *P = &self.plan.P
        cdef Py_ssize_t k
        cdef double norm_before
        cdef long long begin = now_ns()
        for k in range(count):
            if self.gradient_norm <= gradient_tol:
                ending[0] = CRITICAL
            elif self.value <= target:
                ending[0] = TARGET
            elif (now_ns() - begin) * 1e-9 > seconds:
                ending[0] = OUT_OF_TIME
            else:
                if not self.formed:
                    self.update_matrix(P)
                if not self.find_lower_point(P, theta, trial):
                    ending[0] = CANCELLED if fc_watch_poll() else STALLED
            if ending[0] != NOT_ENDED:
                return k
            memcpy(theta, trial, P.n * P.K.real_bytes)
            norm_before = self.gradient_norm
            self.update_gradient(P, gradient)
            rows[3 * k], rows[3 * k + 1] = self.value, self.gradient_norm
            rows[3 * k + 2] = (now_ns() - begin) * 1e-9
            if self.blind and not self.gradient_norm < norm_before:
                ending[0] = STALLED
                return k + 1
        return count

    cdef bint find_lower_point(self, PlanS *P, char *theta, char *trial) noexcept nogil:
        """Find a trial point with a lower loss, and increase the damping until one is found. If the
        predicted decrease is below the rounding error of the loss, accept an equal loss.
        `take_steps` then requires that the gradient norm decreases. Return True if a point was
        found.
        """
        cdef double predicted, f, ratio, least
        cdef double rounding = (1e-15 if P.K.real_bytes == 8 else 5e-7) * fabs(self.value)
        cdef Py_ssize_t i
        while not fc_watch_poll():
            if self.factorise_damped_matrix(P.n):
                for i in range(P.n):
                    self.s[i] = -self.g[i]
                self.solve_damped_system(P.n, self.s)
                predicted = 0
                for i in range(P.n):
                    predicted += self.s[i] * (self.damping * self.s[i] - self.g[i]) / 2
                if not predicted > 0:
                    return False
                f = self.trial_loss(P, theta, trial)
                self.n_values += 1
                self.blind = predicted <= 16 * rounding
                if self.blind and not f <= self.lowest + rounding:
                    return False
                least = MIN_DAMPING_FACTOR
                if (
                    self.corrects and not self.blind and isfinite(f)
                    and self.is_short_of_prediction(predicted, f)
                ):
                    f = self.correct_step(P, theta, trial, predicted, f)
                    least = MIN_DAMPING_FACTOR_CORRECTED
                ratio = (self.value - f) / predicted if isfinite(f) else -1
                if self.blind:  # accept the step; `take_steps` then compares the gradient norms
                    ratio = 1
                if ratio > 1e-4:
                    self.damping *= max(least, 1 - (2 * ratio - 1) ** 3)
                    self.growth, self.value, self.lowest = 2, f, min(self.lowest, f)
                    return True
            self.damping = max(self.damping, 1e-300) * self.growth
            self.growth *= 2
            if not isfinite(self.damping):
                return False
        return False

    cdef double trial_loss(self, PlanS *P, char *theta, char *trial) noexcept nogil:
        """Return the loss at trial = theta + s, and move the plan to that point."""
        cdef Py_ssize_t i
        for i in range(P.n):
            if P.K.real_bytes == 8:
                (<double *>trial)[i] = (<double *>theta)[i] + self.s[i]
            else:
                (<float *>trial)[i] = <float>((<float *>theta)[i] + self.s[i])
        return self.evaluate_at(P, trial)

    cdef inline bint is_short_of_prediction(self, double predicted, double f) noexcept nogil:
        """Return True if the actual decrease, down to the loss f, is so far below the predicted one
        that the linear model has failed.
        """
        return self.value - f < MAX_DECREASE_RATIO_TO_CORRECT * predicted

    cdef double correct_step(
        self, PlanS *P, char *theta, char *trial, double predicted, double f
    ) noexcept nogil:
        """Correct the step s, at which the loss is f, as long as corrections lower the loss. Return
        the lowest loss, and leave the plan at the corresponding trial point.
        """
        cdef double before
        cdef Py_ssize_t i
        cdef int _correction
        for _correction in range(MAX_CORRECTIONS):
            if not self.add_correction(P):
                break
            before, f = f, self.trial_loss(P, theta, trial)
            self.n_values += 1
            if not f < before:  # undo a correction without gain
                for i in range(P.n):
                    self.s[i] -= self.more[i]
                return self.trial_loss(P, theta, trial)
            if (
                before - f < MIN_CORRECTION_GAIN * predicted
                or not self.is_short_of_prediction(predicted, f)
            ):
                break
        return f

    cdef bint add_correction(self, PlanS *P) noexcept nogil:
        """Compute the correction `more` of the step s from the outputs at theta + s, the current
        point of the plan. Limit the length of the correction and add it to s. Return False, with s
        unchanged, if the correction is zero or not finite.
        """
        cdef Py_ssize_t i
        cdef double more = 0, so_far = 0, share
        for i in range(P.n):
            self.more[i] = self.g[i] + self.damping * self.s[i]
            if self.l2 != NULL:
                self.more[i] += self.l2[i] * self.s[i]
            so_far += self.s[i] * self.s[i]
        self.normal.add_output_change_gradient(P, self.more)
        self.solve_damped_system(P.n, self.more)
        for i in range(P.n):
            more += self.more[i] * self.more[i]
        if not 0 < more < INFINITY:
            return False
        share = -min(1.0, MAX_RELATIVE_CORRECTION_LENGTH * sqrt(so_far / more))
        for i in range(P.n):
            self.more[i] *= share
            self.s[i] += self.more[i]
        return True

    cdef bint factorise_damped_matrix(self, Py_ssize_t n) noexcept nogil:
        """Factorise G + mu I into A. Return False if the matrix is not numerically positive
        definite.
        """
        cdef Py_ssize_t i
        cdef double *row
        for i in range(n):
            row = self.A + i * (self.ld + 1)
            memcpy(row, self.G + i * (n + 1), (n - i) * sizeof(double))
            row[0] += self.damping
        return self.factorise(n)

    cdef void solve_damped_system(self, Py_ssize_t n, double *x) noexcept nogil:
        """Set x = (G + mu I)^-1 x by the factorisation in A."""
        cdef Py_ssize_t i, p, first = 0, after = 0
        cdef double[ELIMINATION_ROWS] c
        cdef double *row
        while first < n:        # forward substitution with R'
            after = min(first + ELIMINATION_ROWS, n)
            for i in range(first, after):
                row = self.A + i * self.ld
                x[i] /= row[i]
                for p in range(i + 1, after):
                    x[p] -= row[p] * x[i]
            self.normal.K.subtract(
                after - first, 1, n - after, self.A + first * self.ld + after, self.ld, x + after,
                n, x + first, n, NULL
            )
            first = after
        while after > 0:        # backward substitution with R
            first = (after - 1) // ELIMINATION_ROWS * ELIMINATION_ROWS
            memset(c, 0, sizeof(c))
            self.normal.K.dots(
                after - first, 1, n - after, self.A + first * self.ld + after, self.ld, x + after,
                n, c, n
            )
            for i in range(after - 1, first - 1, -1):
                row = self.A + i * self.ld
                for p in range(i + 1, after):
                    c[i - first] += row[p] * x[p]
                x[i] = (x[i] - c[i - first]) / row[i]
            after = first

    cdef bint factorise(self, Py_ssize_t n) noexcept nogil:
        """Factorise A = R' R with R in the upper triangle, one panel of rows at a time. Each panel
        is computed after the rows above have been subtracted. Return False if a pivot is not
        positive.

        LAPACK is not used, because BLAS has its own threads. On a busy machine, their
        synchronisation takes a thousand times as long as the factorisation.
        """
        cdef Py_ssize_t first = 0, after, i, ld = self.ld
        cdef double *A = self.A
        while first < n:
            after = min(first + CHOLESKY_PANEL_ROWS, n)
            for i in range(first):
                self.normal.K.scale(
                    after - first, -1, A + i * ld + first, self.minus + i * CHOLESKY_PANEL_ROWS
                )
            if first:
                self.normal.multiply_matrices(
                    after - first, n - first, first, self.minus, 1, CHOLESKY_PANEL_ROWS, A + first,
                    ld, 1, A + first * (ld + 1), ld, True
                )
            while first < after:
                i = min(first + ELIMINATION_ROWS, after)
                if not self.eliminate_rows(n, first, i, after):
                    return False
                first = i
        return True

    cdef bint eliminate_rows(
        self, Py_ssize_t n, Py_ssize_t first, Py_ssize_t after, Py_ssize_t end
    ) noexcept nogil:
        """Compute rows [first, after) of R, and subtract their contributions from rows [after,
        end). Part of the lower triangle of the latter rows, which is not read again, is
        overwritten.
        """
        cdef Py_ssize_t i, j, p, count = after - first, ld = self.ld
        cdef double[ELIMINATION_ROWS * CHOLESKY_PANEL_ROWS] c
        cdef double *A = self.A
        cdef double *row
        for i in range(first, after):
            row = A + i * ld
            for p in range(first, i):
                c[p - first] = A[p * ld + i]
            if i > first:
                self.normal.K.subtract(
                    i - first, 1, n - i, A + first * ld + i, ld, row + i, ld, c, count, NULL
                )
            if not 0 < row[i] < INFINITY:
                return False
            self.normal.K.scale(n - i, 1 / sqrt(row[i]), row + i, row + i)
        for j in range(after, end):
            for p in range(count):
                c[(j - after) * count + p] = A[(first + p) * ld + j]
        if after < end:
            self.normal.K.subtract(
                count, end - after, n - after, A + first * ld + after, ld, A + after * (ld + 1),
                ld, c, count, NULL
            )
        return True

    cdef double evaluate_at(self, PlanS *P, char *theta) noexcept nogil:
        """Return the loss with its l2 penalty at theta, and move the plan to theta."""
        cdef double f
        P.at_chunk, P.done, P.transient = -1, 0, False
        if not set_and_pack_theta(P, theta, NULL):
            return INFINITY
        f = evaluate_chunks(P, False, NULL, False)
        if self.plan.l2 != 0:
            f += 0.5 * self.plan.l2 * penalised_sum_of_squares(P, theta)
        return f

    cdef void update_gradient(self, PlanS *P, char *gradient) noexcept nogil:
        """Compute the gradient and its norm at the plan's current point."""
        cdef Py_ssize_t i
        cdef double square = 0
        if self.plan.l2 != 0:
            write_penalty_gradient(P, self.plan.l2, P.theta, gradient)
        evaluate_chunks(P, True, gradient, self.plan.l2 != 0)
        self.normal.convert_to_doubles(gradient, self.g, P.n)
        for i in range(P.n):
            square += self.g[i] * self.g[i]
        # Outside of this range, the sum of squares may have overflowed or underflowed.
        self.gradient_norm = sqrt(square) if 1e-280 < square < 1e280 else safe_norm(P.n, self.g)
        self.formed = False

    cdef void update_matrix(self, PlanS *P) noexcept nogil:
        """Compute the Gauss-Newton matrix, including the l2 penalty, at the plan's current
        point.
        """
        cdef Py_ssize_t i
        self.normal.compute_upper_triangle(self.G)
        for i in range(P.n if self.l2 != NULL else 0):
            self.G[i * (P.n + 1)] += self.l2[i]
        self.formed = not fc_watch_poll()
