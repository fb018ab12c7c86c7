from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

def in_memory(
    x: NDArray[Any], name: str, rows: Any = None, by_pipe: bool = False
) -> NDArray[Any]: ...

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
