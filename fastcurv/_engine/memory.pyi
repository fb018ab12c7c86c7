from typing import Any

from numpy.typing import ArrayLike, NDArray

def padded_copy(
    array: ArrayLike, extra_rows: int = 0, fill: float = 0
) -> tuple[NDArray[Any], NDArray[Any], int]: ...
