"""Minimisation and the search for critical points: optimisers, single Newton steps, escapes from
saddles.
"""

from .callbacks import Checkpoint, EarlyStopping

__all__ = ["Checkpoint", "EarlyStopping"]
