"""Proved bounds on the rounding errors of values, gradients and products, and floors under the
curvature.
"""

from .bounds import Rounding, gradient_bound, product_bound

__all__ = ["Rounding", "gradient_bound", "product_bound"]
