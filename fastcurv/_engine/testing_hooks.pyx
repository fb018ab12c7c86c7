"""Test hooks: functions that call the kernels of every table that this CPU can run, for tests and
kernel benchmarks.
"""
import numpy as np

from libc.stdint cimport int32_t
from libc.string cimport memset


cdef const fc_table *kernel_table_for_array(arch, array) except NULL:
    """Return the kernel table named `arch`, or the one in use if arch is None, for the dtype of
    `array`.
    """
    cdef const fc_table *K = current_kernel_table() if arch is None else find_kernel_table(arch)
    return &K[array.itemsize == 8]


cdef object set_loss_arrays(fc_loss_rows *job, str kind, z, y, weight, double divisor):
    """Set the arrays of a loss job. Return the output arrays (delta, h, s, top), which the caller
    must keep alive.
    """
    memset(job, 0, sizeof(job[0]))
    job.kind, job.divisor = LOSSES[kind], divisor
    dw, dv, ld = padded_copy(np.zeros_like(z))
    hw, hv, _ = padded_copy(np.zeros_like(z))
    s, top = np.zeros(len(z), z.dtype), np.zeros(len(z), np.int32)
    job.delta, job.ldd, job.h, job.ldh = pointer(dw), ld, pointer(hw), ld
    job.s, job.top = pointer(s), <int32_t *>pointer(top)
    if y is not None and y.ndim == 1:
        job.labels = <int32_t *>pointer(y)
    elif y is not None:
        job.y, job.ldy = pointer(y), y.strides[0] // y.itemsize
    if weight is not None:
        job.weight = pointer(weight)
    return dv, hv, s, top


class testing_hooks:
    """Functions that call the kernels of the table named `arch`, or of the table in use if `arch`
    is None.
    """

    @staticmethod
    def multiply(A, B, A2=None, B2=None, C=None, arch=None, str b_form="padded", int threads=0,
                 int repeat=1):
        """Return [C +] A B [+ A2 B2], computed by the kernel `product`. A may have any strides. B
        is converted to the form `b_form`: "padded", "packed" or "plain". With threads=0 the product
        is one item, otherwise items are distributed to the thread team. The product is repeated
        `repeat` times, for timing.
        """
        cdef const fc_table *K = kernel_table_for_array(arch, A)
        cdef Py_ssize_t size = A.itemsize, VL = K.vector_bytes // size, i
        cdef fc_product job
        cdef Scratch members[FC_MAX_THREADS]
        cdef PlanS P
        cdef int _turn
        cdef Pass t
        memset(&job, 0, sizeof(job))
        job.m, job.n = A.shape[0], B.shape[1]
        keep = []
        for a, b in ((A, B), (A2, B2)):
            if a is None:
                continue
            job.term[job.n_terms].k = a.shape[1]
            job.term[job.n_terms].a = pointer(a)
            job.term[job.n_terms].a_rs = a.strides[0] // size
            job.term[job.n_terms].a_cs = a.strides[1] // size
            if b_form == "plain":
                job.term[job.n_terms].b = pointer(b)
                job.term[job.n_terms].b_rs = b.strides[0] // size
                job.term[job.n_terms].b_cs = b.strides[1] // size
            elif b_form == "padded":
                whole, _view, ld = padded_copy(b)
                keep.append(whole)
                job.term[job.n_terms].b = pointer(whole)
                job.term[job.n_terms].b_rs, job.term[job.n_terms].b_vs = ld, VL
            else:
                whole = padded_copy(np.zeros((1, a.shape[1] * (b.shape[1] + 64)), b.dtype))[0]
                keep.append(whole)
                K.pack(
                    b.shape[0], b.shape[1], pointer(b), b.strides[0] // size,
                    b.strides[1] // size, 0, b.shape[0], 0, pointer(whole)
                )
                job.term[job.n_terms].b = pointer(whole)
                job.term[job.n_terms].b_rs, job.term[job.n_terms].b_vs = VL, VL * a.shape[1]
            job.n_terms += 1
        out = np.empty((job.m, job.n), A.dtype) if C is None else C.copy()
        job.c, job.ldc, job.unpadded, job.accumulate = pointer(out), job.n, True, C is not None
        memset(&P, 0, sizeof(P))
        threads = min(threads, FC_MAX_THREADS)
        P.K, P.threads, P.thread_scratch = K, max(1, threads), members
        job.packs = threads > 0
        room = (K.scratch + K.packed) // size + 64
        scratch = padded_copy(np.zeros((max(1, threads), room), A.dtype))[0]
        cdef char *scratch_ = pointer(scratch)
        cdef Py_ssize_t step_ = scratch.shape[1] * size
        for i in range(max(1, threads)):
            members[i].gemm = scratch_ + i * step_
        t = new_pass(&P, members, threads == 0, HESSIAN)
        with nogil:
            for _turn in range(repeat):
                run_product(&t, &job)
        return out

    @staticmethod
    def activate(arch, str name, z):
        """Return (phi(z), phi'(z), phi''(z)) of a 2-D array, with phi'' of 0 if the kernel does not
        write it.
        """
        cdef const fc_table *K = kernel_table_for_array(arch, z)
        zw, _zv, ld = padded_copy(z)
        aw, av, _ = padded_copy(np.zeros_like(z))
        pw, pv, _ = padded_copy(np.zeros_like(z))
        qw, qv, _ = padded_copy(np.zeros_like(z))
        K.activate(
            ACTIVATIONS[name], z.shape[0], z.shape[1], pointer(zw), ld, pointer(aw), ld,
            pointer(pw), ld, pointer(qw), ld
        )
        return av.copy(), pv.copy(), qv.copy()

    @staticmethod
    def pack_and_unpack(arch, str name, z):
        """Return ((a, p), (a, p)) with a = phi(z) and p = phi'(z) of a 2-D array z, before and
        after packing both into one number.
        """
        cdef const fc_table *K = kernel_table_for_array(arch, z)
        cdef fc_epilogue epilogue
        whole, _, ld = padded_copy(z)
        found = [padded_copy(np.zeros_like(z)) for _ in range(5)]
        memset(&epilogue, 0, sizeof(epilogue))
        epilogue.kind, epilogue.phi = FC_EPILOGUE_ACTIVATE, ACTIVATIONS[name]
        epilogue.d, epilogue.p = pointer(found[0][0]), pointer(found[1][0])
        epilogue.phi_pair = pointer(found[2][0])
        epilogue.ldd = epilogue.ldp = epilogue.ldphi_pair = ld
        K.epilogue(&epilogue, z.shape[0], z.shape[1], pointer(whole), ld)
        K.unpack_pairs(
            epilogue.phi, found[2][0].size, pointer(found[2][0]), pointer(found[3][0]),
            pointer(found[4][0])
        )
        a, p, _, again_a, again_p = (view.copy() for _, view, _ in found)
        return (a, p), (again_a, again_p)

    @staticmethod
    def evaluate_loss(arch, str kind, z, y, weight=None, double divisor=1.0):
        """Return (value, delta, h, s, top) of a loss for the rows of z. The targets y have the
        shape (rows, cols), or (rows,) for int32 labels.
        """
        cdef const fc_table *K = kernel_table_for_array(arch, z)
        cdef fc_loss_rows job
        delta, h, s, top = set_loss_arrays(&job, kind, z, y, weight, divisor)
        zw, _zv, ld = padded_copy(z)
        value = K.loss(&job, z.shape[0], z.shape[1], pointer(zw), ld)
        return value, delta.copy(), h.copy(), s, top

    @staticmethod
    def copy_matrix(arch, array, bint packed=False, bint bypass=False):
        """Return a 2-D array of any strides as copied by the kernel `copy`, with its padding, or,
        if `packed`, as packed by the kernel `pack`.
        """
        cdef const fc_table *K = kernel_table_for_array(arch, array)
        cdef Py_ssize_t size = array.itemsize, rows = array.shape[0], cols = array.shape[1], rs, cs
        cdef Py_ssize_t VL = K.vector_bytes // size
        rs, cs = array.strides[0] // size, array.strides[1] // size
        if packed:
            wanted = np.full((1, (cols + VL - 1) // VL * VL * rows), np.nan, array.dtype)
            out = padded_copy(wanted)[1][0]
            K.pack(rows, cols, pointer(array), rs, cs, 0, rows, bypass, pointer(out))
            return out.reshape(-1, rows, VL)
        whole, _view, ld = padded_copy(np.full((rows, cols), np.nan, array.dtype), 0, np.nan)
        K.copy(rows, cols, pointer(array), rs, cs, pointer(whole), ld)
        return whole

    @staticmethod
    def exceeds_convergence_bound(j, fallen, bound, eps):
        """Return the result of the function `exceeds_convergence_bound` of conjugate_gradients.pyx.
        """
        return exceeds_convergence_bound(j, fallen, bound, eps)
