"""Spectra of symmetric operators: extreme eigenpairs, densities, traces, inertia."""

from .shared_run import Krylov

__all__ = ["Krylov"]
