from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from .kernels import ACTIVATIONS as ACTIVATIONS

def project_rows(
    Q: NDArray[np.floating[Any]], W: NDArray[np.floating[Any]]
) -> NDArray[np.float64]: ...
def subtract_rows(
    Q: NDArray[np.floating[Any]], W: NDArray[np.floating[Any]], C: NDArray[Any]
) -> NDArray[np.float64]: ...
def combine_rows(
    Q: NDArray[np.floating[Any]], S: NDArray[Any], Y: NDArray[np.floating[Any]]
) -> NDArray[Any]: ...
def copy_finite(source: Any, out: NDArray[Any], threads: int | None = None) -> bool: ...
def columns_as_rows(
    V: NDArray[np.floating[Any]], out: NDArray[Any], threads: int = 1
) -> NDArray[Any]: ...
def activate(name: str, z: NDArray[np.floating[Any]]) -> NDArray[Any]: ...

@disjoint_base
class Multiplier:
    def __init__(self, dtype: Any, threads: int) -> None: ...
    def __call__(
        self,
        out: NDArray[Any],
        A: NDArray[np.floating[Any]],
        B: NDArray[np.floating[Any]],
        add: bool = False,
    ) -> NDArray[Any]: ...
