"""The headings of all examples by name."""

from . import methods, papers, points, training
from .check import Heading

HEADINGS = {
    name: value
    for module in (points, training, methods, papers)
    for name, value in vars(module).items()
    if isinstance(value, Heading)
}
