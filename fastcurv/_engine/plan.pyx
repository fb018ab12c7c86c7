"""The plan of an objective. A plan is allocated once for given sizes, threads and memory, is bound
to data and theta, and then multiplies any number of vectors.
"""
import numpy as np

from cpython.exc cimport PyErr_CheckSignals
from libc.math cimport INFINITY
from libc.stdlib cimport calloc, free
from libc.string cimport memset


PRODUCT_KINDS = {"hessian": HESSIAN, "ggn": GGN, "fisher": FISHER}


cdef enum:
    MAX_PANEL_VECTORS = 16      # maximum number of vectors per job of a panel-parallel plan
    # Maximum flops of an operator product that holds the GIL, for at most a few microseconds.
    GIL_HELD_MAX_FLOPS = 200000
    # Maximum flops of an operator product for which `bind` chooses by timing between one thread and
    # all threads.
    TIMING_MAX_FLOPS = 400000000


cdef class Plan:
    """State and scratch memory for operator products of one network on one set of rows.

    Parameters
    ----------
    sizes : sequence of int
        Numbers of inputs, of units of each hidden layer, and of outputs.
    activations : sequence
        One activation per hidden layer. A user-defined activation is an object with a method
        ``rounded(z)`` that returns phi(z), phi'(z) and phi''(z), as contiguous arrays of the shape
        and dtype of z.
    skips : sequence of bool
        One value per hidden layer: True if the layer is residual.
    bias : bool
        True if layers have biases.
    rows : Rows
        The data of the objective.
    loss : str
        Name of a built-in loss.
    divisor : float
        Number by which the sum of row losses is divided.
    l2 : float
        Coefficient of the penalty l2/2 ||theta||^2.
    threads : int
        Maximum number of threads.
    memory : int
        Maximum bytes of the plan's memory; 0: no limit.
    batch_norm : bool
        True if hidden layers are batch-normalised.
    l2_biases : bool
        True if the penalty includes the biases.
    given : callable or None
        A user-defined loss. ``given(z, y, weight)`` returns the loss of some rows, its gradient
        with respect to z, (rows, d_out), and its second derivatives, (rows, d_out) or, if
        `coupled`, (rows, d_out, d_out). Both arrays are contiguous and of the plan's dtype.
    coupled : bool
        True if second derivatives of the user-defined loss couple the outputs of a row.
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
    cdef bint multiplied        # True if products have read the state
    # Time in nanoseconds at which a caller began to change the memory of theta; 0 if no caller
    # does.
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
        cdef bint calls_back = False
        self.rows, self.l2, self.sizes = rows, l2, tuple(sizes)
        self.lock = Lock()
        self.memory, self.dtype = memory, rows.X.dtype
        P.K = &current_kernel_table()[rows.X.itemsize == 8]
        P.N, P.n_layers, P.d_out = rows.X.shape[0], len(sizes) - 1, sizes[len(sizes) - 1]
        P.l2_skips_biases = not l2_biases
        P.layer = <Layer *>calloc(P.n_layers, sizeof(Layer))
        P.active = <char *>calloc(P.n_layers, 1)
        P.threads = max(1, min(threads, FC_MAX_THREADS))
        if P.layer == NULL or P.active == NULL:
            raise MemoryError("Not enough memory for a plan.")
        for l in range(P.n_layers):
            y = &P.layer[l]
            y.k, y.m = sizes[l], sizes[l + 1]
            y.ldk, y.ldm = padded_ld(y.k, P.K.real_bytes), padded_ld(y.m, P.K.real_bytes)
            y.w, y.b = P.n, -1
            P.n += y.m * y.k
            if bias:
                y.b = P.n
                P.n += y.m
            if l < P.n_layers - 1:
                y.user_phi = not isinstance(activations[l], str)
                y.phi = FC_PHI_CALLBACK if y.user_phi else ACTIVATIONS[activations[l]]
                y.skip = skip_of(skips, l, y.k, y.m)
                calls_back |= y.user_phi
                if batch_norm:
                    add_batch_norm_parameters(P, y)
            y.has_p = y.phi != FC_IDENTITY
            y.curved = fc_has_curvature(y.phi)
            y.derived = (fc_slope_from_a(y.phi) or fc_curvature_from_delta(y.phi)) and not y.skip
        P.loss.kind = FC_LOSS_CALLBACK if given is not None else LOSSES[loss]
        P.loss.divisor = divisor
        self.given, self.activations = given, tuple(activations)
        P.user_loss, P.coupled, P.upto = given is not None, coupled, P.n_layers
        P.callbacks = <void *>self if calls_back or P.user_loss else NULL
        P.data, P.ldx = &rows.D, rows.D.ldx
        choose_layout(P, memory)
        self.allocate_block()
        if P.chunk == P.N and (P.shared or not P.ld_transposed):
            rows.ensure_padded_copy(P.K, P.threads)
        self.P.at_chunk = -1

    def __dealloc__(self):
        fc_block_free(self.block_)
        fc_block_free(self.vector_block)
        free_batch_norm_states(&self.P)
        free(self.P.layer)
        free(self.P.active)

    # --- allocation: the layout and the plan's block of memory ------------------------------------

    cdef int allocate_block(self) except -1:
        """Choose the layout, and allocate and lay out the plan's block of memory."""
        cdef Arena arena
        cdef size_t size
        arena.base, arena.used, arena.overflow = NULL, 0, False
        lay_out_plan(&self.P, &arena)
        size = arena.used
        self.block_ = allocate_zeroed_block(
            size, self.P.threads, f"Not enough memory for a plan of {size} bytes."
        )
        arena.base, arena.used = self.block_, 0
        lay_out_plan(&self.P, &arena)
        self.nbytes = size
        if self.P.ld_transposed:
            fill_ones(&self.P)
        return self.reserve_vectors(1)

    cdef int reserve_vectors(self, Py_ssize_t block) except -1:
        """Allocate memory for `block` vectors, or for as many as the memory limit permits. Store
        the resulting number in P.max_vectors.
        """
        cdef PlanS *P = &self.P
        cdef size_t size
        cdef char *base
        cdef Py_ssize_t room = self.memory - self.nbytes + self.reserved_bytes
        while self.memory and block > 1 and <Py_ssize_t>bytes_for_vectors(P, block) > room:
            block -= 1
        if block <= P.max_vectors:
            self.lay_out_vectors_at(self.vector_block, P.max_vectors)
            return 0
        size = bytes_for_vectors(P, block)
        self.lay_out_vectors_at(self.vector_block, P.max_vectors)
        what = f"Not enough memory for a block of {block} vectors of length {P.n}."
        if not size:
            raise MemoryError(what)
        base = allocate_zeroed_block(size, P.threads, what)
        fc_block_free(self.vector_block)
        self.vector_block, P.max_vectors = base, block
        self.nbytes += <Py_ssize_t>size - self.reserved_bytes
        self.reserved_bytes = size
        self.lay_out_vectors_at(base, block)
        return 0

    cdef void lay_out_vectors_at(self, char *base, Py_ssize_t block) noexcept nogil:
        """Set the pointers for `block` vectors into the memory at `base`, unless `base` is NULL."""
        cdef Arena arena
        arena.base, arena.used, arena.overflow = base, 0, False
        if base != NULL:
            lay_out_vectors(&self.P, &arena, block)

    # --- binding to theta -------------------------------------------------------------------------

    def bind(self, theta, bint gradient=True, bint transient=False):
        """Bind the plan to theta (n,): run the forward pass and, if `gradient`, the backward pass.
        The array theta is contiguous, has the plan's dtype, and is kept by the plan.

        If `transient`, only the gradient is needed, so the passes may overwrite the state. A later
        product computes the state again, and after the plan's first product the state is always
        stored.
        """
        self.set_point(theta, NULL, gradient, transient)

    def bind_copy(self, source, theta, bint gradient=True, bint transient=False):
        """Copy the vector `source` into theta and bind the plan to theta. Return False, with the
        plan unbound, if `source` is not a contiguous, aligned vector of the plan's dtype, or if one
        of its elements is not finite.
        """
        cdef char *from_ = vector_address(source, self.P.n, self.dtype, False)
        self.theta = None
        return from_ != NULL and self.set_point(theta, from_, gradient, transient)

    cdef bint set_point(self, theta, char *source, bint gradient, bint transient) except -1:
        """Bind the plan to theta, after copying `source` into it unless `source` is NULL. Return
        False if a copied element is not finite.
        """
        cdef char *start = pointer(theta)
        cdef Trial *trial = &self.trials[gradient]
        cdef int threads = self.P.threads
        cdef long long since = self.since or now_ns()
        cdef bint finite
        # Until the state is complete, the plan is not bound, for a child process that another
        # thread forks and after an exception.
        self.gradient = None
        self.theta, self.P.at_chunk, self.P.done = None, -1, 0
        self.P.transient = transient and not self.multiplied
        if 12 * self.P.N * self.P.n <= TIMING_MAX_FLOPS:
            self.P.threads = choose_timed_threads(trial, threads)
        try:
            with nogil:
                finite = set_and_pack_theta(&self.P, start, source)
            if finite:
                self.evaluate(gradient)
                self.theta = theta
        finally:
            self.P.threads, self.since, self.P.transient = threads, 0, False
        record_timing(trial, since)
        return finite

    def compute_gradient(self):
        """Compute the gradient of a plan that was bound without it."""
        if self.gradient is None:
            if self.P.done == 2:  # the backward pass has overwritten phi'' by e * phi''
                self.P.at_chunk = -1
            self.evaluate(True)

    def prepare_products(self):
        """Compute the state that products need, if the plan was bound without the gradient."""
        self.multiplied = True
        if self.P.done < 2:
            self.compute_gradient()

    def unbind(self):
        """Unbind the plan before the memory of theta changes. The time that the change takes counts
        towards the timings of the next bind.
        """
        self.theta, self.since = None, now_ns()

    def replace_rows(self, X, y, labels, weight):
        """Replace the data by other rows of equal shapes and kinds, and unbind the plan. The Rows
        object must not be shared with other plans. Return True if X was copied and found to be
        finite. If the result is False, the caller has to check X.
        """
        with self.lock:
            self.gradient = None
            self.theta = None
            self.P.at_chunk, self.P.done, self.P.loaded = -1, 0, False
            return bool(self.rows.replace_rows(X, y, labels, weight, self.P.K, self.P.threads))

    def release_gradient(self):
        """Drop the plan's reference to the gradient, which the caller now owns. If the gradient is
        needed again at this theta it is recomputed. The state at theta is kept.
        """
        self.gradient = None

    cdef int evaluate(self, bint gradient) except -1:
        """Evaluate all chunks at theta and set `value`. Set `gradient` to the gradient if the
        argument `gradient` is True, and to None otherwise.
        """
        cdef PlanS *P = &self.P
        cdef char *out = NULL
        cdef fc_watch before
        g = None
        if gradient:
            g = np.empty(P.n, self.dtype)
            out = pointer(g)
        with nogil:
            before = begin_signal_watch()
            self.compute_loss(out)
            self.end_watch(before)
        self.value, self.gradient = P.total, g
        return 0

    cdef double compute_loss(self, char *out) noexcept nogil:
        """Return the loss with its l2 penalty at theta. If `out` is not NULL, write the gradient to
        it.
        """
        cdef PlanS *P = &self.P
        cdef bint gradient = out != NULL, add = self.l2 != 0
        if gradient and add:
            write_penalty_gradient(P, self.l2, P.theta, out)
        P.total = evaluate_chunks(P, gradient, out, add)
        if add:
            P.total += 0.5 * self.l2 * penalised_sum_of_squares(P, P.theta)
        return P.total

    cdef bint compute_loss_at(self, char *theta, char *gradient, double *loss) noexcept nogil:
        """Compute the loss with its l2 penalty at theta, and its gradient unless `gradient` is
        NULL. Return False, with an infinite loss, if theta is not finite. The caller holds the
        plan's lock and has called `begin_signal_watch`. The plan is unbound afterwards.
        """
        cdef PlanS *P = &self.P
        cdef Trial *trial = &self.trials[True]
        cdef int threads = P.threads
        cdef long long since = now_ns()
        cdef bint finite
        P.at_chunk, P.done, P.transient = -1, 0, not self.multiplied
        if 12 * P.N * P.n <= TIMING_MAX_FLOPS:
            P.threads = choose_timed_threads(trial, threads)
        finite = set_and_pack_theta(P, theta, NULL)
        loss[0] = self.compute_loss(gradient) if finite else INFINITY
        P.threads, P.transient = threads, False
        record_timing(trial, since)
        return finite

    cdef int end_watch(self, fc_watch before) except -1 nogil:
        """Stop checking for signals after a pass. If the pass was cancelled, mark the state as
        invalid. Raise the exception of a callback or signal handler, if one raised.
        """
        if fc_watch_cancelled():
            self.P.at_chunk, self.P.done, self.P.stage = -1, 0, NO_STAGE
        end_signal_watch(before)
        if self.P.failed:
            with gil:
                self.raise_callback_error()
        return 0

    cdef int raise_callback_error(self) except -1:
        """Raise the exception that a user-defined function raised during the last pass."""
        error, self.error = self.error, None
        self.P.at_chunk, self.P.done, self.P.failed = -1, 0, False
        raise error

    # --- products ---------------------------------------------------------------------------------

    cdef int run_job(
        self, Job *job, char *out, Py_ssize_t out_step, const char *active
    ) except -1 nogil:
        """Run a job over all chunks while checking for signals. `active` is nonzero for the layers
        in which the vectors are nonzero, or NULL for all layers.
        """
        cdef fc_watch before = begin_signal_watch()
        job.P = &self.P
        set_active_layers(job.P, active)
        run_job_over_chunks(job, out, out_step)
        return self.end_watch(before)

    cdef Py_ssize_t vectors_per_job(self, Py_ssize_t vectors) except -1:
        """Return the number of vectors of the next job, at most `vectors`. The number exceeds 1 if
        the plan is panel-parallel, or if several vectors can share a loop over the chunks.
        """
        if accumulates_by_layer(&self.P) or self.P.shared or (
            not self.P.panel and self.P.chunk == self.P.N
        ):
            return 1
        vectors = min(vectors, <Py_ssize_t>MAX_PANEL_VECTORS)
        if self.P.panel and vectors > self.P.max_vectors:
            self.reserve_vectors(vectors)
            vectors = min(vectors, self.P.max_vectors)
        return vectors

    cdef int apply_to_vectors(self, Job *job, Py_ssize_t k, char *out, active) except -1:
        """Run a job on the k rows of a matrix (k, n), in batches of as many vectors as one job can
        hold.
        """
        cdef PlanS *P = &self.P
        cdef Job part
        cdef Py_ssize_t j = 0, step = P.n * P.K.real_bytes
        cdef const char *active_ = NULL if active is None else pointer(active)
        cdef char *to
        job.v_step = step
        self.lock.acquire()
        try:
            while j < k:
                part = job[0]
                part.vectors, part.v = self.vectors_per_job(k - j), job.v + j * step
                part.totals = NULL if job.totals == NULL else job.totals + j
                to = NULL if out == NULL else out + j * step
                if 12 * P.N * P.n <= GIL_HELD_MAX_FLOPS and P.callbacks == NULL:
                    self.run_job(&part, to, step, active_)
                else:
                    with nogil:
                        self.run_job(&part, to, step, active_)
                j += part.vectors
                PyErr_CheckSignals()
        finally:
            self.lock.release()
        return 0

    def multiply(self, v, out, str kind="hessian", active=None, bint l2=True):
        """Set out = A v, where A is the operator `kind`. Both v and out are contiguous, of the
        plan's dtype, and of shape (n,), or (k, n) with one vector per row. They may be one array if
        `allows_in_place` is True.
        """
        cdef Job job
        memset(&job, 0, sizeof(job))
        job.stages, job.kind, job.v = PRODUCT, PRODUCT_KINDS[kind], pointer(v)
        job.l2 = self.l2 if l2 else 0
        self.apply_to_vectors(&job, 1 if v.ndim == 1 else v.shape[0], pointer(out), active)

    def quadratic_forms(self, v, str kind="hessian", active=None):
        """Return the quadratic forms v' A v, without the l2 penalty, as an array of shape (k,). A
        is the operator `kind`, and v has the shape (k, n), or (n,) for k = 1.
        """
        cdef Job job
        cdef Py_ssize_t k = 1 if v.ndim == 1 else v.shape[0]
        result = np.zeros(k)
        memset(&job, 0, sizeof(job))
        job.stages, job.kind, job.v = QUADRATIC, PRODUCT_KINDS[kind], pointer(v)
        job.totals = <double *>pointer(result)
        self.apply_to_vectors(&job, k, NULL, active)
        return result

    def diagonal(self, str kind="hessian"):
        """Return the diagonal (n,) of the operator `kind` in the plan's dtype, without the l2
        penalty. The plan has no batch normalisation.
        """
        return compute_diagonal(self, PRODUCT_KINDS[kind])

    def multiply_jacobian(self, v, out, bint transpose=False):
        """Set out (N, d_out) = J v for v (n,) or, if `transpose`, out (n,) = J' v for v (N, d_out),
        where J is the Jacobian of the outputs. The arrays are contiguous.
        """
        cdef Job job
        cdef char *out_ = pointer(out)
        memset(&job, 0, sizeof(job))
        job.stages, job.kind, job.vectors, job.v = PRODUCT, VJP if transpose else JVP, 1, pointer(v)
        with self.lock, nogil:
            self.run_job(&job, out_, 0, NULL)

    def write_outputs(self, out):
        """Write the network's outputs at theta to the contiguous array out (N, d_out)."""
        self.copy_states([None] * (4 * self.P.n_layers - 4) + [out] + [None] * 5, False)

    def state(self):
        """Return the state at theta as one tuple (a, phi', e * phi'', delta) of (N, m) matrices per
        layer, with z in place of a in the output layer. In place of phi' and e * phi'' the tuple
        has None if they are constant or are recomputed from a and delta.
        """
        cdef PlanS *P = &self.P
        cdef Py_ssize_t l
        found = []
        for l in range(P.n_layers):
            for there in (True, stores_slopes(&P.layer[l]), P.layer[l].q != NULL, True):
                found.append(np.empty((P.N, P.layer[l].m), self.dtype) if there else None)
        self.copy_states([*found, None, None], True)
        return [tuple(found[4 * l:4 * l + 4]) for l in range(P.n_layers)]

    cdef int copy_states(self, list out, bint back) except -1:
        """Copy the matrices of the state for which `out` has an array, as `copy_state_matrices`
        does.
        """
        cdef fc_watch before
        cdef Py_ssize_t i
        cdef char **to = <char **>calloc(len(out), sizeof(char *))
        if to == NULL:
            raise MemoryError("Not enough memory for a list of matrices.")
        try:
            for i, one in enumerate(out):
                to[i] = NULL if one is None else pointer(one)
            with self.lock, nogil:
                before = begin_signal_watch()
                copy_state_matrices(&self.P, back, to, 0)
                self.end_watch(before)
        finally:
            free(to)
        return 0

    @property
    def allows_in_place(self):
        """True if multiply accepts one array as v and out, because v is read completely before the
        first element of the product is written.
        """
        P = &self.P
        if P.ld_transposed or P.unpacked:
            return P.saved_v != NULL and P.chunk == P.N
        return P.panel != 0 or (P.chunk == P.N and not has_batch_norm(P))

    @property
    def layout(self):
        """The plan's layout as a dict: rows per chunk, rows per panel (0: layer-parallel), panels
        of a chunk, groups of panels (0: all threads share each product), number of threads, True if
        phi and phi' are stored as packed pairs, and the name of the kernel table.
        """
        P = &self.P
        return {
            "chunk": P.chunk, "panel": P.panel,
            "panels": count_panels(P, P.chunk) if P.panel else 0, "groups": P.groups,
            "threads": P.threads, "packed_pairs": bool(P.packs_pairs), "arch": P.K.name.decode()
        }


cdef int return_to_pool(Plan plan, list spare, Py_ssize_t most) except -1:
    """Append a plan to a pool of at most `most` plans. A finaliser calls this function, so it runs
    no Python code, in which a KeyboardInterrupt would be lost.
    """
    if spare is not None and len(spare) < most:
        spare.append(plan)
    return 0


def batch_norm_statistics(Plan plan):
    """Return one pair (mean, variance) of z - b per hidden layer, in double precision, at the theta
    of a plan with batch normalisation.
    """
    return [batch_norm_moments(&plan.P.layer[l]) for l in range(plan.P.n_layers - 1)]
