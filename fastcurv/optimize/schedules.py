"""Learning-rate schedules, and their convergence by the conditions of Robbins and Monro.

Updates are counted t = 1, 2, 3, ... Every schedule of this module is asymptotically ``c * t**-p``.
The exponent p determines whether the conditions for the convergence of stochastic gradient descent
hold:

    sum of alpha_t = inf          p <= 1: steps can reach any point
    sum of alpha_t**2 < inf       p > 1/2: the effect of the mini-batches' noise vanishes
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..common.checks import check_positive, check_positive_int, check_real_number
from ..common.errors import type_phrase

__all__ = ["constant", "constant_then_decay", "inverse_time", "power", "robbins_monro"]


@dataclass(frozen=True)
class Schedule:
    """A learning rate as a function of the update number t = 1, 2, 3, ...

    Attributes
    ----------
    name : str
        ``constant``, ``inverse_time``, ``power`` or ``constant_then_decay``.
    alpha : float
        The scale of the learning rate.
    delta : float
        The rate of decay; its meaning depends on `name`.
    hold : int
        Number of updates for which the rate stays at `alpha` (``constant_then_decay``).
    """

    name: str
    alpha: float
    delta: float = 0.0
    hold: int = 0

    def __call__(self, t: float) -> float:
        """Return the learning rate of update number `t`, counted from 1."""
        t = check_real_number(t, "t")
        if not t > (0 if self.name == "power" else -1):
            raise ValueError(f"t must be the number of an update, counted from 1, got {t}.")
        try:
            return _FORMULAS[self.name][0](self, t)
        except OverflowError:
            # The rate is too small for float64.
            return 0.0

    @property
    def exponent(self) -> float:
        """The exponent p in ``alpha_t ~ c * t**-p`` as t grows."""
        return {"constant": 0.0, "inverse_time": 1.0}.get(self.name, self.delta)

    @property
    def formula(self) -> str:
        """The learning rate as a formula in t, such as "0.1 / t^0.75"."""
        a = f"{self.alpha:g}"
        return _FORMULAS[self.name][1].format(a=a, d=f"{self.delta:g}", hold=self.hold)


# (function of the update number t that returns the learning rate, its formula as text) by name
_FORMULAS: dict[str, tuple[Callable[[Schedule, float], float], str]] = {
    "constant": (lambda s, t: s.alpha, "{a}"),
    "inverse_time": (lambda s, t: s.alpha / (1.0 + s.delta * t), "{a} / (1 + {d} t)"),
    "power": (lambda s, t: s.alpha / float(t**s.delta), "{a} / t^{d}"),
    "constant_then_decay": (
        lambda s, t: s.alpha * float((s.hold / max(t, s.hold)) ** s.delta),
        "{a} until t = {hold}, then {a} ({hold} / t)^{d}",
    ),
}


def constant(alpha: float) -> Schedule:
    """Create a schedule with the constant learning rate ``alpha``.

    Parameters
    ----------
    alpha : float
        Learning rate of every update.

    Returns
    -------
    Schedule
        A function of the update number, counted from 1.

    See Also
    --------
    robbins_monro : check the conditions for convergence.
    minimize : uses a schedule as ``learning_rate``.

    Examples
    --------
    >>> from fastcurv.optimize.schedules import constant
    >>> constant(0.1)(1000)
    0.1
    """
    return Schedule("constant", check_positive(alpha, "alpha"))


def inverse_time(alpha: float, delta: float) -> Schedule:
    """Create the schedule ``alpha / (1 + delta * t)``.

    Parameters
    ----------
    alpha : float
        Learning rate at t = 0.
    delta : float
        Rate of decay.

    Returns
    -------
    Schedule
        A function of the update number, counted from 1.

    See Also
    --------
    robbins_monro : check the conditions for convergence.
    minimize : uses a schedule as ``learning_rate``.

    Examples
    --------
    >>> from fastcurv.optimize.schedules import inverse_time
    >>> inverse_time(0.5, 0.25)(4)
    0.25
    """
    return Schedule("inverse_time", check_positive(alpha, "alpha"), check_positive(delta, "delta"))


def power(alpha: float, delta: float) -> Schedule:
    """Create the schedule ``alpha / t**delta``. For 0.5 < delta <= 1 it meets the Robbins-Monro
    conditions.

    Parameters
    ----------
    alpha : float
        Learning rate of the first update.
    delta : float
        Exponent of the decay.

    Returns
    -------
    Schedule
        A function of the update number, counted from 1.

    See Also
    --------
    robbins_monro : check the conditions for convergence.
    minimize : uses a schedule as ``learning_rate``.

    Examples
    --------
    >>> from fastcurv.optimize.schedules import power
    >>> power(0.5, 1.0)(10)
    0.05
    """
    return Schedule("power", check_positive(alpha, "alpha"), check_positive(delta, "delta"))


def constant_then_decay(alpha: float, hold: int, delta: float = 1.0) -> Schedule:
    """Create a schedule: ``alpha`` for the first `hold` updates, then ``alpha * (hold /
    t)**delta``.

    Parameters
    ----------
    alpha : float
        Learning rate of the first `hold` updates.
    hold : int
        Number of updates with the learning rate `alpha`, at least 1.
    delta : float
        Exponent of the decay after these updates.

    Returns
    -------
    Schedule
        A function of the update number, counted from 1.

    See Also
    --------
    robbins_monro : check the conditions for convergence.
    minimize : uses a schedule as ``learning_rate``.

    Examples
    --------
    >>> from fastcurv.optimize.schedules import constant_then_decay
    >>> rate = constant_then_decay(0.2, hold=100)
    >>> rate(100), rate(200)
    (0.2, 0.1)
    """
    return Schedule(
        "constant_then_decay",
        check_positive(alpha, "alpha"),
        check_positive(delta, "delta"),
        check_positive_int(hold, "hold"),
    )


@dataclass(frozen=True)
class RobbinsMonro:
    """Result of `robbins_monro`.

    Attributes
    ----------
    satisfied : bool or None
        True if both conditions hold, False if one does not, None if this cannot be decided.
    sum_diverges, squares_converge : bool or None
        True if the sum of alpha_t is infinite, and True if the sum of alpha_t**2 is finite. None
        if this cannot be decided.
    exponent : float
        p in ``alpha_t ~ c * t**-p``: exact for the schedules of this library, else fitted.
    reason : str
        The reason in one sentence.
    """

    satisfied: bool | None
    sum_diverges: bool | None
    squares_converge: bool | None
    exponent: float
    reason: str

    def __bool__(self) -> float:
        return bool(self.satisfied)


def _fitted_exponent(schedule: Callable[[int], float]) -> float:
    """Estimate the exponent p of a schedule from its rates at t = 10**6 and 10**8. Return NaN
    unless both rates are finite and positive.
    """
    early = float(schedule(10**6))
    late = float(schedule(10**8))
    if not (0 < early < np.inf and 0 < late < np.inf):
        return float("nan")
    return float(np.log(early / late) / np.log(100.0))


def robbins_monro(schedule: Schedule | Callable[[int], float]) -> RobbinsMonro:
    """Check whether a schedule meets the conditions sum alpha_t = inf and sum alpha_t**2 < inf.

    Parameters
    ----------
    schedule : Schedule or callable
        For a `Schedule`, the result follows from its formula. For any other callable, ``satisfied``
        is None, because no finite number of rates decides the conditions, and the exponent is
        estimated from the rates at t = 10**6 and 10**8.

    Returns
    -------
    RobbinsMonro
        True in a boolean context if both conditions hold.

    See Also
    --------
    constant, inverse_time, power, constant_then_decay : schedules with a formula.

    References
    ----------
    .. [1] H. Robbins and S. Monro, A stochastic approximation method, Ann. Math. Statist. 22
           (1951).

    Examples
    --------
    >>> from fastcurv.optimize.schedules import constant, power, robbins_monro
    >>> robbins_monro(power(0.1, 0.75)).satisfied
    True
    >>> print(robbins_monro(constant(0.1)).reason)  # doctest: +NORMALIZE_WHITESPACE
    0.1 falls like t^-0: the sum diverges (0 <= 1), but the sum of squares diverges (0 <= 1/2),
    so the noise persists.
    """
    if not callable(schedule):
        raise TypeError(
            f"schedule must be a Schedule or a function t -> rate, got {type_phrase(schedule)}."
        )
    if not isinstance(schedule, Schedule):
        p = _fitted_exponent(schedule)
        reason = (
            "A finite number of rates does not determine the sums of a schedule without a formula; "
            f"between t = 10^6 and 10^8 this one falls like t^-{p:.3g}."
        )
        return RobbinsMonro(None, None, None, p, reason)
    p = schedule.exponent
    diverges = p <= 1.0
    squares = p > 0.5
    far = (
        f"the sum diverges ({p:g} <= 1)"
        if diverges
        else f"the sum is finite ({p:g} > 1), so steps cannot reach distant points"
    )
    if squares:
        quiet = f"the squares sum to a finite number ({p:g} > 1/2)"
    else:
        quiet = f"the sum of squares diverges ({p:g} <= 1/2), so the noise persists"
    joint = "and" if diverges == squares else "but"
    return RobbinsMonro(
        diverges and squares,
        diverges,
        squares,
        p,
        f"{schedule.formula} falls like t^-{p:g}: {far}, {joint} {quiet}.",
    )
