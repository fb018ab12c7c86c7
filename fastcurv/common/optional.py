"""Optional packages: one message for all of them, with the command that installs the package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Key: the import name. Value: the name of the package, and what to install (an extra of fastcurv or
# the package itself).
INSTALL_HINTS = {
    "matplotlib": ("matplotlib", "fastcurv[plot]"),
    "sklearn": ("scikit-learn", "fastcurv[sklearn]"),
    "onnx": ("onnx", "fastcurv[onnx]"),
    "torch": ("torch", "fastcurv[torch]"),
    "pandas": ("pandas", "fastcurv[report]"),
    "jinja2": ("jinja2", "fastcurv[report]"),
    "openpyxl": ("openpyxl", "fastcurv[report]"),
    "pyarrow": ("pyarrow", "fastcurv[parquet]"),
    "dask": ("dask", "fastcurv[dask]"),
    "distributed": ("dask[distributed]", "fastcurv[dask]"),
    "threadpoolctl": ("threadpoolctl", "threadpoolctl"),
    "jax": ("jax", "fastcurv[bench]"),
    "curvlinops": ("curvlinops", "curvlinops-for-pytorch"),
    "torch_levenberg_marquardt": ("torch-levenberg-marquardt", "torch-levenberg-marquardt"),
    "pyhessian": ("PyHessian", "pyhessian"),
}


@contextmanager
def optional_import(purpose: str, extra: str | None = None) -> Iterator[None]:
    """Run imports of optional packages. If one is not installed, raise ImportError with one
    sentence that names what to install.

    Parameters
    ----------
    purpose : str
        Subject of the message, a plural such as "plots".
    extra : str or None
        Extra of fastcurv that installs all packages for the purpose; by default that of the missing
        package.

    Raises
    ------
    ImportError
        If one of `INSTALL_HINTS` is missing. Other errors of an import, such as those of a package
        that is installed but broken, are not changed.

    Examples
    --------
    >>> with optional_import("peers", "bench"):
    ...     raise ModuleNotFoundError(name="pyhessian.hessian")
    Traceback (most recent call last):
    ImportError: peers need PyHessian, which is not installed. Run: pip install "fastcurv[bench]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in INSTALL_HINTS or sys.modules.get(package) is not None:
            raise
        name, source = INSTALL_HINTS[package]
        source = source if extra is None else f"fastcurv[{extra}]"
        raise ImportError(
            f'{purpose} need {name}, which is not installed. Run: pip install "{source}"',
            name=package,
        ) from None
