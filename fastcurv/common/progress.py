"""A progress bar: where it is asked for, or on a terminal where one waits, and free elsewhere."""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import wraps
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult

PATIENCE = 2.0  # seconds that nobody minds to wait without a bar
EVERY = 0.1  # seconds between two notes that are drawn, as tqdm's own between updates
_INSIDE: ContextVar[bool] = ContextVar("inside", default=False)  # what has a bar, or wants none


class Bar(Protocol):
    """What algorithms tell of their progress."""

    def update(self, n: int = 1) -> None: ...

    def note(self, text: str) -> None: ...


class _Silent:
    """Takes the calls of a bar and shows nothing."""

    def update(self, n: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class _Shown:
    """A tqdm bar behind the two calls that the algorithms make. Where it can be seen no more (the
    terminal is gone, the disk behind standard error full) the work goes on without it.
    """

    def __init__(self, shown: Any, delay: float = 0.0) -> None:
        self._shown, self._from = shown, time.monotonic() + delay

    def update(self, n: int = 1) -> None:
        self._tell("update", n)

    def note(self, text: str) -> None:
        now = time.monotonic()
        shows = now >= self._from
        if shows:
            self._from = now + EVERY
        self._tell("set_postfix_str", text, refresh=shows)

    def close(self) -> None:
        self._tell("close")

    def _tell(self, name: str, *arguments: Any, **options: Any) -> None:
        try:
            getattr(self._shown, name)(*arguments, **options)
        except (OSError, ValueError):
            self._shown.disable = True


def on_terminal(name: str) -> bool:
    """Whether a standard stream is there and a terminal."""
    with suppress(AttributeError, ValueError):  # none, or closed
        return bool(getattr(sys, name).isatty())
    return False


@contextmanager
def bar(
    total: int | None = None, desc: str = "", enabled: bool | None = False, ahead: float = 0.0
) -> Iterator[Bar]:
    """A bar over `total` units of work, as a context manager.

    Parameters
    ----------
    total : int or None
        Units expected; None where nobody knows.
    desc : str
        What is being done, shown left of the bar.
    enabled : bool or None
        False gives a silent object. True shows a bar where tqdm is installed, and nothing where it
        is not. None does so where standard error is a terminal, as soon as more than `PATIENCE`
        seconds are known to lie ahead, or have passed; inside another `bar` it is silent.
    ahead : float
        Seconds that the work is known to take.

    Yields
    ------
    object
        With ``update(n=1)``, n more units done, and ``note(text)``, a few words shown beside the
        bar.

    Examples
    --------
    >>> with bar(3, "steps") as b:
    ...     for _ in range(3):
    ...         b.update()
    """
    shown: Any = _Silent()
    delay = PATIENCE if enabled is None and ahead <= PATIENCE else 0.0
    if enabled is None:
        enabled = not _INSIDE.get() and on_terminal("stderr")
    if enabled and sys.stderr is not None:
        with suppress(ImportError, OSError, ValueError):  # no tqdm, or nowhere to show it
            from tqdm.auto import tqdm

            shown = _Shown(tqdm(total=total, desc=desc, leave=False, delay=delay), delay)
    inside = _INSIDE.set(True)
    try:
        yield shown
    finally:
        _INSIDE.reset(inside)
        shown.close()


# --------------------------------------------------------------------------------------------------
# Answers that are kept for who asks the same next: the last one, or one for each owner.

Answer = TypeVar("Answer")


def kept_with(make: Callable[[Any], Answer]) -> Callable[[Any], Answer]:
    """`make(owner)`, made once for each owner and kept as long as that lives."""
    held: weakref.WeakKeyDictionary[Any, Answer] = weakref.WeakKeyDictionary()

    @wraps(make)
    def found(owner: Any) -> Answer:
        if owner not in held:
            held[owner] = make(owner)
        return held[owner]

    return found


def last_kept(find: Callable[[Any, NDArray[Any]], Answer]) -> Callable[[Any, Any], Answer]:
    """`find(ob, theta)`, whose last answer serves again for the same objective and the same theta;
    the objective is not kept alive.
    """
    last: tuple[Any, NDArray[Any], Answer] | None = None

    @wraps(find)
    def found(ob: Any, theta: NDArray[Any]) -> Answer:
        nonlocal last
        known = last  # another thread may take its place
        if known is None or known[0]() is not ob or not np.array_equal(known[1], theta):
            known = last = weakref.ref(ob), np.array(theta), find(ob, theta)
        return known[2]

    return found


# --------------------------------------------------------------------------------------------------
# Results of optimisers as SciPy has them.


def outcome(**fields: Any) -> OptimizeResult:
    """An `OptimizeResult` with these fields, which SciPy's stubs know as something to read only.

    Examples
    --------
    >>> outcome(x=0.5, success=True).x
    0.5
    """
    make: Any = OptimizeResult
    result: OptimizeResult = make(fields)
    return result
