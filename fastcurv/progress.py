"""A progress bar: where it is asked for, or on a terminal where one waits, and free elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Protocol

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
