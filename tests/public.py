"""All public names of ``import fastcurv as fc`` with their objects."""

from __future__ import annotations

from typing import Any

import fastcurv as fc

# subpackages whose names are public, too
SUBPACKAGES = ("schedules", "scipy", "spectrum", "structure")


def public() -> dict[str, Any]:
    """Return all public objects by name, such as ``MLP`` or ``schedules.power``."""
    found = {}
    for subpackage in ("", *SUBPACKAGES):
        home = getattr(fc, subpackage) if subpackage else fc
        for name in home.__all__:
            try:
                found[f"{subpackage}.{name}".lstrip(".")] = getattr(home, name)
            except ImportError:  # an extra that is not here
                continue
    return found
