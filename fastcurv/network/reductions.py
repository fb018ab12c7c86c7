"""Which smaller operator stands for a curvature: in the space of the samples, of the outputs, of
the inputs, or none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import check_choice
from ..protocols import SPACES
from . import input_space, output_space
from .coordinates import InCoordinates
from .input_space import InputSpace
from .output_space import OutputSpace, cost, n_outputs
from .sample_space import SampleSpace, prices

PRODUCTS = 60.0  # that a question is taken to need


def reduced(H: Any, space: str | None) -> InCoordinates | OutputSpace | None:
    """`Curvature.reduced`."""
    if space is not None:
        check_choice(space, SPACES, "space")
    ob = H.objective
    if ob.model.batch_norm and space == "samples":
        raise ValueError(
            "space is 'samples' for a model with batch normalisation, which ties rows together; "
            "wanted 'parameters'"
        )
    if space == "samples":
        return SampleSpace(H)
    if space == "outputs":
        return OutputSpace(H)
    if space == "inputs":
        return InputSpace(H)
    if space == "parameters":
        return None
    found = by_cost(H)
    if found is not None:
        return found
    return InputSpace(H) if input_space.shrinks(ob) and not input_space.refusal(H) else None


def by_cost(H: Any) -> SampleSpace | OutputSpace | None:
    """The space of the samples or of the outputs where Krylov methods are fastest there."""
    ob = H.objective
    if ob.model.batch_norm:
        return None
    N = ob.n_samples
    here, there = (PRODUCTS * price for price in prices(ob.model, N, H.kind))
    outputs = np.inf
    if not output_space.refusal(H):
        outputs = cost(ob.model, N, n_outputs(ob, H.kind), PRODUCTS)
    if outputs < min(here, there):
        return OutputSpace(H)
    return SampleSpace(H) if here < there else None


def written(H: Any) -> OutputSpace | None:
    """`Curvature.written`."""
    return None if output_space.refusal(H) else OutputSpace(H)


def not_in_shards(H: Any, space: str | None = None) -> None:
    """`Curvature.reduced` of rows in shards: None, since smaller spaces need the rows at hand."""
    if space not in (None, "parameters"):
        raise ValueError(f"space is {space!r} for rows in shards; wanted 'parameters'")
