"""Plots of a spectrum: its density and its eigenvalues."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...common.checks import check_array, check_positive_int, check_rng
from ...common.errors import require_attrs
from ...common.protocols import Axis
from ...common.runtime import raise_if_interrupted
from ...spectrum.density import spectral_density
from ...spectrum.density_curve import SpectralDensity
from ...spectrum.draw import (
    add_legend_with_headroom,
    draw_density,
    reflect_density_at_bounds,
    sign_count_clause,
)
from ...spectrum.eigsh import eigsh
from .style import BLUE, GREY, RED, Display


class SpectrumDisplay(Display):
    """A plot of the density of a Hessian's eigenvalues, with ticks below for eigenvalues that are
    known individually.

    Parameters
    ----------
    density : SpectralDensity
        The result of `fastcurv.spectral_density`.
    eigenvalues : (k,) array or None
        Eigenvalues that are drawn as ticks on the axis: negative ones in red, and those that are
        zero within rounding in grey.
    bounds : (float, float)
        Proved bounds on all eigenvalues, at which the density is cut off.

    Attributes
    ----------
    ax_, figure_
        Set by ``plot``.

    See Also
    --------
    fastcurv.spectral_density, fastcurv.eigsh

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> H = np.diag(np.linspace(0.5, 2.0, 50))
    >>> shown = fc.SpectrumDisplay.from_operator(H, k=2, n_probes=4, n_steps=20, rng=0)
    >>> shown.eigenvalues.round(2)
    array([0.5 , 0.53, 1.97, 2.  ])
    """

    density: Any
    eigenvalues: Any
    bounds: Any
    _read_only = frozenset(("density", "eigenvalues", "bounds"))

    def __init__(
        self,
        density: Any,
        *,
        eigenvalues: Any = None,
        bounds: tuple[float, float] = (-np.inf, np.inf),
    ) -> None:
        require_attrs(
            density,
            ("axis", "grid", "density"),
            "density",
            "what spectral_density returns; SpectrumDisplay.from_operator takes the operator",
        )
        self.density = reflect_density_at_bounds(density, *bounds)
        if eigenvalues is not None:
            eigenvalues = np.sort(check_array(eigenvalues, "eigenvalues", np.float64), axis=None)
        self.eigenvalues = eigenvalues
        self.bounds = bounds

    @classmethod
    def from_operator(
        cls,
        op: Any,
        *,
        k: int = 0,
        n_probes: int = 10,
        n_steps: int = 80,
        axis: Axis = "linear",
        rng: Any = None,
        ax: Any = None,
        **look: Any,
    ) -> SpectrumDisplay:
        """Compute the density and ``k`` eigenvalues at each end of an operator's spectrum, and draw
        them.

        Parameters
        ----------
        op : LinearOperator or symmetric matrix, shape (n, n)
            The operator. The density costs ``n_probes * n_steps`` products, and the eigenvalues
            those of `fastcurv.eigsh`.
        k : int
            Number of eigenvalues at each end; 0 for none.
        n_probes, n_steps, axis, rng : int, int, str, int
            As in `fastcurv.spectral_density`.
        ax : matplotlib Axes or None
            The Axes to draw in; None creates a new figure.
        **look
            Passed to ``plot``.

        Returns
        -------
        SpectrumDisplay

        Examples
        --------
        >>> import numpy as np, fastcurv as fc
        >>> H = np.diag([-1.0, 0.0, 1.0, 5.0])
        >>> shown = fc.SpectrumDisplay.from_operator(H, k=1, n_probes=2, n_steps=4, rng=0)
        >>> np.round(shown.eigenvalues, 6)
        array([-1.,  5.])
        """
        cls._check_plot_options(look, "from_operator")
        k = check_positive_int(k, "k", least=0)
        seed = check_rng(rng)
        density = spectral_density(op, n_probes=n_probes, n_steps=n_steps, axis=axis, rng=seed)
        k = min(k, density.n // 2)
        values = raise_if_interrupted(eigsh(op, 2 * k, "BE", rng=seed)).values if k else None
        return cls(density, eigenvalues=values).plot(ax, **look)

    def plot(
        self,
        ax: Any = None,
        *,
        band: float = 2.0,
        scale: str = "log",
        label: str | None = None,
        color: Any = BLUE,
    ) -> SpectrumDisplay:
        """Draw the density and the eigenvalues.

        Parameters
        ----------
        ax : matplotlib Axes or None
            The Axes to draw in; None creates a new figure. Empty axes get a title with the number
            of negative eigenvalues.
        band : float
            Half width of the error band, in standard errors.
        scale : {"log", "linear"}
            Scale of the density's axis.
        label : str or None
            Label of the line in the legend.
        color : colour
            Colour of the density.

        Returns
        -------
        SpectrumDisplay
            The display itself, with ``ax_`` and ``figure_`` set.
        """
        ax = self._create_axes(ax)
        alone = not (ax.lines or ax.get_title())
        draw_density(self.density, ax, band=band, scale=scale, label=label, color=color)
        if self.eigenvalues is not None:
            # Eigenvalues that are zero by symmetry may be computed with either sign.
            near = getattr(self.density, "resolution", 0.0)
            for sign, tone, mine in (
                ("negative", RED, self.eigenvalues < -near),
                ("zero", GREY, np.abs(self.eigenvalues) <= near),
                ("positive", color, self.eigenvalues > near),
            ):
                if mine.any():
                    ax.plot(
                        self.eigenvalues[mine],
                        np.full(mine.sum(), 0.02),
                        "|",
                        color=tone,
                        ms=10,
                        mew=1.2,
                        label=f"{mine.sum()} {sign} eigenvalues",
                        transform=ax.get_xaxis_transform(),
                        clip_on=False,
                    )
            add_legend_with_headroom(ax, float(self.density.density.max()))
        if alone and isinstance(self.density, SpectralDensity):
            ax.set_title(sign_count_clause(self.density))
        return self
