"""Objectives and operators whose critical points and spectra are known in closed form."""

from .autoencoder import Case, LinearAutoencoder, lecture_toy
from .operators import FunctionObjective, PrescribedSpectrum, QuadraticObjective

__all__ = [
    "Case",
    "FunctionObjective",
    "LinearAutoencoder",
    "PrescribedSpectrum",
    "QuadraticObjective",
    "lecture_toy",
]
