"""Structure of a network from its architecture alone: layers, symmetries, equivalent parameters."""

from .symmetry import flip_tanh, nearest_copy, permute_hidden, rescale_relu

__all__ = ["flip_tanh", "nearest_copy", "permute_hidden", "rescale_relu"]
