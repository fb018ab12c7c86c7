"""What the architecture alone tells: layers, symmetries, equivalent parameters. NumPy only."""

from .symmetry import flip_tanh, permute_hidden, rescale_relu

__all__ = ["flip_tanh", "permute_hidden", "rescale_relu"]
