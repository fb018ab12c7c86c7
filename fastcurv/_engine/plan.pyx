"""The plan: made (sizes, threads, memory), bound (data, theta), multiplied as often as wanted,
freed.
"""
import numpy as np

from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport INFINITY
from libc.stdlib cimport calloc, free
from libc.string cimport memset


KINDS = {"hessian": HESSIAN, "ggn": GGN, "fisher": FISHER}


cdef enum:
    TALL_BLOCK = 16             # vectors served side by side by a tall plan
    HELD_WORK = 200000          # flops of a product up to which the GIL is held: some microseconds
    TRIED_WORK = 400000000      # flops of a product up to which one thread may be faster at theta


cdef class Plan:
    """State and scratch for products with one network on one set of rows.

    Parameters
    ----------
    sizes, activations, skips : of the network; one activation and one flag for each hidden layer.
        An activation without kernels is an object whose ``rounded(z)`` are phi(z), phi' and phi'',
        contiguous and of z's shape and dtype.
    rows : Rows
    loss, divisor, l2, l2_biases : of the objective
    given, coupled : callable or None, bool
        Of a loss without kernels: ``given(z, y, weight)``, the loss of some rows, its derivatives
        by z (rows, d_out) and its second ones, (rows, d_out), or (rows, d_out, d_out) if `coupled`,
        both in the dtype of the plan, contiguous.
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
    cdef Trial trials[2]        # of forward, and of backward too
    cdef bint multiplied        # the state has been of use to products
    cdef bint passing           # gradients are shown as copies, or forgotten
    cdef object spare           # one's memory: fresh memory would take as long as the passes
    cdef long long since        # when theta's memory began to change; 0: it does not
    cdef object given
    cdef tuple activations
    cdef object error           # what a function that was asked has raised

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

    # --- made: how rows are served, and the one block of memory -----------------------------------

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
        """Room for `block` vectors side by side, as far as `memory` goes; what the room is for is
        in P.block.
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

    # --- bound ------------------------------------------------------------------------------------

    def bind(self, theta, bint gradient=True, bint passing=False):
        """Take theta (n,), contiguous, of the plan's dtype, as its own from now on: forward, and
        backward unless not wanted. `passing`: for the gradient alone, which is copied or forgotten;
        products have to make their state again, and from the first of them on it is kept.
        """
        self.be_at(theta, NULL, gradient, passing)

    def take(self, source, theta, bint gradient=True, bint passing=False):
        """The same with theta[:] = source on the way. False, and the plan is nowhere, where source
        is no vector as the engine takes them, or not finite.
        """
        cdef char *from_ = ready(source, self.P.n, self.dtype, False)
        self.theta = None
        return from_ != NULL and self.be_at(theta, from_, gradient, passing)

    cdef bint be_at(self, theta, char *source, bint gradient, bint passing) except -1:
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
        except BaseException:                    # interrupted: nothing here belongs to theta
            self.theta = None
            raise
        finally:
            self.P.threads, self.since, self.P.passing = threads, 0, False
        turn_took(trial, since)
        return finite

    def finish(self):
        """The gradient, after a bind without it."""
        if self.gradient is None:
            if self.P.done == 2:                   # what backward needs is spent
                self.P.at_chunk = -1
            self.walk(True)

    def prepare(self):
        """What products need, after a bind without the gradient."""
        self.multiplied = True
        if self.P.done < 2:
            self.finish()

    def unbind(self):
        """Forget theta: its memory is about to change, which is timed with the next bind."""
        self.theta, self.since = None, now()

    def renew(self, X, y, labels, weight):
        """Other rows of the same shapes and kinds in place of those at hand; theta is forgotten.
        The Rows must be this plan's alone. Whether X was copied and is seen to be finite: if not,
        who gave it has to look.
        """
        with self.lock:
            self.let_go()
            self.theta = None
            self.P.at_chunk, self.P.done, self.P.loaded = -1, 0, False
            return bool(self.rows.renew(X, y, labels, weight, self.P.K, self.P.threads))

    def forget_gradient(self):
        """The gradient has been handed out: if it is wanted again at this theta, it is made again,
        in the same memory where nobody has it any more. The state stays.
        """
        self.spare, self.gradient = self.gradient, None

    cdef void let_go(self):
        """Forget the gradient; its memory serves again where nobody else has seen it."""
        if self.passing and self.gradient is not None:
            self.spare = self.gradient
        self.gradient = None

    cdef int walk(self, bint gradient) except -1:
        """All chunks forward, and backward into a new gradient."""
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
        """All chunks forward, and backward into out unless NULL, with what l2 adds."""
        cdef PlanS *P = &self.P
        cdef bint gradient = out != NULL, add = self.l2 != 0
        if gradient and add:
            decay(P, self.l2, P.theta, out)
        P.total = at_theta(P, gradient, out, add)
        if add:
            P.total += 0.5 * self.l2 * decayed(P, P.theta)
        return P.total

    cdef bint loss_at(self, char *theta, char *gradient, double *loss) noexcept nogil:
        """The loss at theta and its gradient: for a loop of the engine, which has the lock and the
        watch. False, and the loss is INFINITY, where theta is not finite. The plan is nowhere that
        others know of.
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
        """Of the watch over a pass: what was called off has left nothing to build on."""
        if fc_watch_was_off():
            self.P.at_chunk, self.P.done, self.P.stage = -1, 0, NO_STAGE
        unwatch(before)
        if self.P.failed:
            with gil:
                self.tell()
        return 0

    cdef int tell(self) except -1:
        """Raise what a function has raised in the walk that ended."""
        error, self.error = self.error, None
        self.P.at_chunk, self.P.done, self.P.failed = -1, 0, False
        raise error

    # --- multiplied -------------------------------------------------------------------------------

    cdef int go(
        self, Job *job, char *out, Py_ssize_t out_step, const char *active
    ) except -1 nogil:
        cdef fc_watch before = watch()
        job.P = &self.P
        select(job.P, active)
        along_v(job, out, out_step)
        return self.end(before)

    cdef Py_ssize_t room_for(self, Py_ssize_t vectors) except -1:
        """How many of them are taken at once: side by side where tall, in one pass over chunks,
        else one by one.
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
        """The job along its k vectors, a vector a row, as many at a time as there is room for."""
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
        """out = (the operator) v for v, out contiguous of the plan's dtype: (n,), or (k, n), a
        vector a row. out may be v where the plan says `in_place`."""
        cdef Job job
        memset(&job, 0, sizeof(job))
        job.stages, job.kind, job.v = PRODUCT, KINDS[kind], pointer(v)
        job.l2 = self.l2 if l2 else 0
        self.along(&job, 1 if v.ndim == 1 else v.shape[0], pointer(out), active)

    def quadratic(self, v, str kind="hessian", active=None):
        """v'(the operator) v without l2, for v (n,) or (k, n): an array (k,)."""
        cdef Job job
        cdef Py_ssize_t k = 1 if v.ndim == 1 else v.shape[0]
        result = np.zeros(k)
        memset(&job, 0, sizeof(job))
        job.stages, job.kind, job.v = QUADRATIC, KINDS[kind], pointer(v)
        job.totals = <double *>pointer(result)
        self.along(&job, k, NULL, active)
        return result

    def jacobian(self, v, out, bint transpose=False):
        """out (N, d_out) = J v for v (n,); transposed: out (n,) = J' u for u (N, d_out). All
        contiguous.
        """
        cdef Job job
        cdef char *out_ = pointer(out)
        memset(&job, 0, sizeof(job))
        job.stages, job.kind, job.vectors, job.v = PRODUCT, VJP if transpose else JVP, 1, pointer(v)
        with self.lock, nogil:
            self.go(&job, out_, 0, NULL)

    def outputs(self, out):
        """The net's outputs at theta into out (N, d_out), contiguous."""
        self.states([None] * (4 * self.P.n_layers - 4) + [out] + [None] * 5, False)

    def state(self):
        """What the products at theta are made of: for each layer (a, phi', e * phi'', delta), each
        (N, m), a being z in the last one; None for phi' and e * phi'' that are constant, or made
        from a and delta where they are wanted.
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
        """In a child: what another thread was making is half made."""
        if self.lock.lost:
            self.P.at_chunk, self.P.done = -1, 0

    @property
    def in_place(self):
        """Whether v is read whole, and once, before the first number of its product is written."""
        P = &self.P
        if P.across or P.unpacked:
            return P.aside != NULL and P.chunk == P.N
        return P.panel != 0 or (P.chunk == P.N and not normalised(P))

    @property
    def layout(self):
        """How rows are served: chunk, panel (0: wide), panels of a chunk, groups of them (0: all
        threads share what there is), threads, whether phi and phi' are kept folded, kernels.
        """
        P = &self.P
        return {
            "chunk": P.chunk, "panel": P.panel,
            "panels": panels_of(P, P.chunk) if P.panel else 0, "groups": P.groups,
            "threads": P.threads, "folded": bool(P.folds), "arch": P.K.name.decode()
        }


cdef int leave(Plan plan, list spare, Py_ssize_t most) except -1:
    """Leave a plan to others in a list of at most so many, from a finaliser: no Python runs, in
    which Ctrl-C would be lost.
    """
    if spare is not None and len(spare) < most:
        spare.append(plan)
    return 0


def statistics(Plan plan):
    """[(mean, variance)] of z without b, by hidden layer, at the theta of a plan with batch
    normalisation; double precision.
    """
    return [moments_of(&plan.P.layer[l]) for l in range(plan.P.n_layers - 1)]
