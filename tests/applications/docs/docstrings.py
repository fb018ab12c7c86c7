"""numpydoc's checks of every public docstring, as run by `make lint`: parameters, returned values,
related functions and an example.
"""

import inspect
import sys

from numpydoc.validate import validate

from fastcurv.applications.diagnosis.sample import CriticalPointSample, SampledPoint
from fastcurv.critical.report import CriticalPoint
from fastcurv.network.linear_operator import OperatorSum
from fastcurv.network.operators import Curvature, CurvatureBlock, Jacobian
from fastcurv.spectrum.density_curve import SpectralDensity
from fastcurv.spectrum.results import Eigenpairs, Estimate, Inertia

from ...public import public

RESULTS = [
    CurvatureBlock,
    CriticalPoint,
    CriticalPointSample,
    Curvature,
    Eigenpairs,
    Estimate,
    Inertia,
    Jacobian,
]
RESULTS += [SampledPoint, OperatorSum, SpectralDensity]
# Checks of every docstring: it exists, its sections are known and in order, its summary is a
# sentence, and every parameter that it lists has a type and a description.
CHECKS = {"GL05", "GL06", "GL07", "GL08", "GL09", "GL10", "SS02", "SS03", "SS04"}
CHECKS |= {"PR02", "PR03", "PR04", "PR05", "PR07", "PR10", "RT03", "YD01"}
# Additional checks of public names: all parameters, returned values, related functions and an
# example are present.
NAMED = {"PR01", "RT01", "SA01", "EX01"}
# Parameters that exist only to catch names of other libraries or an older name.
SILENT = {"'**foreign'", "'**bounds'", "'n_samples'"}


def targets():
    """Yield (name, is_public) for all public functions and classes and for the methods that these
    classes define. The name is dotted, and is_public is False for methods and classes of results.
    """
    names = list(public().values())
    for one in names + RESULTS:
        base = f"{one.__module__}.{one.__qualname__}"
        yield base, one in names
        if inspect.isclass(one):
            for name, value in sorted(vars(one).items()):
                said = callable(value) or isinstance(value, (property, classmethod, staticmethod))
                if said and not name.startswith("_"):
                    yield f"{base}.{name}", False


def findings():
    """Yield (name, code, message) for each violation of the selected numpydoc checks."""
    for name, named in sorted(set(targets())):
        held = CHECKS | NAMED if named else CHECKS
        for code, message in validate(name)["errors"]:
            missing = set(message.partition("{")[2].partition("}")[0].split(", "))
            if code in held and not (code == "PR01" and missing <= SILENT):
                yield name, code, message


if __name__ == "__main__":
    found = list(findings())
    for name, code, message in found:
        print(f"{name}: {code} {message}")
    sys.exit(bool(found))
