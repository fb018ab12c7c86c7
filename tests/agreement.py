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
import inspect
import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import fastcurv
from fastcurv import MLP, Objective, _engine
from fastcurv.certify.arithmetic import Arithmetic
from fastcurv.certify.passes import ErrorPass
from fastcurv.network.linear_operator import Operator

NUMBER = re.compile(r"(?<![\w.])-?\d+\.?\d*(?:e[-+]?\d+)?(?![\w])")
TOLERANCE = {  # to which the figures of a room are held
    "cli": 0.03,
    "critical": 0.03,
    "critical.pieces": 1e-6,
    "critical.returns": 1e-5,
    "critical.searches": 0.03,
    "estimators": 5e-3,
    "network.returns": 1e-5,
    "network.spaces": 1e-5,
    "network.states": 1e-6,
    "optimize": 1e-4,
    "optimize.endings": 1e-4,
    "optimize.returns": 1e-5,
    "certify.regimes": 1e-8,
    "certify.states": 1e-7,
    "spectrum": 1e-6,
    "spectrum.returns": 1e-5,
    "spectrum.shared": 1e-6,
    "structure": 1e-6,
}
# and beside it; 1e-13 elsewhere, and nothing where bounds are held that come near rounding
SMALL = {"spectrum": 1e-9} | dict.fromkeys((x for x in TOLERANCE if "." in x), 0.0)
WHOLE = (MLP, Objective, Operator, Arithmetic, ErrorPass)  # in whose parts nobody looks for figures
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
    """What all say: dictionaries by the keys that all have, lists by place."""
    first = every[0]
    if isinstance(first, dict):
        common = [key for key in first if all(key in x for x in every)]
        return {key: agreed([x[key] for x in every], room) for key in common}
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


def parts(x: Any, deep: int = 9) -> Iterator[Any]:
    """The arrays and numbers in something, but for what it was made from."""
    if isinstance(x, (bool, int, float, np.ndarray, np.generic)):
        yield np.asarray(x)
    elif isinstance(x, (list, tuple)):
        for one in x if deep else ():
            yield from parts(one, deep - 1)
    elif isinstance(x, dict):
        yield from parts([*x.values()], deep)
    elif type(x).__module__.startswith("fastcurv") and not isinstance(x, WHOLE):
        slots = getattr(type(x), "__slots__", ())
        yield from parts({name: getattr(x, name) for name in slots}, deep)
        yield from parts(getattr(x, "__dict__", {}), deep)


def summed(x: Any, deep: int = 9) -> list[float]:
    """A number for each array in something, which every entry moves: a sum in which nothing
    cancels.
    """
    found = []
    for one in parts(x, deep):
        if one.dtype.kind in "biuf":
            flat = np.nan_to_num(one.astype(float).reshape(-1), nan=5.0, posinf=7.0, neginf=9.0)
            sizes = np.where(flat < 0, -0.7 * flat, flat)
            found.append(float(sizes @ (2 + np.cos(np.arange(flat.size)))))
    return found


def told(**things: Any) -> dict[str, list[Any]]:
    """Such numbers of each of the things."""
    return {name: ["", *summed(thing)] for name, thing in things.items()}


@contextmanager
def heard(*rooms: str, most: int = 2) -> Iterator[dict[str, list[Any]]]:
    """What the first calls of every function of some rooms return while this is entered, or what
    its object holds after one that returns nothing: such numbers, a few of each. The clock stands
    but for a tick whenever it is asked, and memory is 0 before it is written.
    """
    package = Path(fastcurv.__file__).parent
    within = tuple(f"{package / room}{os.sep}" for room in rooms)
    found: dict[str, list[Any]] = {}
    calls: Counter[str] = Counter()

    def hear(frame: Any, event: str, value: Any) -> None:
        code = frame.f_code
        if event != "return" or not code.co_filename.startswith(within) or "<" in code.co_name:
            return
        if not code.co_flags & inspect.CO_OPTIMIZED:  # a class
            return
        name = f"{Path(code.co_filename).relative_to(package)}: {code.co_qualname}"
        calls[name] += 1
        if calls[name] <= most:
            value = frame.f_locals.get("self") if value is None else value
            found.setdefault(name, [""]).extend(summed(value, 3)[:16])

    for module in [module for name, module in sys.modules.items() if name.startswith("fastcurv.")]:
        for thing in vars(module).values():  # what was found before would not be looked for
            getattr(thing, "cache_clear", int)()
    ticks, before = count(), sys.getprofile()
    with (
        mock.patch.object(time, "perf_counter", lambda: 1e-4 * next(ticks)),
        mock.patch.object(np, "empty", np.zeros),
        mock.patch.object(np, "empty_like", np.zeros_like),
    ):
        sys.setprofile(hear)
        try:
            yield found
        finally:
            sys.setprofile(before)


def returned(part: Callable[[], None], *rooms: str) -> dict[str, list[Any]]:
    """What functions of some rooms return on the way through `part`, where tables agree."""
    with served_by(), warnings.catch_warnings(), heard(*rooms) as found:
        warnings.simplefilter("ignore")
        part()
    return rounded(found, 7)


def returns(held: dict[str, Any], found: dict[str, Any], room: str) -> list[Any]:
    """`changed`, of functions that were there and still return as many numbers: no name, no new
    attribute of an object is held.
    """
    both = [name for name in held if len(found.get(name, ())) == len(held[name])]
    if 2 * len(both) < len(held):
        return [("functions that return as many numbers", len(held), len(both))]
    return changed({x: held[x] for x in both}, {x: found[x] for x in both}, room)


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
