"""What runs here: threads in a process and its forks, kernels chosen, versions."""

import functools
import platform
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, ParamSpec, TypeVar, overload

import numpy as np
import scipy

from . import _engine

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
def show_config(mode: Literal["print"] = "print") -> None: ...


@overload
def show_config(mode: Literal["dict"]) -> dict[str, Any]: ...


def show_config(mode: str = "print") -> dict[str, Any] | None:
    """Print the kernels chosen for this CPU, those it could run, and the threads; ``mode="dict"``
    returns them.

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

    See Also
    --------
    show_versions : of libraries.

    Examples
    --------
    >>> import fastcurv as fc
    >>> sorted(fc.show_config("dict"))
    ['available', 'kernels', 'threads', 'workers']
    """
    return _show(
        mode,
        {
            "kernels": _engine.chosen_arch(),
            "available": ", ".join(_engine.available_archs()),
            "threads": _engine.default_threads(),
            "workers": _engine.thread_workers(),
        },
    )


@overload
def show_versions(mode: Literal["print"] = "print") -> None: ...


@overload
def show_versions(mode: Literal["dict"]) -> dict[str, str]: ...


def show_versions(mode: str = "print") -> dict[str, str] | None:
    """Print the versions of everything a result depends on; ``mode="dict"`` returns them.

    Parameters
    ----------
    mode : {"print", "dict"}
        Whether to print or to return them.

    Returns
    -------
    dict or None
        Facts by name, with ``mode="dict"``.

    See Also
    --------
    show_config : kernels and threads.

    Examples
    --------
    >>> import fastcurv as fc
    >>> fc.show_versions("dict")["numpy"].count(".")
    2
    """
    from . import __version__

    return _show(
        mode,
        {
            "fastcurv": __version__,
            "python": sys.version.split()[0],
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "machine": f"{platform.machine()} {platform.system()}",
        },
    )


def _show(mode: str, facts: dict[str, Any]) -> dict[str, Any] | None:
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
            from . import __version__

            return __version__

    threadpoolctl.register(FastcurvController)
    return True
