"""Progress bars, shown on request or for long work on a terminal."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, Protocol

BAR_DELAY_SECONDS = 2.0  # seconds of work before a bar is shown
NOTE_INTERVAL_SECONDS = 0.1  # seconds between two updates of the note, as in tqdm
_INSIDE_BAR: ContextVar[bool] = ContextVar("inside", default=False)  # True inside a bar


class ProgressBar(Protocol):
    """The interface through which algorithms report progress."""

    def update(self, n: int = 1) -> None:
        """Report n more units done."""

    def note(self, text: str) -> None:
        """Show a short text next to the bar."""


#: A bar that shows nothing.
NO_PROGRESS = SimpleNamespace(update=lambda n=1: None, note=lambda text: None, close=lambda: None)


class _TqdmBar:
    """A tqdm bar with the interface of `ProgressBar`. If the terminal is closed, the work continues
    without the bar.
    """

    def __init__(self, shown: Any, delay: float = 0.0) -> None:
        self._shown = shown
        self._from = time.monotonic() + delay

    def update(self, n: int = 1) -> None:
        self._report_progress("update", n)

    def note(self, text: str) -> None:
        now = time.monotonic()
        shows = now >= self._from
        if shows:
            self._from = now + NOTE_INTERVAL_SECONDS
        self._report_progress("set_postfix_str", text, refresh=shows)

    def close(self) -> None:
        self._report_progress("close")

    def _report_progress(self, name: str, *arguments: object, **options: object) -> None:
        try:
            getattr(self._shown, name)(*arguments, **options)
        except (OSError, ValueError):
            self._shown.disable = True


def is_stream_terminal(name: str) -> bool:
    """Return True if ``sys.<name>``, such as ``sys.stderr``, exists and is a terminal."""
    try:
        return bool(getattr(sys, name).isatty())
    except (AttributeError, ValueError):
        # The stream is missing or closed.
        return False


class show_bar:
    """Context manager that shows a progress bar over `total` units of work.

    The context yields an object with the methods ``update(n=1)``, which reports n more units done,
    and ``note(text)``, which shows a few words next to the bar.

    Parameters
    ----------
    total : int or None
        Expected number of units; None if unknown.
    desc : str
        Description, shown left of the bar.
    enabled : bool or None
        False gives a silent object. True shows a bar if tqdm is installed, else nothing. None shows
        a bar if standard error is a terminal, as soon as more than `BAR_DELAY_SECONDS` seconds are
        expected or have passed, but not inside another `show_bar`.
    ahead : float
        Seconds that the work is expected to take.

    Examples
    --------
    >>> with show_bar(3, "steps") as b:
    ...     for _ in range(3):
    ...         b.update()
    """

    __slots__ = ("_inside", "_shown")

    def __init__(
        self,
        total: int | None = None,
        desc: str = "",
        enabled: bool | None = False,
        ahead: float = 0.0,
    ) -> None:
        self._shown: Any = NO_PROGRESS
        self._inside: Any = None
        delay = BAR_DELAY_SECONDS if enabled is None and ahead <= BAR_DELAY_SECONDS else 0.0
        if enabled is None:
            enabled = not _INSIDE_BAR.get() and is_stream_terminal("stderr")
        if enabled and sys.stderr is not None:
            # tqdm or the stream may be missing.
            with suppress(ImportError, OSError, ValueError):
                from tqdm.auto import tqdm

                self._shown = _TqdmBar(
                    tqdm(total=total, desc=desc, leave=False, delay=delay), delay
                )

    def __enter__(self) -> ProgressBar:
        self._inside = _INSIDE_BAR.set(True)
        return self._shown  # type: ignore[no-any-return]

    def __exit__(self, *error: object) -> None:
        _INSIDE_BAR.reset(self._inside)
        self._shown.close()
