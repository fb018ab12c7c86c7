"""The compiled engine and the names that it exports. `testing_hooks` serves tests only."""

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path


def import_failure_reason() -> str:
    """Return an explanation of why the engine cannot be imported, with a remedy. If an installed
    copy is elsewhere on the path, the explanation says that the source folder hides that copy.
    """
    here = Path(__file__).resolve().parents[2]
    engines = [f"fastcurv/_engine/core{suffix}" for suffix in EXTENSION_SUFFIXES]
    for folder in map(Path, sys.path):
        if any((folder / engine).is_file() for engine in engines):
            return (
                f"Python imports fastcurv from its source folder {here}, which is not "
                f"built for this Python, and not the copy installed in {folder}. Leave the source "
                "folder, or run in it: pip install -e ."
            )
    return f"fastcurv is not built for this Python in {here}. Run there: pip install -e ."


try:
    from .core import (
        ACTIVATIONS,
        BATCH_NORM_EPS,
        LOSSES,
        MAX_THREADS,
        NOT_FINITE_MESSAGE,
        CGWorkspace,
        CurvatureMatrix,
        FastProduct,
        FloatingPointMode,
        KrylovSpace,
        Lanczos,
        LevenbergRun,
        Lock,
        LossEvaluator,
        MatrixMultiplier,
        NotFiniteError,
        Plan,
        QuasiNewton,
        RowJacobian,
        Rows,
        Tridiagonal,
        activate,
        adam_step,
        available_archs,
        batch_norm_statistics,
        chosen_arch,
        combine_rows,
        copy_transpose,
        count_worker_threads,
        default_n_threads,
        empty_padded_rows,
        equal_vectors,
        force_packed_pairs,
        force_transposed_layout,
        force_unpacked_weights,
        get_thread_limit,
        inner_product,
        input_derivatives,
        log_polynomial_growth,
        measure_fma_peak,
        project_rows,
        set_arch,
        set_thread_limit,
        solve_subproblem,
        subtract_rows,
        summation_order,
        testing_hooks,
        wanted_indices,
    )
except ModuleNotFoundError as error:
    if error.name != f"{__name__}.core":
        raise
    raise ImportError(import_failure_reason()) from None

__all__ = [
    "FloatingPointMode",
    "ACTIVATIONS",
    "BATCH_NORM_EPS",
    "CurvatureMatrix",
    "KrylovSpace",
    "Lanczos",
    "LevenbergRun",
    "LOSSES",
    "MAX_THREADS",
    "NOT_FINITE_MESSAGE",
    "Lock",
    "MatrixMultiplier",
    "NotFiniteError",
    "Plan",
    "LossEvaluator",
    "QuasiNewton",
    "RowJacobian",
    "Rows",
    "FastProduct",
    "Tridiagonal",
    "CGWorkspace",
    "activate",
    "adam_step",
    "available_archs",
    "chosen_arch",
    "copy_transpose",
    "default_n_threads",
    "measure_fma_peak",
    "force_transposed_layout",
    "force_packed_pairs",
    "force_unpacked_weights",
    "get_thread_limit",
    "log_polynomial_growth",
    "inner_product",
    "input_derivatives",
    "combine_rows",
    "testing_hooks",
    "empty_padded_rows",
    "project_rows",
    "equal_vectors",
    "set_arch",
    "set_thread_limit",
    "solve_subproblem",
    "batch_norm_statistics",
    "subtract_rows",
    "summation_order",
    "count_worker_threads",
    "wanted_indices",
]
