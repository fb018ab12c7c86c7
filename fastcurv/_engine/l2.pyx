"""The penalty l2/2 ||theta||^2, of all parameters or of the matrices W only.

A flat vector consists of runs of penalised elements, each followed by elements without penalty.
There is one run of all elements, or one run for each layer's W, which is followed by the biases.
"""
from libc.string cimport memset


cdef struct Run:
    char *at                    # first element of the run
    # first: offset of the run. penalised: number of penalised elements. unpenalised: number of
    # elements without penalty after them.
    Py_ssize_t first, penalised, unpenalised


cdef inline Py_ssize_t count_runs(PlanS *P) noexcept nogil:
    """Return the number of runs of penalised elements."""
    return P.n_layers if P.l2_skips_biases else 1


cdef inline Run penalised_run(PlanS *P, Py_ssize_t l, char *x) noexcept nogil:
    """Return run number l of penalised elements of the flat vector x."""
    cdef Run found
    cdef Layer *y = &P.layer[l]
    found.first, found.penalised = y.w, y.m * y.k if P.l2_skips_biases else P.n
    found.at = x + found.first * P.K.real_bytes
    found.unpenalised = (P.layer[l + 1].w if P.l2_skips_biases and l + 1 < P.n_layers else P.n)
    found.unpenalised -= found.first + found.penalised
    return found


cdef enum:
    MIN_PENALTY_PART_ELEMENTS = 1 << 16           # minimum number of elements in a part of a job
    MAX_PENALTY_PARTS = 64              # maximum number of parts of a job


cdef struct PenaltyJob:
    const fc_table *K
    Run run
    Py_ssize_t step             # elements per part
    double l2
    # the run's part of the output; NULL: compute sums of squares instead
    char *out
    double squares[MAX_PENALTY_PARTS]


cdef void compute_penalty_part(void *context, Py_ssize_t part, int member) noexcept nogil:
    """Set one part of `out` to l2 times x or, if `out` is NULL, compute its sum of squares, as one
    part of a job of the thread team.
    """
    cdef PenaltyJob *t = <PenaltyJob *>context
    cdef Py_ssize_t first = part * t.step, count = min(t.step, t.run.penalised - first)
    cdef Py_ssize_t shift = first * t.K.real_bytes
    cdef char *x = t.run.at + shift
    if t.out != NULL:
        t.K.scale(count, t.l2, x, t.out + shift)
    else:
        t.K.dots(1, 1, count, x, count, x, count, t.squares + part, 1)


cdef Py_ssize_t scale_or_square_run(PlanS *P, PenaltyJob *t) noexcept nogil:
    """Process all penalised elements of a run on the thread team. Return the number of parts, which
    does not depend on the number of threads.
    """
    cdef Py_ssize_t penalised = t.run.penalised
    t.K, t.step = P.K, (penalised + MAX_PENALTY_PARTS - 1) // MAX_PENALTY_PARTS
    t.step = max(<Py_ssize_t>MIN_PENALTY_PART_ELEMENTS, t.step)
    cdef Py_ssize_t count = (penalised + t.step - 1) // t.step
    fc_team_run(P.threads, count, compute_penalty_part, t)
    return count


cdef void write_penalty_gradient(PlanS *P, double l2, char *x, char *out) noexcept nogil:
    """Set out = l2 * x for flat vectors, with 0 in elements without penalty. The output may be x
    itself.
    """
    cdef Py_ssize_t l, size = P.K.real_bytes
    cdef PenaltyJob t
    t.l2 = l2
    for l in range(count_runs(P)):
        t.run = penalised_run(P, l, x)
        t.out = out + t.run.first * size
        scale_or_square_run(P, &t)
        memset(t.out + t.run.penalised * size, 0, t.run.unpenalised * size)


cdef double penalised_sum_of_squares(PlanS *P, char *x) noexcept nogil:
    """Return the sum of squares of the penalised elements of x."""
    cdef Py_ssize_t l, part
    cdef double square = 0
    cdef PenaltyJob t
    t.out = NULL
    for l in range(count_runs(P)):
        t.run = penalised_run(P, l, x)
        memset(t.squares, 0, sizeof(t.squares))
        for part in range(scale_or_square_run(P, &t)):
            square += t.squares[part]
    return square
