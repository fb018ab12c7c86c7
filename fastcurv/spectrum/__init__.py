"""Spectra of symmetric operators: extreme eigenpairs, densities, traces, inertia."""

from .tracker import Tracker

__all__ = ["Tracker"]
