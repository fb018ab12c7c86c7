"""Networks: the model, its objective over data, and the operators of its second-order
information.
"""

from typing import TYPE_CHECKING, Any

from ..common.runtime import load_module
from .objective import Objective as Objective

if TYPE_CHECKING:
    from .streaming import StreamedObjective as StreamedObjective


def __getattr__(name: str) -> Any:
    if name == "StreamedObjective":
        return load_module("network.streaming").StreamedObjective
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
