"""Spectra: extreme eigenpairs, densities, traces, inertia."""
