"""Statements about the core together with the applications."""

import re

from fastcurv import applications

from ..test_layers import ROOT, layers_script
from ..test_repository import INSIDE, MODULES, imports_of


def test_the_picture_of_the_layers_is_drawn_from_the_imports():
    assert (ROOT / "docs" / "layers.svg").read_text(encoding="utf-8") == layers_script["drawing"]()


def test_applications_use_only_the_modules_of_their_interface():
    listed = set(re.findall(r"``([\w.]+)``", applications.__doc__))
    used = {
        other
        for name in INSIDE
        if name.startswith("applications.")
        for other in imports_of(name)
        if other in MODULES and not other.startswith("applications.")
    }
    assert listed == used
