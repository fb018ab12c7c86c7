"""What this installation is made of: kernels, threads, versions."""

import platform
import sys

import numpy as np
import scipy

from . import _engine


def show_config(mode="print"):
    """Print the kernels chosen for this CPU, those it could run, and the threads; ``mode="dict"`` returns them.

    ``FASTCURV_ARCH`` forces another table of kernels, ``FASTCURV_NUM_THREADS`` another number of threads.

    Examples
    --------
    >>> import fastcurv as fc
    >>> sorted(fc.show_config("dict"))
    ['available', 'kernels', 'threads', 'workers']
    """
    return _show(mode, {
        "kernels": _engine.chosen_arch(),
        "available": ", ".join(_engine.available_archs()),
        "threads": _engine.default_threads(),
        "workers": _engine.thread_workers(),
    })


def show_versions(mode="print"):
    """Print the versions of everything a result depends on; ``mode="dict"`` returns them.

    Examples
    --------
    >>> import fastcurv as fc
    >>> fc.show_versions("dict")["numpy"].count(".")
    2
    """
    from . import __version__
    return _show(mode, {
        "fastcurv": __version__,
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "machine": f"{platform.machine()} {platform.system()}",
    })


def _show(mode, facts):
    if mode == "dict":
        return facts
    if mode != "print":
        raise ValueError(f"mode is {mode!r}; wanted 'print' or 'dict'")
    for name, value in facts.items():
        print(f"{name:>10}: {value}")
