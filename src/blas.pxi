# scipy's BLAS for the table's BLAS filling, and the choice of table at import.
from scipy.linalg.cython_blas cimport sgemm, dgemm

fc_arch_init(<fc_gemm_f32>sgemm, <fc_gemm_f64>dgemm)


def available_archs():
    """Names of the kernel tables this CPU can run, best first."""
    return tuple(fc_arch_at(i).name.decode() for i in range(fc_arch_count()))


cdef const fc_table *table_named(str name) except NULL:
    cdef const fc_table *table = fc_arch_find(name.encode())
    if table == NULL:
        raise ValueError(f"FASTCURV_ARCH is {name!r}; this CPU can run one of: {', '.join(available_archs())}")
    return table


cdef const fc_table *chosen = table_named(os.environ.get("FASTCURV_ARCH") or available_archs()[0])


def chosen_arch():
    """Name of the kernel table in use."""
    return chosen.name.decode()


def set_arch(str name):
    """Use another table for plans made from now on; returns the name of the one before. For tests and benchmarks."""
    global chosen
    before = chosen_arch()
    chosen = table_named(name)
    return before


def default_threads():
    """FASTCURV_NUM_THREADS if set, else what affinity and cgroup limits allow."""
    text = os.environ.get("FASTCURV_NUM_THREADS")
    if not text:
        return fc_team_available()
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ValueError(f"FASTCURV_NUM_THREADS is {text!r}; a positive whole number was wanted")
    return min(number, FC_MAX_THREADS)
