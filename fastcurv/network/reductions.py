"""Which smaller operator stands for a curvature: in sample space, in the space of the inputs, or
none.
"""

from __future__ import annotations

from typing import Any

from ..checks import check_choice
from .coordinates import InCoordinates
from .input_space import InputSpace, shrinks
from .sample_space import SampleSpace, worthwhile

SPACES = ("samples", "inputs", "parameters")


def reduced(H: Any, space: str | None) -> InCoordinates | None:
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
    if space == "inputs":
        return InputSpace(H)
    if space == "parameters":
        return None
    if not ob.model.batch_norm and worthwhile(ob.model, ob.n_samples, H.kind):
        return SampleSpace(H)
    return InputSpace(H) if shrinks(ob) else None


def not_in_shards(H: Any, space: str | None = None) -> None:
    """`Curvature.reduced` of rows in shards: None, since smaller spaces need the rows at hand."""
    if space not in (None, "parameters"):
        raise ValueError(f"space is {space!r} for rows in shards; wanted 'parameters'")
