"""What the benchmarks share at the shell: help that says what is measured, numbers for programs,
the project's bounds on demand, and a sign of life where a minute passes in silence.
"""

import argparse
import contextlib
import json
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

SUPPRESS = argparse.SUPPRESS
SILENT = 30.0  # seconds after which a line says what is going on

_step = {"what": "", "told": 0.0}


def parser(doc, *, bounds=False):
    """Arguments of a script whose head is ``doc``: with ``--json``, and ``--bounds`` where the
    project holds itself to some.
    """
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write every number there as JSON; without a name to standard output, and the tables "
        "to standard error",
    )
    if bounds:
        made.add_argument(
            "--bounds",
            action="store_true",
            help="say also which of the project's own bounds this run met: they are its "
            "maintainers', for a machine without other work",
        )
    return made


def some_of(parser, flag, names, default=None):
    """An option that takes one or more of some names; by default all."""
    chosen = list(default or names)
    said = "all of them" if len(chosen) == len(names) else " ".join(chosen)
    parser.add_argument(
        flag,
        nargs="+",
        choices=list(names),
        default=chosen,
        metavar="NAME",
        help=f"some of: {', '.join(names)} (default {said})",
    )


@contextlib.contextmanager
def run(args):
    """Yield a dict for the numbers, which are written at the end as ``--json`` asks; meanwhile a
    line every half minute names the step that takes so long.
    """
    numbers, done = {}, threading.Event()
    threading.Thread(target=_tell, args=(done, time.monotonic()), daemon=True).start()
    aside = contextlib.redirect_stdout(sys.stderr) if args.json == "-" else contextlib.nullcontext()
    try:
        with aside:
            yield numbers
    finally:
        done.set()
    if args.json:
        text = json.dumps(numbers, indent=1, default=_plain)
        if args.json == "-":
            print(text)
        else:
            Path(args.json).write_text(text + "\n")


def step(what):
    """What is measured now, for the line that says so where it takes long."""
    _step.update(what=what, told=time.monotonic())


def met(held, sentence):
    """Print one of the bounds, and whether this run met it."""
    print(f"  {'met   ' if held else 'MISSED'}  {sentence}")


def cpu_name():
    """The processor, as its system calls it."""
    with contextlib.suppress(OSError, StopIteration), Path("/proc/cpuinfo").open() as file:
        return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    if sys.platform == "darwin":
        return subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True
        ).stdout.strip()
    return platform.processor() or "unknown"


def _tell(done, began):
    _step["told"] = began
    while not done.wait(1.0):
        now = time.monotonic()
        if now - _step["told"] >= SILENT:
            _step["told"] = now
            print(
                f"  {now - began:.0f} s: {_step['what'] or 'preparing'}",
                file=sys.stderr,
                flush=True,
            )


def _plain(x):
    """What JSON does not know: NumPy's numbers and arrays."""
    return x.tolist()
