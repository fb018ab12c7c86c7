"""The command line that the benchmarks share: help that describes the measurement, numbers as JSON,
the project's bounds on demand, and progress lines during long steps.
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
MAX_SILENT_SECONDS = 30.0  # time without a progress line

_step = {"name": "", "reported": 0.0}  # the current step, and when it was last reported


def parser(doc, *, bounds=False):
    """Return the argument parser of a script whose docstring is ``doc``, with ``--json`` and, if
    ``bounds``, with ``--bounds``.
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
            help="also print which of the project's own bounds this run met: they are for its "
            "maintainers, on a machine without other work",
        )
    return made


def add_names_option(parser, flag, names, default=None):
    """Add an option that takes one or more of some names; by default all."""
    chosen = list(default or names)
    shown = "all of them" if len(chosen) == len(names) else " ".join(chosen)
    parser.add_argument(
        flag,
        nargs="+",
        choices=list(names),
        default=chosen,
        metavar="NAME",
        help=f"some of: {', '.join(names)} (default {shown})",
    )


@contextlib.contextmanager
def run(args):
    """Yield a dict for the numbers, which are written at the end if ``--json`` is given. Meanwhile,
    print a line that names the current step every `MAX_SILENT_SECONDS`.
    """
    numbers, done = {}, threading.Event()
    threading.Thread(target=_report_progress, args=(done, time.monotonic()), daemon=True).start()
    aside = contextlib.redirect_stdout(sys.stderr) if args.json == "-" else contextlib.nullcontext()
    try:
        with aside:
            yield numbers
    finally:
        done.set()
    if args.json:
        text = json.dumps(numbers, indent=1, default=_to_list)
        if args.json == "-":
            print(text)
        else:
            Path(args.json).write_text(text + "\n")


def begin_step(name):
    """Set the name of the step that is measured now, which progress lines print."""
    _step.update(name=name, reported=time.monotonic())


def print_bound(is_met, sentence):
    """Print one of the bounds, and whether this run met it."""
    print(f"  {'met   ' if is_met else 'MISSED'}  {sentence}")


def cpu_name():
    """Return the model name of the processor, as the operating system reports it."""
    with contextlib.suppress(OSError, StopIteration), Path("/proc/cpuinfo").open() as file:
        return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    if sys.platform == "darwin":
        return subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True
        ).stdout.strip()
    return platform.processor() or "unknown"


def _report_progress(done, began):
    """Print the current step every `MAX_SILENT_SECONDS` until ``done`` is set."""
    _step["reported"] = began
    while not done.wait(1.0):
        now = time.monotonic()
        if now - _step["reported"] >= MAX_SILENT_SECONDS:
            _step["reported"] = now
            print(
                f"  {now - began:.0f} s: {_step['name'] or 'preparing'}",
                file=sys.stderr,
                flush=True,
            )


def _to_list(x):
    """Return a NumPy number or array, which JSON does not support, as Python numbers."""
    return x.tolist()
