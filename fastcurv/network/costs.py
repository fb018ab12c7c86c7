"""Estimated costs of products with a curvature, in parameter space and in sample space."""

from __future__ import annotations

from functools import lru_cache

SECONDS_PER_FLOP = 5e-11  # estimated seconds of one floating-point operation
MIN_PRODUCT_SECONDS = 1.3e-6  # minimum estimated time of a product
# constants of the cost model, in flops at the speed of the engine's matrix products
FLOPS_PER_ENTRY = 100.0  # flops of a Krylov method for each entry of a vector and each product
UNPACKED_COST_RATIO = 1.25  # cost of unpacked products, relative to the engine's passes
FLOPS_PER_ENTRY_READ = 30.0  # flops in the time that reading an entry of a matrix takes
LAYER_OVERHEAD_FLOPS = 4e6  # flops in the time of the Python calls for one layer


def is_rotation_cheaper(m: int, k: int, N: int, pairs: bool) -> bool:
    """Return True if `layer_product_flops` is smaller for a rotated layer."""
    if k <= N or (pairs and m <= N):
        return False
    return layer_product_flops(m, k, N, pairs, True) < layer_product_flops(m, k, N, pairs, False)


def n_layer_coordinates(m: int, k: int, N: int, pairs: bool, rotated: bool) -> int:
    """Return the number of coordinates of V. For the arguments see `layer_product_flops`."""
    r = min(k, N)
    return m * r + (min(m, N) * (k - r) if pairs else 0) if rotated else m * k


def layer_product_flops(m: int, k: int, N: int, pairs: bool, rotated: bool) -> float:
    """Return the flops of a product in a layer with weights (m, k), for N samples, with the vector
    operations of a Krylov method but without the products with W. `pairs` is False if ra is 0.
    """
    r = min(k, N)
    s = min(m, N)
    size = n_layer_coordinates(m, k, N, pairs, rotated)
    if not rotated:
        return (8.0 if pairs else 4.0) * N * m * k + FLOPS_PER_ENTRY * size
    flops = 4.0 * N * r * m
    if pairs:
        flops += 4.0 * N * r * m + 8.0 * N * r * k + 4.0 * N * s * (k - r)
    return flops + FLOPS_PER_ENTRY * size


@lru_cache
def product_flops(shapes: tuple[tuple[int, int], ...], N: int, kind: str) -> tuple[float, float]:
    """Return two costs in flops of a product, in sample space and in parameter space, including the
    vector operations of a Krylov method, for N samples, these `MLP.shapes` and this curvature.
    """
    there = here = 0.0
    for l, (m, k) in enumerate(shapes):
        pairs = kind == "hessian" and l > 0
        both = 4.0 * N * m * k if l else 0.0  # flops of products with W, in either space
        there += both + layer_product_flops(m, k, N, pairs, False)
        rotated = is_rotation_cheaper(m, k, N, pairs)
        both += layer_product_flops(m, k, N, pairs, rotated)
        here += UNPACKED_COST_RATIO * both + LAYER_OVERHEAD_FLOPS
    return here, there
