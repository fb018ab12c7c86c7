"""Cython declarations of src/kernels/kernels.h, which documents the kernel table, its types and its
functions.
"""
from libc.stdint cimport int32_t

cdef extern from "kernels/kernels.h" nogil:
    enum: FC_ALIGN
    ctypedef enum fc_activation:
        FC_IDENTITY, FC_LEAKY_RELU, FC_TANH, FC_N_ACTIVATIONS, FC_PHI_CALLBACK
    const double FC_LEAKY_RELU_SLOPE
    const char *fc_activation_name(int)
    bint fc_has_curvature(fc_activation)
    bint fc_slope_from_a(fc_activation)
    bint fc_curvature_from_delta(fc_activation)
    ctypedef enum fc_loss:
        FC_CROSS_ENTROPY, FC_N_LOSSES, FC_LOSS_CALLBACK
    const char *fc_loss_name(int)
    ctypedef enum fc_epilogue_kind:
        FC_EPILOGUE_NONE, FC_EPILOGUE_ACTIVATE, FC_EPILOGUE_R_ACTIVATE
        FC_EPILOGUE_BACKWARD, FC_EPILOGUE_R_BACKWARD, FC_EPILOGUE_DOT
    enum: FC_MAX_RANK
    ctypedef struct fc_recompute:
        int rank
        const void *w
        Py_ssize_t w_ts, w_is
        const void *b
        Py_ssize_t ldb
    enum: FC_MAX_NARROW
    ctypedef struct fc_fused_output:
        int rank
        Py_ssize_t units
        const void *w
        const void *v
        Py_ssize_t w_ts
        const void *u
        const void *delta
        void *out
        void *form
        Py_ssize_t ldout
    ctypedef struct fc_epilogue:
        fc_recompute recompute
        fc_fused_output next
        fc_epilogue_kind kind
        fc_activation phi
        const void *u
        int by_row
        void *d
        Py_ssize_t ldd
        void *p
        Py_ssize_t ldp
        void *q
        Py_ssize_t ldq
        const void *a
        Py_ssize_t lda
        void *phi_pair
        Py_ssize_t ldphi_pair
        const void *r
        Py_ssize_t ldr
        const void *skip
        Py_ssize_t ldskip
        void *sums
        Py_ssize_t ldsums
        int add_sums
        double *total
    ctypedef struct fc_term:
        Py_ssize_t k
        const void *a
        Py_ssize_t a_rs, a_cs
        const void *b
        Py_ssize_t b_rs, b_vs, b_cs
    ctypedef struct fc_ahead:
        const void *at
        Py_ssize_t bytes
    ctypedef struct fc_product:
        Py_ssize_t m, n
        int n_terms
        fc_term term[2]
        void *c
        Py_ssize_t ldc
        int unpadded, accumulate, c_unused, packs, exceeds_l2
        fc_epilogue epilogue
        fc_ahead ahead[6]
        Py_ssize_t row_block, col_block
    enum: FC_SHALLOW_BYTES, FC_MAX_STACK
    ctypedef struct fc_stack:
        fc_product job
        Py_ssize_t count
        Py_ssize_t a[2]
        Py_ssize_t b[2]
        Py_ssize_t c, u, own
    ctypedef struct fc_narrow:
        fc_activation phi
        int rank, add
        const void *w
        const void *v
        Py_ssize_t w_ts
        const void *delta
        const void *rdelta
        Py_ssize_t ldt
        const void *p
        const void *a
        const void *q
        void *r
        Py_ssize_t ld
        void *out
        Py_ssize_t ldout
        void *bias
        Py_ssize_t ahead
        const void *phi_pair
    ctypedef struct fc_loss_rows:
        fc_loss kind
        double divisor
        const void *y
        Py_ssize_t ldy
        const int32_t *labels
        const void *weight
        void *delta
        Py_ssize_t ldd
        void *h
        Py_ssize_t ldh
        void *s
        int32_t *top
    enum: FC_ROTATED_COLUMNS    # number of columns that the kernel `rotate` processes in one pass
    ctypedef struct fc_rotation:
        pass
    ctypedef struct fc_adam:
        double keep_m, keep_s, correction, rate, eps
    ctypedef enum fc_norm_kind:
        FC_NORM_SCALE, FC_NORM_CENTRE, FC_NORM_SHIFT, FC_NORM_R_SHIFT, FC_NORM_R_CENTRE
    ctypedef struct fc_norm:
        fc_norm_kind kind
        const void *x
        const void *h
        const void *y
        const void *r
        void *out
        Py_ssize_t ld
        const void *k
        const void *m1
        const void *m2
        const void *k1
        const void *n1
        const void *n2
        const double *mean
        double *sums
        Py_ssize_t ldsums
    ctypedef struct fc_sums:
        Py_ssize_t slice
        int from_c
        Py_ssize_t items_of, item_rows, lanes, panel
        int totals_in_double
    ctypedef struct fc_table:
        fc_sums sums
        const char *name
        int real_bytes, vector_bytes
        void (*block)(fc_product *) noexcept nogil
        int (*rounds)(const fc_product *) noexcept nogil
        void (*product)(const fc_product *, int, Py_ssize_t, Py_ssize_t, void *) noexcept nogil
        int (*stack)(const fc_stack *, void *) noexcept nogil
        void (*transpose_columns)(
            Py_ssize_t, Py_ssize_t, const void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
            void *, Py_ssize_t
        ) noexcept nogil
        void (*narrow)(const fc_narrow *, Py_ssize_t, Py_ssize_t) noexcept nogil
        size_t scratch, packed
        void (*activate)(
            fc_activation, Py_ssize_t, Py_ssize_t, const void *, Py_ssize_t, void *, Py_ssize_t,
            void *, Py_ssize_t, void *, Py_ssize_t
        ) noexcept nogil
        void (*unpack_pairs)(fc_activation, Py_ssize_t, const void *, void *, void *) noexcept nogil
        double (*loss)(
            const fc_loss_rows *, Py_ssize_t, Py_ssize_t, const void *, Py_ssize_t
        ) noexcept nogil
        void (*r_loss)(
            const fc_loss_rows *, Py_ssize_t, Py_ssize_t, const void *, Py_ssize_t, void *,
            Py_ssize_t
        ) noexcept nogil
        void (*r_fisher)(
            double, Py_ssize_t, Py_ssize_t, const void *, Py_ssize_t, const void *, Py_ssize_t,
            void *, Py_ssize_t
        ) noexcept nogil
        double (*loss_transposed)(
            const fc_loss_rows *, Py_ssize_t, Py_ssize_t, const void *, Py_ssize_t
        ) noexcept nogil
        void (*r_loss_transposed)(
            const fc_loss_rows *, Py_ssize_t, Py_ssize_t, const void *, Py_ssize_t, void *,
            Py_ssize_t
        ) noexcept nogil
        void (*r_fisher_transposed)(
            double, Py_ssize_t, Py_ssize_t, const void *, Py_ssize_t, const void *, Py_ssize_t,
            void *, Py_ssize_t
        ) noexcept nogil
        void (*copy)(
            Py_ssize_t, Py_ssize_t, const void *, Py_ssize_t, Py_ssize_t, void *, Py_ssize_t
        ) noexcept nogil
        void (*pack)(
            Py_ssize_t, Py_ssize_t, const void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
            int, void *
        ) noexcept nogil
        void (*epilogue)(
            const fc_epilogue *, Py_ssize_t, Py_ssize_t, void *, Py_ssize_t
        ) noexcept nogil
        void (*add_parts)(
            Py_ssize_t, Py_ssize_t, const void *, Py_ssize_t, int, void *
        ) noexcept nogil
        void (*multiply_and_sum)(
            Py_ssize_t, Py_ssize_t, Py_ssize_t, const void *, Py_ssize_t, const void *, Py_ssize_t,
            void *, Py_ssize_t
        ) noexcept nogil
        void (*dots)(
            Py_ssize_t, Py_ssize_t, Py_ssize_t, const void *, Py_ssize_t, const void *, Py_ssize_t,
            double *, Py_ssize_t
        ) noexcept nogil
        void (*subtract)(
            Py_ssize_t, Py_ssize_t, Py_ssize_t, const void *, Py_ssize_t, void *, Py_ssize_t,
            const double *, Py_ssize_t, double *
        ) noexcept nogil
        void (*rotate)(Py_ssize_t, void *, const fc_rotation *, Py_ssize_t) noexcept nogil
        int (*copy_finite)(Py_ssize_t, const void *, int, void *) noexcept nogil
        void (*scale)(Py_ssize_t, double, const void *, void *) noexcept nogil
        void (*adam)(
            Py_ssize_t, const fc_adam *, const void *, void *, void *, void *
        ) noexcept nogil
        double (*peak)(long, void *) noexcept nogil
        void (*norm_sums)(const fc_norm *, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*norm)(const fc_norm *, Py_ssize_t, Py_ssize_t) noexcept nogil

cdef enum:
    SWEEP_BLOCK_ROWS = 64             # rows per block when a layer-parallel plan sweeps over rows
