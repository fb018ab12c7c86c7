"""Proved bounds on the rounding errors of values, gradients and products, and floors under the
curvature.
"""

from .bounds import gradient_bound, product_bound, rounding_at
from .passes import Rounding

__all__ = ["Rounding", "gradient_bound", "product_bound", "rounding_at"]
