"""Plots of spectra and loss surfaces, and what the examples draw with, drawn with matplotlib, an
optional dependency that is imported when the first plot is drawn.
"""

from ...spectrum.draw import plain_numbers
from .landscape import LandscapeDisplay, surface
from .spectrum import SpectrumDisplay
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
    curve,
    mark,
    new_axes,
    new_figure,
)

__all__ = [
    "LandscapeDisplay",
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
    "mark",
    "new_axes",
    "new_figure",
    "plain_numbers",
    "surface",
]
