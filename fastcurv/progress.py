"""A progress bar that is there when asked for and costs nothing when not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol


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

    def __init__(self, shown: Any) -> None:
        self._shown = shown

    def update(self, n: int = 1) -> None:
        self._tell("update", n)

    def note(self, text: str) -> None:
        self._tell("set_postfix_str", text, refresh=False)

    def close(self) -> None:
        self._tell("close")

    def _tell(self, name: str, *arguments: Any, **options: Any) -> None:
        try:
            getattr(self._shown, name)(*arguments, **options)
        except (OSError, ValueError):
            self._shown.disable = True


@contextmanager
def bar(total: int | None = None, desc: str = "", enabled: bool = False) -> Iterator[Bar]:
    """A bar over `total` units of work, as a context manager.

    Parameters
    ----------
    total : int or None
        Units expected; None where nobody knows.
    desc : str
        What is being done, shown left of the bar.
    enabled : bool
        False gives a silent object. True shows a bar where tqdm is installed, and nothing where it
        is not.

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
    if enabled and sys.stderr is not None:
        with suppress(ImportError, OSError, ValueError):  # no tqdm, or nowhere to show it
            from tqdm.auto import tqdm

            shown = _Shown(tqdm(total=total, desc=desc, leave=False))
    try:
        yield shown
    finally:
        shown.close()
