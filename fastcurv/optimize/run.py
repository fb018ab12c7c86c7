"""What a run of `minimize` returns, and how it may end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..common.outcome import Result
from ..common.sentences import Note
from .method import State

if TYPE_CHECKING:
    from ..critical.report import CriticalPoint

# A move or a step along negative curvature that lowers the loss by less than this fraction of the
# loss has a small gain.
SMALL_GAIN_RATIO = 1e-8
MAX_SMALL_GAINS = 5  # maximum number of small gains in a row


class History(dict[str, np.ndarray]):
    """The records of a run as arrays by their names, with the method and the options that produced
    them.

    Attributes
    ----------
    method : str
        The name of the method, as `minimize` accepts it.
    options : dict
        The method's options as given, with their defaults; `learning_rate` is that of the last
        update.
    """

    def __init__(self, records: dict[str, np.ndarray], method: str, options: dict[str, Any]):
        super().__init__(records)
        self.method = method
        self.options = options


# Maximum relative decrease of the loss predicted for Newton's step at the end of a finished fit. It
# changes an R2 by at most 1e-4, less than the noise of 10 000 rows does.
MAX_GAIN_OF_FINISHED_FIT = 1e-4


class MinimizeResult(Result):
    """Result of `minimize`.

    ``x``, ``fun``, ``jac``, ``nit``, ``nfev``, ``njev``, ``nhev`` (the number of Hessian products),
    ``status``, ``success`` and ``message`` are those of SciPy. `x` is the last point of a
    second-order method or the best recorded point of a first-order method, moved by the last
    Newton steps, or the point at active kinks of relu units, where the gradient is not small.

    Attributes
    ----------
    success : bool
        True at a minimum, proved or, if nothing bounds the third derivative, measured (`message`
        states which), and with the endings ``lower_bound`` and ``target``. False in all other
        cases.
    kind : str or None
        The verdict of `classify` on x. If ||g|| is above `gradient_tol`, ``not_critical``, or
        ``undecided`` if the run stalled and the gradient jumps as at a kink. None without a
        verdict.
    report : CriticalPoint or None
        The verdict; None without one, where `message` names the call that returns one.
    stopped : str
        Why the run ended: ``critical``, ``max_iter``, ``max_time``, ``max_products``,
        ``callback``, ``patience``, ``stalled`` (no step lowers the loss), ``diverged``,
        ``interrupted``, ``degenerate`` (trial moves along the null vectors of the Hessian found no
        descent), ``infinity`` (the infimum lies at infinity, or training drives the parameters
        there), ``unbounded``, ``kinks`` (at active kinks of relu units, without a proof),
        ``target`` (at `fun_target`, without a verdict), ``slow`` (50 iterations lowered neither the
        loss by 1e-8 of itself nor the gradient norm by half, or hardly lowered a loss near its
        lower bound), ``lower_bound`` (the loss equals its proved lower bound to rounding or to
        1e-24 of the loss at the start) or ``tolerance`` (the gradient norm is within
        `gradient_tol`, but `classify` finds no critical point). `status` is the position in this
        list, 0 for ``critical``.
    notes : tuple of Note
        The facts that `message` states, as pairs of a key of `fastcurv.common.sentences.ENDINGS`
        and a dict of numbers.
    history : History
        Arrays ``iteration``, ``loss``, ``gradient_norm``, ``products``, ``time`` and, with a
        validation objective, ``validation``.
    method : str
        The name of the method.
    wall_time : float
        Seconds.
    starts : ndarray
        With `n_init`, the loss that each start reached; all counts and `history` are those of the
        run that continues from the chosen start.
    """

    jac: np.ndarray
    nit: int
    njev: int
    nhev: int
    status: int
    stopped: str | None
    kind: str | None
    report: CriticalPoint | None
    notes: tuple[Note, ...]
    history: History
    method: str
    wall_time: float
    starts: np.ndarray

    @property
    def finished(self) -> bool:
        """True if little is left to gain near `x`: `success` is True, or `report` is a verdict
        whose ``evidence.gain_left``, a relative decrease of the loss, is at most 1e-4. A fit
        without weight decay to noisy data often ends so without success, because its minima are
        degenerate.
        """
        report = self.get("report")
        gain = np.nan if report is None else report.evidence.gain_left
        return bool(self.success or gain <= MAX_GAIN_OF_FINISHED_FIT)


# --------------------------------------------------------------------------------------------------
# How a run may end, and what can be claimed about its last point.

#: `OptimizeResult.status` for each `OptimizeResult.stopped`
STATUS_CODES = {
    "critical": 0,
    "max_iter": 1,
    "max_time": 2,
    "max_products": 3,
    "callback": 4,
    "patience": 5,
    "stalled": 6,
    "diverged": 7,
    "interrupted": 8,
    "degenerate": 9,
    "infinity": 10,
    "unbounded": 11,
    "kinks": 12,
    "target": 13,
    "slow": 14,
    "lower_bound": 15,
    "tolerance": 16,
}


def is_success(stopped: str, kind: str | None) -> bool:
    """Return True if a run with this ending and this kind of the returned point has succeeded: at a
    minimum, at the lower bound of the loss, or at the loss that the caller requested.
    """
    return kind == "minimum" or stopped in ("lower_bound", "target")


def ending_of_kind(stopped: str, kind: str | None) -> str:
    """Return the ending of a run whose examination ended as `stopped` at a point of this kind. Only
    a critical point ends a run as ``critical``, and only a degenerate one as ``degenerate``.
    """
    if stopped in ("critical", "degenerate") and kind == "not_critical":
        return "tolerance"
    return "critical" if stopped == "degenerate" and kind != "degenerate" else stopped


@dataclass(frozen=True)
class RunOutcome:
    """The verdict on a point with zero gradient, or the point from which the run continues.

    Attributes
    ----------
    theta : ndarray, shape (n,)
        The point.
    stopped : str or None
        A key of `STATUS_CODES`. None if the run continues from theta, because the loss is lower
        there or a smaller gradient is needed.
    kind : str or None
        The kind of point by `classify`; None without a verdict.
    notes : tuple of Note
        The facts about the end that the message of the result states.
    report : CriticalPoint or None
        The verdict of `classify` on theta; None without a verdict.
    finer : bool
        True if the run continues with a smaller tolerance of the gradient.
    """

    theta: np.ndarray
    stopped: str | None = None
    kind: str | None = None
    notes: tuple[Note, ...] = ()
    report: Any = None
    finer: bool = False


@dataclass
class CheckCounts:
    """The numbers of a run that the checks of stationary points need and a checkpoint stores.

    Attributes
    ----------
    n_check_evaluations, n_eigensystems : int
        Numbers of evaluations, and of eigensystems of the Hessian, in checks.
    n_moves, n_small_moves : int
        Number of moves from stationary points to other points, and number of consecutive moves with
        a small gain.
    """

    n_check_evaluations: int = 0
    n_eigensystems: int = 0
    n_moves: int = 0
    n_small_moves: int = 0


class PointExaminer(Protocol):
    """The interface of the object that examines points at which a run's gradient is zero or kinks
    stop the run.
    """

    so_far: CheckCounts

    def is_out_of_budget(self) -> bool:
        """Return True if the evaluations for checks of stationary points are used up."""

    def examine(self, theta: np.ndarray, state: State, f0: float, moves: bool) -> RunOutcome:
        """Return the outcome at theta, for a run with this state and the loss f0 at its start. With
        `moves` the outcome may be a point from which the run continues.
        """

    def outcome_at_kinks(
        self, theta: np.ndarray, state: State, f0: float, patient: bool
    ) -> RunOutcome | None:
        """Return the outcome at the active kinks that stop the run, or None if no kinks do. If
        `patient`, the search may take the budget of a proof.
        """
