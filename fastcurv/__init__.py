"""Exact second-order information of multilayer perceptrons on a CPU: products, spectra, verdicts, steps."""

from .model import MLP
from .objective import Objective
