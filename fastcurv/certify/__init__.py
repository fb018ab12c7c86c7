"""Proved bounds on the rounding errors of values, gradients and curvature products, and lower
bounds on the curvature.
"""

from .bounds import assembled, rounding_bound
from .passes import ErrorPass, gradient_bound, product_bound

__all__ = ["ErrorPass", "assembled", "gradient_bound", "product_bound", "rounding_bound"]
