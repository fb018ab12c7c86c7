"""All public names of ``import fastcurv as fc`` with their objects."""

from __future__ import annotations

from typing import Any

import fastcurv as fc

# subpackages with public names
SUBPACKAGES = ("scipy", "spectrum", "structure")


def public() -> dict[str, Any]:
    """Return a dict of all public objects by name, such as ``MLP`` or ``scipy.newton_cg``. Names of
    extras that are not installed are left out.
    """
    found = {}
    for subpackage in ("", *sorted({*SUBPACKAGES} & {*dir(fc)})):
        home = getattr(fc, subpackage) if subpackage else fc
        for name in home.__all__:
            try:
                found[f"{subpackage}.{name}".lstrip(".")] = getattr(home, name)
            except ImportError:  # the extra is not installed
                continue
    return found
