"""Proved statements of a network objective about itself at theta: the methods that `Objective` and
`ReferenceObjective` share.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..common.protocols import Floats, Loss
from ..common.runtime import to_nearest
from ..structure import symmetry
from ..structure.orbits import Orbit, orbits
from ..structure.parameters import layers_of, normalised
from . import kinks, majorants, precise
from .batch_norm import norm_kinks, norm_off
from .kinks import Smoothed, SmoothPiece
from .majorants import curvature_floor
from .passes import checked_theta


class Certificates:
    """Proved statements about the loss near theta. Each holds for the exact function of the stored
    numbers, taken as float64 numbers.
    """

    model: Any
    loss: Loss
    l2: float
    keeps_theta = True  # no method writes into the theta it is given

    def __init_subclass__(cls, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        # subclasses outside fastcurv may modify theta
        cls.keeps_theta = cls.__module__.startswith("fastcurv.")

    # --- constants for Kantorovich's theorem

    @to_nearest
    def third_bound(self, theta: ArrayLike, radius: float) -> float:
        """Return a Lipschitz constant of the Hessian on the ball of that radius around theta, or
        infinity; see `fastcurv.certify.majorants`.
        """
        return majorants.third_bound(self, theta, radius)

    @to_nearest
    def third_bound_in(self, theta: ArrayLike, radius: float, units: ArrayLike) -> float:
        """Return the bound of `third_bound` in other units: the ball is ``theta + C x``, ``||x|| <=
        radius``, with C = diag(units), and the constant is that of ``C H C`` as a function of x.
        """
        return majorants.third_bound(self, theta, radius, units)

    @to_nearest
    def precise_gradient(self, theta: ArrayLike) -> tuple[Floats, float]:
        """Return ``(g, error)``: the gradient in float64 from passes in extended precision, and a
        bound on ``||g - gradient||_2``; see `fastcurv.certify.precise`.
        """
        return precise.gradient(self, theta)

    @to_nearest
    def precise_value(self, theta: ArrayLike) -> tuple[float, float]:
        """Return ``(value, error)``: the loss from passes in extended precision, and a bound on
        ``|value - loss|``.
        """
        return precise.value(self, theta)

    @to_nearest
    def residual_bounds(self, theta: ArrayLike, radius: float) -> majorants.ResidualBounds | None:
        """Return what Kantorovich's theorem needs of the residuals, for mse, else None; see
        `fastcurv.certify.majorants`.
        """
        return majorants.residual_bounds(self, theta, radius)

    # --- infima

    @property
    def loss_lower_bound(self) -> float:
        """A lower bound on the loss, l2 included, over all theta: 0, or ``-inf`` with negative
        weights or targets that are not probabilities.
        """
        return majorants.loss_lower_bound(self)

    def ray_to_infimum(self, theta: ArrayLike) -> Floats | None:
        """Return a unit direction (n,) along which the loss decreases for ever from theta; None
        where none is proved. See `fastcurv.certify.majorants`.
        """
        return majorants.ray_to_infimum(self, theta)

    def why_no_minimum(self, theta: ArrayLike) -> str | None:
        """Return the reason why the loss decreases for ever from theta, as part of a sentence; None
        where that is not proved.
        """
        ray = self.ray_to_infimum(theta)
        return None if ray is None else majorants.why(self, ray)

    @property
    def attains_lower_bound(self) -> bool:
        """True if the loss may equal `loss_lower_bound` for some theta; a cross entropy stays above
        it, unless it is 0 everywhere.
        """
        return majorants.attains_lower_bound(self)

    # --- kinks and symmetries

    @to_nearest
    def kinks(self, theta: ArrayLike, radius: float = 0.0) -> int:
        """Return how many pre-activations of relu, leaky_relu and elu units may be 0 somewhere on
        the ball of that radius around theta, or within the rounding of theta's entries. That
        rounding is of the parameters below a unit, or with l2, which gives all parameters one unit,
        of the largest parameter.
        """
        at = checked_theta(self, theta)
        if normalised(self.model):
            return norm_kinks(self, at, self._rounding(at))
        return majorants.signs(self, at, max(radius, self._rounding(at)), rounding=True)[0].kinks

    def _rounding(self, theta: Floats) -> float:
        """Return the rounding of the largest parameter if l2 makes its unit that of all parameters,
        else 0. In float32 it is several times that, because the engine's products see the kinks of
        its own rounded z.
        """
        eps, several = float(np.finfo(self.model.dtype).eps), self.model.dtype == np.float32
        size = float(np.linalg.norm(theta, None if several else np.inf)) if theta.size else 0.0
        return (4 if several else 1) * eps * max(eps, size) if np.any(self.l2) else 0.0

    @to_nearest
    def kink_margin(self, theta: ArrayLike) -> float:
        """Return a radius around theta within which no kink lies: infinite for smooth activations,
        0 where one may lie at theta.
        """
        return majorants.kink_margin(self, theta)

    def orbits(self, theta: ArrayLike, radius: float = 0.0) -> list[Orbit]:
        """Return the proved symmetry groups at theta, valid on the ball of that radius around it;
        see `fastcurv.structure.orbits`.
        """
        at = checked_theta(self, theta)
        if normalised(self.model):
            off = norm_off(self, at, radius)
            return orbits(self, at, off, [np.zeros_like(units) for units in off])
        here, *ball = majorants.signs(self, at, 0.0, *[radius] * (radius > 0))
        return orbits(self, at, (ball or [here])[0].off, here.on_kinks)

    def orbit_spread(self, units: ArrayLike) -> float:
        """Return the factor by which the tangents of `orbits` may turn faster in other units of the
        parameters: the tangents in a layer depend on the parameters of that layer alone.
        """
        layers = layers_of(self.model, np.asarray(units, dtype=float))
        each = [np.concatenate([np.ravel(p) for p in parts if p is not None]) for parts in layers]
        return float(max(c.max() / c.min() for c in each))

    def flat_directions(self, theta: ArrayLike) -> Floats:
        """Return the tangents of the proved symmetry groups at theta, ``(n, s)``: zero modes of the
        Hessian at a critical point.
        """
        return symmetry.flat_directions(self, theta)

    def smoothed(self, width: float) -> Smoothed | None:
        """Return the objective with its kinks smoothed over a width; None unless all hidden units
        are relu or leaky_relu in a plain stack. See `fastcurv.certify.kinks`.
        """
        return Smoothed(self, width) if kinks.supported(self) else None

    def held(
        self,
        gates: list[NDArray[Any]],
        collapsed: list[NDArray[np.bool_]],
        parents: list[NDArray[np.intp]] | None = None,
    ) -> SmoothPiece | None:
        """Return the loss as a smooth function of theta and of the slopes at active kinks, i.e.
        those with NaN in `gates`; None unless all hidden units are relu or leaky_relu in a plain
        stack. See `fastcurv.certify.kinks`.
        """
        return SmoothPiece(self, gates, collapsed, parents) if kinks.supported(self) else None

    def felt(self, gates: list[NDArray[Any]]) -> list[NDArray[np.bool_]]:
        """Return masks of the units that affect the output of their row, i.e. with at least one
        active unit in every layer above.
        """
        return kinks.active_kinks(gates)

    def copies(
        self, theta: Floats, gates: list[NDArray[Any]], collapsed: list[NDArray[np.bool_]]
    ) -> list[NDArray[np.intp]]:
        """Return, for every hidden unit of relu or leaky_relu, the index of the unit it is a copy
        of, its own index if it is none; see `fastcurv.certify.kinks`.
        """
        return kinks.find_duplicates(kinks.ReluRows(self), theta, gates, collapsed)

    def leaks(self) -> list[float]:
        """Return the slope below 0 of every hidden layer of relu or leaky_relu units."""
        return kinks.ReluRows(self).leaks

    # --- probes and saturation

    def probes(self, theta: ArrayLike, **options: Any) -> Floats:
        """Return start vectors that have a component along the negative curvature of symmetric
        saddles; see `fastcurv.structure.symmetry`.
        """
        return symmetry.probes(self, theta, **options)

    def _ranges(self, theta: ArrayLike) -> tuple[symmetry.Ranges, symmetry.Ranges]:
        return symmetry.ranges(self, theta)

    def saturation(self, theta: ArrayLike) -> dict[str, Any]:
        """Return how saturated the units are; see `fastcurv.structure.symmetry`."""
        return symmetry.saturation(self, theta)

    @to_nearest
    def curvature_floor(self, theta: ArrayLike) -> float:
        """Return a lower bound on the eigenvalues of the Hessian, or -inf; see
        `fastcurv.certify.majorants`.
        """
        return curvature_floor(self, theta)
