"""Losses and activations given by a function of NumPy: `Loss` and `Activation`, for those of your
own, and the losses that are built in this way.

The engine computes the argument, outputs or a layer's z, asks the function for values and first and
second derivatives, once for each theta and block of rows, and keeps them: a product costs what it
costs with any other loss or activation. What is proved of them follows from a few numbers: a bound
on the third derivative, the error of the function, and for a loss a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..common.checks import check_positive, check_real
from ..common.errors import accept_aliases, typed
from ..common.protocols import Floats
from ..common.read_only import ReadOnly
from ..common.runtime import Callback

Values = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
EPS = float(np.finfo(float).eps)
LONG_EPS = float(np.finfo(np.longdouble).eps)
OUTWARD = 1 + 1e-12  # for the rounding of the few operations of a bound
MOST_COUPLED = 64  # outputs of a loss with a full second derivative
TINY = float(np.finfo(float).tiny)
TRIED = 16  # rows with which a new loss is tried
STEP = 1e-5  # of differences, beside numbers of size 1


class Given(ReadOnly):
    """A function that returns a value and two derivatives, and what is known of it."""

    function: Callable[..., Values]
    third: float | Callable[..., Floats] | None
    ulps: float | None
    name: str
    built_in: bool = False
    parts: tuple[str, str, str]
    by_row: bool  # whether it has one value for each row

    def _keep(self, function: Any, returns: str, third: Any, ulps: Any) -> None:
        """Check and store the function and what is known of it."""
        if not callable(function):
            raise TypeError(f"function is {typed(function)}; wanted {returns}")
        if third is not None and not callable(third):
            check_positive(third, "third", zero=True)
        if ulps is not None:
            check_positive(ulps, "ulps")
        self.function, self.third, self.ulps = function, third, ulps
        self.name = getattr(function, "__name__", type(function).__name__)

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"{kind}.{self.name}" if self.built_in else f"{kind}({self.name})"

    def __str__(self) -> str:
        return self.name

    @property
    def unbounded(self) -> str:
        """A clause that says which bounds are not known that proofs need; "" where all are."""
        missing = " and ".join(x for x in ("third", "ulps") if getattr(self, x) is None)
        return missing and f"{self!r} was given without {missing}"

    def _ask(self, *at: NDArray[Any]) -> Values:
        """Return what the function has, as three arrays. It cannot write into its arguments."""
        at = tuple(part.view() for part in at)
        for part in at:
            part.flags.writeable = False
        with np.errstate(all="ignore"), Callback():
            found = self.function(*at)
        if not isinstance(found, tuple) or len(found) != 3:
            raise TypeError(f"{self!r} returned {typed(found)}; wanted ({', '.join(self.parts)})")
        first, second, third = map(np.asarray, found)
        return first, second, third

    def _check_shape(
        self, name: str, part: NDArray[Any], shapes: list[tuple[int, ...]], *at: NDArray[Any]
    ) -> None:
        """Raise a ValueError for an array of other shapes, or that holds no floats."""
        if part.shape not in shapes or part.dtype.kind not in (
            "fc" if at[0].dtype.kind == "c" else "f"
        ):
            which = " or ".join(map(str, shapes))
            of = " and ".join(f"{a} {x.shape}" for a, x in zip("zy", at))
            raise ValueError(
                f"{self!r} returned {name} of shape {part.shape} and dtype {part.dtype} for {of}; "
                f"wanted floats {which}"
            )

    def _off(self, size: NDArray[Any], eps: float, found: Values) -> Floats:
        """Return bounds on the errors of the function by the sizes of its numbers; infinite where
        they are not known. A function that returns numbers of less precision than its arguments' is
        off by that.
        """
        if self.ulps is None:
            return np.full(size.shape, np.inf)
        eps = max(eps, *(float(np.finfo(part.dtype).eps) for part in found))
        return np.asarray(self.ulps * eps * OUTWARD * size, float)

    def third_of(self, z: Floats, *at: Any) -> Floats:
        """Return bounds of z's shape, or (N, 1), on the third derivative, from the other arguments
        of `third`: targets of a loss, and by how much numbers differ from z. Infinite where no
        bound is known.
        """
        shapes = [z.shape, *self.by_row * [(len(z), 1), (len(z),)]]
        if not callable(self.third):
            return np.full(shapes[:2][-1], np.inf if self.third is None else float(self.third))
        with np.errstate(all="ignore"), Callback():
            found = np.asarray(self.third(z, *at), float)
        if found.shape not in shapes:
            which = " or ".join(map(str, shapes))
            raise ValueError(
                f"third of {self!r} returned shape {found.shape} for z {z.shape}; wanted {which}"
            )
        found = np.where(found >= 0, found * OUTWARD, np.inf)  # NaN is no bound
        return found[:, None] if found.ndim < z.ndim else found

    # --- a function that is new is tried

    def _attempt_alone(self, found: Any, turned: Any, same: str, each: str) -> None:
        """Raise a ValueError where parts were others for the same arguments in another form."""
        for name, part, other in zip(self.parts, found, turned):
            if not np.allclose(part, other, rtol=1e-6, atol=1e-9, equal_nan=True):
                raise ValueError(
                    f"{self!r} returned another {name} for the same {same}; wanted a function of "
                    f"{each} alone"
                )

    def _attempt(self: Any, z: Floats, v: Floats, *y: Floats) -> Any:
        """Return what the function has at z, or raise a ValueError where its derivatives are not
        those of differences along v, or the bounds on the third and on its errors do not hold.
        """
        here, above, below = (self(z + step * v, *y) for step in (0, STEP, -STEP))
        eps = max(float(np.finfo(part.dtype).eps) for part in here)
        for j in (1, 2):
            told = here[j] * (v[:, None] if here[j].ndim > z.ndim else v)
            sizes, slope = np.abs(told), (above[j - 1] - below[j - 1]) / (2 * STEP)
            if told.ndim > slope.ndim:
                told, sizes = told.sum(axis=-1), sizes.sum(axis=-1)
            noise = 64 * eps / STEP * (1 + np.abs(above[j - 1]) + np.abs(below[j - 1]))
            off = np.abs(slope - told) > 1e-3 * (np.abs(slope) + sizes) + noise + 1e-6
            if 4 * off.sum() > off.size:  # else it may be at a kink
                where = "along a random direction" if y else f"at z = {z[off][0]:.4g}"
                raise ValueError(
                    f"{self!r} returned {self.parts[j]} of {told[off][0]:.6g} {where}; wanted the "
                    f"derivative of {self.parts[j - 1]}, which by differences is "
                    f"{slope[off][0]:.6g}"
                )
        if self.third is not None:
            move, change = np.abs(v) * STEP, above[2] - below[2]
            bound, lengths = self.third_of(z, *y, move), 2 * move
            if change.ndim == 3:
                change = np.where(np.isfinite(change), change, 0)
                change, lengths = np.linalg.norm(change, 2, (1, 2)), np.linalg.norm(lengths, axis=1)
                bound = bound.max(axis=1)
            most = np.abs(here[2]).max(initial=0.0)
            if (np.abs(change) > 1.001 * bound * lengths + 1e-9 * (1 + most)).any():
                raise ValueError(f"third of {self!r} does not bound how its second changes")
        if self.ulps is not None and LONG_EPS < EPS:
            long = self(z.astype(np.longdouble), *y)
            known = self.error(z, *y, here, EPS) + self.error(z, *y, long, LONG_EPS)
            for name, part, other in zip(self.parts, here, long):
                gap = np.abs(part - other)
                if gap.shape == known.shape and (gap > known).any():
                    raise ValueError(
                        f"{self!r} is off by {np.nanmax(gap):.2g} in {name} against "
                        f"numpy.longdouble, more than ulps={self.ulps:g} allows"
                    )
        return here


class AskedLoss(Given):
    """A function of outputs and targets of rows, and what is known of it: the part of a `Loss` that
    the library asks.
    """

    parts = ("value", "first", "second")
    by_row = True
    _coupled: bool | None = None  # see `coupled`; None before the first call
    convex: bool = False  # by the outputs
    exponential: bool = False  # whether the mean is exp(z)
    logarithmic: bool = False  # whether it is minus the logarithm of a density
    per_target: int = 1  # outputs of a target; 0: targets of any width
    least: tuple[float, bool] | None = None  # least target, and whether it is one itself
    lower: float | None

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Return the name of a loss that is built in. A copy of any other knows what it knows."""
        return (named, (self.name,)) if self.built_in else super().__reduce_ex__(protocol)

    @property
    def coupled(self) -> bool:
        """Whether outputs share a term: state is laid out by it, and there is no default."""
        if self._coupled is None:
            raise RuntimeError(f"{self!r} has not been called yet; wanted `learn` before")
        return self._coupled

    @property
    def known(self) -> bool:
        """Whether the function has been called, so that `coupled` is known."""
        return self._coupled is not None

    def learn(self, y: NDArray[Any], d: int, weight: NDArray[Any] | None) -> None:
        """Try the function with d outputs, at some of the targets of rows that count, unless it is
        `known`.
        """
        if not self.known:
            counts = slice(None) if weight is None or not np.any(weight) else weight != 0
            self.attempt(y[counts], d)

    # --- the function

    def __call__(self, z: NDArray[Any], y: NDArray[Any]) -> Values:
        """Return value, first and second derivative of rows, as the function has them, in the
        precision of z, with their shapes checked.
        """
        y = np.asarray(y, z.real.dtype)
        value, first, second = self._ask(z, y)
        N, d = z.shape
        self._check_shape("value", value, [(N,)], z, y)
        self._check_shape("first", first, [(N, d)], z, y)
        self._check_shape("second", second, [(N, d), (N, d, d)], z, y)
        coupled = second.ndim == 3
        if self._coupled is None:
            vars(self)["_coupled"] = coupled
        if self._coupled != coupled:
            raise ValueError(f"{self!r} returned second of another number of axes than before")
        if coupled and d > MOST_COUPLED:
            raise ValueError(
                f"{self!r} couples {d} outputs by its second derivative; wanted at most "
                f"{MOST_COUPLED}"
            )
        return value, first, second

    def terms(self, z: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the value of each row (N, 1), and first."""
        value, first, _ = self(z, y)
        return value[:, None], first

    def weighted(
        self, divisor: float, dtype: Any, z: NDArray[Any], y: NDArray[Any], weight: Any
    ) -> tuple[float, NDArray[Any], NDArray[Any]]:
        """Return the loss of rows, weighted and divided, and its first and second derivatives in
        this dtype, computed in float64 and rounded once. Rows of weight 0 add exactly 0, even if
        the function overflows there.
        """
        value, first, second = self(z.astype(float, copy=False), y)
        with np.errstate(all="ignore"):
            f: Any = 1 / divisor
            if weight is not None:
                f = weight.astype(float) / divisor
                if not weight.all():  # 0 times infinity would be NaN
                    idle = weight == 0
                    value, first, second = (
                        np.where(idle.reshape(-1, *[1] * (part.ndim - 1)), 0, part)
                        for part in (value, first, second)
                    )
            by_rows = f if weight is None else f.reshape(-1, *[1] * (second.ndim - 1))
            return (
                float((f * value).sum()),
                np.ascontiguousarray((f if weight is None else f[:, None]) * first, dtype),
                np.ascontiguousarray(by_rows * second, dtype),
            )

    def width_of(self, d_out: int) -> int | None:
        """Return the number of columns of the targets of so many outputs; None: any."""
        if not self.per_target:
            return None
        if d_out % self.per_target:
            raise ValueError(
                f"loss is {self.name!r} and the model has {d_out} outputs; wanted an even number, "
                "means first, then logarithms of variances"
            )
        return d_out // self.per_target

    def attempt(self, y: NDArray[Any], d: int) -> None:
        """Raise a ValueError for a function that is no loss of rows with its derivatives, or whose
        bounds do not hold, at some of the targets and random outputs of size 1.
        """
        y = y[np.linspace(0, len(y) - 1, min(len(y), TRIED)).astype(int)].astype(float)
        z, v = np.random.default_rng(0).standard_normal((2, len(y), d))
        with np.errstate(all="ignore"):
            found, turned = self._attempt(z, v, y), self(z[::-1].copy(), y[::-1].copy())
        back = [part[::-1] for part in turned]
        self._attempt_alone(found, back, "rows in another order", "each row")
        if self.lower is not None and (found[0] + 1e-9 * (1 + np.abs(found[0])) < self.lower).any():
            raise ValueError(f"{self!r} returned {found[0].min():.6g}, below lower={self.lower:g}")

    # --- what is known of it

    def error(self, z: NDArray[Any], y: NDArray[Any], found: Values, eps: float) -> Floats:
        """Return bounds on the errors of the entries of first and second, (N, d); their sums over
        a row bound that of the value. Infinite where `ulps` is not known.
        """
        value, first, second = (np.abs(x) for x in found)
        if y.shape != z.shape:
            y = np.abs(y).max(axis=1, keepdims=True)
        most = second.max(axis=2) if second.ndim == 3 else second
        size = (1 + np.abs(z)) * (1 + np.abs(y)) + value[:, None] + first + most
        return self._off(size, eps, found)

    def constant(self, y: Floats, shares: Floats, d: int) -> tuple[Floats, float]:
        """Return the best constant outputs (d,), and their loss. `shares` (N,) are weights of sum
        1.
        """
        from scipy.optimize import minimize  # slow to import

        def at(z: Floats) -> Any:
            value, first, second = self(np.tile(z, (len(y), 1)), y)
            H, now = np.tensordot(shares, second, 1), float(shares @ value)
            return now if now == now else np.inf, shares @ first, H if H.ndim == 2 else np.diag(H)

        solve: Any = minimize
        with np.errstate(all="ignore"):
            found = solve(
                lambda z: at(z)[:2],
                np.zeros(d),
                jac=True,
                hess=lambda z: at(z)[2],
                method="trust-exact",
                options={"gtol": 1e-10, "maxiter": 200},
            )
        return found.x, float(found.fun)


class Loss(AskedLoss, made_by="fastcurv.Loss"):
    """A loss of your own, as a function of the outputs and targets of some rows.

    The objective is the mean of its values over the rows, as for ``cross_entropy``. Everything but
    the proofs needs the function alone: values, gradients, products with the Hessian, spectra,
    `minimize`, verdicts. The GGN is there where the second derivative is nowhere negative.

    Parameters
    ----------
    function : callable
        ``function(z, y)`` for outputs z ``(N, d)`` and targets y ``(N, m)``, float64. Returns
        ``(value, first, second)``: the loss of each row ``(N,)``, its derivatives by z ``(N, d)``,
        and its second derivatives, ``(N, d)`` if each output has a term of its own, else
        ``(N, d, d)``, symmetric, for at most 64 outputs. It must depend on its arguments alone.
    third : float or callable, optional
        A bound on the third derivative of a row's loss, as a symmetric trilinear form of z: a
        number, or ``third(z, y, move)``, ``(N,)``, or ``(N, d)`` if each output has a term of its
        own, which holds for all outputs that differ from z by at most `move` ``(N, 1)`` or
        ``(N, d)`` each.
    lower : float, optional
        A lower bound on the loss of a row.
    ulps : float, optional
        A bound on the error of the function, for float64 as for `numpy.longdouble` arguments:
        each number that it returns is off by at most ``ulps eps (1 + |z|) (1 + |y|)`` plus
        ``ulps eps`` times the sizes of the row's value, first and second derivative, eps that of
        the arguments, for those arguments exactly as they are.

    Raises
    ------
    TypeError, ValueError
        Where the arguments are of other kinds; from the first objective, which tries the function
        with 16 rows at most: where it returns other shapes, mixes rows, or returns derivatives that
        are not those of differences, or where a bound does not hold there.

    See Also
    --------
    Objective : Takes it as ``loss=``.

    Notes
    -----
    A verdict is proved only where `third` and `ulps` are known; otherwise it is measured, and says
    so. Beyond the rows it is tried with, `third`, `lower` and `ulps` are taken at their word. It is
    asked once for each theta and block of rows, by one thread. Where `numpy.longdouble` is longer
    than float64 (on x86, but not with MSVC), gradients for proofs are computed in it, so it
    must compute in the precision of its arguments; elsewhere proofs rest on worst-case bounds for
    float64, and more verdicts are measured.

    Built in this way are ``poisson``, ``gamma``, ``pseudo_huber``, ``log_cosh``, ``quantile`` and
    ``gaussian_nll``, with their bounds; `quantile` and `pseudo_huber` return those two with other
    parameters. Minima on the kinks of relu nets are not proved of any of them.

    Examples
    --------
    The Cauchy loss, ``log(1 + r^2 / 2)``, which hardly feels outliers:

    >>> import numpy as np, fastcurv as fc
    >>> def cauchy(z, y):
    ...     r = z - y
    ...     w = 1 / (1 + r * r / 2)
    ...     return np.log1p(r * r / 2).sum(axis=1), r * w, (1 - r * r / 2) * w * w
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((50, 2))
    >>> y = X @ [1.0, -2.0] + np.where(np.arange(50) == 7, 100.0, 0.0)
    >>> ob = fc.Objective(fc.MLP([2, 1]), X, y, loss=fc.Loss(cauchy, third=1.5, lower=0.0, ulps=8))
    >>> run = fc.minimize(ob, ob.model.init(seed=0))
    >>> run.x.round(2)
    array([ 1., -2.,  0.])
    """

    @accept_aliases("Loss")
    def __init__(
        self,
        function: Callable[[Any, Any], Values],
        *,
        third: float | Callable[[Floats, Floats, Floats], Floats] | None = None,
        lower: float | None = None,
        ulps: float | None = None,
    ) -> None:
        self._keep(function, "function(z, y) -> (value, first, second)", third, ulps)
        if lower is not None and not math.isfinite(lower):
            raise ValueError(f"lower is {lower}; wanted a number, or None where none is known")
        vars(self).update(lower=lower, per_target=0)

    @staticmethod
    def quantile(level: float = 0.5, width: float = 0.05) -> Loss:
        """Return the loss whose minimum is the quantile of that level: ``level r + width
        log(1 + exp(-r / width))`` with ``r = y - z``, the pinball loss smoothed.

        Parameters
        ----------
        level : float
            Share of the targets below, between 0 and 1.
        width : float
            Of the smooth part, in units of y. The quantile is that of y plus noise of the logistic
            law of this scale, so keep it below a tenth of the spread of y.

        Examples
        --------
        >>> import fastcurv as fc
        >>> fc.Loss.quantile(0.9)
        Loss.quantile(0.9, 0.05)
        """
        level = check_real(level, "level", "a number between 0 and 1")
        return _quantile_loss(level, check_positive(width, "width"))

    @staticmethod
    def pseudo_huber(delta: float = 1.0) -> Loss:
        """Return ``delta^2 (sqrt(1 + (r / delta)^2) - 1)``, ``r = z - y``: about ``r^2 / 2`` for
        residuals below delta, about ``delta |r|`` for larger ones.

        Examples
        --------
        >>> import fastcurv as fc
        >>> fc.Loss.pseudo_huber(0.5)
        Loss.pseudo_huber(0.5)
        """
        return _pseudo_huber_loss(check_positive(delta, "delta"))


# --------------------------------------------------------------------------------------------------
# Activations.

SAMPLE = np.linspace(-3, 3, 16)[:, None] + 0.0137  # z at which a new activation is tried


class AskedActivation(Given):
    """A function of a layer's z, and what is known of it: the part of an `Activation` that the
    library asks.
    """

    parts = ("phi", "first", "second")
    by_row = False
    first: float | None
    second: float | None

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what is known of the function, and try it: a pickle holds it by reference, and
        in another process the name may stand for another function.
        """
        vars(self).update(state)
        self.attempt()

    def _facts(self) -> tuple[Any, ...]:
        return self.function, self.first, self.second, self.third, self.ulps

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AskedActivation) and self._facts() == other._facts()

    def __hash__(self) -> int:
        return hash((self.name, self.first, self.second, self.ulps))

    # --- the function

    def __call__(self, z: NDArray[Any]) -> Values:
        """Return phi, phi' and phi'' as the function has them, in the precision of z, with their
        shapes checked.
        """
        found = self._ask(z)
        for name, part in zip(self.parts, found):
            self._check_shape(name, part, [z.shape], z)
        return found

    def rounded(self, z: NDArray[Any]) -> Values:
        """Return them for the engine: in the dtype of z, contiguous, computed in float64 and
        rounded once.
        """
        found = self(z.astype(float, copy=False))
        with np.errstate(all="ignore"):
            a, p, q = (np.ascontiguousarray(part, z.dtype) for part in found)
        return a, p, q

    def attempt(self) -> None:
        """Raise a ValueError for a function that is no activation with its derivatives, or whose
        bounds do not hold.
        """
        found = self(SAMPLE)
        for name, part in zip(self.parts, found):
            bad = ~np.isfinite(part)
            if bad.any():
                raise ValueError(
                    f"{self!r} returned {name} of {part[bad][0]} at z = {SAMPLE[bad][0]:.4g}; "
                    "wanted numbers for every z"
                )
        turned = tuple(part.T for part in self(SAMPLE.T))
        self._attempt_alone(found, turned, "numbers in another shape", "each number of z")
        for z in (SAMPLE, 10 * SAMPLE):
            with np.errstate(all="ignore"):
                found = self._attempt(z, np.ones_like(z))
            for name, part, bound in zip(self.parts[1:], found[1:], (self.first, self.second)):
                if bound is not None and (np.abs(part) > bound * (1 + 1e-9)).any():
                    raise ValueError(
                        f"{self!r} returned {name} of {np.nanmax(np.abs(part)):.6g}, above "
                        f"{name}={bound:g}"
                    )

    # --- what is known of it

    @property
    def like_relu(self) -> bool:
        """Whether it grows to one side alone."""
        below, above = self(np.array([[-30.0, 30.0]]))[1][0]
        return bool(above > 0.5 and abs(below) < 0.1)

    @property
    def parity(self) -> int:
        """-1 if ``phi(-z) = -phi(z)``, 1 if ``phi(-z) = phi(z)``, at numbers up to 30 and within
        rounding; else 0. Not proved.
        """
        z = np.concatenate([SAMPLE.ravel(), np.linspace(0.1, 30.0, 64)])[None]
        with np.errstate(all="ignore"):
            above, below = self(z)[0], self(-z)[0]
            for sign in (-1, 1):
                if (np.abs(below - sign * above) <= 1e-12 * (1e-6 + np.abs(above))).all():
                    return sign
        return 0

    def size(self, z: NDArray[Any], found: Values) -> NDArray[Any]:
        """Return what the errors of the numbers that the function returned are relative to."""
        a, p, q = (np.abs(part) for part in found)
        return np.asarray(1 + np.abs(z) + a + p + q)

    def error(self, z: NDArray[Any], found: Values, eps: float) -> Floats:
        """Return bounds on their errors, of z's shape; infinite where `ulps` is not known."""
        return self._off(self.size(z, found), eps, found)

    def bounds(self, z: Floats, move: Floats) -> tuple[Floats, Floats, Floats]:
        """Return bounds on ``|phi'|``, ``|phi''|`` and ``|phi'''|`` for all numbers that differ
        from z by at most `move`, rounded outward.
        """
        found, move = self(z), np.broadcast_to(move, z.shape)
        own, third = self.error(z, found, EPS), self.third_of(z, move)
        slope, bend = (np.abs(part) + own for part in found[1:])
        with np.errstate(all="ignore"):
            moved = np.where((third == 0) | (move == 0), 0.0, third * move)
            second = (bend + moved) * OUTWARD
            more = bend + 0.5 * moved
            first = (slope + np.where((more == 0) | (move == 0), 0.0, more * move)) * OUTWARD
        if self.first is not None:
            first = np.minimum(first, self.first)
        if self.second is not None:
            second = np.minimum(second, self.second)
        return first, second, third


class Activation(AskedActivation, made_by="fastcurv.Activation"):
    """An activation of your own, as a function of a layer's z.

    Everything but the proofs needs the function alone: values, gradients, products with Hessian and
    GGN, spectra, `minimize`, verdicts, batch normalisation, skips.

    Parameters
    ----------
    function : callable
        ``function(z)`` for an array z, float64, of some rows of a layer. Returns ``(phi, first,
        second)``: phi(z), phi'(z) and phi''(z), each of z's shape. It must be smooth, and depend on
        each number of z alone.
    first, second : float, optional
        Bounds on ``|phi'|`` and ``|phi''|`` for all z. Without them both are bounded from their
        values at z and `third`, which is worse far from there.
    third : float or callable, optional
        A bound on ``|phi'''|``: a number, or ``third(z, move)``, of z's shape, which holds for all
        numbers that differ from z by at most `move`, of z's shape.
    ulps : float, optional
        A bound on the error of the function, for float64 as for `numpy.longdouble` arguments: each
        number that it returns is off by at most ``ulps eps (1 + |z|)`` plus ``ulps eps`` times the
        sizes of phi, phi' and phi'', eps that of the arguments, for those arguments exactly as they
        are.

    Raises
    ------
    TypeError, ValueError
        Where the arguments are of other kinds. The function is tried at 16 numbers between -3 and
        3: it is refused where it returns other shapes or NaN, mixes the numbers of z, or returns
        derivatives that are not those of differences, or where a bound does not hold there or at
        ten times these numbers.

    See Also
    --------
    MLP : Takes it as ``activation=``, for all layers or beside names.
    Loss : The same for losses.

    Notes
    -----
    A verdict is proved only where `third` and `ulps` are known of every activation; otherwise it is
    measured, and says so. Elsewhere bounds are taken at their word. Gradients for proofs are
    computed in `numpy.longdouble`, as those of a `Loss` are.

    The function is asked once for each theta, by one thread, for some 32 000 numbers at a time. A
    pickle holds it by reference; `save` and `to_torch` refuse a model with it. `MLP.init` draws
    weights as for relu where phi' is above 1/2 at 30 and within 1/10 of 0 at -30.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> def arctan(z):
    ...     w = 1 / (1 + z * z)
    ...     return np.arctan(z), w, -2 * z * w * w
    >>> phi = fc.Activation(arctan, first=1.0, second=0.65, third=2.0, ulps=8)
    >>> X = np.random.default_rng(0).standard_normal((50, 2))
    >>> ob = fc.Objective(fc.MLP([2, 3, 1], phi), X, X[:, 0] * X[:, 1], loss="mse", l2=0.01)
    >>> run = fc.minimize(ob, ob.model.init(seed=0), seed=0)
    >>> run.kind, run.report.certified
    ('minimum', True)
    """

    @accept_aliases("Activation")
    def __init__(
        self,
        function: Callable[[Any], Values],
        *,
        first: float | None = None,
        second: float | None = None,
        third: float | Callable[[Floats, Floats], Floats] | None = None,
        ulps: float | None = None,
    ) -> None:
        self._keep(function, "function(z) -> (phi, first, second)", third, ulps)
        for name, bound in (("first", first), ("second", second)):
            if bound is not None:
                check_positive(bound, name, zero=True)
        self.first, self.second = first, second
        self.attempt()


# --------------------------------------------------------------------------------------------------
# Built in. The formulas hold for complex z too, whose real part decides between branches.


def _where_negative(r: NDArray[Any]) -> NDArray[Any]:
    """Return |r|, or of a complex r what continues it analytically off the imaginary axis."""
    return np.where(r.real < 0, -r, r)


def _poisson(z: NDArray[Any], y: NDArray[Any]) -> Values:
    mean = np.exp(z)
    least = y * np.log(np.maximum(y, TINY)) - y  # 0 for no counts
    return (mean - y * z + least).sum(axis=1), mean - y, mean


def _gamma(z: NDArray[Any], y: NDArray[Any]) -> Values:
    ratio = y * np.exp(-z)
    return (ratio + z - np.log(y) - 1).sum(axis=1), 1 - ratio, ratio


def _log_cosh(z: NDArray[Any], y: NDArray[Any]) -> Values:
    r = z - y
    size = _where_negative(r)
    e = np.exp(-2 * size)
    bent = 4 * e / (1 + e) ** 2
    value = size + np.log1p(e) - np.log(np.asarray(2, z.real.dtype))
    return value.sum(axis=1), np.tanh(r), bent


def _pseudo_huber(z: NDArray[Any], y: NDArray[Any], delta: float) -> Values:
    r = z - y
    u = r / delta
    root = np.sqrt(1 + u * u)
    return (r * (r / (1 + root))).sum(axis=1), r / root, 1 / (root * root * root)


def _quantile(z: NDArray[Any], y: NDArray[Any], level: float, width: float) -> Values:
    r = z - y
    size = _where_negative(r / width)
    e, below = np.exp(-size), r.real < 0
    small = e / (1 + e)
    value = width * np.log1p(e) + np.where(below, -level * r, (1 - level) * r)
    first = np.where(below, small - level, (1 - level) - small)
    return value.sum(axis=1), first, small / (1 + e) / width


def _gaussian_nll(z: NDArray[Any], y: NDArray[Any]) -> Values:
    m = y.shape[1]
    r, s = z[:, :m] - y, z[:, m:]
    e = np.exp(-s)
    cross, bent, at = -r * e, 0.5 * r * r * e, np.arange(m)
    second = np.zeros((len(z), 2 * m, 2 * m), e.dtype)
    second[:, at, at], second[:, at + m, at + m] = e, bent
    second[:, at, at + m] = second[:, at + m, at] = cross
    value = (0.5 * s + bent).sum(axis=1)
    return value, np.concatenate([r * e, 0.5 - bent], axis=1), second


def _gaussian_third(z: Floats, y: Floats, move: Floats) -> Floats:
    """Bound 3 e^-s a^2 b + 3 |r| e^-s a b^2 + r^2 e^-s b^3 / 2 over a^2 + b^2 = 1."""
    m = y.shape[1]
    move = np.broadcast_to(move, z.shape)
    r, e = np.abs(z[:, :m] - y) + move[:, :m], np.exp(move[:, m:] - z[:, m:])
    return np.asarray((e * (1.1548 * (1 + r) + 0.5 * r * r)).max(axis=1))


def _built(name: str, function: Any, third: Any, ulps: float, **facts: Any) -> Loss:
    loss = Loss(function, third=third, lower=facts.pop("lower", 0.0), ulps=ulps)
    known = {"name": name, "built_in": True, "per_target": 1, "convex": True}
    vars(loss).update(known | {"_coupled": facts.pop("coupled", False)} | facts)
    return loss


@cache
def _quantile_loss(level: float, width: float) -> Loss:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; wanted a number between 0 and 1")
    name, third = f"quantile({level!r}, {width!r})", 0.0962251 / width / width
    return _built(name, partial(_quantile, level=level, width=width), third, 16)


@cache
def _pseudo_huber_loss(delta: float) -> Loss:
    name, third = f"pseudo_huber({delta!r})", 0.858651 / delta
    return _built(name, partial(_pseudo_huber, delta=delta), third, 16)


BUILT_IN: dict[str, Loss] = {
    "poisson": _built(
        "poisson",
        _poisson,
        lambda z, y, move: np.exp(z + move),
        16,
        exponential=True,
        logarithmic=True,
        least=(0.0, True),
    ),
    "gamma": _built(
        "gamma",
        _gamma,
        lambda z, y, move: np.asarray(y * np.exp(move - z)),
        16,
        exponential=True,
        logarithmic=True,
        least=(0.0, False),
    ),
    "pseudo_huber": _pseudo_huber_loss(1.0),
    "log_cosh": _built("log_cosh", _log_cosh, 0.769801, 16),
    "quantile": _quantile_loss(0.5, 0.05),
    "gaussian_nll": _built(
        "gaussian_nll",
        _gaussian_nll,
        _gaussian_third,
        16,
        coupled=True,
        per_target=2,
        convex=False,
        logarithmic=True,
        lower=None,
    ),
}
WITH_PARAMETERS: dict[str, Callable[..., Loss]] = {
    "quantile": Loss.quantile,
    "pseudo_huber": Loss.pseudo_huber,
}


def named(name: str) -> Loss:
    """Return a loss that is built in this way by its name, with parameters in brackets.

    Raises
    ------
    KeyError
        For other names.

    Examples
    --------
    >>> named("quantile(0.9)"), named("poisson")
    (Loss.quantile(0.9, 0.05), Loss.poisson)
    """
    head, bracket, rest = name.partition("(")
    if not bracket:
        return BUILT_IN[name]
    try:
        numbers = [float(part) for part in rest.removesuffix(")").split(",")]
        return WITH_PARAMETERS[head](*numbers)
    except (KeyError, TypeError, ValueError) as error:
        if head in WITH_PARAMETERS and str(error).startswith(("level", "width", "delta")):
            raise
        raise KeyError(name) from None
