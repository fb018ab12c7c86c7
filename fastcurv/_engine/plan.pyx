"""The plan of an objective: allocated once (sizes, threads, memory), bound to data and theta, then
multiplied any number of times.
"""
import numpy as np

from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport INFINITY
from libc.stdlib cimport calloc, free
from libc.string cimport memset


KINDS = {"hessian": HESSIAN, "ggn": GGN, "fisher": FISHER}


cdef enum:
    TALL_BLOCK = 16             # vectors that a panel-parallel plan takes side by side
    # flops of a product up to which the GIL is kept, for some microseconds
    HELD_WORK = 200000
    # flops of a product up to which one thread may be faster when the plan is bound
    TRIED_WORK = 400000000


cdef class Plan:
    """State and scratch for products with one network on one set of rows.

    Parameters
    ----------
    sizes, activations, skips : sequences
        Of the network: layer widths, and one activation and one residual flag per hidden layer. A
        user-defined activation is an object whose ``rounded(z)`` returns phi(z), phi' and phi'',
        contiguous and of z's shape and dtype.
    rows : Rows
    loss, divisor, l2, l2_biases : str, float, float, bool
        Of the objective.
    given, coupled : callable or None, bool
        A user-defined loss: ``given(z, y, weight)`` returns the loss of some rows, its gradient
        with respect to z (rows, d_out) and its second derivatives, (rows, d_out), or (rows, d_out,
        d_out) if `coupled`; both contiguous and in the plan's dtype.
    threads, memory : int
        `memory` in bytes, 0: no bound.
    """
    cdef PlanS P
    cdef char *block_
    cdef char *vector_block
    cdef readonly Rows rows
    cdef object __weakref__
    cdef readonly object theta
    cdef readonly Lock lock
    cdef readonly double value, l2
    cdef readonly object gradient
    cdef readonly Py_ssize_t nbytes
    cdef Py_ssize_t reserved_bytes
    cdef readonly object sizes
    cdef object dtype
    cdef Py_ssize_t memory
    cdef Trial trials[2]        # timings of bind without and with the gradient
    cdef bint multiplied        # products have used the state
    # the gradient is handed out as a copy only, so its memory may be reused
    cdef bint passing
    # memory of an earlier gradient: allocating new pages would take as long as the passes
    cdef object spare
    # time at which the memory of theta began to change, in nanoseconds; 0: it does not change
    cdef long long since
    cdef object given
    cdef tuple activations
    cdef object error           # exception raised by a user-defined function

    def __cinit__(
        self, sizes, activations, skips, bint bias, Rows rows, str loss, double divisor, double l2,
        int threads, Py_ssize_t memory=0, bint batch_norm=False, bint l2_biases=True, given=None,
        bint coupled=False
    ):
        cdef PlanS *P = &self.P
        cdef Py_ssize_t l
        cdef Layer *y
        cdef bint asks = False
        self.rows, self.l2, self.sizes = rows, l2, tuple(sizes)
        self.lock = Lock()
        self.memory, self.dtype = memory, rows.X.dtype
        P.K = &table_chosen()[rows.X.itemsize == 8]
        P.N, P.n_layers, P.d_out = rows.X.shape[0], len(sizes) - 1, sizes[len(sizes) - 1]
        P.spare = not l2_biases
        P.layer = <Layer *>calloc(P.n_layers, sizeof(Layer))
        P.active = <char *>calloc(P.n_layers, 1)
        P.threads = max(1, min(threads, FC_MAX_THREADS))
        if P.layer == NULL or P.active == NULL:
            raise MemoryError("no memory for a plan")
        for l in range(P.n_layers):
            y = &P.layer[l]
            y.k, y.m = sizes[l], sizes[l + 1]
            y.ldk, y.ldm = padded(y.k, P.K.real_bytes), padded(y.m, P.K.real_bytes)
            y.w, y.b = P.n, -1
            P.n += y.m * y.k
            if bias:
                y.b = P.n
                P.n += y.m
            if l < P.n_layers - 1:
                y.asked = not isinstance(activations[l], str)
                y.phi = FC_ASKED if y.asked else ACTIVATIONS[activations[l]]
                y.skip = skips[l]
                asks |= y.asked
                if batch_norm:
                    add_norm(P, y)
            y.has_p = y.phi != FC_IDENTITY
            y.curved = fc_bends(y.phi)
            y.derived = (fc_slope_from_a(y.phi) or fc_bend_from_delta(y.phi)) and not y.skip
        P.loss.kind, P.loss.divisor = FC_GIVEN if given is not None else LOSSES[loss], divisor
        self.given, self.activations = given, tuple(activations)
        P.given, P.coupled, P.upto = given is not None, coupled, P.n_layers
        P.asking = <void *>self if asks or P.given else NULL
        P.data, P.ldx = &rows.D, rows.D.ldx
        choose_chunks(P, memory)
        self.make_block()
        if P.chunk == P.N and (P.shared or not P.across):
            rows.pad(P.K, P.threads)
        self.P.at_chunk = -1

    def __dealloc__(self):
        fc_block_free(self.block_)
        fc_block_free(self.vector_block)
        free_norms(&self.P)
        free(self.P.layer)
        free(self.P.active)

    # --- allocation: layout, and the one block of memory ------------------------------------------

    cdef int make_block(self) except -1:
        cdef Arena arena
        cdef size_t size
        arena.base, arena.used, arena.overflow = NULL, 0, False
        lay_out(&self.P, &arena)
        size = arena.used
        self.block_ = zeroed(size, self.P.threads, f"no memory for a plan of {size} bytes")
        arena.base, arena.used = self.block_, 0
        lay_out(&self.P, &arena)
        self.nbytes = size
        if self.P.across:
            fill_ones(&self.P)
        return self.reserve(1)

    cdef int reserve(self, Py_ssize_t block) except -1:
        """Allocate memory for `block` vectors side by side, or as many as `memory` allows; P.block
        is then the number that fits.
        """
        cdef PlanS *P = &self.P
        cdef size_t size
        cdef char *base
        cdef Py_ssize_t room = self.memory - self.nbytes + self.reserved_bytes
        while self.memory and block > 1 and <Py_ssize_t>bytes_of(P, block) > room:
            block -= 1
        if block <= P.block:
            self.lay_out_vectors_at(self.vector_block, P.block)
            return 0
        size = bytes_of(P, block)
        self.lay_out_vectors_at(self.vector_block, P.block)
        what = f"no memory for a block of {block} vectors of {P.n} numbers"
        if not size:
            raise MemoryError(what)
        base = zeroed(size, P.threads, what)
        fc_block_free(self.vector_block)
        self.vector_block, P.block = base, block
        self.nbytes += <Py_ssize_t>size - self.reserved_bytes
        self.reserved_bytes = size
        self.lay_out_vectors_at(base, block)
        return 0

    cdef void lay_out_vectors_at(self, char *base, Py_ssize_t block) noexcept nogil:
        cdef Arena arena
        arena.base, arena.used, arena.overflow = base, 0, False
        if base != NULL:
            lay_out_vectors(&self.P, &arena, block)

    # --- binding to theta -------------------------------------------------------------------------

    def bind(self, theta, bint gradient=True, bint passing=False):
        """Bind the plan to theta (n,), contiguous, of the plan's dtype, which the plan keeps: run
        forward, and backward if `gradient`. `passing`: only the gradient is needed, so the state
        may be overwritten; later products recompute it, and from the first product on it is kept.
        """
        self.be_at(theta, NULL, gradient, passing)

    def take(self, source, theta, bint gradient=True, bint passing=False):
        """Bind the plan to theta after copying theta[:] = source. Return False, with the plan
        unbound, if source is not a contiguous, aligned vector of the plan's dtype or is not finite.
        """
        cdef char *from_ = ready(source, self.P.n, self.dtype, False)
        self.theta = None
        return from_ != NULL and self.be_at(theta, from_, gradient, passing)

    cdef bint be_at(self, theta, char *source, bint gradient, bint passing) except -1:
        """Bind the plan to theta, which is copied from `source` unless that is NULL; return False
        if it is not finite.
        """
        cdef char *start = pointer(theta)
        cdef Trial *trial = &self.trials[gradient]
        cdef int threads = self.P.threads
        cdef long long since = self.since or now()
        cdef bint finite
        self.let_go()
        self.theta, self.passing, self.P.at_chunk, self.P.done = theta, passing, -1, 0
        self.P.passing = passing and not self.multiplied
        if 12 * self.P.N * self.P.n <= TRIED_WORK:
            self.P.threads = threads_of_turn(trial, threads)
        try:
            with nogil:
                finite = take_theta(&self.P, start, source)
            if finite:
                self.walk(gradient)
            else:
                self.theta = None
        except BaseException:                    # interrupted: the state does not belong to theta
            self.theta = None
            raise
        finally:
            self.P.threads, self.since, self.P.passing = threads, 0, False
        turn_took(trial, since)
        return finite

    def finish(self):
        """Compute the gradient after a bind without it."""
        if self.gradient is None:
            if self.P.done == 2:                   # backward overwrote its own inputs
                self.P.at_chunk = -1
            self.walk(True)

    def prepare(self):
        """Compute the state that products need, after a bind without the gradient."""
        self.multiplied = True
        if self.P.done < 2:
            self.finish()

    def unbind(self):
        """Forget theta because its memory is about to change; the time of the change counts towards
        the next bind.
        """
        self.theta, self.since = None, now()

    def renew(self, X, y, labels, weight):
        """Replace the data by other rows of the same shapes and kinds, and forget theta. The Rows
        must belong to this plan alone. Return True if X was copied and found to be finite;
        otherwise the caller has to check it.
        """
        with self.lock:
            self.let_go()
            self.theta = None
            self.P.at_chunk, self.P.done, self.P.loaded = -1, 0, False
            return bool(self.rows.renew(X, y, labels, weight, self.P.K, self.P.threads))

    def forget_gradient(self):
        """Drop the gradient because the caller owns it now. If needed at this theta it is computed
        again, in the same memory once no caller refers to it. The state stays.
        """
        self.spare, self.gradient = self.gradient, None

    cdef void let_go(self):
        """Drop the gradient; keep its memory if no caller has seen it."""
        if self.passing and self.gradient is not None:
            self.spare = self.gradient
        self.gradient = None

    cdef int walk(self, bint gradient) except -1:
        """Run all chunks forward, and backward into a new gradient if `gradient`."""
        cdef PlanS *P = &self.P
        cdef char *out = NULL
        cdef fc_watch before
        g = None
        if gradient:
            g, self.spare = self.spare, None
            if g is None or Py_REFCNT(g) > 1:
                g = np.empty(P.n, self.theta.dtype)
            out = pointer(g)
        with nogil:
            before = watch()
            self.loss_here(out)
            self.end(before)
        self.value, self.gradient = P.total, g
        return 0

    cdef double loss_here(self, char *out) noexcept nogil:
        """Return the loss at theta with its l2 term, and write the gradient to `out` unless that is
        NULL.
        """
        cdef PlanS *P = &self.P
        cdef bint gradient = out != NULL, add = self.l2 != 0
        if gradient and add:
            decay(P, self.l2, P.theta, out)
        P.total = at_theta(P, gradient, out, add)
        if add:
            P.total += 0.5 * self.l2 * decayed(P, P.theta)
        return P.total

    cdef bint loss_at(self, char *theta, char *gradient, double *loss) noexcept nogil:
        """Compute the loss at theta and its gradient, for a loop of the engine that holds the lock
        and the watch. If theta is not finite, return False with a loss of INFINITY. The plan is not
        bound afterwards.
        """
        cdef PlanS *P = &self.P
        cdef Trial *trial = &self.trials[True]
        cdef int threads = P.threads
        cdef long long since = now()
        cdef bint finite
        P.at_chunk, P.done, P.passing = -1, 0, not self.multiplied
        if 12 * P.N * P.n <= TRIED_WORK:
            P.threads = threads_of_turn(trial, threads)
        finite = take_theta(P, theta, NULL)
        loss[0] = self.loss_here(gradient) if finite else INFINITY
        P.threads, P.passing = threads, False
        turn_took(trial, since)
        return finite

    cdef int end(self, fc_watch before) except -1 nogil:
        """End the watch over a pass. If the pass was cancelled, mark the state as invalid."""
        if fc_watch_was_off():
            self.P.at_chunk, self.P.done, self.P.stage = -1, 0, NO_STAGE
        unwatch(before)
        if self.P.failed:
            with gil:
                self.tell()
        return 0

    cdef int tell(self) except -1:
        """Raise the exception that a user-defined function raised during the last pass."""
        error, self.error = self.error, None
        self.P.at_chunk, self.P.done, self.P.failed = -1, 0, False
        raise error

    # --- products ---------------------------------------------------------------------------------

    cdef int go(
        self, Job *job, char *out, Py_ssize_t out_step, const char *active
    ) except -1 nogil:
        cdef fc_watch before = watch()
        job.P = &self.P
        select(job.P, active)
        along_v(job, out, out_step)
        return self.end(before)

    cdef Py_ssize_t room_for(self, Py_ssize_t vectors) except -1:
        """Return how many of `vectors` vectors are taken at one time: side by side if
        panel-parallel, in one pass over the chunks if there are several, else one by one.
        """
        if in_turns(&self.P) or self.P.shared or (
            not self.P.panel and self.P.chunk == self.P.N
        ):
            return 1
        vectors = min(vectors, <Py_ssize_t>TALL_BLOCK)
        if self.P.panel and vectors > self.P.block:
            self.reserve(vectors)
            vectors = min(vectors, self.P.block)
        return vectors

    cdef int along(self, Job *job, Py_ssize_t k, char *out, active) except -1:
        """Run the job along its k vectors, one per row, as many at a time as fit."""
        cdef PlanS *P = &self.P
        cdef Job part
        cdef Py_ssize_t j = 0, step = P.n * P.K.real_bytes
        cdef const char *active_ = NULL if active is None else pointer(active)
        cdef char *to
        job.v_step = step
        self.lock.take()
        try:
            while j < k:
                part = job[0]
                part.vectors, part.v = self.room_for(k - j), job.v + j * step
                part.totals = NULL if job.totals == NULL else job.totals + j
                to = NULL if out == NULL else out + j * step
                if 12 * P.N * P.n <= HELD_WORK and P.asking == NULL:
                    self.go(&part, to, step, active_)
                else:
                    with nogil:
                        self.go(&part, to, step, active_)
                j += part.vectors
                PyErr_CheckSignals()
        finally:
            self.lock.give_back()
        return 0

    def multiply(self, v, out, str kind="hessian", active=None, bint l2=True):
        """Set out = A v, with A the operator `kind`, for v and out contiguous of the plan's dtype:
        (n,), or (k, n) with one vector per row. out may be v if `in_place` is True.
        """
        cdef Job job
        memset(&job, 0, sizeof(job))
        job.stages, job.kind, job.v = PRODUCT, KINDS[kind], pointer(v)
        job.l2 = self.l2 if l2 else 0
        self.along(&job, 1 if v.ndim == 1 else v.shape[0], pointer(out), active)

    def quadratic(self, v, str kind="hessian", active=None):
        """Return v' A v without l2, with A the operator `kind`, for v (n,) or (k, n): an array
        (k,).
        """
        cdef Job job
        cdef Py_ssize_t k = 1 if v.ndim == 1 else v.shape[0]
        result = np.zeros(k)
        memset(&job, 0, sizeof(job))
        job.stages, job.kind, job.v = QUADRATIC, KINDS[kind], pointer(v)
        job.totals = <double *>pointer(result)
        self.along(&job, k, NULL, active)
        return result

    def jacobian(self, v, out, bint transpose=False):
        """Set out (N, d_out) = J v for v (n,), or, if `transpose`, out (n,) = J' u for u (N,
        d_out). All arrays are contiguous.
        """
        cdef Job job
        cdef char *out_ = pointer(out)
        memset(&job, 0, sizeof(job))
        job.stages, job.kind, job.vectors, job.v = PRODUCT, VJP if transpose else JVP, 1, pointer(v)
        with self.lock, nogil:
            self.go(&job, out_, 0, NULL)

    def outputs(self, out):
        """Write the network's outputs at theta to out (N, d_out), contiguous."""
        self.states([None] * (4 * self.P.n_layers - 4) + [out] + [None] * 5, False)

    def state(self):
        """Return the state at theta: per layer (a, phi', e * phi'', delta), each (N, m), with z in
        place of a in the last layer. phi' and e * phi'' are None if they are constant, or computed
        from a and delta when needed.
        """
        cdef PlanS *P = &self.P
        cdef Py_ssize_t l
        found = []
        for l in range(P.n_layers):
            for there in (True, has_slopes(&P.layer[l]), P.layer[l].q != NULL, True):
                found.append(np.empty((P.N, P.layer[l].m), self.dtype) if there else None)
        self.states([*found, None, None], True)
        return [tuple(found[4 * l:4 * l + 4]) for l in range(P.n_layers)]

    cdef int states(self, list out, bint back) except -1:
        cdef fc_watch before
        cdef Py_ssize_t i
        cdef char **to = <char **>calloc(len(out), sizeof(char *))
        if to == NULL:
            raise MemoryError("no memory for a list of matrices")
        try:
            for i, one in enumerate(out):
                to[i] = NULL if one is None else pointer(one)
            with self.lock, nogil:
                before = watch()
                states_of(&self.P, back, to, 0)
                self.end(before)
        finally:
            free(to)
        return 0

    def _after_fork(self):
        """Invalidate the state in a forked child if another thread was changing it."""
        if self.lock.lost:
            self.P.at_chunk, self.P.done = -1, 0

    @property
    def in_place(self):
        """True if v is read completely, and once, before the first number of its product is
        written.
        """
        P = &self.P
        if P.across or P.unpacked:
            return P.aside != NULL and P.chunk == P.N
        return P.panel != 0 or (P.chunk == P.N and not normalised(P))

    @property
    def layout(self):
        """The plan's layout as a dict: rows per chunk, rows per panel (0: layer-parallel), panels
        of a chunk, groups of panels (0: all threads share each product), threads, whether phi and
        phi' are stored as packed pairs, and the kernel table.
        """
        P = &self.P
        return {
            "chunk": P.chunk, "panel": P.panel,
            "panels": panels_of(P, P.chunk) if P.panel else 0, "groups": P.groups,
            "threads": P.threads, "folded": bool(P.folds), "arch": P.K.name.decode()
        }


cdef int leave(Plan plan, list spare, Py_ssize_t most) except -1:
    """Return a plan to a pool of at most `most` plans, from a finaliser. No Python code runs here,
    because Ctrl-C in it would be lost.
    """
    if spare is not None and len(spare) < most:
        spare.append(plan)
    return 0


def statistics(Plan plan):
    """Return [(mean, variance)] of z without b, one pair per hidden layer, in double precision, at
    the theta of a plan with batch normalisation.
    """
    return [moments_of(&plan.P.layer[l]) for l in range(plan.P.n_layers - 1)]
