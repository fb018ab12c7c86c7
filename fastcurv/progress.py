"""A progress bar that is there when asked for and costs nothing when not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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


class _Shown:
    """A tqdm bar behind the two calls that the algorithms make."""

    def __init__(self, shown: Any) -> None:
        self._shown = shown

    def update(self, n: int = 1) -> None:
        self._shown.update(n)

    def note(self, text: str) -> None:
        self._shown.set_postfix_str(text, refresh=False)


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
    if not enabled:
        yield _Silent()
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        yield _Silent()
        return
    with tqdm(total=total, desc=desc, leave=False) as shown:
        yield _Shown(shown)
