"""What a network objective knows and proves about itself at theta: the methods that `Objective` and
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
from .kinks import Held, Smoothed
from .majorants import curvature_floor
from .passes import checked_theta


class NetworkFacts:
    """Proved statements about the loss near theta; each holds for the exact function of the stored
    numbers, taken as float64 numbers.
    """

    model: Any
    loss: Loss
    l2: float
    keeps_theta = True  # no method writes into the theta it is given

    def __init_subclass__(cls, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        cls.keeps_theta = cls.__module__.startswith("fastcurv.")  # of others that is not known

    # --- the theorem's numbers

    @to_nearest
    def third_bound(self, theta: ArrayLike, radius: float) -> float:
        """A Lipschitz constant of the Hessian on the ball of that radius around theta, or infinity;
        see `fastcurv.certify.majorants`.
        """
        return majorants.third_bound(self, theta, radius)

    @to_nearest
    def third_bound_in(self, theta: ArrayLike, radius: float, units: ArrayLike) -> float:
        """The same in other units: the ball is ``theta + C x``, ``||x|| <= radius``, C =
        diag(units), and the constant that of ``C H C`` by x.
        """
        return majorants.third_bound(self, theta, radius, units)

    @to_nearest
    def precise_gradient(self, theta: ArrayLike) -> tuple[Floats, float]:
        """``(g, error)``: the gradient in float64 from passes in extended precision, and a bound on
        ``||g - gradient||_2``; see `fastcurv.certify.precise`.
        """
        return precise.gradient(self, theta)

    @to_nearest
    def precise_value(self, theta: ArrayLike) -> tuple[float, float]:
        """``(value, error)``: the loss likewise, and a bound on ``|value - loss|``."""
        return precise.value(self, theta)

    @to_nearest
    def residual_bounds(self, theta: ArrayLike, radius: float) -> majorants.ResidualBounds | None:
        """For mse what Kantorovich's theorem needs for the residuals, else None; see
        `fastcurv.certify.majorants`.
        """
        return majorants.residual_bounds(self, theta, radius)

    # --- infima

    @property
    def loss_lower_bound(self) -> float:
        """A number that the loss, l2 included, is nowhere below: 0, or ``-inf`` with negative
        weights or targets that are no probabilities.
        """
        return majorants.loss_lower_bound(self)

    def ray_to_infimum(self, theta: ArrayLike) -> Floats | None:
        """A unit direction (n,) along which the loss falls for ever from theta; None where none is
        proved. See `fastcurv.certify.majorants`.
        """
        return majorants.ray_to_infimum(self, theta)

    def why_no_minimum(self, theta: ArrayLike) -> str | None:
        """Why the loss falls for ever there, as part of a sentence; None where that is not
        proved.
        """
        ray = self.ray_to_infimum(theta)
        return None if ray is None else majorants.why(self, ray)

    @property
    def attains_lower_bound(self) -> bool:
        """Whether the loss may be `loss_lower_bound` anywhere: an entropy is above it."""
        return majorants.attains_lower_bound(self)

    # --- kinks and symmetries

    @to_nearest
    def kinks(self, theta: ArrayLike, radius: float = 0.0) -> int:
        """How many pre-activations of relu, leaky_relu and elu units may lie at 0 somewhere on the
        ball of that radius around theta, at least within rounding of theta's numbers: of those
        below it, or with l2, which gives all of them one unit, of the largest.
        """
        at = checked_theta(self, theta)
        if normalised(self.model):
            return norm_kinks(self, at, self._rounding(at))
        return majorants.signs(self, at, max(radius, self._rounding(at)), rounding=True)[0].kinks

    def _rounding(self, theta: Floats) -> float:
        """What the largest parameter is rounded by where l2 makes its unit that of all others, else
        0; in float32 several times that, as the engine's products see the kinks that its z have.
        """
        eps, several = float(np.finfo(self.model.dtype).eps), self.model.dtype == np.float32
        size = float(np.linalg.norm(theta, None if several else np.inf)) if theta.size else 0.0
        return (4 if several else 1) * eps * max(eps, size) if np.any(self.l2) else 0.0

    @to_nearest
    def kink_margin(self, theta: ArrayLike) -> float:
        """A radius around theta within which no kink lies: infinite for smooth activations, 0 where
        one may lie at theta.
        """
        return majorants.kink_margin(self, theta)

    def orbits(self, theta: ArrayLike, radius: float = 0.0) -> list[Orbit]:
        """The proved symmetry groups at theta, valid on the ball of that radius around it; see
        `fastcurv.structure.orbits`.
        """
        at = checked_theta(self, theta)
        if normalised(self.model):
            off = norm_off(self, at, radius)
            return orbits(self, at, off, [np.zeros_like(units) for units in off])
        here, *ball = majorants.signs(self, at, 0.0, *[radius] * (radius > 0))
        return orbits(self, at, (ball or [here])[0].off, here.on_kinks)

    def orbit_spread(self, units: ArrayLike) -> float:
        """By what the tangents of `orbits` may turn faster in other units of the parameters: those
        in a layer turn with the numbers of that layer alone.
        """
        layers = layers_of(self.model, np.asarray(units, dtype=float))
        each = [np.concatenate([np.ravel(p) for p in parts if p is not None]) for parts in layers]
        return float(max(c.max() / c.min() for c in each))

    def flat_directions(self, theta: ArrayLike) -> Floats:
        """The tangents of the proved symmetry groups at theta, ``(n, s)``: zero modes of the
        Hessian at a critical point.
        """
        return symmetry.flat_directions(self, theta)

    def smoothed(self, width: float) -> Smoothed | None:
        """The objective with its kinks rounded off over a width; None unless all hidden units are
        relu or leaky_relu in a plain stack. See `fastcurv.certify.kinks`.
        """
        return Smoothed(self, width) if kinks.supported(self) else None

    def held(
        self,
        gates: list[NDArray[Any]],
        collapsed: list[NDArray[np.bool_]],
        parents: list[NDArray[np.intp]] | None = None,
    ) -> Held | None:
        """The loss as a smooth function of theta and of slopes at active kinks, those with a NaN
        for their gate; None as above. See `fastcurv.certify.kinks`.
        """
        return Held(self, gates, collapsed, parents) if kinks.supported(self) else None

    def felt(self, gates: list[NDArray[Any]]) -> list[NDArray[np.bool_]]:
        """Where a unit has an effect on its row, not all above it being off there."""
        return kinks.felt(gates)

    def copies(
        self, theta: Floats, gates: list[NDArray[Any]], collapsed: list[NDArray[np.bool_]]
    ) -> list[NDArray[np.intp]]:
        """For every hidden unit of relu or leaky_relu the one it is a copy of, itself where it is
        none; see `fastcurv.certify.kinks`.
        """
        return kinks.find_copies(kinks.Rows(self), theta, gates, collapsed)

    def leaks(self) -> list[float]:
        """The slopes below 0 of every hidden layer of relu or leaky_relu units."""
        return kinks.Rows(self).leaks

    # --- the rest

    def probes(self, theta: ArrayLike, **options: Any) -> Floats:
        """Vectors that symmetric saddles cannot hide from; see `fastcurv.structure.symmetry`."""
        return symmetry.probes(self, theta, **options)

    def _ranges(self, theta: ArrayLike) -> tuple[symmetry.Ranges, symmetry.Ranges]:
        return symmetry.ranges(self, theta)

    def saturation(self, theta: ArrayLike) -> dict[str, Any]:
        """How saturated the units are; see `fastcurv.structure.symmetry`."""
        return symmetry.saturation(self, theta)

    @to_nearest
    def curvature_floor(self, theta: ArrayLike) -> float:
        """A number that no eigenvalue of the Hessian is below, or -inf; see
        `fastcurv.certify.majorants`.
        """
        return curvature_floor(self, theta)
