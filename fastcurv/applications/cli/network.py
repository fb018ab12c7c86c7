"""Networks that `fastcurv report` saved: one .safetensors file with the weights, the coding of the
table as JSON, and the errors of rows left out, from which intervals are computed.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import one_line
from ...common.files import expand_home, make_folder_of, read_tensors, write_tensors
from ...common.protocols import Floats
from ...network.mlp import MLP
from ...network.objective import Objective
from ...network.save import RUN_KEY, file_contents, model_from_contents
from ...structure.tables import check_loss, loss_spec
from ..uncertainty.laplace import laplace_posterior
from .coding import Coding
from .measure import (
    FitMeasurements,
    conformal_width,
    outputs_to_predictions,
    relative_errors,
    spread_at,
)

BLOCK_ROWS = 4096  # number of rows whose outputs are computed at a time
# names of the arrays of a file that `fastcurv.load` ignores
ERRORS, SPREAD, MINIMUM = "history.errors", "history.spread", "history.minimum"


@dataclass(frozen=True)
class SavedNetwork:
    """A network with all that predictions for new rows need.

    Attributes
    ----------
    model, theta : MLP, ndarray (n,)
    coding : Coding
    loss, l2 : str, float
        The loss and the penalty of the fit.
    shift, scale : float
        Targets in their own units are ``shift + scale * y`` for the targets y of the fit.
    classes : tuple of str
        The labels, or none for regression.
    errors, spread : ndarray (N,), ndarray (3,)
        Errors of rows left out, relative to `spread`, see `measure.error_spread`.
    hidden, minimum : tuple of int, ndarray
        The widths of the hidden layers, and theta, at the minimum that the domain refers to, which
        may lack inactive units; none if there is no such minimum.
    digest : str
        The SHA-256 of the inputs and targets of the fit.
    """

    model: MLP
    theta: np.ndarray
    coding: Coding
    loss: Any
    l2: float
    shift: float
    scale: float
    classes: tuple[str, ...]
    errors: np.ndarray
    spread: np.ndarray
    hidden: tuple[int, ...]
    minimum: np.ndarray
    digest: str

    def predictions(self, X: Floats) -> Floats:
        """Return predictions (N,), or probabilities (N, classes), in blocks of rows."""
        parts = [
            outputs_to_predictions(
                self.model.predict(self.theta, X[i : i + BLOCK_ROWS]), self.loss, self.shift,
                self.scale,
            )
            for i in range(0, len(X), BLOCK_ROWS)
        ]  # fmt: skip
        return np.concatenate(parts)

    def interval(self, predictions: Floats, level: float) -> tuple[Floats, Floats]:
        """Return the bounds between which a fraction `level` of new targets lies."""
        width = conformal_width(self.errors, level) * spread_at(self.spread, predictions)
        return predictions - width, predictions + width

    def in_domain(self, X: Floats, X_fit: Floats, y_fit: np.ndarray) -> Any:
        """Return a mask of the rows X inside the domain of the fit to X_fit and y_fit."""
        if digest_of(X_fit, y_fit) != self.digest:
            raise ValueError(
                "data must be the table that the network was fitted to, got another or a changed "
                "one. Pass that table with --data, or make a new report."
            )
        if not len(self.minimum):
            raise ValueError("--domain must be left out: the page found no minimum of this fit.")
        if self.classes:
            y: Any = np.searchsorted(self.classes, y_fit)
            y = y.astype(float)[:, None] if self.model.sizes[-1] == 1 else y
        else:
            y = ((y_fit - self.shift) / self.scale)[:, None]
        sizes = [self.model.sizes[0], *self.hidden, self.model.sizes[-1]]
        model = MLP(sizes, self.model.activation[: len(self.hidden)], dtype=self.model.dtype)
        ob = Objective(model, X_fit, y, self.loss, l2=self.l2, l2_biases=False)
        return laplace_posterior(ob, self.minimum).in_domain(X)

    def save(self, path: str | Path) -> Path:
        """Write the network atomically, and return the absolute path."""
        path = expand_home(path).absolute()
        make_folder_of(path)
        arrays, facts = file_contents(self.model, self.theta)
        arrays |= {ERRORS: self.errors, SPREAD: self.spread, MINIMUM: self.minimum}
        names = ("loss", "l2", "shift", "scale", "classes", "hidden", "digest")
        facts[RUN_KEY] = {name: getattr(self, name) for name in names}
        facts[RUN_KEY]["coding"] = self.coding.to_dict()
        write_tensors(path, arrays, facts)
        return path


def digest_of(X: Floats, y: np.ndarray) -> str:
    """Return a fingerprint of the rows of a fit."""
    content = np.ascontiguousarray(X).tobytes() + "\0".join(map(str, y.tolist())).encode()
    return hashlib.sha256(content).hexdigest()


def network_of_fit(found: FitMeasurements, coding: Coding, y: np.ndarray) -> SavedNetwork:
    """Return the network of a measured fit with this coding."""
    fit, ob = found.fit, found.fit.ob
    none = np.zeros(0)
    errors = relative_errors(found)[found.rows] if fit.numbers else none
    return SavedNetwork(
        ob.model, np.asarray(fit.theta), coding, str(ob.loss), float(np.max(ob.l2)), fit.shift,
        fit.scale, tuple(map(str, fit.classes if fit.classes is not None else ())), errors,
        np.array(found.spread), tuple(found.ob.model.sizes[1:-1]),
        none if found.out is None else np.asarray(found.theta), digest_of(fit.X, y),
    )  # fmt: skip


def load_network(path: str | Path) -> SavedNetwork:
    """Load a network that `SavedNetwork.save` wrote. Raise ValueError if the file is no such
    network; every entry is checked before it is used.
    """
    path = expand_home(path)
    if not path.is_file():
        raise ValueError(f"{one_line(path, 300)} does not exist. Create it with 'fastcurv report'.")
    arrays, facts = read_tensors(path)
    model, theta = model_from_contents(path, arrays, facts)
    try:
        more = facts[RUN_KEY]
        vectors = [arrays[name] for name in (ERRORS, SPREAD, MINIMUM)]
        errors, spread, minimum = vectors
        numbers = [more[name] for name in ("l2", "shift", "scale")]
        lists = [tuple(more[name]) for name in ("classes", "hidden")]
        check_loss(more["loss"])
        if (
            not all(a.dtype == np.float64 and a.ndim == 1 for a in (errors, spread, minimum))
            or not all(np.isfinite(a).all() for a in vectors)
            or spread.shape != (3,)
            or not spread[2] > 0
            or (errors < 0).any()
            or not all(type(x) in (int, float) and math.isfinite(x) for x in numbers)
            or not (more["l2"] >= 0 and more["scale"] > 0)
            or not all(type(label) is str for label in lists[0])
            or len(lists[0]) not in (0, max(2, model.sizes[-1]))
            or (not lists[0] and loss_spec(more["loss"]).targets != "numbers")
            or not all(type(m) is int and 0 < m <= 1 << 24 for m in lists[1])
            or type(more["digest"]) is not str
        ):
            raise ValueError("an entry has the wrong type or size")
        coding = Coding.from_dict(more["coding"], model.sizes[0])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else one_line(error, 300)
        raise ValueError(
            f"{one_line(path, 300)} is not a network that 'fastcurv report' saved: "
            f"{reason.rstrip('.')}."
        ) from None
    return SavedNetwork(
        model, theta, coding, more["loss"], numbers[0], numbers[1], numbers[2], lists[0], errors,
        spread, lists[1], minimum, more["digest"],
    )  # fmt: skip
