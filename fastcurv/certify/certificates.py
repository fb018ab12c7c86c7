"""Proved statements about a network objective near theta. `classify` and `minimize` call these
methods through `fastcurv.common.objectives`. If an objective has no certificates, the results of
that module claim nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.protocols import Floats
from ..common.read_only import ReadOnlyMixin
from ..common.runtime import with_nearest_rounding
from ..network.objective import Objective
from ..network.sums import sum_over_rows
from ..structure.curvature_probes import curvature_probes
from ..structure.orbits import Orbit, proved_orbits
from ..structure.parameters import (
    batch_norm_params,
    has_skip_connection,
    is_batch_normalised,
    layers_of,
)
from ..structure.saturation import (
    ColumnRanges,
    ranges_at_theta,
    saturation_counts,
    saturation_from_counts,
)
from ..structure.tables import activation_spec, batch_normalise
from . import loss_infimum, majorants, preactivations, precise
from .curvature_floor import curvature_floor
from .kinks import ReluData, is_relu_stack
from .passes import round_to_model_dtype


def count_kinks_in_ball(ob: Objective, theta: Floats, radius: float) -> int:
    """Return the number of pre-activations that may be at a kink somewhere in the ball of the given
    radius around theta. The model must have no batch normalisation; see `Certificates.kinks`.
    """
    return preactivations.preactivation_signs(ob, theta, radius, rounding=True)[0].kinks


def loss_lower_bound_as_list(ob: Objective) -> list[float]:
    """Return the list ``[loss_lower_bound(ob)]``. It is a list so that the sum over shards
    concatenates the bounds of all shards.
    """
    return [loss_infimum.loss_lower_bound(ob)]


class ForwardCertificates(ReadOnlyMixin):
    """The certificates that need forward passes alone, which can be summed over blocks of rows.
    They serve objectives whose errors have no bound: `classify` needs the number of kinks even if
    no bound on derivatives is proved.
    """

    objective: Objective
    _read_only = frozenset(("objective",))

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def _sum_over_rows(self, part: Callable[..., Any], *arguments: Any) -> Any:
        """Return the sum of ``part(shard, *arguments)`` over the shards of the rows."""
        return sum_over_rows(self.objective, part, *arguments)

    @property
    def loss_lower_bound(self) -> float:
        """The lower bound 0 on the loss, l2 included, over all theta. It is ``-inf`` with negative
        soft targets, or with a user-defined loss that is not known to be nonnegative.
        """
        return float(min(self._sum_over_rows(loss_lower_bound_as_list)))

    @with_nearest_rounding
    def kinks(self, theta: ArrayLike, radius: float = 0.0) -> int:
        """Return the number of pre-activations of relu, leaky_relu and elu units that may be 0 for
        some parameters in the ball of radius `radius` around theta, or that differ from 0 by less
        than their rounding error.

        With l2, the radius is at least the rounding error of the largest entry of theta (in
        float32, four times that of the norm of theta). With batch normalisation, `radius` is
        ignored and only rounding errors are considered.
        """
        ob = self.objective
        at = round_to_model_dtype(self.objective, theta)
        # In float32 the products use the signs of the rounded z, so four roundings are allowed.
        eps = float(np.finfo(ob.model.dtype).eps)
        several = ob.model.dtype == np.float32
        size = float(np.linalg.norm(at, None if several else np.inf)) if at.size else 0.0
        least = (4 if several else 1) * eps * max(eps, size) if np.any(ob.l2) else 0.0
        if is_batch_normalised(ob.model):
            return count_batch_norm_kinks(ob, at, least)
        return int(self._sum_over_rows(count_kinks_in_ball, at, max(float(radius), least)))

    def probes(self, theta: ArrayLike, **options: Any) -> Floats:
        """Return start vectors for eigenvector searches, as unit columns (n, p), that have
        components along the negative curvature of symmetric saddles. The options are those of
        `fastcurv.structure.curvature_probes.curvature_probes`.
        """
        return curvature_probes(self.objective, theta, **options)

    def input_output_ranges(self, theta: ArrayLike) -> tuple[ColumnRanges, ColumnRanges]:
        """Return the ranges of the inputs and of the network outputs at theta, as a pair of
        `fastcurv.structure.saturation.ColumnRanges`.
        """
        ranges: tuple[ColumnRanges, ColumnRanges] = self._sum_over_rows(ranges_at_theta, theta)
        return ranges

    def saturation(self, theta: ArrayLike) -> dict[str, object]:
        """Return a dictionary of measures of the saturation of the hidden units at theta; its keys
        are those of `fastcurv.structure.saturation.saturation`.
        """
        counts = self._sum_over_rows(saturation_counts, theta)
        return saturation_from_counts(self.objective.model, *counts)


class Certificates(ForwardCertificates):
    """Proved statements about the loss of a network objective near theta. Each statement holds for
    the function that exact arithmetic computes from the stored parameters and data.

    The certificates of an objective are ``ob.certificates``. A user-defined objective may define
    any of these attributes itself; a missing attribute claims nothing.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> X, y = np.array([[1.0], [2.0]]), np.array([1.0, 2.0])
    >>> ob = fc.Objective(fc.MLP([1, 1], bias=False), X, y, loss="mse")
    >>> gradient, error = ob.certificates.precise_gradient([1.0])
    >>> gradient, bool(error < 1e-15), ob.certificates.third_bound([1.0], 0.1)
    (array([0.]), True, 0.0)
    """

    def _sum_over_rows(self, part: Callable[..., Any], *arguments: Any) -> Any:
        return part(self.objective, *arguments)  # all rows are in memory

    # --- constants for Kantorovich's theorem

    @with_nearest_rounding
    def third_bound(self, theta: ArrayLike, radius: float) -> float:
        """Return a Lipschitz constant of the Hessian in the spectral norm on the ball of radius
        `radius` around theta (n,), or infinity if none is proved. See `fastcurv.certify.majorants`.
        """
        return float(majorants.third_bound(self.objective, theta, radius))

    @with_nearest_rounding
    def third_bound_in_units(
        self, theta: ArrayLike, radius: float, units: ArrayLike | None
    ) -> float:
        """Return the bound of `third_bound` in other units of the parameters.

        With ``C = diag(units)`` for `units` (n,), the ball consists of ``theta + C x`` with ``||x||
        <= radius``, and the bound is a Lipschitz constant of ``C H C`` as a function of x. If
        `units` is None, C is the identity.
        """
        return float(majorants.third_bound(self.objective, theta, radius, units))

    @with_nearest_rounding
    def precise_gradient(self, theta: ArrayLike) -> tuple[Floats, float]:
        """Return ``(g, error)``: the gradient g (n,) as float64, computed by passes in extended
        precision, and a bound on ``||g - exact gradient||_2``. See `fastcurv.certify.precise`.
        """
        return precise.precise_gradient(self.objective, theta)

    @with_nearest_rounding
    def precise_value(self, theta: ArrayLike) -> tuple[float, float]:
        """Return ``(value, error)``: the loss, computed by passes in extended precision, and a
        bound on ``|value - exact loss|``.
        """
        return precise.precise_value(self.objective, theta)

    @with_nearest_rounding
    def residual_bounds(self, theta: ArrayLike, radius: float) -> majorants.ResidualBounds | None:
        """Return the `ResidualBounds` at theta, which Kantorovich's theorem needs on the ball of
        radius `radius`, or None unless the loss is mse. See `fastcurv.certify.majorants`.
        """
        return majorants.residual_bounds(self.objective, theta, radius)

    def ray_to_infimum(self, theta: ArrayLike) -> Floats | None:
        """Return a unit direction (n,) along which the loss is proved to decrease for every step
        length, so that theta is not critical. Return None if none is known. See
        `fastcurv.certify.loss_infimum`.
        """
        return loss_infimum.ray_to_infimum(self.objective, theta)

    def why_no_minimum(self, theta: ArrayLike) -> str | None:
        """Return the reason why the loss decreases for every step along `ray_to_infimum`, as part
        of a sentence, or None if this is not proved.
        """
        ray = self.ray_to_infimum(theta)
        return None if ray is None else loss_infimum.unbounded_reason(self.objective, ray)

    @property
    def attains_lower_bound(self) -> bool:
        """True if the loss may equal its lower bound for some theta. A cross entropy exceeds its
        lower bound for every theta, unless the loss is 0 everywhere.
        """
        return loss_infimum.attains_lower_bound(self.objective)

    # --- kinks and symmetries

    def orbits(self, theta: ArrayLike, radius: float = 0.0) -> list[Orbit]:
        """Return a list of the symmetry groups that are proved to leave the loss unchanged near
        theta, on the ball of radius `radius`. See `fastcurv.structure.orbits`.
        """
        ob = self.objective
        at = round_to_model_dtype(self.objective, theta)
        if is_batch_normalised(ob.model):
            off = proved_inactive_units(ob, at, radius)
            return proved_orbits(ob, at, off, [np.zeros_like(units) for units in off])
        here, *ball = preactivations.preactivation_signs(ob, at, 0.0, *[radius] * (radius > 0))
        return proved_orbits(ob, at, (ball or [here])[0].off, here.on_kinks)

    def orbit_spread(self, units: ArrayLike) -> float:
        """Return the maximum over the layers of the ratio of the largest to the smallest entry of
        `units` (n,) in that layer.

        If parameters are measured in these units, the tangents of `orbits` may turn faster by at
        most this factor. The tangents in a layer depend on the parameters of that layer alone.
        """
        layers = layers_of(self.objective.model, np.asarray(units, dtype=float))
        each = [np.concatenate([np.ravel(p) for p in parts if p is not None]) for parts in layers]
        return float(max(c.max() / c.min() for c in each))

    def flat_directions(self, theta: ArrayLike) -> Floats:
        """Return the tangents of `orbits`, directions along which the loss is constant by a
        proved symmetry. At every critical point these directions are zero modes of the Hessian.

        Returns
        -------
        ndarray, shape (n, s)
            The tangents as columns, not orthogonal and possibly linearly dependent. A column t is
            the tangent of an orbit ``exp(s A) theta`` with ``||A|| <= 1``, or ``||A|| <= 2`` if the
            layer has a skip connection. Because ``H t = -A'g``, ``||H t|| <= ||A|| ||g||`` at every
            theta.

        Raises
        ------
        MemoryError
            If the tangents take more than 1 GB.

        Examples
        --------
        >>> from fastcurv.testing import lecture_toy
        >>> lecture_toy().certificates.flat_directions([2.0, 0.5]).ravel()
        array([ 2. , -0.5])
        """
        columns = [orbit.tangents for orbit in self.orbits(theta)]
        return np.hstack(columns) if columns else np.zeros((self.objective.model.n_params, 0))

    def relu_rows(self) -> ReluData | None:
        """Return the `ReluData` from which minima at active kinks are computed and proved. Return
        None unless all hidden units are relu or leaky_relu, the network is a plain stack of
        layers, and the loss is squared error or (binary) cross entropy. See
        `fastcurv.certify.kinks`.
        """
        return ReluData(self.objective) if is_relu_stack(self.objective) else None

    @with_nearest_rounding
    def curvature_floor(self, theta: ArrayLike) -> float:
        """Return a lower bound on the eigenvalues of the Hessian at theta, or ``-inf`` if none is
        proved. See `fastcurv.certify.curvature_floor`.
        """
        return curvature_floor(self.objective, theta)


# --------------------------------------------------------------------------------------------------
# Kinks and signs under batch normalisation: the rounding error of a pre-activation z is estimated
# from the magnitudes of the terms from which z is computed. For other networks signs are proved in
# `fastcurv.certify.preactivations`.


def count_batch_norm_kinks(ob: Objective, theta: Floats, least: float) -> int:
    """Return the number of pre-activations of relu, leaky_relu and elu units that are 0 within
    their rounding errors, for a model with batch normalisation. Each entry of theta is assumed to
    have a rounding error of at least `least`.
    """
    model = ob.model
    X = np.asarray(ob.X, dtype=float)
    zs = model.preactivations(theta.astype(model.dtype), X.astype(model.dtype))
    eps = float(np.finfo(model.dtype).eps)
    count = 0
    below = X
    norms: Any = batch_norm_params(model, theta)
    for layer, name in enumerate(model.activation):
        W, _ = layers_of(model, theta)[layer]
        z = np.asarray(zs[layer], dtype=float)
        reach = np.abs(below) @ (np.abs(W) + least).T
        gamma, beta = norms[layer]
        h, s = batch_normalise(below @ W.T)
        mean = reach.mean(axis=0)
        square = np.sqrt((reach**2).mean(axis=0))
        # bounds on the terms whose sum is gamma (z - mean) s + beta
        reach = np.abs(gamma) * s * (reach + mean + 2 * np.abs(h) * square) + np.abs(beta)
        off = 4 * (layer + 1) * (W.shape[1] + 2) * eps * reach + least * (reach > 0)
        count += int((np.abs(z) <= off).sum()) if activation_spec(name).kink else 0
        below = activation_spec(name).phi(z) + (below if has_skip_connection(model, layer) else 0)
    return count


def proved_inactive_units(ob: Objective, theta: Floats, radius: float) -> list[NDArray[np.bool_]]:
    """Return a list of masks, one for each hidden layer, of the relu units that are proved to be
    off for all rows on the ball of radius `radius` around theta.

    The normalised values h of a unit have mean 0 and mean square at most 1 over N rows, so none is
    larger than ``sqrt(N)``. Hence ``gamma h + beta`` is negative on the ball if ``(|gamma| +
    radius) sqrt(N) + beta + radius < 0``.
    """
    max_normalised = float(np.sqrt(len(ob.X))) * (1 + 1e-12)
    norms = batch_norm_params(ob.model, theta)
    return [
        (np.abs(gamma) + radius) * max_normalised + beta + radius < -1e-12 * np.abs(beta)
        if activation_spec(name).leak == 0.0
        else np.zeros(len(gamma), dtype=bool)
        for name, norm in zip(ob.model.activation, norms)
        if norm is not None
        for gamma, beta in (norm,)
    ]
