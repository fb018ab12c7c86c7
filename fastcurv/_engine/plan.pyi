from collections.abc import Sequence
from typing import Any, Final, Self, TypedDict, type_check_only

import numpy as np
from numpy.typing import NDArray
from typing_extensions import disjoint_base

from .data import Rows
from .kernels import ACTIVATIONS as ACTIVATIONS
from .kernels import LOSSES as LOSSES
from .team import Lock

KINDS: Final[dict[str, int]]

@type_check_only
class Layout(TypedDict):
    chunk: int
    panel: int
    groups: int
    threads: int
    arch: str

@disjoint_base
class Plan:
    lock: Lock
    def __new__(
        cls,
        sizes: Sequence[int],
        activations: Sequence[str],
        skips: Sequence[bool],
        bias: bool,
        rows: Rows,
        loss: str,
        divisor: float,
        l2: float,
        threads: int,
        memory: int = 0,
        batch_norm: bool = False,
        l2_biases: bool = True,
    ) -> Self: ...
    @property
    def rows(self) -> Rows: ...
    @property
    def theta(self) -> NDArray[Any] | None: ...
    @property
    def value(self) -> float: ...
    @property
    def l2(self) -> float: ...
    @property
    def gradient(self) -> NDArray[Any] | None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def sizes(self) -> tuple[int, ...]: ...
    @property
    def in_place(self) -> bool: ...
    @property
    def layout(self) -> Layout: ...
    def bind(
        self,
        theta: NDArray[np.floating[Any]],
        gradient: bool = True,
        passing: bool = False,
    ) -> None: ...
    def take(
        self,
        source: Any,
        theta: NDArray[np.floating[Any]],
        gradient: bool = True,
        passing: bool = False,
    ) -> bool: ...
    def finish(self) -> None: ...
    def prepare(self) -> None: ...
    def unbind(self) -> None: ...
    def renew(
        self,
        X: NDArray[Any],
        y: NDArray[Any] | None,
        labels: NDArray[Any] | None,
        weight: NDArray[Any] | None,
    ) -> bool: ...
    def forget_gradient(self) -> None: ...
    def multiply(
        self,
        v: NDArray[np.floating[Any]],
        out: NDArray[Any],
        kind: str = "hessian",
        active: NDArray[np.int8] | None = None,
        l2: bool = True,
    ) -> None: ...
    def quadratic(
        self,
        v: NDArray[np.floating[Any]],
        kind: str = "hessian",
        active: NDArray[np.int8] | None = None,
    ) -> NDArray[np.float64]: ...
    def jacobian(
        self, v: NDArray[np.floating[Any]], out: NDArray[Any], transpose: bool = False
    ) -> None: ...
    def outputs(self, out: NDArray[Any]) -> None: ...
    def state(self) -> list[tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any] | None, NDArray[Any]]]: ...
    def after_fork(self) -> None: ...

def statistics(plan: Plan) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]: ...
