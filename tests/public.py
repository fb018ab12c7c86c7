"""What ``import fastcurv as fc`` offers: every public name as it is called, and what it is."""

from __future__ import annotations

from typing import Any

import fastcurv as fc

# subpackages whose names are public, too
SUBPACKAGES = ("schedules", "scipy", "spectrum", "structure")


def public() -> dict[str, Any]:
    """Return everything public that can be imported here, by name: ``MLP``, ``schedules.power``."""
    found = {}
    for subpackage in ("", *SUBPACKAGES):
        home = getattr(fc, subpackage) if subpackage else fc
        for name in home.__all__:
            try:
                found[f"{subpackage}.{name}".lstrip(".")] = getattr(home, name)
            except ImportError:  # an extra that is not here
                continue
    return found
