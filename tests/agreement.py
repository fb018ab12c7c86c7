"""Figures that are held: words and numbers on which every kind of processor that this one can play
agrees, and every table of kernels.

    python -m tests.agreement critical optimize
    python -m tests.agreement spectrum spectrum.shared --python .venv-minimum/bin/python

writes ``tests/critical/figures.json`` and its like anew, or ``tests/spectrum/shared.json`` by the
module beside it, with other versions of NumPy and SciPy too where their Python is given. What
differs among them rests on what rounding left, and is null.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fastcurv import MLP, Objective, _engine
from fastcurv.rounding.arithmetic import Arithmetic
from fastcurv.rounding.rowwise import Rounding

NUMBER = re.compile(r"(?<![\w.])-?\d+\.?\d*(?:e[-+]?\d+)?(?![\w])")
TOLERANCE = {  # to which the figures of a room are held
    "cli": 0.03,
    "critical": 0.03,
    "critical.pieces": 1e-6,
    "critical.searches": 0.03,
    "estimators": 5e-3,
    "network.spaces": 1e-5,
    "network.states": 1e-6,
    "optimize": 1e-4,
    "optimize.endings": 1e-4,
    "rounding.regimes": 1e-8,
    "rounding.states": 1e-7,
    "spectrum": 1e-6,
    "spectrum.shared": 1e-6,
    "structure": 1e-6,
}
# and beside it; 1e-13 elsewhere, and nothing where bounds are held that come near rounding
SMALL = {"spectrum": 1e-9} | dict.fromkeys((x for x in TOLERANCE if "." in x), 0.0)
WHOLE = (MLP, Objective, Arithmetic, Rounding)  # in whose parts nobody looks for figures
MARGIN = 0.2  # of the tolerance: how closely those who are asked must agree
OLDER = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"
PLAYED: tuple[dict[str, str], ...] = (
    {},
    *(
        {"OPENBLAS_CORETYPE": name}
        for name in (
            "Core2",
            "Nehalem",
            "Sandybridge",
            "Excavator",
            "Haswell",
            "Zen",
            "SkylakeX",
            "Cooperlake",
        )  # fmt: skip
    ),
    {
        "OPENBLAS_CORETYPE": "Nehalem",
        "NPY_DISABLE_CPU_FEATURES": OLDER,
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-FMA,-FMA_Usable,-FMA4",
    },
)


def tables() -> list[str]:
    """Plain loops, which are the same on every machine, first."""
    return ["reference", "baseline", *sorted({"avx2", "avx512"} & {*_engine.available_archs()})]


@contextmanager
def served_by(table: str = "reference") -> Iterator[None]:
    """With one table of kernels: by default plain loops."""
    before = _engine.set_arch(table)
    try:
        yield
    finally:
        _engine.set_arch(before)


def masked(text: str) -> tuple[str, list[float]]:
    """A text with # for its numbers, and these."""
    return NUMBER.sub("#", text), [float(x) for x in NUMBER.findall(text)]


def rounded(found: dict[str, list[Any]], digits: int, none: float = -1.0) -> dict[str, list[Any]]:
    """Figures ``[text, *numbers]`` to so many digits, `none` for what is not finite."""
    return {
        what: [text, *(float(f"{x:.{digits}g}") if np.isfinite(x) else none for x in numbers)]
        for what, (text, *numbers) in found.items()
    }


def same(x: Any, other: Any, room: str, margin: float = 1.0) -> bool:
    """Whether two say the same, up to what rounding leaves of numbers."""
    if isinstance(x, str) or isinstance(other, str):
        return bool(x == other)
    within = TOLERANCE[room] * abs(x) + SMALL.get(room, 1e-13)
    return bool(abs(x - other) <= margin * within)


def holds(known: Any, found: Any, room: str) -> bool:
    """Whether what was found is what was held; null holds of everything."""
    if known is None:
        return True
    if not isinstance(known, list):
        return same(known, found, room)
    if known and known[0] is None:  # another sentence, with other numbers
        return True
    return len(known) == len(found) and all(holds(x, y, room) for x, y in zip(known, found))


def place(room: str) -> tuple[str, Path]:
    """The module that finds figures of a room, and the file that holds them."""
    name = room if "." in room else f"{room}.figures"
    return f"tests.{name}", Path(__file__).parent / f"{name.replace('.', '/')}.json"


def known(room: str) -> Any:
    """The figures that are held of a room."""
    return json.loads(place(room)[1].read_text())


def changed(held: dict[str, Any], found: dict[str, Any], room: str) -> list[Any]:
    """What was found and is not what was held, beside it; nothing where all is."""
    if list(found) != list(held):
        return [list(found), list(held)]
    return [(x, now, held[x]) for x, now in found.items() if not holds(held[x], now, room)]


def agreed(every: list[Any], room: str) -> Any:
    """What all say: dictionaries by key, lists by place."""
    first = every[0]
    if isinstance(first, dict):
        return {key: agreed([x[key] for x in every], room) for key in first}
    if isinstance(first, list) and all(isinstance(x, list) for x in every):
        if all(len(x) == len(first) for x in every):
            return [agreed(list(x), room) for x in zip(*every)]
        return [None]
    if any(x is None for x in every):
        return None
    return first if all(same(first, x, room, MARGIN) for x in every) else None


def by_every_table(names: Iterable[str], figures: Callable[..., Any], room: str) -> Any:
    """``{name: figures(name, table)}``, where all tables agree."""
    names = list(names)
    return agreed([{x: figures(x, table) for x in names} for table in tables()], room)


def parts(x: Any) -> Iterator[Any]:
    """The arrays and numbers in something, but for what it was made from."""
    if isinstance(x, (bool, int, float, np.ndarray, np.generic)):
        yield np.asarray(x)
    elif isinstance(x, (list, tuple)):
        for one in x:
            yield from parts(one)
    elif isinstance(x, dict):
        yield from parts([*x.values()])
    elif hasattr(type(x), "__slots__") and not hasattr(x, "__dict__"):
        yield from parts([getattr(x, name) for name in type(x).__slots__])
    elif hasattr(x, "__dict__") and not isinstance(x, WHOLE):
        yield from parts(vars(x))


def told(**things: Any) -> dict[str, list[Any]]:
    """A number for each array in the things, which every entry moves."""
    found: dict[str, list[Any]] = {}
    for name, thing in things.items():
        found[name] = [""]
        for x in parts(thing):
            x = np.nan_to_num(x.astype(float).reshape(-1), nan=5.0, posinf=7.0, neginf=9.0)
            size = np.where(x < 0, -0.7 * x, x)  # a sum in which nothing cancels
            found[name].append(float(size @ (2 + np.cos(np.arange(x.size)))))
    return found


def lined(held: Any) -> str:
    """JSON with a line for each figure, so that changes of two can be put together."""
    if not isinstance(held, dict):
        return json.dumps(held, separators=(",", ":"))
    return "{\n" + ",\n".join(f"{json.dumps(k)}:{lined(v)}" for k, v in held.items()) + "\n}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("room", nargs="+", choices=TOLERANCE)
    parser.add_argument("--python", nargs="+", default=[], help="others to be asked")
    args = parser.parse_args()
    for room in args.room:
        found = []
        for python in (sys.executable, *args.python):
            for played in PLAYED:
                asked = [python, "-m", place(room)[0]]
                told = subprocess.run(asked, env={**os.environ, **played}, stdout=subprocess.PIPE)
                if told.returncode == 0:
                    found.append(json.loads(told.stdout))
                else:
                    print(f"{room}: not asked: {python} {played}", file=sys.stderr)
        held = lined(agreed(found, room))
        place(room)[1].write_text(held + "\n")
        print(f"{room}: {len(found)} agree; {held.count('null')} places of {held.count(',')} open")


if __name__ == "__main__":
    main()
