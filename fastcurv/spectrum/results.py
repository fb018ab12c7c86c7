"""What the algorithms return: frozen, with every number next to its error and its price."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import Any

import numpy as np
from scipy.special import stdtrit

from ..common.errors import Answering
from ..common.protocols import Array, Floats

# how far Student's interval falls short for squares of Gaussians, what ``v'Hv`` is where one
# eigenvalue dominates: it must be ``1 + SKEWED / m`` times as wide, to be right 19 times in 20
SKEWED = 13.0
# and where samples take two values, each half of the time, it must be ``1 + TWO_VALUED / m`` times
TWO_VALUED = 3.0

# Where few coordinates couple, a quadratic form of signs takes few values. One that is not constant
# takes each in three of four draws at most, as a polynomial of degree 2: that many samples are all
# alike, and show no scatter, once in 20 times or less; of fewer, probes are any on the sphere
ALIKE = 11
LEFT_OPEN = 64  # tolerances, within which a converged pair may hide another


def alike(samples: np.ndarray) -> bool:
    """Whether samples ``(m, ...)`` differ by rounding alone, and are so few that this shows
    nothing.
    """
    spread = float(np.ptp(samples, axis=0).max(initial=0.0))
    return len(samples) <= ALIKE and spread <= 1e-12 * float(np.abs(samples).max(initial=0.0))


def widened(m: int) -> float:
    """What a standard error from m samples is multiplied by, for two of them to cover 95%:
    Student's t over the normal.
    """
    return float(stdtrit(m - 1, 0.975) / 1.959964) if m > 1 else float("nan")


def mean_of(samples: np.ndarray) -> tuple[float, float]:
    """The mean of independent samples ``v'Hv`` and its widened standard error; NaN from one sample.

    Student's interval, wider where few samples carry the sum: their skewness says so, as far as it
    can be seen, since a few samples look harmless just where they missed the large ones.
    """
    samples = np.asarray(samples, dtype=np.float64)
    m = len(samples)
    if m < 2:
        return float(samples.mean()), np.nan
    largest = float(np.abs(samples).max()) or 1.0
    apart = samples / largest - float((samples / largest).mean())
    variance = float((apart**2).mean())
    skewness = abs(float((apart**3).mean())) / variance**1.5 if variance > 0 else 0.0
    share = min(0.3 + 0.7 * skewness / min(1.2, m**0.5 / 2), 1.25)
    stderr = largest * (variance / (m - 1)) ** 0.5 * widened(m) * (1 + SKEWED / m * share)
    return float(samples.mean()), stderr


def number(x: float) -> str:
    """Four significant digits, for a repr."""
    return f"{float(x):.4g}"


def html_table(title: str, head: list[str], rows: list[list[str]]) -> str:
    """A small table for a notebook; every cell is escaped."""

    def line(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(c)}</{tag}>" for c in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    top = f"<thead>{line(head, 'th')}</thead>" if head else ""
    return f"<table><caption>{escape(title)}</caption>{top}<tbody>{body}</tbody></table>"


@dataclass(frozen=True, repr=False, eq=False)
class Eigenpairs(Answering, subject="pairs"):
    """Eigenpairs of a symmetric operator, ascending, each with the residual that bounds its error.

    Unpacks as SciPy's: ``w, V = fc.eigsh(H)``.

    Attributes
    ----------
    values : ndarray, shape (k,)
        Float64, ascending.
    vectors : ndarray, shape (n, k)
        Orthonormal columns in the same order, in the operator's dtype.
    residuals : ndarray, shape (k,)
        ``||H u - lam u||`` or an upper bound of it, of the products as computed: an eigenvalue of
        an operator that rounds no more than they do lies within ``residuals[i]`` of ``values[i]``.
        A product made again may show some 40 eps ``scale`` more; what rounding can do to it at
        worst says ``H.rounding_bound(u)``, where the operator offers that.
    converged : ndarray of bool, shape (k,)
        Whether ``residuals`` are within the tolerance: ``tol * scale``, or ``tol * |lam|`` where
        that was asked for.
    n_products : int
        Products with the operator that were spent, in any precision.
    scale : float
        The largest ``|lam|`` seen: what the tolerance is relative to.
    tol : float
        The tolerance asked for.
    n_low : int
        How many of the products were made in float32 by ``precision="mixed"``.
    probed : bool
        Whether a random start looked for copies of multiple eigenvalues that the first cannot see,
        or none could have changed the values. How far it saw is `unseen`.
    unseen : float
        What the look leaves open: at a risk of 5% no eigenvalue was missed, copy or not, that lies
        further than this outside the innermost of the values. 0: none at all, from the whole
        matrix or of a whole space; a search that ends before leaves some tolerances open, about one
        value next to another, and its repr speaks of what is beyond 64 of them; infinity: nothing
        was looked for. Where copies were missed others stand in their place, each a true
        eigenvalue.
    interrupted : bool
        True where Ctrl-C ended the run early.
    shared : str or None
        The name of the `Krylov` run whose products these are, where they are not this result's own.
    n_new : int or None
        How many of them were made for this result; None: all.
    asymmetry : float
        How far the products were seen to be from those of a symmetric operator, ``|<u, Hv> - <Hu,
        v>|`` for unit vectors u, v of the basis; 0 where that was rounding. It is in `residuals`.
    space : str
        Where the vectors of the search lay: ``"parameters"``, ``"samples"``, ``"outputs"`` or
        ``"inputs"``; see `sample_space`, `output_space` and `input_space` in `fastcurv.network`.
    """

    values: Array
    vectors: Array
    residuals: Array
    converged: Array
    n_products: int
    scale: float = 0.0
    tol: float = 0.0
    n_low: int = 0
    probed: bool = False
    interrupted: bool = False
    shared: str | None = None
    n_new: int | None = None
    asymmetry: float = 0.0
    space: str = "parameters"
    unseen: float = float("inf")

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Array]:
        return iter((self.values, self.vectors))

    def __getitem__(self, at: int) -> Array:
        """``pairs[0]`` is the values and ``pairs[1]`` the vectors, as in SciPy's answer."""
        return (self.values, self.vectors)[at]

    @property
    def n(self) -> int:
        """Length of a vector."""
        return int(self.vectors.shape[0])

    def vector(self, i: int) -> np.ndarray:
        """The i-th vector ``(n,)``; of pairs found in a smaller space without making the others."""
        return self.vectors[:, i]

    def _title(self) -> str:
        open_still = left_open(self)
        head = (
            f"Eigenpairs: {len(self)} of n = {self.n}, {int(self.converged.sum())} "
            f"{'with residuals within' if open_still else 'converged to'} "
            f"{number(self.tol)} * {number(self.scale)}, {self.n_products} products"
        )
        if self.asymmetry:
            head += f", asymmetry {self.asymmetry:.1e} seen"
        if self.space != "parameters":
            head += f", in the space of {self.space}"
        head += f", {open_still}" if open_still else ""
        return head + (", interrupted" if self.interrupted else "")

    def _repr_html_(self) -> str:
        rows = [
            [f"{v:.8g}", f"{r:.1e}", "yes" if c else "no"]
            for v, r, c in zip(self.values, self.residuals, self.converged)
        ]
        if len(rows) > 24:
            rows[12:-12] = [["...", "...", f"{len(rows) - 24} more"]]
        return html_table(self._title(), ["eigenvalue", "residual", "converged"], rows)

    def __repr__(self) -> str:
        head = self._title()
        rows = [
            f"  {v: .8g}  +- {r:.1e}{'' if c else '   not converged'}"
            for v, r, c in zip(self.values, self.residuals, self.converged)
        ]
        if len(rows) > 24:
            rows[12:-12] = [f"  ... {len(rows) - 24} more"]
        return "\n".join([head, *rows])


def left_open(pairs: Eigenpairs) -> str:
    """What a search leaves open about eigenvalues it missed, in a few words, or none."""
    alone, width = len(pairs) < 2, float(np.ptp(pairs.values / 2)) if len(pairs) else 0.0
    if pairs.unseen <= LEFT_OPEN * pairs.tol * pairs.scale or (alone and np.isinf(pairs.unseen)):
        return ""
    if not alone and pairs.unseen / 2 > width:
        return "missed copies of multiple eigenvalues not excluded"
    others = "others" if alone else "copies"
    return f"{others} excluded beyond {number(pairs.unseen)} at a risk of 5%"


@dataclass(frozen=True, repr=False, eq=False)
class ReducedEigenpairs(Eigenpairs):
    """`Eigenpairs` found in a smaller space: `vectors` are made when they are first asked for, all
    ``(n, k)`` of them, and `vector` makes one alone.

    Attributes
    ----------
    coordinates : ndarray, shape (k, m)
        Of the vectors, as rows; of no meaning where `outside` is not -1.
    outside : ndarray, shape (k,)
        -1, or the number of a vector of the complement's basis.
    reduction : Reduction
        The operator of the search; it holds the one that was asked about.
    together : bool
        Whether one vector takes all of them, orthogonalised: where some belong to eigenvalues far
        below the largest, and were found by a Gram matrix.
    """

    coordinates: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    outside: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    reduction: Any = None
    together: bool = False

    def __post_init__(self) -> None:
        if self.__dict__["vectors"] is None:  # then the property below is what is found
            object.__delattr__(self, "vectors")

    @cached_property  # type: ignore[misc]
    def vectors(self) -> np.ndarray:
        """The vectors as columns ``(n, k)``."""
        rows = np.empty((len(self), self.n), self.coordinates.dtype)
        for i, row in enumerate(rows):
            row[...] = self._vector(i)
        if self.together:  # what is known best comes first and stays as it is
            first = np.argsort(
                np.where(self.outside >= 0, 0.0, -np.abs(self.values)), kind="stable"
            )
            Q, R = np.linalg.qr(rows[first].T)
            rows[first] = (Q * np.where(np.diagonal(R) < 0, -1, 1)).T
        return rows.T

    @property
    def n(self) -> int:
        return int(self.reduction.n)

    def vector(self, i: int) -> np.ndarray:
        return self.vectors[:, i] if self.together else self._vector(i)

    def _vector(self, i: int) -> np.ndarray:
        if self.outside[i] >= 0:
            return np.asarray(self.reduction.outside(self.outside[i], self.outside[i] + 1)[0])
        return np.asarray(self.reduction.embed(self.coordinates[i]))


class InOneLine:
    """A result that a notebook shows as its repr."""

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>"


@dataclass(frozen=True, repr=False, eq=False)
class Estimate(InOneLine, Answering, subject="estimate"):
    """A random estimate with its standard error and its price.

    Attributes
    ----------
    estimate : float or ndarray
        Unbiased, unless the function that made it says otherwise.
    stderr : float or ndarray
        Standard error over the random samples, same shape, and of one number at least what rounding
        leaves of the operator's products; 0 where the number is exact but for rounding.
    n_products : int
        Applications of the operator, products and quadratic forms alike.
    n_quadratic : int
        How many of these were quadratic forms, at about half the price of a product.
    method : str
        What made it.
    space : str
        As in `Eigenpairs`.
    """

    estimate: float | Array
    stderr: float | Array
    n_products: int
    n_quadratic: int = 0
    method: str = ""
    space: str = "parameters"

    @property
    def value(self) -> float | Array:
        """Return `estimate`."""
        return self.estimate

    def __float__(self) -> float:
        return float(self.estimate)

    def __repr__(self) -> str:
        if np.ndim(self.estimate) == 0:
            text = f"{float(self.estimate):.8g} +- {float(self.stderr):.2g}"
        else:
            stderr = number(float(np.sum(np.asarray(self.stderr) / np.size(self.stderr))))
            text = f"shape {np.shape(self.estimate)}, stderr {stderr} on average"
        method = f", {self.method}" if self.method else ""
        return f"Estimate({text}, {self.n_products} products{method})"


@dataclass(frozen=True, repr=False, eq=False)
class Inertia:
    """How many eigenvalues are positive, negative, and zero within `bound`.

    Unpacks into its three counts: ``n_positive, n_negative, n_zero = fc.inertia(H)``.

    Attributes
    ----------
    n_positive, n_negative : int
        Eigenvalues whose sign is proved: further from zero than their error.
    n_zero : int
        Those within their error of zero, whose sign is not known.
    bound : float
        No computed eigenvalue is further than this from its true value: the largest of `errors`.
    values : ndarray, shape (n,)
        The computed eigenvalues, ascending.
    n_products : int
    errors : ndarray, shape (n,)
        What each of them can be off by.
    space : str
        As in `Eigenpairs`. In a smaller one `values` and `errors` are those of its coordinates:
        the others, known exactly, are in the counts alone.
    """

    n_positive: int
    n_negative: int
    n_zero: int
    bound: float
    values: Floats = field(default_factory=lambda: np.zeros(0), compare=False)
    n_products: int = 0
    errors: Floats = field(default_factory=lambda: np.zeros(0), compare=False)
    space: str = "parameters"

    def __iter__(self) -> Iterator[int]:
        return iter((self.n_positive, self.n_negative, self.n_zero))

    @property
    def index(self) -> float:
        """The number of negative eigenvalues over n."""
        return self.n_negative / max(1, sum(self))

    @property
    def minimum_ratio(self) -> float:
        """The number of positive eigenvalues over n."""
        return self.n_positive / max(1, sum(self))

    def __repr__(self) -> str:
        return (
            f"Inertia(n_positive={self.n_positive}, n_negative={self.n_negative}, "
            f"n_zero={self.n_zero}, "
            f"decided at {self.bound:.1e})"
        )

    def _repr_html_(self) -> str:
        counts = [str(self.n_positive), str(self.n_negative), str(self.n_zero)]
        title = f"Inertia, decided at {self.bound:.1e}"
        return html_table(title, ["positive", "negative", "zero"], [counts])
