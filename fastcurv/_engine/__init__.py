"""The compiled side: what the Python side may ask of it. `probe` is a door for tests."""

from .batch_norm import BATCH_NORM_EPS
from .data import Rows, in_memory
from .kernels import (
    ACTIVATIONS,
    LOSSES,
    available_archs,
    chosen_arch,
    fma_peak,
    set_arch,
    summation,
)
from .memory import columns_as_rows
from .plan import Plan, statistics
from .shapes import force_across, force_unpacked
from .team import (
    MAX_THREADS,
    Lock,
    default_threads,
    get_thread_limit,
    set_thread_limit,
    thread_workers,
)
from .times import Times
from .vectors import (
    Multiplier,
    activate,
    combine_rows,
    compact_weights,
    project_rows,
    subtract_rows,
)

__all__ = [
    "ACTIVATIONS",
    "BATCH_NORM_EPS",
    "LOSSES",
    "MAX_THREADS",
    "Lock",
    "Multiplier",
    "Plan",
    "Rows",
    "Times",
    "activate",
    "available_archs",
    "chosen_arch",
    "columns_as_rows",
    "default_threads",
    "fma_peak",
    "force_across",
    "force_unpacked",
    "get_thread_limit",
    "in_memory",
    "combine_rows",
    "compact_weights",
    "project_rows",
    "set_arch",
    "set_thread_limit",
    "statistics",
    "subtract_rows",
    "summation",
    "thread_workers",
]
