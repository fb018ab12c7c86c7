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
def compact_weights(
    cross: NDArray[np.float64],
    inner: NDArray[np.float64],
    products: NDArray[np.float64],
    weights: NDArray[np.float64],
    first: int,
    k: int,
) -> float: ...
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
