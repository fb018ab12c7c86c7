"""What runs here: threads in a process and its forks, kernels chosen, versions."""

import functools
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, ParamSpec, TypeVar, overload

import numpy as np
import scipy

from .. import _engine

try:
    VERSION = version("fastcurv")
except PackageNotFoundError:  # a checkout, built in place
    VERSION = "0.1.0"

Given = ParamSpec("Given")
Result = TypeVar("Result")


def to_nearest(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """`function` in the engine's own arithmetic, which is what proofs count on: to nearest, and no
    number flushed to zero, whatever its caller has set (``fesetround``,
    ``torch.set_flush_denormal``) and has again afterwards.
    """

    @functools.wraps(function)
    def run(*args: Given.args, **named: Given.kwargs) -> Result:
        with _engine.Arithmetic():
            return function(*args, **named)

    return run


def one_blas_thread(where: bool = True) -> AbstractContextManager[Any]:
    """A context within which BLAS and LAPACK work on the caller's thread alone, where threadpoolctl
    is installed: theirs go on spinning between their calls, while the engine's threads work, and
    wait for each other at every step of a decomposition, which takes five to ten times as long
    where anything else runs. Not worth its 3 ms for small matrices, `where`, and without effect in
    other threads than the main one, whose limit OpenBLAS goes by.
    """
    if not where or threading.current_thread() is not threading.main_thread():
        return nullcontext()
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return nullcontext()
    blas: Any = ThreadpoolController().select(user_api="blas")
    return blas.limit(limits=1)  # type: ignore[no-any-return]


@overload
def show_versions(mode: Literal["print"] = "print") -> None: ...


@overload
def show_versions(mode: Literal["dict"]) -> dict[str, Any]: ...


def show_versions(mode: str = "print") -> dict[str, Any] | None:
    """Print what a result depends on: versions, the kernels chosen for this CPU, those it could
    run, and the threads; ``mode="dict"`` returns them.

    ``FASTCURV_ARCH`` forces another table of kernels, ``FASTCURV_NUM_THREADS`` another number of
    threads.

    Parameters
    ----------
    mode : {"print", "dict"}
        Whether to print or to return them.

    Returns
    -------
    dict or None
        Facts by name, with ``mode="dict"``.

    Examples
    --------
    >>> import fastcurv as fc
    >>> facts = fc.show_versions("dict")
    >>> facts["kernels"] in facts["available"], facts["threads"] >= 1
    (True, True)
    """
    facts = {
        "fastcurv": VERSION,
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "machine": f"{platform.machine()} {platform.system()}",
        "kernels": _engine.chosen_arch(),
        "available": ", ".join(_engine.available_archs()),
        "threads": _engine.default_threads(),
        "workers": _engine.thread_workers(),
    }
    if mode == "dict":
        return facts
    if mode != "print":
        raise ValueError(f"mode is {mode!r}; wanted 'print' or 'dict'")
    for name, value in facts.items():
        print(f"{name:>10}: {value}")
    return None


def register() -> bool:
    """Tell threadpoolctl about the engine, where it is installed. Called at import."""
    try:
        import threadpoolctl
    except ImportError:
        return False
    if not hasattr(threadpoolctl, "register"):  # before 3.3
        return False

    class FastcurvController(threadpoolctl.LibController):  # type: ignore[misc]
        """The engine's team of threads, one for the process."""

        user_api = "fastcurv"
        internal_api = "fastcurv"
        filename_prefixes = ("core",)  # the extension module
        check_symbols = ("fc_team_limit", "fc_team_get_limit")
        unlimited = False

        def get_num_threads(self) -> int:
            """The limit in force, or what would be used by default; it is remembered, so that
            putting it back lifts a limit.
            """
            limit = _engine.get_thread_limit()
            self.unlimited = not limit
            return limit or _engine.default_threads()

        def set_num_threads(self, num_threads: int) -> None:
            # whoever limits BLAS alone puts all back to what they were
            lifted = self.unlimited and num_threads == _engine.default_threads()
            _engine.set_thread_limit(0 if lifted else num_threads)

        def get_version(self) -> str:
            return VERSION

    threadpoolctl.register(FastcurvController)
    return True


# --------------------------------------------------------------------------------------------------
# What ends work early: Ctrl-C, heard within a product and else at the end of what lies between
# two, and a limit on time; so that what is known can be returned.


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
