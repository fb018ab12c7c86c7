"""Exact second-order information of multilayer perceptrons on a CPU: products, spectra, verdicts, steps."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fastcurv")
except PackageNotFoundError:                 # a checkout, built in place
    __version__ = "0.1.0"

from .model import MLP
from .objective import Objective
from .config import show_config, show_versions
