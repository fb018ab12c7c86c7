import mmap
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

def maps_behind(**arrays: NDArray[Any] | None) -> list[tuple[str, mmap.mmap, int]]: ...
def still_there(maps: list[tuple[str, mmap.mmap, int]]) -> None: ...

@disjoint_base
class Rows:
    def __new__(
        cls,
        X: NDArray[np.floating[Any]],
        y: NDArray[np.floating[Any]] | None,
        labels: NDArray[np.int32] | None,
        weight: NDArray[np.floating[Any]] | None,
    ) -> Self: ...
    @property
    def X(self) -> NDArray[Any]: ...
    @property
    def y(self) -> NDArray[Any] | None: ...
    @property
    def labels(self) -> NDArray[np.int32] | None: ...
    @property
    def weight(self) -> NDArray[Any] | None: ...
    def still_there(self) -> int: ...
