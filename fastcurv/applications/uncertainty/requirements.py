"""Requirements on an objective and rows that methods of uncertainty share."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...common.checks import is_sparse
from ...common.errors import type_phrase
from ...common.objectives import has_consistent_hessian
from ...common.protocols import Array
from ...network.objective import Objective


def check_rows_in_memory(ob: Any, call: str) -> None:
    """Raise TypeError or ValueError unless `ob` is an Objective that has its rows in memory and
    states its certificates. `call` is the function, named in the message, that reads single rows or
    creates other objectives from the rows.
    """
    if not isinstance(ob, Objective):
        raise TypeError(f"ob must be a fastcurv.Objective, got {type_phrase(ob)}.")
    if getattr(ob, "X", None) is None:
        raise ValueError(
            f"ob must have its rows in memory for {call}, got a {type(ob).__name__}. Use an "
            "Objective of some of the rows."
        )
    if not has_consistent_hessian(ob):
        raise ValueError(
            f"ob must be an Objective itself for {call}, or its class must define certificates, "
            f"got {type_phrase(ob)}. Use a fastcurv.Loss for another loss."
        )


def check_no_batch_norm(ob: Any, call: str) -> None:
    """Raise ValueError if the model has batch normalisation, which `call` does not support."""
    if ob.model.batch_norm:
        raise ValueError(
            f"ob must have a model without batch normalisation for {call}, because its statistics "
            "couple all rows. Use MLP(..., batch_norm=False)."
        )


def dense_rows(model: Any, X: Any) -> Array:
    """Return the rows X ``(N, k)``, an array or a sparse matrix, as a checked array in the dtype of
    the model.
    """
    return np.asarray(model.check_rows(X.toarray() if is_sparse(X) else X))
