"""Functions, networks and operators whose critical points and spectra are known in advance.

The objectives use NumPy alone and need no compiled engine. `compiled` converts a reference
objective into the engine's `Objective`, and `zoo` returns the cases on which `classify` is tested.
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
