"""The runtime environment: rounding mode, BLAS threads, versions, time limits and Ctrl-C."""

from __future__ import annotations

import functools
import inspect
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
from .optional import optional_import

try:
    VERSION = version("fastcurv")
except PackageNotFoundError:
    # The package runs from a checkout that was built in place.
    VERSION = "0.1.0"

Given = ParamSpec("Given")
Result = TypeVar("Result")


def with_nearest_rounding(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorate a function that proves or searches to run with the floating-point settings that
    proofs assume: rounding to nearest, and no flushing to zero.

    The caller's own settings (``fesetround``, ``torch.set_flush_denormal``) are restored
    afterwards. Code that changes the settings during the call is not supported. The call uses at
    most the number of threads that the first argument, an objective or operator, specifies.
    """
    first_name = next(iter(inspect.signature(function).parameters), "")

    @functools.wraps(function)
    def run(*args: Given.args, **named: Given.kwargs) -> Result:
        subject = args[0] if args else named.get(first_name)
        with _engine.FloatingPointMode(getattr(subject, "n_threads", None)):
            return function(*args, **named)

    return run


# maximum number of rows of a matrix up to which threads do not make BLAS faster
SERIAL_BLAS_MAX_N = 90


def serial_blas_context(where: bool = True) -> AbstractContextManager[None]:
    """Return a context in which BLAS and LAPACK use one thread, if threadpoolctl is installed.

    NumPy and SciPy each have a team of BLAS threads. The threads spin between calls and wait for
    each other at every step of a decomposition, which takes five to ten times as long if anything
    else runs, including the other team. The context does nothing if `where` is False, and outside
    the main thread, since OpenBLAS restricts the setting to the main thread. Callers set `where` to
    False for matrices of up to `SERIAL_BLAS_MAX_N` rows, for which BLAS uses no threads. Entering
    the context takes 5 us, except for the first time.
    """
    if not where or threading.current_thread() is not threading.main_thread():
        return nullcontext()
    return _limit_to_one_thread(_blas_libraries())


@contextmanager
def _limit_to_one_thread(libraries: list[Any]) -> Iterator[None]:
    """Limit the libraries to one thread in this context, in half the time that
    ``threadpoolctl.threadpool_limits`` takes.
    """
    counts = [library.num_threads for library in libraries]
    limited = [(x, count) for x, count in zip(libraries, counts) if count not in (None, 1)]
    try:
        for library, _ in limited:
            library.set_num_threads(1)
        yield
    finally:
        for library, count in limited:
            library.set_num_threads(count)


@functools.cache
def _blas_libraries() -> list[Any]:
    """Return threadpoolctl's controllers of the loaded BLAS libraries, including those of NumPy and
    SciPy, or an empty list if threadpoolctl is not installed.
    """
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return []
    return list(ThreadpoolController().select(user_api="blas").lib_controllers)


@overload
def show_versions(mode: Literal["print"] = "print") -> None: ...


@overload
def show_versions(mode: Literal["dict"]) -> dict[str, str | int]: ...


def show_versions(mode: str = "print") -> dict[str, str | int] | None:
    """Print the versions of fastcurv and its dependencies, the kernels chosen for this CPU, all
    kernels that this CPU supports, and the number of threads.

    The environment variable ``FASTCURV_ARCH`` selects other kernels, and ``FASTCURV_NUM_THREADS``
    another number of threads.

    Parameters
    ----------
    mode : {"print", "dict"}
        If "print", print the information; if "dict", return it as a dict.

    Returns
    -------
    dict or None
        The information by name if `mode` is ``"dict"``, otherwise None.

    See Also
    --------
    numpy.show_config : the BLAS and LAPACK that NumPy uses.

    Examples
    --------
    >>> import fastcurv as fc
    >>> facts = fc.show_versions("dict")
    >>> facts["kernels"] in facts["available"], facts["threads"] >= 1
    (True, True)
    """
    facts: dict[str, str | int] = {
        "fastcurv": VERSION,
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "machine": f"{platform.machine()} {platform.system()}",
        "kernels": _engine.chosen_arch(),
        "available": ", ".join(_engine.available_archs()),
        "threads": _engine.default_n_threads(),
        "workers": _engine.count_worker_threads(),
    }
    if mode == "dict":
        return facts
    if mode != "print":
        raise ValueError(f"mode must be 'print' or 'dict', got {mode!r}.")
    for name, value in facts.items():
        print(f"{name:>10}: {value}")
    return None


def register_threadpoolctl() -> None:
    """Register the threads of the engine with threadpoolctl, whose contexts then limit them.

    Raises
    ------
    ImportError
        If threadpoolctl is not installed.

    See Also
    --------
    show_versions : prints the number of threads.

    Examples
    --------
    >>> import numpy as np, fastcurv as fc
    >>> from threadpoolctl import threadpool_limits
    >>> fc.register_threadpoolctl()
    >>> with threadpool_limits(1):
    ...     H = fc.Objective(fc.MLP([2, 1]), [[1.0, 2.0]], [0.0], "mse").hessian(np.ones(3))
    """
    with optional_import("limits of threads"):
        import threadpoolctl

    class FastcurvController(threadpoolctl.LibController):  # type: ignore[misc]
        """The engine's threads, one team per process."""

        user_api = "fastcurv"
        internal_api = "fastcurv"
        filename_prefixes = ("core",)  # name of the compiled extension module
        check_symbols = ("fc_team_limit", "fc_team_get_limit")
        unlimited = False

        def get_num_threads(self) -> int:
            """Return the current limit, or the default number of threads if there is no limit.
            Whether there was a limit is stored, so that restoring the default number removes the
            limit.
            """
            limit = _engine.get_thread_limit()
            self.unlimited = not limit
            return limit or _engine.default_n_threads()

        def set_num_threads(self, num_threads: int) -> None:
            # A context that limits only BLAS also restores the setting of every other library, so
            # the default number of threads is restored as "no limit".
            lifted = self.unlimited and num_threads == _engine.default_n_threads()
            _engine.set_thread_limit(0 if lifted else num_threads)

        def get_version(self) -> str:
            return VERSION

    threadpoolctl.register(FastcurvController)


# --------------------------------------------------------------------------------------------------
# Early ends of a computation, so that partial results can be returned: Ctrl-C, handled within a
# product or at the end of a step between products, and time limits. A call of LAPACK is one step.


class Interrupted(KeyboardInterrupt):
    """An exception for Ctrl-C during a product, which has changed only its own output."""


class OutOfTime(Exception):  # noqa: N818 - the end of a limit is no error
    """An exception for the end of a `time_limit`."""


# (time after which no new step begins, time at which running steps stop)
_DEADLINES: ContextVar[tuple[float, float]] = ContextVar("ends", default=(float("inf"),) * 2)
# fraction of the time limit reserved for the final result
RESERVED_TIME_FRACTION = 0.04


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Limit the time of a context. After `seconds`, or when an outer limit ends, `is_time_up`
    returns True. `raise_if_out_of_time` raises after a further fraction `RESERVED_TIME_FRACTION` of
    the time. None changes nothing, and infinity removes outer limits.
    """
    ends = _DEADLINES.get()
    if seconds is not None:
        now = time.perf_counter()
        own = now + seconds, now + (1 + RESERVED_TIME_FRACTION) * seconds
        ends = own if seconds == float("inf") else (min(own[0], ends[0]), min(own[1], ends[1]))
    token = _DEADLINES.set(ends)
    try:
        yield
    finally:
        _DEADLINES.reset(token)


def is_time_up(ahead: float = 0.0) -> bool:
    """Return True if the enclosing `time_limit` has ended, or ends within `ahead` seconds."""
    ends, _ = _DEADLINES.get()
    return ends < float("inf") and time.perf_counter() + ahead >= ends


def raise_if_out_of_time() -> None:
    """Raise `OutOfTime` if the enclosing `time_limit` and the reserved time have ended."""
    _, ends = _DEADLINES.get()
    if ends < float("inf") and time.perf_counter() >= ends:
        raise OutOfTime


def seconds_until_deadline() -> float:
    """Return the seconds until `raise_if_out_of_time` raises, or infinity without a limit."""
    return max(0.0, _DEADLINES.get()[1] - time.perf_counter())


class Budget:
    """The numbers of products and seconds that a call may use.

    Parameters
    ----------
    most : float
        The number of products; infinite without a limit.
    seconds : float, optional
        The seconds from now on. The enclosing `time_limit` applies as well.
    within : Budget, optional
        An enclosing budget, whose remaining products except the last `reserve` are available
        instead of `most` and `seconds`.
    """

    def __init__(
        self,
        most: float = float("inf"),
        seconds: float | None = None,
        *,
        within: Budget | None = None,
        reserve: int = 0,
    ) -> None:
        self.most = most
        self.seconds = seconds
        self.within = within
        self.reserve = reserve
        self.count = 0  # number of products spent
        self.begun = time.perf_counter()

    def elapsed(self) -> float:
        """Return the seconds since the budget was created."""
        return time.perf_counter() - self.begun

    def seconds_left(self) -> float:
        """Return the remaining seconds, or infinity without a limit."""
        own = float("inf") if self.seconds is None else self.begun + self.seconds
        ends = min(own, _DEADLINES.get()[0])
        return ends if ends == float("inf") else ends - time.perf_counter()

    def inner_max_time(self) -> float | None:
        """Return `seconds_left`, but at least 1 ms, as the `max_time` of an inner call, or None
        without a limit.
        """
        seconds = self.seconds_left()
        return None if seconds == float("inf") else max(1e-3, seconds)

    @property
    def untimed_products_left(self) -> float:
        """Number of products left in the budget, regardless of the time."""
        return max(0, self.most - self.count)

    @property
    def products_left(self) -> float:
        """Number of products that may still be computed, which is 0 after the time has run out."""
        if self.within is not None:
            return max(0, self.within.products_left - self.reserve)
        return self.untimed_products_left if self.seconds_left() > 0 else 0

    def allows(self, k: int) -> bool:
        """Return True if the budget allows k more products."""
        return k <= self.products_left

    def exhaust(self) -> None:
        """Set the number of remaining products to 0."""
        self.most = self.count


# Function that returns True after Ctrl-C, for other threads, since signals reach only the main
# thread.
_INTERRUPT_SOURCE: ContextVar[Callable[[], bool] | None] = ContextVar("pressed", default=None)


@contextmanager
def forward_interrupts(pressed: Callable[[], bool]) -> Iterator[None]:
    """Make `interrupt_source` return `pressed`, a function that returns True after Ctrl-C, in this
    context.
    """
    token = _INTERRUPT_SOURCE.set(pressed)
    try:
        yield
    finally:
        _INTERRUPT_SOURCE.reset(token)


def interrupt_source() -> Callable[[], bool] | None:
    """Return the function of the enclosing `forward_interrupts`, or None outside."""
    return _INTERRUPT_SOURCE.get()


class InterruptFlag:
    """The object `stop` that `deferred_interrupts` yields. `stop()` returns True if Ctrl-C was
    pressed. Inside ``with stop:`` Ctrl-C ends the current product, which raises `Interrupted`.
    """

    def __init__(self) -> None:
        self.pressed = self.inside = False

    def __call__(self) -> bool:
        return self.pressed

    def handle_signal(self, signum: int, frame: object) -> None:
        """Handle the signal: raise inside a product or when Ctrl-C is pressed again, otherwise set
        a flag.
        """
        if self.pressed or self.inside:
            self.pressed = True
            raise KeyboardInterrupt
        self.pressed = True

    def __enter__(self) -> None:
        self.inside = True
        if self.pressed:
            self.inside = False
            raise Interrupted

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self.inside = False
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            raise Interrupted from error


def raise_if_interrupted(found: Result) -> Result:
    """Return the result of an inner algorithm, such as `eigsh` or `minimize`. Raise
    `KeyboardInterrupt` if Ctrl-C ended it, so that the outer algorithm stops as well.
    """
    if getattr(found, "interrupted", False) or getattr(found, "stopped", "") == "interrupted":
        raise KeyboardInterrupt
    return found


@contextmanager
def deferred_interrupts() -> Iterator[InterruptFlag]:
    """Defer Ctrl-C in this context. The first Ctrl-C sets a flag, or ends the current product. A
    second one raises `KeyboardInterrupt` at once.

    Yields
    ------
    Interrupts
        An object with the flag. The flag is never set outside the main thread, nor if the program
        has installed its own signal handler, which remains active. If that handler raises
        `KeyboardInterrupt` inside a product, `Interrupted` is raised instead.
    """
    stop = InterruptFlag()
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, stop.handle_signal)
    try:
        yield stop
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
