"""What ``import fastcurv as fc`` offers: every public name as it is called, and what it is."""

from __future__ import annotations

from typing import Any

import fastcurv as fc

ROOMS = ("schedules", "scipy", "spectrum", "structure")  # whose names are called by the room's


def public() -> dict[str, Any]:
    """Return everything public that can be imported here, by name: ``MLP``, ``schedules.power``."""
    found = {}
    for room in ("", *ROOMS):
        home = getattr(fc, room) if room else fc
        for name in home.__all__:
            try:
                found[f"{room}.{name}".lstrip(".")] = getattr(home, name)
            except ImportError:  # an extra that is not here
                continue
    return found
