# Pieces of a plan's memory: scratch, and what vectors need. With an arena that only measures, pointers are NULL.

cdef void lay_bench(PlanS *P, Arena *A, Bench *bench, Py_ssize_t rows, Py_ssize_t widest) noexcept nogil:
    cdef size_t size = P.K.real_bytes
    cdef Py_ssize_t l
    cdef Bench nowhere
    cdef char **ra = <char **>take(A, P.n_layers, sizeof(char *))
    cdef char **rz = <char **>take(A, P.n_layers, sizeof(char *))
    cdef char *one
    if bench == NULL:
        bench = &nowhere
    bench.ra, bench.rz = ra, rz
    for l in range(P.n_layers):             # where phi does not bend, rz is not needed once ra is there
        one = take(A, rows * P.layer[l].ldm, size)
        if rz != NULL:
            rz[l] = ra[l] = one
        if P.layer[l].curved or P.layer[l].norm != NULL:
            one = take(A, rows * P.layer[l].ldm, size)
            if rz != NULL:
                ra[l] = one
    bench.e[0] = take(A, rows * widest, size)
    bench.e[1] = take(A, rows * widest, size)
    bench.ldsums = widest
    if P.across:                            # instead of sums: the outputs' rows, delta and h; see loss_across
        bench.sums = take(A, 3 * rows * padded(P.d_out, P.K.real_bytes), size)
    else:
        bench.sums = take(A, (rows // 16 + 2) * widest, size)
    bench.totals = <double *>take(A, (rows // 16 + 2) * (widest // 16 + 2) + 64, sizeof(double))


cdef void lay_out_sides(PlanS *P, Arena *A, Py_ssize_t block) noexcept nogil:
    """Scratch for the vectors that a panel takes side by side, for each member of the team."""
    cdef Py_ssize_t l, widest = 0, i, x
    cdef size_t start
    P.side_step = 0
    if not P.panel or block == 1 or P.across:
        return
    for l in range(P.n_layers):
        widest = max(widest, max(P.layer[l].ldm, P.layer[l].ldk if l else 0))
    P.sides = <Bench *>take(A, P.threads, sizeof(Bench))
    for i in range(P.threads):
        start = A.used
        lay_bench(P, A, P.sides + i if A.base != NULL else NULL, min(P.panel, P.chunk), widest)
        P.side_step = A.used - start
        take(A, (min(block, <Py_ssize_t>FC_MAX_STACK) - 1) * P.side_step, 1)
        if A.base != NULL:
            P.sides[i].gemm = P.bench[i].gemm


cdef void lay_out_vectors(PlanS *P, Arena *A, Py_ssize_t block) noexcept nogil:
    """The packed parts of `block` vectors side by side, and where tall the sums of each group for each of them."""
    cdef size_t size = P.K.real_bytes, start = A.used
    cdef Py_ssize_t l
    cdef Layer *y
    for l in range(P.n_layers):
        y = &P.layer[l]
        if P.across:                        # nothing is packed
            continue
        y.vt = take(A, y.k * panels(P, y.m), size)
        y.vn = take(A, y.m * panels(P, y.k), size) if l else NULL
        y.vb = take(A, y.ldm, size) if y.b >= 0 else NULL
    P.v_step = A.used - start
    take(A, (block - 1) * P.v_step, 1)
    lay_out_sides(P, A, block)
    P.panel_totals = <double *>take(A, block * (P.chunk // max(<Py_ssize_t>1, P.panel) + 1), sizeof(double))
    P.groups_out = take(A, P.groups * block * P.ldg, size)


cdef size_t bytes_of(PlanS *P, Py_ssize_t block) noexcept nogil:
    """Of `block` vectors side by side; 0: more than memory can be."""
    cdef Arena arena
    arena.base, arena.used, arena.overflow = NULL, 0, False
    lay_out_vectors(P, &arena, block)
    return 0 if arena.overflow else arena.used
