"""Figures that are held: words and numbers that the tables of kernels of a machine agree on."""

from __future__ import annotations

import json
import re
from typing import Any

from fastcurv import _engine

NUMBER = re.compile(r"(?<![\w.])-?\d+\.?\d*(?:e[-+]?\d+)?(?![\w])")


def tables() -> list[str]:
    """Plain loops, which are the same on every machine, first."""
    return ["reference", "baseline", *sorted({"avx2", "avx512"} & {*_engine.available_archs()})]


def masked(text: str) -> tuple[str, list[float]]:
    """A text with # for its numbers, and these."""
    return NUMBER.sub("#", text), [float(x) for x in NUMBER.findall(text)]


def agreed(every: list[list[Any]], rel: float = 1e-2) -> list[Any]:
    """What the tables agree on."""
    first = every[0]
    return [
        x if all(len(other) == len(first) and same(x, other[i], rel) for other in every) else None
        for i, x in enumerate(first)
    ]


def same(x: Any, other: Any, rel: float = 1e-2) -> bool:
    """Whether two say the same, up to what rounding leaves of numbers."""
    if isinstance(x, str) or isinstance(other, str):
        return bool(x == other)
    return bool(abs(x - other) <= rel * abs(x) + 1e-13)


def lined(held: Any) -> str:
    """JSON with a line for each figure, so that changes of two can be put together."""
    if not isinstance(held, dict):
        return json.dumps(held, separators=(",", ":"))
    return "{\n" + ",\n".join(f"{json.dumps(k)}:{lined(v)}" for k, v in held.items()) + "\n}"
