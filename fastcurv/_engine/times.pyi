from typing import Any, Self

from numpy.typing import NDArray
from typing_extensions import disjoint_base

from .plan import KINDS as KINDS
from .plan import Plan

@disjoint_base
class Times:
    count: int
    def __new__(cls, plan: Plan | None, kind: str, l2: bool) -> Self: ...
    def take(self, v: Any, out: Any = None) -> NDArray[Any] | None: ...
