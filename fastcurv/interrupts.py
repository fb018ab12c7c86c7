"""Ctrl-C that waits for the end of a product, so that what is known can be returned."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], bool]]:
    """Within it the first Ctrl-C sets a flag, and a second one raises `KeyboardInterrupt` at once.

    Yields
    ------
    callable
        ``stop()``: whether Ctrl-C was pressed. Always False outside the main thread and where the
        program has a handler of its own, which keeps its say.
    """
    pressed: list[bool] = []

    def handler(signum: int, frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)

    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: bool(pressed)
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
