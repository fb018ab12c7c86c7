"""Sweeps over vectors kept as rows: the engine's kernels and threads for algorithms that know no network.

`project_rows(Q, W)` gives ``W Q'`` in float64, `subtract_rows(Q, W, C)` makes ``W -= C Q`` in place and gives the squared
norms of the new rows. Both read the basis once, and their bits do not depend on the number of threads.
"""

from ._engine import project_rows, subtract_rows

__all__ = ["project_rows", "subtract_rows"]
