"""Plots of training curves, spectra, loss surfaces and critical points, drawn with matplotlib, an
optional dependency that is imported when the first plot is drawn.
"""

from ...spectrum.draw import plain_numbers
from .convergence import ConvergenceDisplay, MinimumRatioDisplay, curve
from .landscape import LandscapeDisplay, surface
from .predictions import decision_regions
from .spectrum import SpectrumDisplay, eigenvalues
from .style import (
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    MARKERS,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    YELLOW,
    mark,
    new_axes,
    new_figure,
)

__all__ = [
    "ConvergenceDisplay",
    "LandscapeDisplay",
    "MinimumRatioDisplay",
    "SpectrumDisplay",
    "BLUE",
    "CYCLE",
    "GREEN",
    "GREY",
    "MARKERS",
    "ORANGE",
    "PURPLE",
    "RED",
    "SKY",
    "YELLOW",
    "curve",
    "decision_regions",
    "eigenvalues",
    "mark",
    "new_axes",
    "new_figure",
    "plain_numbers",
    "surface",
]
