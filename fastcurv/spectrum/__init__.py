"""Spectra of symmetric operators: extreme eigenpairs, densities, traces, inertia."""

from .shared_run import Krylov
from .tracker import Tracker

__all__ = ["Krylov", "Tracker"]
