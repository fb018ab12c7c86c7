"""The choice of the reduction of a curvature, which is a smaller operator: in the space of the
samples, of the outputs, of the inputs, or none.

The spaces are in `sample_space`, `output_space` and `input_space`. An operator in one of them has
the eigenvalues of the curvature except for copies of one number, the eigenvalue on the complement.
`fastcurv.network` passes the functions of this module to `Curvature`, which calls them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..common.checks import check_choice
from ..common.protocols import SPACE_NAMES
from ..spectrum.forms import OperatorForm, reduction_form
from .costs import FLOPS_PER_ENTRY_READ, MIN_PRODUCT_SECONDS, SECONDS_PER_FLOP, product_flops
from .input_space import InputSpaceOperator, input_space_operator, is_input_rotation_useful
from .output_space import (
    OutputSpaceOperator,
    gram_matrix_flops,
    n_gram_rows,
    no_output_space_reason,
)
from .reductions import CoordinateReduction
from .sample_space import SampleSpaceOperator

SPACE_CONSTRUCTORS: dict[str, Callable[[Any], Any]] = {
    "samples": SampleSpaceOperator,
    "outputs": OutputSpaceOperator,
    "inputs": InputSpaceOperator,
    "parameters": lambda H: None,
}


def reduction_of(H: Any, space: str | None) -> CoordinateReduction | OutputSpaceOperator | None:
    """Return the reduction of the curvature H in the given space, or by default in the
    fastest one, for `Curvature.reduced`. Return None if products with H itself are to be used.
    """
    if H.objective._by_blocks:
        if space not in (None, "parameters"):
            raise ValueError(f"space must be 'parameters' for rows in shards, got {space!r}.")
        return None
    if space is not None:
        reduction: CoordinateReduction | OutputSpaceOperator | None = SPACE_CONSTRUCTORS[
            check_choice(space, SPACE_NAMES, "space")
        ](H)
        return reduction
    form = reduction_form(H, None)
    return None if form is None else form.make()


def reduction_forms(H: Any, products: float) -> list[OperatorForm]:
    """Return the forms of the reductions that may replace a curvature in a run of `products`
    products, for `Curvature.reduction_forms`.
    """
    ob = H.objective
    forms = []
    if ob._by_blocks or ob.why_unproved:
        return []  # the existing error bounds hold in parameter space only
    # In the space of inputs products take the same time, and vectors are shorter.
    if is_input_rotation_useful(ob):
        each = H.estimated_seconds[0]
        price = products * each
        forms.append(OperatorForm("inputs", price, each, lambda: input_space_operator(H)))
    if ob.model.batch_norm:
        return forms
    each = (
        MIN_PRODUCT_SECONDS
        + SECONDS_PER_FLOP * product_flops(ob.model.shapes, ob.n_samples, H.kind)[0]
    )
    forms.append(OperatorForm("samples", products * each, each, lambda: SampleSpaceOperator(H)))
    if not no_output_space_reason(H):
        q = n_gram_rows(ob, H.kind)
        each = MIN_PRODUCT_SECONDS + SECONDS_PER_FLOP * FLOPS_PER_ENTRY_READ * q**2
        price = SECONDS_PER_FLOP * gram_matrix_flops(ob.model, ob.n_samples, q) + products * each
        forms.append(OperatorForm("outputs", price, each, lambda: OutputSpaceOperator(H)))
    return forms


def gram_operator(H: Any) -> OutputSpaceOperator | None:
    """Return the Gram matrix of the curvature H, for `Curvature.gram_operator`. Return None if
    rounding errors have no known bounds, for rows in blocks, and if `no_output_space_reason` gives
    a reason, such as a Hessian.
    """
    possible = not (H.objective.why_unproved or H.objective._by_blocks)
    return OutputSpaceOperator(H) if possible and not no_output_space_reason(H) else None
