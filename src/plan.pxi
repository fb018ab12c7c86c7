# The plan: made (sizes, threads, memory), bound (data, theta), multiplied as often as wanted, freed.

ACTIVATIONS = {"identity": FC_IDENTITY, "relu": FC_RELU, "leaky_relu": FC_LEAKY_RELU, "tanh": FC_TANH, "sigmoid": FC_SIGMOID,
               "softplus": FC_SOFTPLUS, "silu": FC_SILU, "gelu": FC_GELU, "elu": FC_ELU}
LOSSES = {"mse": FC_MSE, "cross_entropy": FC_CROSS_ENTROPY, "binary_cross_entropy": FC_BINARY_CROSS_ENTROPY}
KINDS = {"hessian": HESSIAN, "ggn": GGN, "fisher": FISHER}


cdef enum:
    MAX_GROUPS = 32             # tall: partial sums kept, whatever the number of threads
    TALL_WEIGHTS = 1 << 18      # bytes of parameters up to which a net's products are better served tall
    PANEL_BYTES = 1 << 18       # what a panel's rows may take of the second-level cache
    SERIAL_FLOPS = 3000000      # below this, waking a thread costs more than it saves
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

    def __cinit__(self, sizes, activations, skips, bint bias, Rows rows, str loss, double divisor, double l2, int threads,
                  Py_ssize_t memory=0, bint batch_norm=False, bint l2_biases=True):
        cdef PlanS *P = &self.P
        cdef Py_ssize_t l
        cdef Layer *y
        self.rows, self.l2, self.lock, self.sizes, self.memory = rows, l2, threading.Lock(), tuple(sizes), memory
        P.K = &chosen[rows.X.itemsize == 8]
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
        self.choose_chunks(memory)
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

    # --- made: how rows are served, and the one block of memory ---------------------------------------------------------

    cdef int choose_chunks(self, Py_ssize_t memory) except -1:
        """Rows kept at a time, tall or wide, threads or not: a cost model in a few lines.

        Tall pays where both orientations of W and V and a group's sums fit in the second-level cache beside a panel; a wide
        net's products are large enough to be shared among threads one by one. Below SERIAL_FLOPS one thread does all."""
        cdef PlanS *P = &self.P
        cdef Py_ssize_t l, row_bytes = 0, size = P.K.real_bytes, count
        P.chunk = P.N
        for l in range(P.n_layers):
            row_bytes += size * (P.layer[l].ldm * 6 + (P.layer[l].ldk if l == 0 else 0))
        if 12 * P.N * P.n < SERIAL_FLOPS:
            P.threads = 1
        if P.n * size <= TALL_WEIGHTS and not normalised(P):
            P.panel = max(16, min(256, PANEL_BYTES // row_bytes))
            count = (P.N + P.panel - 1) // P.panel
            if count > 2:                   # few panels are shared evenly by 2 or 4 threads
                count = (count + 3) // 4 * 4
            P.panel = (P.N + count - 1) // count
            self.choose_across()
        if memory:
            self.fit_into(memory)
        return 0

    cdef int fit_into(self, Py_ssize_t memory) except -1:
        """The chunk under a bound, by sizes and the bound alone, so that no bit depends on the number of threads.

        Let B(c) be the bytes of a plan for one thread that keeps c rows at a time, and s those of a thread's scratch. All N
        rows are kept where B(N) fits; else as many as leave room for further threads: the largest c with
        ``B(c) <= memory - min(63 s, (memory - B(1)) / 4)``. As many threads then serve as fit beside it."""
        cdef PlanS *P = &self.P
        cdef int wanted = P.threads
        cdef Py_ssize_t low, high, middle, least, room, each
        P.threads = 2
        each = self.measure()
        P.threads = 1
        middle = self.measure()
        each -= middle
        if middle > memory:
            P.chunk = 1
            least = self.measure()
            if least > memory:
                raise ValueError(f"memory={memory} bytes is not enough: {least} are needed to keep the state of one row")
            room = min((FC_MAX_THREADS - 1) * each, (memory - least) // 4)
            low, high = 1, P.N - 1          # bytes grow with rows
            while low < high:
                middle = (low + high + 1) // 2
                P.chunk = middle
                if <Py_ssize_t>self.measure() <= memory - room:
                    low = middle
                else:
                    high = middle - 1
            P.chunk = low
        P.threads = wanted
        while P.threads > 1 and <Py_ssize_t>self.measure() > memory:
            P.threads -= 1
        return 0

    cdef int choose_across(self) except -1:
        """Whether samples lie across, and how many a panel has."""
        cdef PlanS *P = &self.P
        cdef Py_ssize_t l, line = FC_ALIGN // P.K.real_bytes, lines
        lines = lines_across(P)
        if lines:
            lines = min(lines, (P.N + line - 1) // line)
            P.across = P.panel = lines * line
            P.ldx = P.layer[0].k
            for l in range(P.n_layers):
                P.layer[l].ldm, P.layer[l].ldk = P.layer[l].m, P.layer[l].k
        return 0

    cdef size_t measure(self) except 0:
        """Bytes of the block for the present chunk. Rows past a chunk's end are padded to whole panels."""
        cdef Arena arena
        arena.base, arena.used, arena.overflow = NULL, 0, False
        self.lay_out(&arena)
        lay_out_vectors(&self.P, &arena, 1)
        if arena.overflow:
            raise MemoryError(f"a plan for {self.P.N} rows and {self.P.n} parameters is larger than memory can be")
        return arena.used

    cdef void lay_out(self, Arena *A) noexcept nogil:
        """Hand out the block. In numbers of the real type, R rows in a chunk, D padded widths: n + (n - first layer) for W
        both ways; R D of a, delta, and of phi' and e phi'' where they are neither constant nor
        derived from a and delta, by layer; R D_L for the loss;
        scratch of r (1 or 2 D by layer, 2 max D), r the rows of a chunk where wide, of a panel for each thread where tall."""
        cdef PlanS *P = &self.P
        cdef size_t size = P.K.real_bytes, R = P.chunk if not P.across else (P.chunk + P.panel - 1) // P.panel * P.panel
        cdef Py_ssize_t l, widest = 0, i
        cdef Py_ssize_t rows = P.across if P.across else min(P.panel, P.chunk) if P.panel else P.chunk
        cdef Layer *y
        for l in range(P.n_layers):
            y = &P.layer[l]
            widest = max(widest, max(y.ldm, y.ldk if l else 0))
            if not P.across:
                y.wt = take(A, y.k * panels(P, y.m), size)
                y.wn = take(A, y.m * panels(P, y.k), size) if l else NULL
                y.bias = take(A, y.ldm, size) if y.b >= 0 else NULL
            y.a = take(A, R * y.ldm, size)
            y.p = take(A, R * y.ldm, size) if y.has_p and not (y.derived and fc_slope_from_a(y.phi)) else NULL
            y.q = take(A, R * y.ldm, size) if y.curved and not y.derived else NULL
            y.delta = take(A, R * y.ldm, size)
            y.du = y.delta if y.norm == NULL else lay_out_norm(P, y, A)
        y = &P.layer[P.n_layers - 1]
        P.loss.delta, P.loss.ldd = y.delta, y.ldm
        P.loss.h, P.loss.ldh = take(A, R * y.ldm, size), y.ldm
        P.loss.s = take(A, R, size)
        P.loss.top = <int32_t *>take(A, R, sizeof(int32_t))
        P.values = <double *>take(A, R // 8 + 2, sizeof(double))
        if P.chunk < P.N or P.across:
            P.x = take(A, R * P.ldx, size)
        P.ones = take(A, P.across, size)
        P.bench = <Bench *>take(A, P.threads, sizeof(Bench))
        for i in range(P.threads):
            lay_bench(P, A, P.bench + i if A.base != NULL else NULL, rows if P.panel else 0, widest)
            if A.base != NULL:
                P.bench[i].gemm = A.base + A.used
            take(A, P.K.scratch, 1)
        if not P.panel:                         # its products run on the members' benches
            lay_bench(P, A, &P.wide if A.base != NULL else NULL, rows, widest)
        P.groups = min(<Py_ssize_t>MAX_GROUPS, (P.chunk + P.panel - 1) // P.panel) if P.panel else 0
        P.ldg = (P.n * <Py_ssize_t>size + FC_ALIGN - 1) // FC_ALIGN * FC_ALIGN // <Py_ssize_t>size

    cdef int make_block(self) except -1:
        cdef Arena arena
        cdef size_t size
        arena.base, arena.used, arena.overflow = NULL, 0, False
        self.lay_out(&arena)
        size = arena.used
        self.block_ = zeroed(size, self.P.threads, f"no memory for a plan of {size} bytes")
        arena.base, arena.used = self.block_, 0
        self.lay_out(&arena)
        self.nbytes = size
        if self.P.across:
            fill_ones(&self.P)
        return self.reserve(1)

    cdef int reserve(self, Py_ssize_t block) except -1:
        """Room for `block` vectors side by side, as far as `memory` goes; what the room is for is in P.block."""
        cdef PlanS *P = &self.P
        cdef size_t size
        cdef char *base
        while self.memory and block > 1 and <Py_ssize_t>bytes_of(P, block) > self.memory - self.nbytes + self.reserved_bytes:
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

    # --- bound ------------------------------------------------------------------------------------------------------------

    def bind(self, theta, bint gradient=True):
        """Take theta (n,), contiguous, of the plan's dtype, as its own from now on: forward, and backward unless not wanted."""
        self.P.theta = pointer(theta)
        self.theta, self.gradient, self.at_chunk, self.done = theta, None, -1, 0
        with nogil:
            pack_all(&self.P, self.P.theta, False, 0)
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
        """The gradient has been handed out: if it is wanted again at this theta, it is made again. The state stays."""
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
        cdef Py_ssize_t block = self.P.panel or BLOCK_ROWS, rows = min(self.P.chunk, self.P.N - r0), i
        cdef double value = 0
        for i in range((rows + block - 1) // block):
            value += self.P.values[i]
        return value

    cdef void at_rows(self, Py_ssize_t r0, bint back, char *out, bint add) noexcept nogil:
        """Bring the chunk that begins at row r0 to life as far as wanted: forward; backward; the gradient into out."""
        cdef PlanS *P = &self.P
        cdef Job job
        cdef bint fresh = self.at_chunk != r0 or self.done == 0
        memset(&job, 0, sizeof(job))
        job.P, job.rows, job.out, job.add = P, min(P.chunk, P.N - r0), out, add
        job.stages = (FORWARD if fresh else 0) | (BACKWARD if back and (out != NULL or self.done < 2 or fresh) else 0)
        if fresh:
            self.load(r0, job.rows)
        serve(&job)
        self.at_chunk, self.done = r0, 2 if back else 1

    cdef void load(self, Py_ssize_t r0, Py_ssize_t rows) noexcept nogil:
        """Point at the chunk's rows of data; X is padded into the plan's own memory where the whole is not."""
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

    # --- multiplied ---------------------------------------------------------------------------------------------------------

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
        """The job over all chunks. out: by parameters (sums over rows), or by rows (JVP), out_step bytes a vector."""
        cdef PlanS *P = &self.P
        cdef Py_ssize_t r0, j
        cdef bint by_rows = job.kind == JVP
        job.P = P
        if job.kind != VJP and P.panel:
            for j in range(job.vectors):
                pack_all(P, job.v + j * job.v_step, True, j)
                if job.l2 != 0:
                    decay(P, job.l2, job.v + j * job.v_step, out + j * out_step)
        gather_along_v(self, job)
        job.out_step, job.add = out_step, job.l2 != 0
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
        """How many of them are taken at once: side by side where tall, in one pass over chunks, else one by one."""
        if in_turns(&self.P) or (not self.P.panel and self.P.chunk == self.P.N):
            return 1
        vectors = min(vectors, <Py_ssize_t>TALL_BLOCK)
        if self.P.panel and vectors > self.P.block:
            self.reserve(vectors)
            vectors = min(vectors, self.P.block)
        return vectors

    def multiply(self, v, out, str kind="hessian", const char[::1] active=None, bint l2=True):
        """out = (the operator) v for v, out contiguous of the plan's dtype: (n,), or (k, n), a vector a row. out may be v where
        the plan says `in_place`."""
        cdef PlanS *P = &self.P
        cdef Job job
        cdef Py_ssize_t k = 1 if v.ndim == 1 else v.shape[0], j, step = P.n * P.K.real_bytes
        cdef char *v_ = pointer(v)
        cdef char *out_ = pointer(out)
        memset(&job, 0, sizeof(job))
        job.stages, job.kind = PRODUCT, KINDS[kind]
        job.v_step = step
        cdef const char *active_ = NULL if active is None else &active[0]
        with self.lock:
            j = 0
            while j < k:
                job.vectors, job.v, job.l2 = self.room_for(k - j), v_ + j * step, self.l2 if l2 else 0
                with nogil:
                    self.select(active_)
                    self.go(&job, out_ + j * step, step)
                j += job.vectors
                PyErr_CheckSignals()

    def quadratic(self, v, str kind="hessian", const char[::1] active=None):
        """v'(the operator) v without l2, for v (n,) or (k, n): an array (k,)."""
        cdef PlanS *P = &self.P
        cdef Job job
        cdef Py_ssize_t k = 1 if v.ndim == 1 else v.shape[0], j, step = P.n * P.K.real_bytes
        cdef char *v_ = pointer(v)
        cdef const char *active_ = NULL if active is None else &active[0]
        result = np.zeros(k)
        cdef double[::1] totals = result
        memset(&job, 0, sizeof(job))
        job.stages, job.kind, job.v_step = QUADRATIC, KINDS[kind], step
        with self.lock:
            j = 0
            while j < k:
                job.vectors, job.v, job.totals = self.room_for(k - j), v_ + j * step, &totals[j]
                with nogil:
                    self.select(active_)
                    self.go(&job, NULL, 0)
                j += job.vectors
                PyErr_CheckSignals()
        return result

    def jacobian(self, v, out, bint transpose=False):
        """out (N, d_out) = J v for v (n,); transposed: out (n,) = J' u for u (N, d_out). All contiguous."""
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
        """In a child: nobody is left to release the lock, and what its holder was making is half made."""
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
        return {"chunk": P.chunk, "panel": P.panel, "groups": P.groups, "threads": P.threads, "arch": P.K.name.decode()}
