"""Exact second-order information of multilayer perceptrons on a CPU: products, spectra, verdicts,
steps.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from .critical.classify import classify
from .critical.find import find_critical_point
from .network.convert import from_jax, from_keras, from_sklearn
from .network.convert_onnx import from_onnx
from .network.convert_torch import from_torch, to_torch
from .network.mlp import MLP
from .network.objective import Objective
from .network.saved import load, save
from .optimize.escape import escape
from .optimize.minimize import minimize
from .optimize.sample import sample_critical_points
from .optimize.schedules import constant, constant_then_decay, inverse_time, power, robbins_monro
from .optimize.scipy import newton_cg, saddle_free_newton, trust_region
from .optimize.steps import IndefiniteHessianWarning, newton_step, saddle_free_newton_step
from .runtime import register as _register
from .runtime import show_config, show_versions
from .spectrum.dense import eigvalsh, inertia
from .spectrum.density import spectral_density
from .spectrum.eigsh import eigsh
from .spectrum.shared_run import Krylov
from .spectrum.trace import diagonal, frobenius_norm, trace
from .structure.reparametrise import flip_tanh, permute_hidden, rescale_relu

try:
    __version__ = version("fastcurv")
except PackageNotFoundError:  # a checkout, built in place
    __version__ = "0.1.0"

# By room: network, structure, spectrum, critical, optimize, plots, runtime.
__all__ = [
    "MLP",
    "MLPClassifier",
    "MLPRegressor",
    "Objective",
    "from_jax",
    "from_keras",
    "from_onnx",
    "from_sklearn",
    "from_torch",
    "load",
    "save",
    "to_torch",
    "flip_tanh",
    "permute_hidden",
    "rescale_relu",
    "Krylov",
    "diagonal",
    "eigsh",
    "eigvalsh",
    "frobenius_norm",
    "inertia",
    "spectral_density",
    "trace",
    "classify",
    "find_critical_point",
    "IndefiniteHessianWarning",
    "constant",
    "constant_then_decay",
    "escape",
    "inverse_time",
    "minimize",
    "newton_cg",
    "newton_step",
    "power",
    "robbins_monro",
    "saddle_free_newton",
    "saddle_free_newton_step",
    "sample_critical_points",
    "trust_region",
    "ConvergenceDisplay",
    "LandscapeDisplay",
    "MinimumRatioDisplay",
    "SpectrumDisplay",
    "show_config",
    "show_versions",
]

# Made when first asked for: the room, by name.
_LATER = {
    "ConvergenceDisplay": "plots",
    "LandscapeDisplay": "plots",
    "MLPClassifier": "estimators",
    "MLPRegressor": "estimators",
    "MinimumRatioDisplay": "plots",
    "SpectrumDisplay": "plots",
    "plots": "",
    "testing": "",
}

if find_spec("sklearn") is None:  # `from fastcurv import *` works without the extra
    __all__ = [name for name in __all__ if _LATER.get(name) != "estimators"]

_register()


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module 'fastcurv' has no attribute {name!r}")
    module = import_module(f".{_LATER[name] or name}", __name__)
    return getattr(module, name) if _LATER[name] else module


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
