"""The parser of the shell command: its subcommands, their arguments, and the functions they run."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

from ...common.errors import escape_unprintable
from ...common.progress import is_stream_terminal
from ...common.runtime import VERSION
from ...structure.tables import ACTIVATIONS, LOSSES, check_loss
from .output import CommandOutput, check_inputs_kept, write_stream

# Importing the modules above takes as long as NumPy and SciPy. The commands are imported on use.

DTYPE_NAMES = ("float32", "float64")
MAX_THREADS = 1024  # maximum value of --threads
Option = tuple[tuple[str, ...], dict[str, Any]]
ACTIVATION_NAMES = ", ".join(name for name in ACTIVATIONS)
_EPILOG = (
    "exit status: 0 for success; 1 if a method did not converge, or if --require-certified was "
    "given and the verdict is not proved; 2 for a mistake in the input, found before any work; 3 "
    "if a file or standard output could not be written, or memory or workers were lost; standard "
    "error then states what is saved"
)


class CommandParser(argparse.ArgumentParser):
    """An argument parser that reports any mistake in the arguments in one line on standard
    error.
    """

    def error(self, message: str) -> NoReturn:
        said = escape_unprintable(message).rstrip(".")
        self.exit(2, f"{self.prog}: {said}. See {self.prog} --help.\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write with `write_stream`. Argparse prints help and version through this method."""
        name = "stderr" if file is sys.stderr else "stdout"
        lost = write_stream(name, message or "")
        if lost and name == "stdout":
            write_stream("stderr", f"{self.prog}: standard output could not be written: {lost}\n")
            raise SystemExit(3)


def pack_argument(*names: str, **words: Any) -> Option:
    """Return the positional and keyword arguments of a later ``add_argument`` call as a pair."""
    return names, words


def _number_type(kind: type, low: float, high: float = math.inf) -> Callable[[str], Any]:
    """Return an argparse ``type`` function that parses finite numbers of the type `kind`, int or
    float, from `low` to `high`.
    """

    def parse_number(text: str) -> Any:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high or number == math.inf:
            upto = f"from {low:g} to {high:g}" if high <= MAX_THREADS else f"of at least {low:g}"
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {what} {upto}, got {text}.")
        return number

    return parse_number


_whole, _real = partial(_number_type, int, high=2**31 - 1), partial(_number_type, float)


def _parse_positive(text: str) -> float:
    """Parse a finite number above 0."""
    with suppress(argparse.ArgumentTypeError):
        number = float(_real(0)(text))
        if number > 0:
            return number
    raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}.")


def _parse_fraction(text: str) -> float:
    """Parse a number between 0 and 1."""
    number = _parse_positive(text)
    if number >= 1:
        raise argparse.ArgumentTypeError(f"must be a number between 0 and 1, got {text}.")
    return number


def _parse_widths(text: str) -> tuple[int, ...]:
    """Parse ``64,32`` or ``64-32`` as a tuple of positive integers, and ``none`` as an
    empty tuple.
    """
    if text == "none":
        return ()
    try:
        widths = tuple(int(part) for part in text.replace("-", ",").split(",") if part)
    except ValueError:
        widths = ()
    if not widths or min(widths) < 1 or max(widths) > 1 << 24:
        raise argparse.ArgumentTypeError(f"must be widths like 32,16, got {text!r}.")
    return widths


def _parse_loss(text: str) -> str:
    try:
        check_loss(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a valid loss: {error}") from None
    return text


def _parse_switch(text: str) -> bool:
    """Parse ``yes`` or ``no``."""
    if text not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"must be yes or no, got {text!r}.")
    return text == "yes"


def _parse_mark(text: str) -> str:
    """Parse a decimal mark, ``point`` or ``comma``, also written as such."""
    marks = {"point": ".", ".": ".", "comma": ",", ",": ","}
    if text not in marks:
        raise argparse.ArgumentTypeError(f"must be point or comma, got {text!r}.")
    return marks[text]


def _parse_alpha(text: str) -> Any:
    """Parse a weight decay: ``auto``, ``evidence`` or a number of at least 0."""
    return text if text in ("auto", "evidence") else _real(0)(text)


THREADS_OPTION = pack_argument(
    "--threads",
    type=_whole(1, high=MAX_THREADS),
    default=None,
    help="number of threads (default: all processors available)",
)
HIDDEN_ACTIVATION_HELP = f"activation of the hidden layers: {ACTIVATION_NAMES}"
ACTIVATION_OPTION = pack_argument(
    "--activation", default="tanh", help=f"{HIDDEN_ACTIVATION_HELP} (default %(default)s)"
)
JSON_OPTION = pack_argument(
    "--json", action="store_true", help="print one JSON object and nothing else"
)
COMMON_OPTIONS = [
    pack_argument(
        "--seed", type=_whole(0), default=0, help="seed of all random choices (default %(default)s)"
    ),
    THREADS_OPTION,
    pack_argument(
        "--quiet", action="store_true", help="show no progress bars (never shown in a pipe)"
    ),
]
READING_OPTIONS = [
    pack_argument("--sheet", default=None, help="the sheet of a workbook"),
    pack_argument(
        "--sep", default=None, help="what separates cells, or 'tab' (default: a comma, in .tsv tab)"
    ),
    pack_argument(
        "--header",
        type=_parse_switch,
        default=None,
        metavar="yes|no",
        help="whether the first line has the names of the columns (default yes)",
    ),
    pack_argument(
        "--decimal",
        type=_parse_mark,
        default=None,
        metavar="point|comma",
        help="the decimal mark (default point)",
    ),
    *(
        pack_argument(f"--{name}", action="append", default=None, metavar=metavar, help=words)
        for name, metavar, words in (
            ("na", "VALUE", "cells with this content are empty, as --na NA; may be repeated"),
            ("dates", "COLUMN", "dates in another form than 2024-12-31, read as pandas reads them"),
            ("words", "COLUMN", "words, also if they look like numbers"),
            ("ignore", "COLUMN", "leave the column out"),
            ("keep", "COLUMN", "keep a column that is mostly empty or numbers the rows"),
        )
    ),
    pack_argument(
        "--limit",
        type=_parse_positive,
        default=None,
        metavar="FACTOR",
        help="raise the limits of a table, 512 MiB of memory and 10 s, by this factor",
    ),
]
DATA_OPTIONS = [
    pack_argument(
        "--loss",
        type=_parse_loss,
        default=None,
        metavar="LOSS",
        help=f"{', '.join(LOSSES)}; with parameters 'quantile(0.9, 0.05)', 'pseudo_huber(1)' "
        "(default: cross entropy for classes, mse otherwise)",
    ),
    pack_argument(
        "--target",
        default=None,
        help="column of the table that holds y, by name or index from 0 (default: last)",
    ),
    *READING_OPTIONS,
]
# Key: the name of a command. Its function has the same name in `commands`.
COMMANDS: dict[str, dict[str, Any]] = {
    "demo": {
        "help": "train on real data, show the spectrum and the verdict, and escape from a saddle",
        "description": "Train a 64-32-16-10 network on scikit-learn's digits to a critical point, "
        "and show its spectrum at three stages, the verdict at the end, and an escape from a "
        "saddle. This takes less than a minute.",
        "options": [
            pack_argument(
                "--out",
                default="fastcurv-demo.html",
                help="the report to write, .html (default %(default)s)",
            ),
            pack_argument(
                "--figure",
                help="also write a figure of the spectra and the escape to this file (.png, .svg)",
            ),
            pack_argument(
                "--quick",
                action="store_true",
                help="use a smaller network and fewer samples, in seconds",
            ),
            *COMMON_OPTIONS,
        ],
    },
    "predict": {
        "help": "write the predictions of a trained network for new rows, as CSV",
        "description": "One line per row, in the units and labels of the training table. Columns "
        "are found by name if the table has names.",
        "options": [
            pack_argument("network", help="a network that 'fastcurv report' saved"),
            pack_argument("table", help="a table of new rows"),
            *READING_OPTIONS,
            pack_argument(
                "--probabilities",
                action="store_true",
                help="also write the probability of each class",
            ),
            pack_argument(
                "--interval",
                type=_parse_fraction,
                metavar="LEVEL",
                help="also write bounds between which this fraction of new targets lies, such as "
                "0.9, from the errors of rows left out",
            ),
            pack_argument(
                "--domain",
                action="store_true",
                help="also write 0 for each row that is an extrapolation, and why; needs --data",
            ),
            pack_argument(
                "--data",
                default=None,
                metavar="TABLE",
                help="the training table, for --domain",
            ),
            pack_argument("--out", help="file to write, .csv (default: standard output)"),
        ],
    },
    "check": {
        "help": "check a certificate that fastcurv.save_certificate wrote",
        "description": "The check uses no other part of this package: it runs "
        "check_certificate.py, which also runs alone. The exit status is 0 if the claim is "
        "confirmed, 1 if it is not confirmed, and 2 if the file is not understood.",
        "options": [pack_argument("certificate", help="the certificate, .json")],
    },
    "report": {
        "help": "write one HTML page on a network trained on a table and how far to trust it",
        "description": "A tanh network is trained on the table, and the page shows how well it "
        "predicts left-out rows, how uncertain its predictions are, and which rows matter most. "
        "Example: fastcurv report plants.csv --target height --out r.html --save "
        "net.safetensors; then fastcurv predict net.safetensors new.csv.",
        "options": [
            pack_argument("table", help="a table: .csv, .tsv (also .gz), .xlsx or .parquet"),
            *DATA_OPTIONS,
            pack_argument(
                "--hidden",
                type=_parse_widths,
                default=None,
                help="widths of the hidden layers, or 'none' (default 10)",
            ),
            pack_argument(
                "--alpha",
                type=_parse_alpha,
                default=None,
                help="weight decay as in scikit-learn, auto or evidence (default: evidence, for "
                "large tables and networks auto)",
            ),
            pack_argument(
                "--save",
                default=None,
                metavar="FILE",
                help="file of the network for 'fastcurv predict', .safetensors (default: next to "
                "the page)",
            ),
            pack_argument(
                "--network",
                dest="keep_network",
                action="store_true",
                default=None,
                help="keep the network where a linear model predicts better",
            ),
            pack_argument(
                "--groups",
                default=None,
                metavar="COLUMN",
                help="leave out rows with the same cell in this column together",
            ),
            pack_argument(
                "--require-certified",
                dest="certified",
                action="store_true",
                help="exit with status 1 unless the verdict is proved",
            ),
            pack_argument(
                "--out",
                default="fastcurv-report.html",
                help="file to write, .html (default %(default)s)",
            ),
            *COMMON_OPTIONS,
        ],
    },
    "bench": {
        "help": "time gradients and products on this machine",
        "description": "This times fastcurv alone. 'make bench' in a checkout compares with torch "
        "and JAX.",
        "options": [
            pack_argument(
                "--sizes",
                type=_parse_widths,
                default=(784, 512, 512, 10),
                help="widths of all layers (default 784,512,512,10)",
            ),
            pack_argument(
                "--samples",
                type=_whole(1),
                default=1024,
                help="number of samples (default %(default)s)",
            ),
            ACTIVATION_OPTION,
            pack_argument(
                "--dtype",
                choices=DTYPE_NAMES,
                nargs="+",
                default=DTYPE_NAMES,
                help="one or both (default both)",
            ),
            THREADS_OPTION,
        ],
    },
    "info": {
        "help": "print versions, the kernels chosen for this processor, and the number of threads",
        "options": [],
    },
}


def build_parser() -> argparse.ArgumentParser:
    """Build the parser for ``fastcurv`` and ``python -m fastcurv``."""
    parser = CommandParser(
        prog="fastcurv",
        description="Exact curvature of multilayer perceptrons: spectra, verdicts, and escapes "
        "from saddles.",
        epilog="'fastcurv COMMAND --help' explains a command. Start with: fastcurv demo. "
        f"{_EPILOG}.",
    )
    version = pack_argument("--version", action="version", version=f"fastcurv {VERSION}")
    parser.add_argument(*version[0], **version[1])
    group = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, entry in COMMANDS.items():
        words = {key: text for key, text in entry.items() if key != "options"}
        command = group.add_parser(name, epilog=_EPILOG, **words)
        for names, settings in (JSON_OPTION, version, *entry["options"]):
            command.add_argument(*names, **settings)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command and return the exit status: 0 or 1 as the command returns it, 2 for a mistake
    in the input, 3 if results could not be computed or written, and 130 after Ctrl-C.

    Errors are reported in one line on standard error.
    """
    args = build_parser().parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    args.progress = not getattr(args, "quiet", True) and is_stream_terminal("stderr")
    out = CommandOutput(args.json)
    status, words = 0, ""
    try:
        inputs = (getattr(args, name, None) for name in ("table", "network", "data"))
        check_inputs_kept(args, *inputs)
        # An error in the arguments is reported before the commands and their libraries are loaded.
        from . import commands

        run = getattr(commands, args.command)
        status = int(run(args, out) or 0)
        out.close()
    except (ValueError, TypeError, ImportError, OSError, MemoryError, OverflowError) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        status = 3 if out.working and isinstance(error, (OSError, MemoryError)) else 2
        # The facts computed so far are printed together with the error.
        if status == 3 and out.facts:
            out.add_facts(error=words)
            out.close()
    except KeyboardInterrupt:
        status, words = 130, "interrupted"
    if out.lost and not words:
        status, words = 3, f"standard output could not be written: {out.lost}"
    write_stream("stderr")  # This flushes the output of progress bars.
    if words:
        saved = out.facts.get("out") or out.facts.get("report")
        words += f"; saved {saved}" if saved else ""
        write_stream("stderr", escape_unprintable(f"fastcurv {args.command}: {words}") + "\n")
    return status
