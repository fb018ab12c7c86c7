"""What a caller of `minimize` passes to watch, stop or save a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..common.checks import check_positive_int
from ..common.errors import require_attrs
from ..common.files import check_writable_path
from ..common.protocols import SupportsValue


@dataclass(frozen=True)
class EarlyStopping:
    """A callback of `minimize` that ends the run once a loss no longer decreases.

    Attributes
    ----------
    validation : objective, optional
        An objective whose ``value`` is recorded with every iteration, as ``history["validation"]``.
        The result of the run is the point where this value was lowest. By default the loss of the
        run itself is watched.
    patience : int, optional
        End the run after this many records without a lower loss. By default the run does not end
        earlier, but the point with the lowest validation loss is returned.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> X = np.linspace(-1, 1, 60)[:, None]
    >>> model, y = fc.MLP([1, 8, 1]), np.sin(3 * X) + 0.3 * np.cos(50 * X)
    >>> ob = fc.Objective(model, X[::2], y[::2], "mse")
    >>> held_out = fc.Objective(model, X[1::2], y[1::2], "mse")
    >>> stop = fc.optimize.EarlyStopping(held_out, patience=5)
    >>> run = fc.minimize(ob, model.init(0), "l-bfgs", callback=stop)
    >>> bool(held_out.value(run.x) == run.history["validation"].min())
    True
    """

    validation: SupportsValue | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.validation is not None:
            wanted = "an objective, fastcurv.Objective(model, X, y) of rows held out"
            require_attrs(self.validation, ("value",), "validation", wanted)
        if self.patience is not None:
            check_positive_int(self.patience, "patience")


@dataclass(frozen=True)
class Checkpoint:
    """Where `minimize` saves a run, and which saved run it continues.

    Attributes
    ----------
    path : path, optional
        File to which the run is saved, at intervals and at the end. If a write fails, as on a full
        disk, a `RuntimeWarning` is issued and the run continues.
    every : int, optional
        Iterations between saves; by default at most two saves a minute.
    resume : path, optional
        File of a run with the same method, options, objective and validation, which is continued
        with results bit-identical to an uninterrupted run. Resume only files that you have saved.

    Examples
    --------
    >>> import tempfile, numpy as np, fastcurv as fc
    >>> ob = fc.Objective(fc.MLP([2, 3, 1]), np.eye(2), [0.0, 1.0], "mse")
    >>> theta, file = ob.model.init(0), tempfile.mkdtemp() + "/run.safetensors"
    >>> part = fc.minimize(ob, theta, "adam", max_iter=3, checkpoint=file)
    >>> resume = fc.optimize.Checkpoint(resume=file)
    >>> rest = fc.minimize(ob, method="adam", max_iter=9, checkpoint=resume)
    >>> np.array_equal(rest.x, fc.minimize(ob, theta, "adam", max_iter=9).x)
    True
    """

    path: Any = None
    every: int | None = None
    resume: Any = None

    def __post_init__(self) -> None:
        if self.path is not None:
            check_writable_path(self.path, "checkpoint")
        if self.every is not None:
            check_positive_int(self.every, "every")
