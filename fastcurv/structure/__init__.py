"""Structure of a network from its architecture alone: layers, symmetries, equivalent parameters."""

from typing import TYPE_CHECKING, Any

from ..common.runtime import load_module

if TYPE_CHECKING:
    from .symmetry import flip_tanh, nearest_copy, permute_hidden, rescale_relu

__all__ = ["flip_tanh", "nearest_copy", "permute_hidden", "rescale_relu"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(load_module("structure.symmetry"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
