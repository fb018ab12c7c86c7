"""Exact second-order information of multilayer perceptrons on a CPU: Hessian products, spectra,
verdicts on critical points, optimisers.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .common.protocols import REGISTERING
from .common.runtime import VERSION, register_threadpoolctl, show_versions

if TYPE_CHECKING:
    from . import optimize as optimize
    from . import spectrum as spectrum
    from . import structure as structure
    from .applications import scipy as scipy
    from .applications.certificate.save import save_certificate
    from .applications.cli.page import report
    from .applications.convert.onnx import from_onnx
    from .applications.convert.sklearn import from_sklearn
    from .applications.convert.torch import from_torch, to_torch
    from .applications.diagnosis.diagnose import diagnose
    from .applications.diagnosis.sample import sample_critical_points
    from .applications.estimators.classifier import MLPClassifier
    from .applications.estimators.regressor import MLPRegressor
    from .applications.plots.landscape import LandscapeDisplay
    from .applications.plots.spectrum import SpectrumDisplay
    from .applications.uncertainty.laplace import laplace
    from .applications.uncertainty.left_out import leave_one_out
    from .applications.uncertainty.next_rows import next_rows
    from .critical.classify import classify
    from .network.mlp import MLP
    from .network.objective import Objective
    from .network.save import load, save
    from .network.streaming import StreamedObjective
    from .optimize.escape import escape
    from .optimize.find import find_critical_point
    from .optimize.minimize import minimize
    from .optimize.steps import IndefiniteHessianWarning, newton_step, saddle_free_newton_step
    from .spectrum.dense import eigvalsh, inertia
    from .spectrum.density import spectral_density
    from .spectrum.eigsh import eigsh
    from .spectrum.trace import diagonal, frobenius_norm, trace
    from .structure.user_functions import Activation, Loss

__version__ = VERSION
REGISTERING.append(lambda: import_module(".certify.bounds", __name__))

# Names are grouped by subject: network, structure, spectrum, critical, optimize, plots, runtime.
__all__ = [
    "Activation",
    "Loss",
    "MLP",
    "MLPClassifier",
    "MLPRegressor",
    "Objective",
    "StreamedObjective",
    "from_onnx",
    "from_sklearn",
    "from_torch",
    "load",
    "save",
    "save_certificate",
    "to_torch",
    "diagonal",
    "eigsh",
    "eigvalsh",
    "frobenius_norm",
    "inertia",
    "spectral_density",
    "trace",
    "classify",
    "laplace",
    "find_critical_point",
    "leave_one_out",
    "IndefiniteHessianWarning",
    "diagnose",
    "escape",
    "minimize",
    "newton_step",
    "next_rows",
    "report",
    "saddle_free_newton_step",
    "sample_critical_points",
    "LandscapeDisplay",
    "SpectrumDisplay",
    "register_threadpoolctl",
    "show_versions",
]

# Key: a public name. Value: the module that defines it and is imported on first use.
_MODULE_OF_PUBLIC_NAME = {
    "IndefiniteHessianWarning": "optimize.steps",
    "LandscapeDisplay": "applications.plots.landscape",
    "Activation": "structure.user_functions",
    "Loss": "structure.user_functions",
    "MLP": "network.mlp",
    "MLPClassifier": "applications.estimators.classifier",
    "MLPRegressor": "applications.estimators.regressor",
    "Objective": "network.objective",
    "SpectrumDisplay": "applications.plots.spectrum",
    "StreamedObjective": "network.streaming",
    "classify": "critical.classify",
    "diagnose": "applications.diagnosis.diagnose",
    "diagonal": "spectrum.trace",
    "eigsh": "spectrum.eigsh",
    "eigvalsh": "spectrum.dense",
    "escape": "optimize.escape",
    "find_critical_point": "optimize.find",
    "frobenius_norm": "spectrum.trace",
    "from_onnx": "applications.convert.onnx",
    "from_sklearn": "applications.convert.sklearn",
    "from_torch": "applications.convert.torch",
    "inertia": "spectrum.dense",
    "laplace": "applications.uncertainty.laplace",
    "leave_one_out": "applications.uncertainty.left_out",
    "load": "network.save",
    "minimize": "optimize.minimize",
    "newton_step": "optimize.steps",
    "next_rows": "applications.uncertainty.next_rows",
    "saddle_free_newton_step": "optimize.steps",
    "report": "applications.cli.page",
    "sample_critical_points": "applications.diagnosis.sample",
    "save": "network.save",
    "save_certificate": "applications.certificate.save",
    "spectral_density": "spectrum.density",
    "to_torch": "applications.convert.torch",
    "trace": "spectrum.trace",
}
# Key: a subpackage or module that users import from fastcurv, such as `fc.plots`. Value: the
# module's path in fastcurv.
_SUBPACKAGES = {
    "scipy": "applications.scipy",
    "plots": "applications.plots",
    "convert": "applications.convert",
    "estimators": "applications.estimators",
    **{
        name: name
        for name in (
            "certify",
            "critical",
            "distributed",
            "krylov",
            "network",
            "optimize",
            "spectrum",
            "structure",
            "testing",
        )
    },
}

# Key: a public name that was removed. Value: a sentence that says what to use instead.
_REMOVED_NAMES: dict[str, str] = {
    "ConvergenceDisplay": 'Use matplotlib\'s semilogy(run.history["time"], run.history["loss"]).',
    "MinimumRatioDisplay": "Draw point.loss against point.verdict.minimum_ratio with matplotlib.",
    "check_gradient": "Use scipy.optimize.check_grad(ob.value, ob.gradient, theta).",
    "from_jax": "Use model.flatten([(W.T, b), ...]) with the kernels W and the biases b.",
    "from_keras": "Export the network to ONNX and use fastcurv.from_onnx.",
    "influence": "Use fastcurv.leave_one_out(ob, theta).output_changes(X_new).",
    "regularization_path": "Use fastcurv.minimize(ob.with_l2(l2), theta) for each l2.",
    "schedules": "Pass a function of the update t = 1, 2, ..., as learning_rate.",
    "to_c": "Use fastcurv.to_torch and torch.onnx.export, whose files ONNX tools compile.",
}

# `from fastcurv import *` omits the names of modules that are not installed: the estimators without
# scikit-learn, and everything of the applications in a copy of the core alone.
_missing = "applications.estimators" if find_spec("sklearn") is None else "no module"
if find_spec(".applications", __name__) is None:
    _missing = "applications"
    _SUBPACKAGES = {k: path for k, path in _SUBPACKAGES.items() if not path.startswith(_missing)}
__all__ = [
    name for name in __all__ if not _MODULE_OF_PUBLIC_NAME.get(name, "").startswith(_missing)
]


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return import_module(f".{_SUBPACKAGES[name]}", __name__)
    if name in _REMOVED_NAMES:
        raise AttributeError(f"fastcurv.{name} was removed. {_REMOVED_NAMES[name]}")
    if name not in _MODULE_OF_PUBLIC_NAME:
        # With `name` and `obj`, Python suggests the closest name.
        raise AttributeError(
            f"module 'fastcurv' has no attribute {name[:80]!r}",
            name=name,
            obj=import_module(__name__),
        )
    value = globals()[name] = getattr(
        import_module(f".{_MODULE_OF_PUBLIC_NAME[name]}", __name__), name
    )
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBPACKAGES, "__version__"])
