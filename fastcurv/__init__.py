"""Exact second-order information of multilayer perceptrons on a CPU: products, spectra, verdicts, steps."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fastcurv")
except PackageNotFoundError:                 # a checkout, built in place
    __version__ = "0.1.0"

from .model import MLP
from .objective import Objective

from .lanczos import eigsh
from .spectrum import eigvalsh
from .spectrum import inertia
from .density import spectral_density
from .krylov import Krylov
from .estimates import diagonal
from .estimates import frobenius_norm
from .estimates import trace

from .critical import classify
from .find import find_critical_point

from .invariance import flip_tanh
from .invariance import permute_hidden
from .invariance import rescale_relu

from .steps import IndefiniteHessianWarning
from .steps import escape
from .steps import newton_step
from .steps import saddle_free_newton_step
from .minimize import minimize
from .scipy_methods import newton_cg
from .scipy_methods import saddle_free_newton
from .scipy_methods import trust_region
from .schedules import constant
from .schedules import constant_then_decay
from .schedules import inverse_time
from .schedules import power
from .schedules import robbins_monro

from .config import show_config
from .config import show_versions

from . import threads

threads.register()
