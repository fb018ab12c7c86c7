"""Functions, networks and operators whose critical points and spectra are known beforehand.

Everything here is plain NumPy and needs no compiled engine; `compiled` turns a reference network
into the engine's objective. `zoo` is the collection that `classify` is held to.
"""

from .autoencoder import Case, LinearAutoencoder, compiled, lecture_toy
from .operators import FunctionObjective, PrescribedSpectrum, QuadraticObjective
from .zoo import axis_saddles, polish, zoo

__all__ = [
    "Case",
    "FunctionObjective",
    "LinearAutoencoder",
    "PrescribedSpectrum",
    "QuadraticObjective",
    "axis_saddles",
    "compiled",
    "lecture_toy",
    "polish",
    "zoo",
]
