"""Proved bounds on the rounding errors of values, gradients and curvature products, and lower
bounds on the curvature.
"""

from .bounds import gradient_bound, product_bound
from .passes import ErrorPass

__all__ = ["ErrorPass", "gradient_bound", "product_bound"]
