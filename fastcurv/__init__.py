"""Exact second-order information of multilayer perceptrons on a CPU: products, spectra, verdicts, steps."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fastcurv")
except PackageNotFoundError:                 # a checkout, built in place
    __version__ = "0.1.0"

from .model import MLP
from .objective import Objective
from .config import show_config, show_versions
from .lanczos import eigsh
from .critical import classify
from .minimize import minimize
from .schedules import constant, constant_then_decay, inverse_time, power, robbins_monro
from .scipy_methods import newton_cg, saddle_free_newton, trust_region
from .steps import escape, newton_step, saddle_free_newton_step
