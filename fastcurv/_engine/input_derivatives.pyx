"""Derivatives of a network's outputs with respect to its inputs, one block of rows of X at a time.

With h_0 = x, z_l = W_l h_(l-1) + b_l and h_l = phi(z_l) [+ h_(l-1)], where terms in brackets apply
to residual layers, the tangents D_l = dz_l / dx and A_l = dh_l / dx are propagated forward,

    D_l = W_l A_(l-1)        A_l = phi'(z_l) D_l [+ A_(l-1)]        A_0 = I

and the derivatives e_l of a linear combination of outputs with respect to h_l are propagated
backward,

    e_(l-1) = W_l' (phi'(z_l) e_l) [+ e_l]

The Jacobian is D of the output layer or, if there are fewer outputs than inputs, e_0 of each
output. The Hessian of the linear combination is the sum over hidden layers of D_l' diag(e_l
phi''(z_l)) D_l.

A matrix of a layer has one row per unit. The matrices A and D have one column per row of the block
for the values, followed by one column per row of the block for each input; the matrix e has one
column per row of the block for each output. A single product with W_l thus covers all columns.
Results of each row depend only on that row.
"""
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy


cdef enum:
    MAX_TANGENT_ELEMENTS = 1 << 15  # maximum elements of D per block: 128 or 256 KiB
    MIN_TANGENT_COLUMNS = 64        # minimum columns of D for an efficient product
    FINITE_CHECK_ELEMENTS = 512            # elements checked for NaN and infinity at one time
    # minimum multiply-adds for sharing the blocks among threads
    THREADED_MIN_MULTIPLY_ADDS = 1 << 18

cdef struct InputLayer:
    Py_ssize_t m, k             # number of outputs, number of inputs
    Py_ssize_t w, b             # offsets of W and b in theta; b < 0: no bias
    fc_activation phi
    bint skip, curved           # skip: residual layer; curved: phi'' is not 0 everywhere


cdef struct InputWorkspace:     # workspace of one thread; all matrices are padded
    char *x                     # (d_in, rows) inputs
    char *z                     # (m, rows) z of one layer
    char *a                     # (m, rows) phi(z) of one layer
    char **p                    # per hidden layer: (m, rows) phi'(z)
    char **q                    # per hidden layer: (m, rows) phi''(z)
    char **D                    # per layer: (m, columns) values and tangents of z
    char *A                     # (widest, columns) values and tangents of the current layer's input
    # (widest, columns) values and tangents of the current layer's output
    char *other
    char *e                     # (widest, columns of e) derivatives with respect to h
    char *delta                 # (widest, columns of e) derivatives with respect to z
    char *own                   # (m, d_in) D of one row of the block
    # (m, d_in) D of one row of the block, each unit multiplied by e phi''
    char *s
    char *gemm                  # scratch buffer of the product kernels


cdef struct InputJob:
    const fc_table *K
    int n_layers, size
    Py_ssize_t N, rows, d_in, d_out
    Py_ssize_t inputs           # number of tangents propagated forward: d_in, or 0 for values only
    Py_ssize_t parts            # number of linear combinations of outputs propagated backward
    # leading dimensions; ldr is 1 if a block is a single row
    Py_ssize_t ldx, ldr, ldt, lde, lds
    InputLayer *layer
    InputWorkspace *room
    const char *theta
    const char *X
    Py_ssize_t x_rs, x_cs
    # (N, d_out) weights of the outputs, or NULL for each output separately
    const char *weights
    char *outputs               # output (N, d_out), or NULL
    char *jacobian              # output (N, d_out, d_in), or NULL
    char *hessian               # output (N, parts, d_in, d_in), or NULL


cdef void multiply_padded(
    InputJob *t, InputWorkspace *room, Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const char *a,
    Py_ssize_t a_rs, Py_ssize_t a_cs, const char *b, Py_ssize_t ldb, char *c, Py_ssize_t ldc,
    bint exact, bint add
) noexcept nogil:
    """Compute c (m, n) = [c +] a b for a padded b (k, n), on one thread. The output c is padded
    unless `exact`.
    """
    cdef fc_product job = describe_product(
        m, n, k, <char *>a, a_rs, a_cs, <char *>b, ldb, 0, c, ldc, add
    )
    job.unpadded, job.term[0].b_vs = exact, t.K.vector_bytes // t.size
    run_serially(t.K, &job, room.gemm)


cdef void add_bias(
    const real *T, Py_ssize_t ldt, const real *b, real *z, Py_ssize_t ldz, Py_ssize_t m,
    Py_ssize_t rows
) noexcept nogil:
    """Set z (m, rows) to the values in T, plus b unless b is NULL."""
    cdef Py_ssize_t u, r
    cdef real shift
    for u in range(m):
        shift = b[u] if b != NULL else 0
        for r in range(rows):
            z[u * ldz + r] = T[u * ldt + r] + shift


cdef void scale_columns(
    InputJob *t, const real *D, Py_ssize_t ldd, const char *p, real *out, Py_ssize_t ldo,
    Py_ssize_t m, Py_ssize_t rows, Py_ssize_t groups
) noexcept nogil:
    """Compute out = D times p (m, rows), elementwise for each group of `rows` columns."""
    cdef Py_ssize_t i, u
    cdef real factor
    if rows == 1:
        for u in range(m):
            factor = (<const real *>p)[u * t.ldr]
            for i in range(groups):
                out[u * ldo + i] = D[u * ldd + i] * factor
        return
    for i in range(groups):
        t.K.multiply_and_sum(m, 1, rows, p, t.ldr, D + i * rows, ldd, out + i * rows, ldo)


cdef void add_skip(
    const real *below, Py_ssize_t ldb, real *out, Py_ssize_t ldo, Py_ssize_t m, Py_ssize_t columns
) noexcept nogil:
    """Compute out += below for matrices (m, columns)."""
    cdef Py_ssize_t u, j
    for u in range(m):
        for j in range(columns):
            out[u * ldo + j] += below[u * ldb + j]


cdef void add_identity(real *out, Py_ssize_t ld, Py_ssize_t rows, Py_ssize_t inputs) noexcept nogil:
    """Add 1 to the tangent of each unit with respect to the input of the same index."""
    cdef Py_ssize_t u, r
    for u in range(inputs):
        for r in range(rows):
            out[u * ld + u * rows + r] += 1


cdef void copy_values(
    const real *a, Py_ssize_t lda, real *A, Py_ssize_t ldt, Py_ssize_t m, Py_ssize_t rows
) noexcept nogil:
    """Copy the values a (m, rows) to the first columns of A."""
    cdef Py_ssize_t u
    for u in range(m):
        memcpy(A + u * ldt, a + u * lda, rows * sizeof(real))


cdef void fill_column_groups(
    const real *W, Py_ssize_t rs, Py_ssize_t cs, real *out, Py_ssize_t ldo, Py_ssize_t m,
    Py_ssize_t rows, Py_ssize_t groups
) noexcept nogil:
    """For each of the `groups` columns i of W (m, groups), set column group i of `out`, which has
    one column per row of the block, to W[u, i] in row u.
    """
    cdef Py_ssize_t u, i, r
    for u in range(m):
        for i in range(groups):
            for r in range(rows):
                out[u * ldo + i * rows + r] = W[u * rs + i * cs]


cdef void copy_column_groups(
    const real *T, Py_ssize_t ldt, Py_ssize_t m, Py_ssize_t rows, Py_ssize_t groups, real *out,
    Py_ssize_t unit, Py_ssize_t group, Py_ssize_t row
) noexcept nogil:
    """Copy element T[u, i * rows + r], for unit u, column group i and row r of the block, to `out`,
    where `unit`, `group` and `row` are the strides of u, i and r.
    """
    cdef Py_ssize_t u, i, r
    for u in range(m):
        for i in range(groups):
            for r in range(rows):
                out[r * row + u * unit + i * group] = T[u * ldt + i * rows + r]


cdef void copy_and_weight_units(
    const real *D, Py_ssize_t ldd, Py_ssize_t step, const real *e, Py_ssize_t lde, const real *q,
    Py_ssize_t ldq, real *own, real *out, Py_ssize_t ldo, Py_ssize_t m, Py_ssize_t d
) noexcept nogil:
    """Copy D of one row of the block, d columns that lie `step` elements apart, to `own` (m, d).
    Write D with row u multiplied by e phi'' of unit u to `out` (m, d).
    """
    cdef Py_ssize_t u, i
    cdef real s
    for u in range(m):
        s = e[u * lde] * q[u * ldq]
        for i in range(d):
            own[u * ldo + i] = D[u * ldd + i * step]
            out[u * ldo + i] = s * own[u * ldo + i]


cdef void mirror_upper_triangle(real *H, Py_ssize_t d) noexcept nogil:
    """Copy the upper triangle of H (d, d) to the lower one."""
    cdef Py_ssize_t i, j
    for i in range(d):
        for j in range(i):
            H[j * d + i] = H[i * d + j]


cdef void propagate_tangents_forward(
    InputJob *t, InputWorkspace *room, Py_ssize_t first, Py_ssize_t rows, const real *theta
) noexcept nogil:
    """Propagate values and tangents forward through all layers. Store the outputs and, if tangents
    are propagated, the Jacobian.
    """
    cdef Py_ssize_t l, columns = rows * (1 + t.inputs)
    cdef InputLayer *y
    cdef real *D
    cdef const real *b
    t.K.transpose_columns(
        rows, t.d_in, t.X + first * t.x_rs * t.size, t.x_rs, t.x_cs, 0, rows, room.x, t.ldx
    )
    for l in range(t.n_layers):
        y = &t.layer[l]
        D = <real *>room.D[l]
        if l == 0:
            multiply_padded(
                t, room, y.m, rows, y.k, <const char *>(theta + y.w), y.k, 1, room.x, t.ldx,
                <char *>D, t.ldt, False, False
            )
            fill_column_groups(theta + y.w, y.k, 1, D + rows, t.ldt, y.m, rows, t.inputs)
        else:
            multiply_padded(
                t, room, y.m, columns, y.k, <const char *>(theta + y.w), y.k, 1, room.A, t.ldt,
                <char *>D, t.ldt, False, False
            )
        b = theta + y.b if y.b >= 0 else NULL
        add_bias(D, t.ldt, b, <real *>room.z, t.ldr, y.m, rows)
        if l == t.n_layers - 1:
            break
        t.K.activate(   # for a single row, all units form one vector
            y.phi, y.m if t.ldr > 1 else 1, rows if t.ldr > 1 else y.m, room.z, t.ldr, room.a,
            t.ldr, room.p[l], t.ldr, room.q[l] if y.curved else NULL, t.ldr
        )
        copy_values(<real *>room.a, t.ldr, <real *>room.other, t.ldt, y.m, rows)
        scale_columns(
            t, D + rows, t.ldt, room.p[l], <real *>room.other + rows, t.ldt, y.m, rows, t.inputs
        )
        if y.skip and l == 0:
            add_skip(<real *>room.x, t.ldx, <real *>room.other, t.ldt, y.m, rows)
            add_identity(<real *>room.other + rows, t.ldt, rows, t.inputs)
        elif y.skip:
            add_skip(<real *>room.A, t.ldt, <real *>room.other, t.ldt, y.m, columns)
        room.A, room.other = room.other, room.A
    if t.outputs != NULL:
        copy_column_groups(
            <real *>room.z, t.ldr, t.d_out, rows, 1, <real *>t.outputs + first * t.d_out, 1, 0,
            t.d_out
        )
    if t.jacobian != NULL and t.inputs:
        D = <real *>room.D[t.n_layers - 1]
        copy_column_groups(
            D + rows, t.ldt, t.d_out, rows, t.d_in, <real *>t.jacobian + first * t.d_out * t.d_in,
            t.d_in, 1, t.d_out * t.d_in
        )


cdef void propagate_outputs_backward(
    InputJob *t, InputWorkspace *room, Py_ssize_t first, Py_ssize_t rows, const real *theta
) noexcept nogil:
    """Propagate e backward through all layers. Store the Hessian, or the Jacobian if only values
    were propagated forward.
    """
    cdef Py_ssize_t l = t.n_layers - 1, r, part, columns = rows * t.parts
    cdef Py_ssize_t square = t.d_in * t.d_in
    cdef InputLayer *y = &t.layer[l]
    cdef real *e = <real *>room.e
    cdef real *H
    cdef bint begun = False
    if t.weights == NULL:
        fill_column_groups(theta + y.w, 1, y.k, e, t.lde, y.k, rows, t.parts)
    else:
        t.K.transpose_columns(
            rows, t.d_out, t.weights + first * t.d_out * t.size, t.d_out, 1, 0, rows, room.delta,
            t.lde
        )
        multiply_padded(
            t, room, y.k, rows, y.m, <const char *>(theta + y.w), 1, y.k, room.delta, t.lde,
            room.e, t.lde, False, False
        )
    for l in range(t.n_layers - 2, -1, -1):
        y = &t.layer[l]
        if t.hessian != NULL and y.curved:
            for r in range(rows):
                for part in range(t.parts):
                    H = <real *>t.hessian + ((first + r) * t.parts + part) * square
                    copy_and_weight_units(
                        <real *>room.D[l] + rows + r, t.ldt, rows, e + part * rows + r, t.lde,
                        <real *>room.q[l] + r, t.ldr, <real *>room.own, <real *>room.s, t.lds, y.m,
                        t.d_in
                    )
                    multiply_padded(
                        t, room, t.d_in, t.d_in, y.m, room.own, 1, t.lds, room.s, t.lds, <char *>H,
                        t.d_in, True, begun
                    )
            begun = True
        if l == 0 and t.hessian != NULL:
            break
        scale_columns(
            t, e, t.lde, room.p[l], <real *>room.delta, t.lde, y.m, rows, t.parts
        )
        multiply_padded(
            t, room, y.k, columns, y.m, <const char *>(theta + y.w), 1, y.k, room.delta, t.lde,
            # W of a residual layer is square, and e_l is added to the product
            room.e, t.lde, False, y.skip
        )
    if t.hessian != NULL:
        H = <real *>t.hessian + first * t.parts * square
        if not begun:
            memset(H, 0, rows * t.parts * square * sizeof(real))
        for r in range(rows * t.parts):
            mirror_upper_triangle(H + r * square, t.d_in)
    else:
        copy_column_groups(
            e, t.lde, t.d_in, rows, t.d_out, <real *>t.jacobian + first * t.d_out * t.d_in, 1,
            t.d_in, t.d_out * t.d_in
        )


cdef void compute_input_derivatives_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Compute outputs and derivatives for one block of rows, as one part of a job of the thread
    team.
    """
    cdef InputJob *t = <InputJob *>context
    cdef InputWorkspace *room = &t.room[member]
    cdef Py_ssize_t first = part * t.rows, rows = min(t.rows, t.N - first)
    cdef bint back = t.hessian != NULL or t.jacobian != NULL and t.inputs == 0
    if fc_team_cancelled(member):
        return
    if t.size == 8:
        propagate_tangents_forward[double](t, room, first, rows, <const double *>t.theta)
        if back:
            propagate_outputs_backward[double](t, room, first, rows, <const double *>t.theta)
    else:
        propagate_tangents_forward[float](t, room, first, rows, <const float *>t.theta)
        if back:
            propagate_outputs_backward[float](t, room, first, rows, <const float *>t.theta)


# --- the call -------------------------------------------------------------------------------------


cdef char *matrix_address(array, Py_ssize_t cols, dtype, Py_ssize_t *rows) except? NULL:
    """Return the address of a C-contiguous, aligned matrix (rows, cols) of this dtype, and its
    number of rows in `rows`. Return NULL if the array is of another form.
    """
    cdef Py_buffer view
    cdef char *start = NULL
    if type(array) is not ndarray or (array.dtype is not dtype and array.dtype != dtype):
        return NULL
    PyObject_GetBuffer(array, &view, PyBUF_STRIDES)
    rows[0] = view.shape[0] if view.ndim == 2 else 0
    if (
        rows[0] > 0 and view.shape[1] == cols
        and (view.strides[1] == view.itemsize or cols == 1)
        and (view.strides[0] == cols * view.itemsize or rows[0] == 1)
        and <uintptr_t>view.buf % view.itemsize == 0
    ):
        start = <char *>view.buf
    PyBuffer_Release(&view)
    return start


cdef bint all_finite(const fc_table *K, const char *x, Py_ssize_t count, char *copy) noexcept nogil:
    """Return True if `count` elements are finite. The buffer `copy` has space for
    FINITE_CHECK_ELEMENTS elements.
    """
    cdef Py_ssize_t first = 0, some
    while first < count:
        some = min(<Py_ssize_t>FINITE_CHECK_ELEMENTS, count - first)
        if not K.copy_finite(some, x + first * K.real_bytes, 0, copy):
            return False
        first += some
    return True


cdef size_t lay_out_workspace(InputJob *t, InputWorkspace *room, char *base) noexcept nogil:
    """Lay out the matrices of one thread in the memory at `base`, and return the number of bytes
    that they take. If base is NULL, only count the bytes.
    """
    cdef Arena arena
    cdef Py_ssize_t l, hidden = 1, widest = t.d_in
    cdef InputLayer *y
    cdef bint kept = t.hessian != NULL
    memset(&arena, 0, sizeof(arena))
    arena.base = base
    for l in range(t.n_layers):
        y = &t.layer[l]
        widest = max(widest, y.m)
        if l < t.n_layers - 1:
            hidden = max(hidden, y.m)
    room.x = arena_alloc(&arena, t.d_in * t.ldx, t.size)
    room.z = arena_alloc(&arena, widest * t.ldr, t.size)
    room.a = arena_alloc(&arena, hidden * t.ldr, t.size)
    room.A = arena_alloc(&arena, hidden * t.ldt, t.size)
    room.other = arena_alloc(&arena, hidden * t.ldt, t.size)
    for l in range(t.n_layers):
        y = &t.layer[l]
        if l == 0 or kept:
            room.D[l] = arena_alloc(&arena, (y.m if kept else max(hidden, t.d_out)) * t.ldt, t.size)
        else:
            room.D[l] = room.D[0]
        if l < t.n_layers - 1:
            room.p[l] = arena_alloc(&arena, y.m * t.ldr, t.size)
            room.q[l] = arena_alloc(&arena, y.m * t.ldr, t.size) if kept and y.curved else NULL
    room.e = arena_alloc(&arena, widest * t.lde, t.size)
    room.delta = arena_alloc(&arena, widest * t.lde, t.size)
    room.own = arena_alloc(&arena, hidden * t.lds, t.size)
    room.s = arena_alloc(&arena, hidden * t.lds, t.size)
    room.gemm = arena_alloc(&arena, max(t.K.scratch, <size_t>(FINITE_CHECK_ELEMENTS * t.size)), 1)
    return arena.used


def input_derivatives(
    tuple sizes, tuple phis, tuple skips, bint bias, dtype, theta, X, int order, weights,
    int threads=0
):
    """Compute the outputs of a network without batch normalisation, and their Jacobian and Hessian
    with respect to the inputs, for each row of X.

    Parameters
    ----------
    sizes, phis, skips, bias, dtype
        The network, as in `Plan`, but with the activations of hidden layers as the integers of
        `ACTIVATIONS`.
    theta : ndarray (n,)
        Parameters, contiguous, of this dtype.
    X : ndarray (N, d_in)
        Inputs, contiguous, of this dtype.
    weights : ndarray (N, d_out) or None
        Weights of the outputs in a linear combination per row, contiguous, of this dtype.
    order : 1 or 2
        If 2, also compute the Hessian of each output or, with weights, of their linear combination.
    threads : int
        Maximum number of threads. If 0, `default_n_threads` threads are used for enough rows, and
        one thread otherwise.

    Returns
    -------
    outputs : ndarray (N, d_out)
    jacobian : ndarray (N, d_out, d_in)
    hessian : ndarray (N, d_out, d_in, d_in), with weights (N, d_in, d_in), or None
        The return value is None instead of the tuple if an array is of another form or holds NaN or
        infinity.
    """
    cdef InputJob t
    cdef InputLayer *y
    cdef Py_ssize_t l, n = 0, N = 0, n_weights, widest = 1, numbers
    cdef size_t each = 0
    cdef char *base
    cdef fc_watch before
    cdef int member
    cdef bint good = True
    memset(&t, 0, sizeof(t))
    t.size = dtype.itemsize
    t.K, t.n_layers = &current_kernel_table()[t.size == 8], len(sizes) - 1
    t.d_in, t.d_out = sizes[0], sizes[t.n_layers]
    t.layer = <InputLayer *>calloc(t.n_layers, sizeof(InputLayer))
    if t.layer == NULL:
        raise MemoryError("Not enough memory for a list of layers.")
    try:
        for l in range(t.n_layers):
            y = &t.layer[l]
            y.k, y.m = sizes[l], sizes[l + 1]
            y.w, y.b = n, n + y.m * y.k if bias else -1
            n += y.m * (y.k + bias)
            widest = max(widest, y.m)
            if l < t.n_layers - 1:
                y.phi, y.skip = <fc_activation><int>phis[l], skip_of(skips, l, y.k, y.m)
                y.curved = fc_has_curvature(y.phi)
        t.theta = vector_address(theta, n, dtype, False)
        t.X = matrix_address(X, t.d_in, dtype, &N)
        if t.theta == NULL or t.X == NULL:
            return None
        if weights is not None:
            t.weights = matrix_address(weights, t.d_out, dtype, &n_weights)
            if t.weights == NULL or n_weights != N:
                return None
        t.N, t.x_rs, t.x_cs = N, t.d_in, 1
        outputs, hessian = np.empty((N, t.d_out), dtype), None
        jacobian = np.empty((N, t.d_out, t.d_in), dtype)
        t.outputs, t.jacobian = pointer(outputs), pointer(jacobian)
        t.parts = t.d_out if weights is None else 1
        if order == 2:
            shape = (N, t.d_in, t.d_in)
            hessian = np.empty(shape if t.weights != NULL else (N, t.d_out, t.d_in, t.d_in), dtype)
            t.hessian = pointer(hessian)
        t.inputs = t.d_in if order == 2 or t.d_in <= t.d_out else 0
        numbers = 1 + max(t.inputs, t.parts)
        t.rows = max(MAX_TANGENT_ELEMENTS // (numbers * widest), MIN_TANGENT_COLUMNS // numbers, 1)
        if t.rows > 8:  # round down to whole cache lines of float32 or, below 16 rows, of float64
            t.rows = t.rows // 16 * 16 if t.rows >= 16 else 8
        t.rows = min(t.rows, N)
        t.ldx = padded_ld(t.rows, t.size)
        t.ldr, t.ldt = t.ldx if t.rows > 1 else 1, padded_ld(t.rows * (1 + t.inputs), t.size)
        t.lde, t.lds = padded_ld(t.rows * t.parts, t.size), padded_ld(t.d_in, t.size)
        if N <= t.rows or N * n * numbers < THREADED_MIN_MULTIPLY_ADDS:
            threads = 1
        threads = threads or default_n_threads()
        t.room = <InputWorkspace *>calloc(
            threads, sizeof(InputWorkspace) + 3 * t.n_layers * sizeof(char *)
        )
        if t.room == NULL:
            raise MemoryError("Not enough memory for a list of matrices.")
        for member in range(threads):
            t.room[member].p = <char **>(t.room + threads) + 3 * t.n_layers * member
            t.room[member].q = t.room[member].p + t.n_layers
            t.room[member].D = t.room[member].q + t.n_layers
            each = lay_out_workspace(&t, &t.room[member], NULL)
        room = take_workspace((each * threads + FC_ALIGN) // sizeof(double) + 1)
        base = align_up(pointer(room))
        for member in range(threads):
            lay_out_workspace(&t, &t.room[member], base + member * each)
        with nogil:
            before = begin_signal_watch()
            good = all_finite(t.K, t.theta, n, t.room[0].gemm) and all_finite(
                t.K, t.X, N * t.d_in, t.room[0].gemm
            ) and (t.weights == NULL or all_finite(t.K, t.weights, N * t.d_out, t.room[0].gemm))
            if good:
                fc_team_run(threads, (N + t.rows - 1) // t.rows, compute_input_derivatives_part, &t)
            end_signal_watch(before)
        keep_workspace(room)
        return (outputs, jacobian, hessian) if good else None
    finally:
        free(t.room)
        free(t.layer)
