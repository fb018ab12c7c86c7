from typing import Any

import numpy as np
from numpy.typing import NDArray

from .kernels import ACTIVATIONS as ACTIVATIONS
from .kernels import LOSSES as LOSSES

def product(
    A: NDArray[Any],
    B: NDArray[Any],
    A2: NDArray[Any] | None = None,
    B2: NDArray[Any] | None = None,
    C: NDArray[Any] | None = None,
    arch: str | None = None,
    b_form: str = "padded",
    threads: int = 0,
    repeat: int = 1,
) -> NDArray[Any]: ...
def activate(
    arch: str | None, name: str, z: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]: ...
def total(
    arch: str | None,
    c: NDArray[Any],
    p: NDArray[Any],
    q: NDArray[Any] | None = None,
    activation: str = "identity",
) -> float: ...
def loss(
    arch: str | None,
    kind: str,
    z: NDArray[Any],
    y: NDArray[Any],
    weight: NDArray[Any] | None = None,
    divisor: float = 1.0,
) -> tuple[float, NDArray[Any], NDArray[Any], NDArray[Any], NDArray[np.int32]]: ...
def r_loss(
    arch: str | None,
    kind: str,
    h: NDArray[Any],
    s: NDArray[Any],
    top: NDArray[np.int32],
    rz: NDArray[Any],
) -> NDArray[Any]: ...
def fisher(
    arch: str | None, factor: float, delta: NDArray[Any], rz: NDArray[Any]
) -> NDArray[Any]: ...
def copy(
    arch: str | None, array: NDArray[Any], packed: bool = False, far: bool = False
) -> NDArray[Any]: ...
def copy_finite(
    arch: str | None, x: NDArray[Any], out: NDArray[Any], far: bool = False
) -> bool: ...
