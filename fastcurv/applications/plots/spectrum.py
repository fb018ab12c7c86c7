"""Plots of a spectrum: its density and its eigenvalues."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...common.checks import check_positive_int, check_rng, check_symmetric_operator
from ...common.errors import OBJECTIVE_HINT, require_attrs
from ...common.linalg import eigh
from ...common.protocols import Axis
from ...common.runtime import raise_if_interrupted
from ...spectrum.density import spectral_density
from ...spectrum.density_curve import SpectralDensity
from ...spectrum.draw import (
    add_legend_with_headroom,
    draw_density,
    plain_numbers,
    reflect_density_at_bounds,
    sign_count_clause,
)
from ...spectrum.eigsh import eigsh
from ...spectrum.forms import matrix_of
from ...spectrum.results import Eigenpairs
from .predictions import estimator_objective
from .style import BLUE, GREY, RED, Display, new_axes

# maximum n at which all eigenvalues are computed from the matrix, in less than a second
PLOT_DENSE_MAX_N = 1000
CONVERGED_TOL = 1e-6  # maximum residual of a converged pair, relative to the largest eigenvalue


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
        self.eigenvalues = None if eigenvalues is None else np.sort(np.asarray(eigenvalues))
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
        values = extreme_eigenpairs(op, min(k, density.n // 2), seed).values if k else None
        return cls(density, eigenvalues=values).plot(ax, **look)

    @classmethod
    def from_objective(
        cls, objective: Any, theta: Any, *, ax: Any = None, **options: Any
    ) -> SpectrumDisplay:
        """Draw the spectrum of the Hessian of an objective at a point, by `from_operator`.

        Parameters
        ----------
        objective : object
            Anything with ``hessian(theta)``.
        theta : (n,) array
            The point.
        ax : matplotlib Axes or None
            The Axes to draw in; None creates a new figure.
        **options
            Passed to `from_operator`.

        Returns
        -------
        SpectrumDisplay
        """
        cls._check_plot_options(options, "from_objective", "from_operator")
        require_attrs(objective, ("hessian",), "objective", OBJECTIVE_HINT, theta)
        return cls.from_operator(objective.hessian(theta), ax=ax, **options)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        ax: Any = None,
        **options: Any,
    ) -> SpectrumDisplay:
        """Draw the spectrum of the Hessian of the objective that a fitted estimator minimises, by
        `from_operator`.

        Parameters
        ----------
        estimator : MLPClassifier or MLPRegressor
            A fitted estimator of this library, or a pipeline that ends in one.
        X, y, sample_weight : array_like
            The rows on which the loss is evaluated, as in ``fit``.
        ax : matplotlib Axes or None
            The Axes to draw in; None creates a new figure.
        **options
            Passed to `from_operator`.

        Returns
        -------
        SpectrumDisplay

        Examples
        --------
        >>> import numpy as np, fastcurv as fc
        >>> X = np.random.default_rng(0).standard_normal((40, 2))
        >>> est = fc.MLPRegressor((3,), random_state=0).fit(X, np.sin(X[:, 0]))
        >>> shown = fc.SpectrumDisplay.from_estimator(est, X, np.sin(X[:, 0]), k=1, n_steps=10)
        >>> shown.density.n == est.model_.n_params
        True
        """
        cls._check_plot_options(options, "from_estimator", "from_operator")
        objective, theta = estimator_objective(estimator, X, y, sample_weight)
        return cls.from_objective(objective, theta, ax=ax, **options)

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


def extreme_eigenpairs(hessian: Any, k: int, seed: Any, progress: bool = False) -> Eigenpairs:
    """Return the ``k`` lowest and ``k`` highest eigenpairs of an operator. If n is at most
    `PLOT_DENSE_MAX_N`, they are computed from the dense matrix, so that no copy of a multiple
    eigenvalue is missed.
    """
    n = hessian.shape[0]
    if n <= PLOT_DENSE_MAX_N:
        return select_extreme_pairs(all_eigenpairs(hessian), k)
    return raise_if_interrupted(
        eigsh(hessian, k=min(2 * k, n), which="BE", tol=CONVERGED_TOL, rng=seed, progress=progress)
    )


def all_eigenpairs(hessian: Any) -> Eigenpairs:
    """Return all n eigenpairs of an operator, computed from the dense matrix."""
    P, n_products = matrix_of(check_symmetric_operator(hessian))
    P = P.astype(np.float64, copy=False)
    values, V, _ = eigh(P)
    scale = float(np.abs(values).max(initial=0.0))
    residuals = np.linalg.norm(P @ V - V * values, axis=0)
    found = values, V, residuals, residuals <= CONVERGED_TOL * scale, n_products
    return Eigenpairs(*found, scale=scale, tol=CONVERGED_TOL, probed=True, missed_within=0.0)


def select_extreme_pairs(pairs: Eigenpairs, k: int) -> Eigenpairs:
    """Return the ``k`` lowest and ``k`` highest of all eigenpairs `pairs`, or all if there are at
    most 2 k.
    """
    n = len(pairs)
    kept = np.r_[:k, n - k : n] if 2 * k < n else np.arange(n)
    parts = {name: getattr(pairs, name)[kept] for name in ("values", "residuals", "converged")}
    return replace(pairs, vectors=pairs.vectors[:, kept], **parts)


def eigenvalues(
    values: Any, residuals: Any = None, ax: Any = None, *, label: str | None = None
) -> Any:
    """Draw eigenvalues in ascending order, with different markers and colours for negative values,
    positive values, and zeros within rounding.

    Parameters
    ----------
    values : (k,) array
        The eigenvalues, in any order.
    residuals : (k,) array or None
        The residual norm of each value, which is drawn as the half length of an error bar. The
        bar contains an exact eigenvalue.
    ax : matplotlib Axes or None
        The Axes to draw in; None creates a new figure.
    label : str or None
        Text before "positive", "negative" and "zero" in the legend.

    Returns
    -------
    matplotlib Axes
    """
    ax = new_axes(ax)
    values = np.asarray(values, dtype=float)
    order = np.argsort(values)
    errors = None if residuals is None else np.asarray(residuals, dtype=float)[order]
    values, rank = values[order], np.arange(1, values.size + 1)
    threshold = 1e-12 * max(np.abs(values).max(initial=0.0), np.finfo(float).tiny)
    for sign, marker, color, mask in (
        ("negative", "v", RED, values < -threshold),
        ("zero", "o", GREY, np.abs(values) <= threshold),
        ("positive", "^", BLUE, values > threshold),
    ):
        if mask.any():
            bars = None if errors is None else errors[mask]
            name = sign if label is None else f"{label}, {sign}"
            ax.errorbar(
                rank[mask], values[mask], bars, fmt=marker, ms=5, color=color, lw=1, label=name
            )
    ax.axhline(0, color=GREY, lw=0.8, ls=":")
    ax.set_yscale("symlog", linthresh=max(np.abs(values).max(initial=0.0) * 1e-4, threshold))
    plain_numbers(ax.yaxis)
    ax.set(xlabel="rank", ylabel="eigenvalue")
    ax.legend(frameon=False)
    return ax
