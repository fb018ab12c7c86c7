"""The shell command: `fastcurv` or `python -m fastcurv`."""

from .parser import main

__all__ = ["main"]
