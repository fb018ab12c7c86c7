"""What ends work early: Ctrl-C, heard within a product and else at the end of what lies between
two, and a limit on time; so that what is known can be returned.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .runtime import Result


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in the middle of a product, which has changed nothing but its own output."""


class OutOfTime(Exception):  # noqa: N818: no error, since the caller has asked for it
    """The time that a `time_limit` gives has ended."""


_ENDS: ContextVar[float] = ContextVar("ends", default=float("inf"))


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Within it `late` is true after so many seconds, or where an outer limit ends. None changes
    nothing, and infinity lifts the outer limits.
    """
    ends = _ENDS.get()
    if seconds is not None:
        own = time.perf_counter() + seconds
        ends = own if own == float("inf") else min(own, ends)
    token = _ENDS.set(ends)
    try:
        yield
    finally:
        _ENDS.reset(token)


def late() -> bool:
    """Whether the time of the `time_limit` around has ended."""
    ends = _ENDS.get()
    return ends < float("inf") and time.perf_counter() >= ends


def check_time() -> None:
    """Raise `OutOfTime` where it is `late`."""
    if late():
        raise OutOfTime


class Interrupts:
    """What `deferred_interrupts` yields: `stop()` says whether Ctrl-C was pressed; ``with stop:``
    around a product lets Ctrl-C end it, as `Interrupted`.
    """

    def __init__(self) -> None:
        self.pressed = self.inside = False

    def __call__(self) -> bool:
        return self.pressed

    def handle(self, signum: int, frame: Any) -> None:
        """Take the signal: raise inside a product and at a second press, else remember."""
        if self.pressed or self.inside:
            self.pressed = True
            raise KeyboardInterrupt
        self.pressed = True

    def __enter__(self) -> None:
        self.inside = True
        if self.pressed:
            self.inside = False
            raise Interrupted

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: Any) -> None:
        self.inside = False
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            raise Interrupted from error


def heard(call: Callable[[], Result]) -> Result:
    """``call()``, of something long that drops the interpreter's lock and looks for no signals, so
    that Ctrl-C and a `time_limit` are answered at once: what was begun goes on in a thread that
    nobody waits for.
    """
    check_time()
    main = threading.current_thread() is threading.main_thread()
    if not main and _ENDS.get() == float("inf"):
        return call()
    found: list[Result] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the system gives no more threads
        return call()
    while thread.is_alive():
        thread.join(0.1)  # with a limit: without one Windows hears no signal
        if thread.is_alive():
            check_time()
    if failed:
        raise failed[0]
    return found[0]


def unbroken(found: Result) -> Result:
    """What an algorithm inside another one found; `KeyboardInterrupt` where Ctrl-C ended it, so
    that the outer one does not go on.
    """
    if getattr(found, "interrupted", False):
        raise KeyboardInterrupt
    return found


@contextmanager
def deferred_interrupts() -> Iterator[Interrupts]:
    """Within it the first Ctrl-C sets a flag, or ends the product at hand; a second one raises
    `KeyboardInterrupt` at once.

    Yields
    ------
    Interrupts
        Never pressed outside the main thread and where the program has a handler of its own, which
        keeps its say; what that raises inside a product comes out as `Interrupted` too where it is
        a `KeyboardInterrupt`.
    """
    stop = Interrupts()
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, stop.handle)
    try:
        yield stop
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
