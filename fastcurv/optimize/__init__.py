"""Minimisation: optimisers, single Newton steps, learning-rate schedules, escapes from saddles."""
