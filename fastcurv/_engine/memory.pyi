from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

def padded_copy(
    array: ArrayLike, extra_rows: int = 0, fill: float = 0
) -> tuple[NDArray[Any], NDArray[Any], int]: ...
def columns_as_rows(
    V: NDArray[np.floating[Any]], out: NDArray[Any], threads: int = 1
) -> NDArray[Any]: ...
