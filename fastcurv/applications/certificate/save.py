"""Writing of certificates, which `check_certificate` checks without this library."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from ...common.checks import check_theta
from ...common.errors import type_phrase
from ...common.files import path_as_text, write_atomically
from ...common.protocols import Floats
from ...common.vectors import safe_norm
from ...critical.report import CriticalPoint
from ...network.objective import Objective
from ...network.row_views import with_model
from . import check_certificate as checker

# factor by which a claimed number is weaker than the number computed in float64
MARGIN = 1 - 2.0**-10
RADIUS_MARGIN = 1 + 2.0**-6  # the correction must be shorter than the radius, with room to spare
MIN_RADIUS = 2.0**-96  # smallest claimed radius, well above the resolution of the checker's numbers
MAX_RADIUS = 2.0**60  # largest claimed radius
N_CORRECTIONS = 4  # Newton steps with exact gradients; each squares the error
# assumed error of an eigenvalue of the float64 Hessian, as a ratio to its norm; the checker detects
# a larger one
ROUNDING_RATIO = 1e-13
# maximum ratio of the distance of the critical point to the radius of a verdict on this theta
MAX_LENGTH_RATIO = 1.01


def save_certificate(
    path: str | os.PathLike[str], ob: Objective, theta: Any, point: CriticalPoint
) -> None:
    """Write a proved verdict on a critical point to a JSON file that a program independent of this
    library can check.

    The program is ``fastcurv/applications/certificate/check_certificate.py``, one file that needs
    only Python. ``fastcurv check`` runs it.

    Parameters
    ----------
    path : path-like
        The file to write. An existing file is replaced in one step.
    ob : Objective
        Its network has no batch normalisation, at most 400 parameters and 12 layers, and the
        activations identity, relu, tanh, sigmoid and softplus. Its loss is mse, cross_entropy,
        binary_cross_entropy or poisson.
    theta : array_like (n,)
        The parameters that were classified.
    point : CriticalPoint
        The verdict of `classify` on theta, with ``certified=True``. A minimum must have no zero
        eigenvalues, such as those of symmetries, and must not lie on kinks.

    Raises
    ------
    ValueError
        If the verdict is not proved, or the checker does not cover it; the message says why. Also
        if a proof of this library is too narrow for the simpler bounds of the checker.

    See Also
    --------
    classify : Computes the verdict.

    Notes
    -----
    The file holds the network, the rows and targets, theta, the claim, and a correction of theta
    that brings the gradient nearer to 0. For a minimum, and for a saddle without zero eigenvalues,
    the claim is that exactly one critical point lies within a radius, with the numbers
    of its positive and negative eigenvalues and a lower bound of their magnitudes. The radius is
    1/64 larger than that of `point`, or than the correction if that is longer. For the other
    saddles, the claim is that along one direction the curvature is negative and along another
    positive everywhere within a radius, which is that of `point`, or smaller if the checker needs
    it.

    The cost is that of a dense Hessian, and of a few gradients in integer arithmetic: seconds at
    most. The checker itself takes up to minutes, and is not run.

    Examples
    --------
    >>> import os, tempfile, numpy as np, fastcurv as fc
    >>> X = np.linspace(-1, 1, 12).reshape(6, 2)
    >>> ob = fc.Objective(fc.MLP([2, 1], []), X, X[:, 0], loss="mse", l2=0.5)
    >>> run = fc.minimize(ob, np.zeros(3))
    >>> path = os.path.join(tempfile.mkdtemp(), "point.json")
    >>> fc.save_certificate(path, ob, run.x, run.report)
    >>> from fastcurv.applications.certificate.check_certificate import check_file
    >>> check_file(path)[0]
    0
    """
    text = path_as_text(path, cure=" The order is fc.save_certificate(path, ob, theta, point).")
    document = certificate_document(ob, theta, point)
    write_atomically(text, (json.dumps(document, indent=1) + "\n").encode())


def certificate_document(ob: Any, theta: Any, point: CriticalPoint) -> dict[str, Any]:
    """Return the contents of the file that `save_certificate` writes."""
    _raise_if_not_covered(ob, point)
    at = np.asarray(np.asarray(check_theta(ob, theta), dtype=ob.model.dtype), dtype=float)
    document = problem_document(ob, at)
    exact = ExactPoint(document, at)
    H = with_model(ob, ob.model.astype("float64")).hessian(at).to_dense()
    claim = None
    correction = np.zeros(len(at))
    failure = ""
    if point.n_zero == 0 and point.n_positive is not None:
        claim, correction, failure = _inertia_claim(H, point, exact)
    if claim is None and point.kind == "saddle":
        claim, correction, failure = _directions_claim(H, point, exact)
    if claim is None:
        raise ValueError(
            "point must be a proof that the simpler bounds of the checker can repeat, got "
            f"{failure}. Continue training to come nearer to the critical point."
        )
    return document | {"claim": claim, "correction": hex_list(correction)}


def _raise_if_not_covered(ob: Any, point: Any) -> None:
    """Raise TypeError or ValueError unless the checker covers the objective and the verdict."""
    if type(ob) is not Objective:
        raise TypeError(
            f"ob must be a fastcurv.Objective with its rows in memory, got {type_phrase(ob)}."
        )
    if not isinstance(point, CriticalPoint):
        raise TypeError(
            f"point must be the verdict of fastcurv.classify(ob, theta), got {type_phrase(point)}."
        )
    model = ob.model
    other_activations = [a for a in model.activation if a not in checker.ACTIVATIONS]
    obstacle = ""
    if not point.certified:
        obstacle = f"a verdict that is not proved ({point.kind})"
    elif point.evidence.n_active_kinks is not None:
        obstacle = "a minimum on kinks"
    elif point.kind != "saddle" and point.n_zero != 0:
        obstacle = f"a {point.kind} with zero eigenvalues"
    elif model.batch_norm:
        obstacle = "batch normalisation"
    elif other_activations:
        obstacle = f"the activation {other_activations[0]!r}"
    elif ob.loss not in checker.LOSSES:
        obstacle = f"the loss {ob.loss!r}"
    elif model.n_params > checker.MAX_PARAMS:
        obstacle = f"more than {checker.MAX_PARAMS} parameters"
    elif len(model.sizes) > checker.MAX_LAYERS + 1:
        obstacle = f"more than {checker.MAX_LAYERS} layers"
    if obstacle:
        raise ValueError(f"point must be a proof that the checker covers, got {obstacle}.")


def hex_list(values: Any) -> list[str]:
    """Return the numbers of an array as strings that hold them exactly."""
    return [float(x).hex() for x in np.ravel(values)]


def problem_document(ob: Any, theta: Floats) -> dict[str, Any]:
    """Return the part of a certificate that states the objective and theta (n,)."""
    X = ob.X.toarray() if hasattr(ob.X, "toarray") else np.asarray(ob.X)
    y = np.asarray(ob.y)
    model = ob.model
    weight = ob.sample_weight
    classes = ob.loss == "cross_entropy" and y.ndim == 1
    return {
        "format": checker.FORMAT,
        "network": {
            "sizes": list(model.sizes),
            "activations": list(model.activation),
            "skips": list(model.skips),
            "bias": model.bias,
        },
        "loss": {"name": ob.loss, "l2": float(ob.l2).hex(), "l2_biases": ob.l2_biases},
        "data": {
            "X": [hex_list(row) for row in X],
            "y": y.tolist() if classes else [hex_list(row) for row in y.reshape(len(y), -1)],
            "sample_weight": None if weight is None else hex_list(weight),
        },
        "theta": hex_list(theta),
    }


class ExactPoint:
    """The objective of a certificate in the arithmetic of the checker."""

    def __init__(self, document: dict[str, Any], theta: Floats) -> None:
        placeholder = {"kind": "values", "loss": [ZERO] * 2, "gradient_norm": [ZERO] * 2}
        complete = document | {"claim": placeholder, "correction": [ZERO] * len(theta)}
        try:
            self.net, *_ = checker.read_certificate(json.dumps(complete).encode())
        except checker.NotUnderstood as error:
            raise ValueError(f"ob must be an objective that the checker covers: {error}.") from None
        self.point = checker.Point(self.net, self.net.theta)

    def lipschitz(self, radius: float) -> float:
        """Return the checker's Lipschitz constant of the Hessian on the ball of `radius`, infinite
        if it has none.
        """
        try:
            bound = checker.lipschitz(self.point, checker.from_float(radius))
        except checker.NotConfirmed:
            return np.inf
        return _rounded(bound)

    def gradient(self, correction: Floats) -> Floats:
        """Return the gradient at theta plus the correction, rounded to float64."""
        moved = [t + checker.from_float(float(d)) for t, d in zip(self.net.theta, correction)]
        return np.array([_rounded(g) for g in checker.Point(self.net, moved).gradient()])


ZERO = (0.0).hex()


def _rounded(ball: checker.Ball) -> float:
    try:
        return ball.mid / checker.ONE
    except OverflowError:
        return np.inf


Claim = tuple[dict[str, Any] | None, Floats, str]


def _inertia_claim(H: Floats, point: Any, exact: ExactPoint) -> Claim:
    """Return the claim that exactly one critical point with the inertia of `point` is near theta,
    the correction that leads to it, and "". If there is no such claim, return None in its place and
    the reason last.
    """
    values, vectors = np.linalg.eigh(H)
    smallest = float(np.abs(values).min())
    correction = np.zeros(len(H))
    for _ in range(N_CORRECTIONS):
        step = vectors @ ((vectors.T @ exact.gradient(correction)) / values)
        correction = correction - step
    length = safe_norm(correction)
    if not length <= MAX_LENGTH_RATIO * max(point.radius, MIN_RADIUS):
        return None, correction, f"a verdict for another theta, {length:.2g} from a critical point"
    radius = max(MIN_RADIUS, RADIUS_MARGIN * max(point.radius, length))
    change = exact.lipschitz(radius) * radius
    floor = MARGIN * (smallest - change) - ROUNDING_RATIO * safe_norm(H)
    if not floor > 0:
        failure = f"an eigenvalue {smallest:.2g} that may change by {change:.2g} within the radius"
        return None, correction, failure
    claim = {
        "kind": point.kind,
        "radius": radius.hex(),
        "positive": int(point.n_positive),
        "negative": int(point.n_negative),
        "min_abs_eigenvalue": floor.hex(),
    }
    return claim, correction, ""


def _directions_claim(H: Floats, point: Any, exact: ExactPoint) -> Claim:
    """Return the claim that the curvatures along the extreme eigenvectors of the Hessian have
    opposite signs on a ball, a correction of zeros, and "". If there is no such claim, return None
    in its place and the reason last.
    """
    values, vectors = np.linalg.eigh(H)
    rounding = ROUNDING_RATIO * safe_norm(H)
    low = float(values[0]) + rounding
    high = float(values[-1]) - rounding
    radius = min(point.radius, MAX_RADIUS)
    zeros = np.zeros(len(H))
    while (change := exact.lipschitz(radius) * radius) > min(-low, high) / 2:
        radius /= 2
        if radius < MIN_RADIUS:
            return None, zeros, f"curvatures {low:.2g} and {high:.2g} that may have equal signs"
    claim = {
        "kind": "saddle",
        "radius": radius.hex(),
        "negative_direction": hex_list(vectors[:, 0]),
        "negative_curvature": (MARGIN * (low + change)).hex(),
        "positive_direction": hex_list(vectors[:, -1]),
        "positive_curvature": (MARGIN * (high - change)).hex(),
    }
    return claim, zeros, ""
