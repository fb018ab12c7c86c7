"""Minimisation and the search for critical points: optimisers, single Newton steps, learning-rate
schedules, escapes from saddles.
"""
