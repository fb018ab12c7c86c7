# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: freethreading_compatible=True
"""The plan: made (sizes, threads, memory), bound (data, theta), multiplied as often as wanted,
freed.
"""
import threading

import numpy as np

from cpython.exc cimport PyErr_CheckSignals
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from .across cimport fill_ones, load_across, outputs_across
from .data cimport Rows
from .kernels cimport (
    BLOCK_ROWS,
    FC_BINARY_CROSS_ENTROPY,
    FC_CROSS_ENTROPY,
    FC_ELU,
    FC_GELU,
    FC_IDENTITY,
    FC_LEAKY_RELU,
    FC_MSE,
    FC_RELU,
    FC_SIGMOID,
    FC_SILU,
    FC_SOFTPLUS,
    FC_TANH,
    fc_bend_from_delta,
    fc_slope_from_a,
    table_chosen,
)
from .layout cimport add_norm, bytes_of, choose_chunks, free_norms, lay_out, lay_out_vectors
from .memory cimport Arena, fc_block_free, padded, pointer, zeroed
from .passes cimport backward, forward, r_backward, r_forward, r_loss
from .schedule cimport decay, serve, take_theta, take_vector
from .state cimport (
    BACKWARD,
    DU_MEANS,
    FISHER,
    FORWARD,
    GGN,
    HESSIAN,
    JVP,
    MOMENTS,
    NO_STAGE,
    PRODUCT,
    QUADRATIC,
    RDU_MEANS,
    RZ_MEANS,
    VJP,
    Data,
    Job,
    Layer,
    Pass,
    PlanS,
    Stage,
    in_turns,
    new_pass,
    normalised,
)
from .team cimport FC_MAX_THREADS, fc_watch, fc_watch_off, unwatch, watch

ACTIVATIONS = {
    "identity": FC_IDENTITY,
    "relu": FC_RELU,
    "leaky_relu": FC_LEAKY_RELU,
    "tanh": FC_TANH,
    "sigmoid": FC_SIGMOID,
    "softplus": FC_SOFTPLUS,
    "silu": FC_SILU,
    "gelu": FC_GELU,
    "elu": FC_ELU,
}
LOSSES = {
    "mse": FC_MSE, "cross_entropy": FC_CROSS_ENTROPY,
    "binary_cross_entropy": FC_BINARY_CROSS_ENTROPY
}
KINDS = {"hessian": HESSIAN, "ggn": GGN, "fisher": FISHER}


cdef enum:
    TALL_BLOCK = 16             # vectors served side by side by a tall plan


cdef class Plan:
    """State and scratch for products with one network on one set of rows.

    Parameters
    ----------
    sizes, activations, skips : of the network; one activation and one flag for each hidden layer
    rows : Rows
    loss, divisor, l2, l2_biases : of the objective
    threads, memory : int
        `memory` in bytes, 0: no bound.
    """
    cdef PlanS P
    cdef char *block_
    cdef char *vector_block
    cdef readonly Rows rows
    cdef object __weakref__
    cdef readonly object theta
    cdef public object lock
    cdef readonly double value, l2
    cdef readonly object gradient
    cdef readonly Py_ssize_t nbytes
    cdef Py_ssize_t at_chunk     # the chunk whose state is kept, -1: none
    cdef bint loaded             # across: P.x holds X
    cdef int done                # of that chunk: 0 nothing, 1 forward, 2 backward
    cdef Py_ssize_t reserved_bytes
    cdef readonly object sizes
    cdef Py_ssize_t memory

    def __cinit__(
        self, sizes, activations, skips, bint bias, Rows rows, str loss, double divisor, double l2,
        int threads, Py_ssize_t memory=0, bint batch_norm=False, bint l2_biases=True
    ):
        cdef PlanS *P = &self.P
        cdef Py_ssize_t l
        cdef Layer *y
        self.rows, self.l2, self.lock, self.sizes = rows, l2, threading.Lock(), tuple(sizes)
        self.memory = memory
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
                y.phi = ACTIVATIONS[activations[l]]
                y.skip = skips[l]
                if batch_norm:
                    add_norm(P, y)
            y.has_p = y.phi != FC_IDENTITY
            y.curved = y.phi not in (FC_IDENTITY, FC_RELU, FC_LEAKY_RELU)
            y.derived = (fc_slope_from_a(y.phi) or fc_bend_from_delta(y.phi)) and not y.skip
        P.loss.kind, P.loss.divisor = LOSSES[loss], divisor
        P.data, P.ldx = &rows.D, rows.D.ldx
        choose_chunks(P, memory)
        self.make_block()
        if P.chunk == P.N and not P.across:
            rows.pad(P.K, P.threads)
        self.at_chunk = -1

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

    def bind(self, theta, bint gradient=True):
        """Take theta (n,), contiguous, of the plan's dtype, as its own from now on: forward, and
        backward unless not wanted.
        """
        cdef char *start = pointer(theta)
        self.theta, self.gradient, self.at_chunk, self.done = theta, None, -1, 0
        with nogil:
            take_theta(&self.P, start)
        try:
            self.walk(gradient)
        except BaseException:                    # interrupted: nothing here belongs to theta
            self.theta = None
            raise

    def finish(self):
        """The gradient, after a bind without it."""
        if self.gradient is None:
            if self.done == 2:                   # what backward needs is spent
                self.at_chunk = -1
            self.walk(True)

    def prepare(self):
        """What products need, after a bind without the gradient."""
        if self.done < 2:
            self.finish()

    def unbind(self):
        """Forget theta: its memory is about to change."""
        self.theta = None

    def forget_gradient(self):
        """The gradient has been handed out: if it is wanted again at this theta, it is made again.
        The state stays.
        """
        self.gradient = None

    cdef int walk(self, bint gradient) except -1:
        """All chunks forward, and backward into a new gradient."""
        cdef PlanS *P = &self.P
        cdef Py_ssize_t r0
        cdef double value = 0
        cdef char *out = NULL
        cdef bint add = self.l2 != 0
        g = None
        if gradient:
            g = np.empty(P.n, self.theta.dtype)
            out = pointer(g)
            if add:
                decay(P, self.l2, P.theta, out)
        cdef fc_watch before
        with nogil:
            before = watch()
            gather_at_theta(self, gradient)
            r0 = 0
            while r0 < P.N and not fc_watch_off():
                self.at_rows(r0, gradient, out, add)
                value += self.values(r0)
                add = True
                r0 += P.chunk
            self.end(before)
        self.value = value
        if self.l2 != 0:
            self.value += 0.5 * self.l2 * self.decayed()
        self.gradient = g
        return 0

    cdef int end(self, fc_watch before) except -1 nogil:
        """Of the watch over a pass: what was called off has left nothing to build on."""
        if fc_watch_off():
            self.at_chunk, self.done, self.P.stage = -1, 0, NO_STAGE
        return unwatch(before)

    cdef double decayed(self) noexcept:
        """``||theta||^2``, of the matrices W alone where l2 spares the rest."""
        cdef PlanS *P = &self.P
        cdef Py_ssize_t l, n
        cdef char *W
        cdef double square = 0
        for l in range(P.n_layers if P.spare else 1):
            n = P.layer[l].m * P.layer[l].k if P.spare else P.n
            W = P.theta + P.layer[l].w * P.K.real_bytes
            P.K.dots(1, 1, n, W, n, W, n, &square, 1)
        return square

    cdef double values(self, Py_ssize_t r0) noexcept nogil:
        """The part of the loss that the chunk at hand has, its blocks added in order."""
        cdef Py_ssize_t block = self.P.panel or BLOCK_ROWS, rows = min(self.P.chunk, self.P.N - r0)
        cdef Py_ssize_t i
        cdef double value = 0
        for i in range((rows + block - 1) // block):
            value += self.P.values[i]
        return value

    cdef void at_rows(self, Py_ssize_t r0, bint back, char *out, bint add) noexcept nogil:
        """Bring the chunk that begins at row r0 to life as far as wanted: forward; backward; the
        gradient into out.
        """
        cdef PlanS *P = &self.P
        cdef Job job
        cdef bint fresh = self.at_chunk != r0 or self.done == 0
        memset(&job, 0, sizeof(job))
        job.P, job.rows, job.out, job.add = P, min(P.chunk, P.N - r0), out, add
        job.stages = (FORWARD if fresh else 0) | (
            BACKWARD if back and (out != NULL or self.done < 2 or fresh) else 0
        )
        if fresh:
            self.load(r0, job.rows)
        serve(&job)
        self.at_chunk, self.done = r0, 2 if back else 1

    cdef void load(self, Py_ssize_t r0, Py_ssize_t rows) noexcept nogil:
        """Point at the chunk's rows of data; X is padded into the plan's own memory where the whole
        is not.
        """
        cdef PlanS *P = &self.P
        cdef int size = P.K.real_bytes
        cdef Data *D = P.data
        if P.across:
            if P.chunk < P.N or not self.loaded:
                load_across(P, r0, rows)
                self.loaded = True
        elif P.chunk == P.N:
            P.x = D.x
        else:
            P.K.copy(rows, P.layer[0].k, D.X + r0 * D.x_rs * size, D.x_rs, D.x_cs, P.x, P.ldx)
        if D.y != NULL:
            P.loss.y, P.loss.ldy = D.y + r0 * D.ldy * size, D.ldy
        if D.labels != NULL:
            P.loss.labels = D.labels + r0
        if D.weight != NULL:
            P.loss.weight = D.weight + r0 * size

    # --- multiplied -------------------------------------------------------------------------------

    cdef void select(self, const char *active) noexcept nogil:
        """Which layers v moves; NULL: all."""
        cdef Py_ssize_t l
        self.P.first = self.P.n_layers
        for l in range(self.P.n_layers - 1, -1, -1):
            self.P.active[l] = active[l] if active != NULL else 1
            if self.P.active[l]:
                self.P.first = l

    cdef int go(self, Job *job, char *out, Py_ssize_t out_step) except -1 nogil:
        cdef fc_watch before = watch()
        self.all_chunks(job, out, out_step)
        return self.end(before)

    cdef void all_chunks(self, Job *job, char *out, Py_ssize_t out_step) noexcept nogil:
        """The job over all chunks. out: by parameters (sums over rows), or by rows (JVP), out_step
        bytes a vector.
        """
        cdef PlanS *P = &self.P
        cdef Py_ssize_t r0, j
        cdef bint by_rows = job.kind == JVP
        job.P = P
        job.out, job.out_step, job.add = out, out_step, job.l2 != 0
        if job.kind != VJP and (P.panel or job.vectors == 1):     # else one by one, see serve_wide
            for j in range(job.vectors):
                take_vector(job, j, j)
        gather_along_v(self, job)
        r0 = 0
        while r0 < P.N:
            if self.at_chunk != r0 or self.done < 2:
                self.at_rows(r0, True, NULL, False)
            job.rows = min(P.chunk, P.N - r0)
            job.out = out + (r0 * P.d_out * P.K.real_bytes if by_rows else 0)
            job.u = job.v + r0 * P.d_out * P.K.real_bytes
            serve(job)
            job.add, job.l2 = True, 0
            r0 += P.chunk
            if fc_watch_off():
                return

    cdef Py_ssize_t room_for(self, Py_ssize_t vectors) except -1:
        """How many of them are taken at once: side by side where tall, in one pass over chunks,
        else one by one.
        """
        if in_turns(&self.P) or (not self.P.panel and self.P.chunk == self.P.N):
            return 1
        vectors = min(vectors, <Py_ssize_t>TALL_BLOCK)
        if self.P.panel and vectors > self.P.block:
            self.reserve(vectors)
            vectors = min(vectors, self.P.block)
        return vectors

    def multiply(self, v, out, str kind="hessian", active=None, bint l2=True):
        """out = (the operator) v for v, out contiguous of the plan's dtype: (n,), or (k, n), a
        vector a row. out may be v where the plan says `in_place`."""
        cdef PlanS *P = &self.P
        cdef Job job
        cdef Py_ssize_t k = 1 if v.ndim == 1 else v.shape[0], j, step = P.n * P.K.real_bytes
        cdef char *v_ = pointer(v)
        cdef char *out_ = pointer(out)
        memset(&job, 0, sizeof(job))
        job.stages, job.kind = PRODUCT, KINDS[kind]
        job.v_step = step
        cdef const char *active_ = NULL if active is None else pointer(active)
        with self.lock:
            j = 0
            while j < k:
                job.vectors, job.v = self.room_for(k - j), v_ + j * step
                job.l2 = self.l2 if l2 else 0
                with nogil:
                    self.select(active_)
                    self.go(&job, out_ + j * step, step)
                j += job.vectors
                PyErr_CheckSignals()

    def quadratic(self, v, str kind="hessian", active=None):
        """v'(the operator) v without l2, for v (n,) or (k, n): an array (k,)."""
        cdef PlanS *P = &self.P
        cdef Job job
        cdef Py_ssize_t k = 1 if v.ndim == 1 else v.shape[0], j, step = P.n * P.K.real_bytes
        cdef char *v_ = pointer(v)
        cdef const char *active_ = NULL if active is None else pointer(active)
        result = np.zeros(k)
        cdef double *totals = <double *>pointer(result)
        memset(&job, 0, sizeof(job))
        job.stages, job.kind, job.v_step = QUADRATIC, KINDS[kind], step
        with self.lock:
            j = 0
            while j < k:
                job.vectors, job.v, job.totals = self.room_for(k - j), v_ + j * step, totals + j
                with nogil:
                    self.select(active_)
                    self.go(&job, NULL, 0)
                j += job.vectors
                PyErr_CheckSignals()
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
            self.select(NULL)
            self.go(&job, out_, 0)

    def outputs(self, out):
        """The net's outputs at theta into out (N, d_out), contiguous."""
        cdef PlanS *P = &self.P
        cdef Layer *y = &P.layer[P.n_layers - 1]
        cdef Py_ssize_t r0, i, size = P.K.real_bytes
        cdef char *o = pointer(out)
        cdef fc_watch before
        with self.lock, nogil:
            before = watch()
            r0 = 0
            while r0 < P.N and not fc_watch_off():
                if self.at_chunk != r0 or self.done < 1:
                    self.at_rows(r0, False, NULL, False)
                if P.across:
                    outputs_across(P, r0, o)
                for i in range(min(P.chunk, P.N - r0) if not P.across else 0):
                    memcpy(o + (r0 + i) * y.m * size, y.a + i * y.ldm * size, y.m * size)
                r0 += P.chunk
            self.end(before)

    def after_fork(self):
        """In a child: nobody is left to release the lock, and what its holder was making is half
        made.
        """
        if self.lock.locked():
            self.lock, self.at_chunk, self.done = threading.Lock(), -1, 0

    @property
    def in_place(self):
        """Whether v is read whole before the first number of its product is written."""
        if self.P.across:
            return False
        return self.P.panel != 0 or (self.P.chunk == self.P.N and not normalised(&self.P))

    @property
    def layout(self):
        """How rows are served: chunk, panel (0: wide), groups, threads, kernels."""
        P = &self.P
        return {
            "chunk": P.chunk, "panel": P.panel, "groups": P.groups, "threads": P.threads,
            "arch": P.K.name.decode()
        }


# --- rows in chunks: the means of one layer after the other ---------------------------------------

cdef void gather(Plan plan, Job *job, Stage stage, Py_ssize_t l) noexcept nogil:
    """One pass over all rows for the means of one layer; what the pass needs of the layers before
    it is known.
    """
    cdef PlanS *P = &plan.P
    cdef Pass t = new_pass(P, &P.wide, False, job.kind)
    cdef Py_ssize_t r0 = 0
    cdef int wanted = 0 if stage == MOMENTS else 2 if stage == RDU_MEANS else 1
    P.stage, P.seen = NO_STAGE, 0
    while r0 < P.N:
        t.rows = min(P.chunk, P.N - r0)
        if wanted == 0:
            plan.load(r0, t.rows)
        elif plan.at_chunk != r0 or plan.done < wanted:
            plan.at_rows(r0, wanted == 2, NULL, False)
        P.stage, P.target = stage, l
        if stage == MOMENTS:
            forward(&t)
        elif stage == DU_MEANS:
            backward(&t, NULL, False)
        else:
            if job.kind != VJP:
                r_forward(&t, False)
            if stage == RDU_MEANS:
                r_loss(&t, job.v + r0 * P.d_out * P.K.real_bytes)
                r_backward(&t, NULL, False)
        if stage == MOMENTS or stage == DU_MEANS:
            plan.at_chunk = -1                 # left half way
        P.stage = NO_STAGE
        r0 += P.chunk
        if fc_watch_off():
            return


cdef void gather_at_theta(Plan plan, bint gradient) noexcept nogil:
    """Means and variances upwards, then those of du downwards where a gradient is wanted."""
    cdef PlanS *P = &plan.P
    cdef Py_ssize_t l
    cdef Job job
    if not in_turns(P):
        return
    memset(&job, 0, sizeof(job))
    for l in range(P.n_layers - 1):
        gather(plan, &job, MOMENTS, l)
    for l in range(P.n_layers - 2 if gradient else -1, -1, -1):
        gather(plan, &job, DU_MEANS, l)


cdef void gather_along_v(Plan plan, Job *job) noexcept nogil:
    """Along one vector: those of rz upwards, of rdu downwards, as far as the job needs them."""
    cdef PlanS *P = &plan.P
    cdef Py_ssize_t l
    if not in_turns(P):
        return
    if job.kind != VJP:
        for l in range(P.first, P.n_layers - 1):
            gather(plan, job, RZ_MEANS, l)
    if job.stages & PRODUCT and job.kind != JVP:
        for l in range(P.n_layers - 2, P.first - 1, -1):
            gather(plan, job, RDU_MEANS, l)


def statistics(Plan plan):
    """[(mean, variance)] of z without b, by hidden layer, at the theta of a plan with batch
    normalisation; double precision.
    """
    cdef PlanS *P = &plan.P
    cdef Layer *y
    cdef Py_ssize_t l
    cdef double *to
    result = []
    for l in range(P.n_layers - 1):
        y = &P.layer[l]
        moments = np.empty((2, y.m))
        to = <double *>pointer(moments)
        memcpy(to, y.norm.moments, y.m * sizeof(double))
        memcpy(to + y.m, y.norm.moments + y.ldm, y.m * sizeof(double))
        result.append((moments[0], moments[1]))
    return result
