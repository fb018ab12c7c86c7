"""Golden results: text, proofs and costs of public calls that are equal on every processor.

    python -m tests.golden critical optimize
    python -m tests.golden spectrum --python .venv-minimum/bin/python .venv-newest/bin/python
    python -m tests.golden spectrum --keep

These commands write ``golden.json`` in the folders tests/critical, tests/optimize and
tests/spectrum from the ``golden.py`` of the same folder. Results are compared on every processor
that this one can emulate and, with `--python`, with other versions of NumPy and SciPy. Results that
differ depend on rounding and become null. With `--keep`, the existing results are compared as well,
for a machine or version not used before, so that null stays null. Update the files only if a result
is meant to change, and review the differences.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastcurv as fc
from fastcurv import _engine

NUMBER = re.compile(r"(?<![\w.])-?\d+\.?\d*(?:e[-+]?\d+)?(?![\w])")


class Rule(NamedTuple):
    """The relative and absolute tolerance of golden numbers, and whether every kernel table is
    compared. Numbers up to `rounding`, such as residuals and errors, are compared by their order of
    magnitude.
    """

    relative: float
    absolute: float = 1e-13
    every_table: bool = False
    rounding: float = 0.0


# Rules by subpackage, and by words in the names of sections. The last matching rule is used.
RULES = {
    "certify": Rule(4e-10, 0.0),
    "certify: float32": Rule(1e-5, 0.0),  # includes rounding errors of the run
    "certify: batch norm": Rule(1e-5, 0.0),
    "certify: elu, batch norm": Rule(1e-2, 0.0),
    "certify: ends": Rule(1e-8, 0.0),
    "applications": Rule(1e-4, every_table=True),
    "critical": Rule(0.03, every_table=True),
    "critical: by ": Rule(0.03, 0.0, rounding=1e-10),
    "applications.estimators": Rule(5e-3, every_table=True),
    "network": Rule(1e-5, 0.0),
    "optimize": Rule(1e-4, every_table=True),
    "optimize: runs": Rule(1e-4, 0.0),
    "applications.reliability": Rule(0.0),  # text without numbers
    "spectrum": Rule(1e-6, 1e-9),
    "spectrum: by ": Rule(1e-6, 0.0, rounding=1e-10),
}
ORDER = 30.0  # largest ratio of two rounding errors that count as equal
MARGIN = 0.2  # fraction of the tolerance within which all processors must agree
# NumPy ignores unknown names of CPU features. From version 2.4 on, it has names of levels.
NO_AVX512 = "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR"
NO_AVX2 = f"X86_V3 AVX2 FMA3 {NO_AVX512}"
CORES = "Core2 Nehalem Sandybridge Excavator Haswell Zen SkylakeX Cooperlake SapphireRapids"
EMULATED_PROCESSORS: tuple[dict[str, str], ...] = (
    {},
    *({"OPENBLAS_CORETYPE": name} for name in CORES.split()),
    {"OPENBLAS_CORETYPE": "Haswell", "NPY_DISABLE_CPU_FEATURES": NO_AVX512},
    {"OPENBLAS_CORETYPE": "Zen", "NPY_DISABLE_CPU_FEATURES": NO_AVX512},
    {
        "OPENBLAS_CORETYPE": "Nehalem",
        "NPY_DISABLE_CPU_FEATURES": NO_AVX2,
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-FMA,-FMA_Usable,-FMA4",
    },
)


def drawn(
    sizes: Any = (4, 5, 5, 3), activation: Any = "tanh", loss: str = "mse", l2: float = 0.0,
    weighted: bool = False, soft: bool = False, **model: Any,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Return (objective, theta, v): 23 samples, parameters and a vector (n,), computed without
    random generators, whose numbers may differ between versions of NumPy.
    """
    net = fc.MLP(list(sizes), activation if len(sizes) > 2 else [], **model)
    at = np.arange(1, 1 + 23 * (sizes[0] + sizes[-1])).reshape(23, -1)
    rows = np.round(2 * np.sin(1.7 * at + 0.1 * at**1.5), 3)
    X, y = rows[:, : sizes[0]], rows[:, sizes[0] :]
    if loss == "cross_entropy" and not soft:
        y = np.argmax(y, axis=1)
    elif loss != "mse":
        y = np.round(0.5 + 0.24 * y, 3)
        y = y / y.sum(axis=1, keepdims=True) if soft else y
    weight = np.round(0.1 + np.arange(23) / 23, 3) if weighted else None
    ob = fc.Objective(net, X, y, loss, l2=l2, sample_weight=weight)
    n = net.n_params
    theta = np.round(0.8 * np.sin(np.arange(1, n + 1) * 2.3), 3).astype(net.dtype)
    return ob, theta, np.round(np.cos(np.arange(n) * 1.1), 3).astype(net.dtype)


def tables() -> list[str]:
    """Return the names of the kernel tables of this CPU, beginning with the plain loops, whose
    results are equal on every machine.
    """
    return ["reference", "baseline", *sorted({"avx2", "avx512"} & {*_engine.available_archs()})]


@contextmanager
def use_kernel_table(table: str = "reference") -> Iterator[None]:
    """Select a kernel table, by default the plain loops, inside the context."""
    before = _engine.set_arch(table)
    try:
        yield
    finally:
        _engine.set_arch(before)


def masked(text: str) -> tuple[str, list[float]]:
    """Return (masked text, numbers): the text with # in place of each number, and the list of these
    numbers.
    """
    return NUMBER.sub("#", text), [float(x) for x in NUMBER.findall(text)]


def rule(subpackage: str, section: str) -> Rule:
    """Return the Rule of a section if there is one, and otherwise that of its subpackage."""
    fit = [name for name in RULES if name == subpackage or name.startswith(f"{subpackage}: ")]
    return RULES[[name for name in fit if name[len(subpackage) + 2 :] in section][-1]]


def plain(x: Any, digits: int = 17) -> Any:
    """Return nested results as JSON types: numbers are rounded to `digits` significant digits, and
    non-finite numbers become strings.
    """
    if isinstance(x, dict):
        return {key: plain(y, digits) for key, y in x.items()}
    if isinstance(x, (list, tuple)):
        return [plain(y, digits) for y in x]
    if x is None or isinstance(x, str):
        return x
    x = float(x)
    return float(f"{x:.{digits}g}") if np.isfinite(x) else str(x)


def same(x: Any, other: Any, held: Rule, margin: float = 1.0) -> bool:
    """Return True if two strings are equal or two numbers agree within `margin` times the
    tolerances of the rule.
    """
    if isinstance(x, str) or isinstance(other, str):
        return bool(x == other)
    if max(abs(x), abs(other)) <= held.rounding:
        return bool(abs(x) <= ORDER * abs(other) and abs(other) <= ORDER * abs(x)) or x * other == 0
    return bool(abs(x - other) <= margin * (held.relative * abs(x) + held.absolute))


def agrees_with_golden(known: Any, found: Any, held: Rule) -> bool:
    """Return True if a nested result agrees with the golden one, in which null agrees with
    everything and a list that begins with null agrees with every list.
    """
    if known is None:
        return True
    if isinstance(known, dict):
        return list(known) == list(found) and all(
            agrees_with_golden(x, found[key], held) for key, x in known.items()
        )
    if not isinstance(known, list):
        return same(known, found, held)
    if known and known[0] is None:  # the sentence differs between processors, and so do its numbers
        return True
    return len(known) == len(found) and all(
        agrees_with_golden(x, y, held) for x, y in zip(known, found)
    )


def common_parts(every: list[Any], held: Rule) -> Any:
    """Return the parts on which all results agree: the common keys of dictionaries, the entries of
    lists of equal length, and null elsewhere.
    """
    first = every[0]
    if isinstance(first, dict):
        common = [key for key in first if all(key in x for x in every)]
        return {key: common_parts([x[key] for x in every], held) for key in common}
    if isinstance(first, list) and all(isinstance(x, list) for x in every):
        if all(len(x) == len(first) for x in every):
            return [common_parts(list(x), held) for x in zip(*every)]
        return [None]
    if any(x is None for x in every):
        return None
    return first if all(same(first, x, held, MARGIN) for x in every) else None


def golden_path(subpackage: str) -> Path:
    """Return the path of the golden file of a subpackage."""
    return Path(__file__).parent.joinpath(*subpackage.split("."), "golden.json")


def known(subpackage: str) -> Any:
    """Return the golden results of a subpackage as a dict by section."""
    return json.loads(golden_path(subpackage).read_text())


def section_results(maker: Any, section: str, table: str = "reference") -> Any:
    """Return the results of one section of a module ``golden.py``, computed with one kernel
    table.
    """
    with use_kernel_table(table), np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return plain(maker.golden(section))


def changed(maker: Any, section: str) -> list[Any]:
    """Return a list of (name, computed, golden) for the results of a section that differ. If the
    names of the results differ, return the two lists of names.
    """
    subpackage = maker.__name__.removeprefix("tests.").removesuffix(".golden")
    held, found = known(subpackage)[section], section_results(maker, section)
    for name in getattr(maker, "UNAVAILABLE", ()):  # results that need another machine
        held.pop(name, None)
    if list(found) != list(held):
        return [list(found), list(held)]
    how = rule(subpackage, section)
    return [
        (x, now, held[x]) for x, now in found.items() if not agrees_with_golden(held[x], now, how)
    ]


def compute_golden(subpackage: str) -> dict[str, Any]:
    """Return the golden results of a subpackage, computed again. If the rule compares every kernel
    table, only the parts on which all tables agree are included.
    """
    maker, found = importlib.import_module(f"tests.{subpackage}.golden"), {}
    for section in maker.SECTIONS:
        how = rule(subpackage, section)
        by = tables() if how.every_table else ["reference"]
        found[section] = common_parts([section_results(maker, section, table) for table in by], how)
    return found


def json_lines(held: Any) -> str:
    """Return JSON text with one line for each result, so that version control can merge changes of
    different results.
    """
    if not isinstance(held, dict) or not any(isinstance(x, (dict, list)) for x in held.values()):
        return json.dumps(held, separators=(",", ":"))
    return "{\n" + ",\n".join(f"{json.dumps(k)}:{json_lines(v)}" for k, v in held.items()) + "\n}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("subpackage", nargs="+", choices=[x for x in RULES if ":" not in x])
    parser.add_argument("--python", nargs="+", default=[], help="further interpreters")
    parser.add_argument("--keep", action="store_true", help="include the stored results")
    parser.add_argument("--as-is", action="store_true", help="emulate no other processors")
    parser.add_argument("--ask", action="store_true", help="print the results of this process")
    args = parser.parse_args()
    if args.ask:
        print(json.dumps(compute_golden(args.subpackage[0])))
        return
    for subpackage in args.subpackage:
        every = [known(subpackage)] if args.keep else []
        for python in (sys.executable, *args.python):
            for played in EMULATED_PROCESSORS[:1] if args.as_is else EMULATED_PROCESSORS:
                ask = [python, "-m", "tests.golden", subpackage, "--ask"]
                told = subprocess.run(ask, env={**os.environ, **played}, stdout=subprocess.PIPE)
                if told.returncode == 0:
                    every.append(json.loads(told.stdout))
                else:
                    print(f"{subpackage}: failed: {python} {played}", file=sys.stderr)
        found = {}
        for section in every[0]:
            how = rule(subpackage, section)
            digits = 3 - int(np.floor(np.log10(how.relative or 1e-14)))
            found[section] = plain(common_parts([x[section] for x in every], how), digits)
        held = json_lines(found)
        golden_path(subpackage).write_text(held + "\n")
        print(
            f"{subpackage}: {len(every)} agree; {held.count('null')} places of {held.count(',')} "
            "open"
        )


if __name__ == "__main__":
    main()
