"""Spectra of symmetric operators: extreme eigenpairs, densities, traces, inertia."""
