"""The parser of the shell command: its subcommands, their arguments, and the functions they run."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, get_args

from ...common.errors import closest_name, escape_unprintable
from ...common.progress import is_stream_terminal
from ...common.protocols import Descent
from ...common.runtime import VERSION
from ...structure.tables import ACTIVATIONS, LOSSES, check_loss
from .data import DATA_SOURCES
from .output import DEFAULT_OUTPUT_FILE, CommandOutput, check_inputs_kept, write_stream

# Importing the modules above takes as long as NumPy and SciPy. The commands are imported on use.

DTYPE_NAMES = ("float32", "float64")
MAX_THREADS = 1024  # maximum value of --threads
Option = tuple[tuple[str, ...], dict[str, Any]]
MODEL_FILES_HELP = (
    "a file of 'fastcurv train' or fc.save, a .onnx model, or a state dict (.pt, .safetensors)"
)
PLOT_DENSE_MAX_N = 1000  # copy of the constant in plots/spectrum.py, which is slow to import
ACTIVATION_NAMES = ", ".join(name for name in ACTIVATIONS)
METHOD_NAMES = ", ".join(name for part in get_args(Descent) for name in get_args(part) or (part,))
_EPILOG = (
    "exit status: 0 for success; 1 if a method did not converge, or if --require-certified was "
    "given and the verdict is not proved; 2 for a mistake in the input, found before any work; 3 "
    "if a file or standard output could not be written, or memory or workers were lost; standard "
    "error then states what is saved"
)
# patterns of argparse's messages, and replacements in the form of the other messages
REPHRASED_MESSAGES = (
    (r"^argument (-[^:/]*(?:/-[^:]*)?|\w+): ", r"\1 "),
    (r"^(\S+) expected (one|at least one) argument$", r"\1 must have a value, got none."),
    (r"^(\S+) invalid choice: ('.*?') \(choose from (.*)\)$", r"\1 must be one of \3, got \2."),
    (r"^(\S+) ignored explicit argument (.*)$", r"\1 must have no value, got \2."),
    (r"^the following arguments are required: (.*)$", r"\1 must be given."),
    (r"^ambiguous option: (.*) could match (.*)$", r"\1 must be one of \2, got an abbreviation."),
)


class CommandParser(argparse.ArgumentParser):
    """An argument parser that reports any mistake in the arguments in one line on standard
    error.
    """

    def error(self, message: str) -> NoReturn:
        for pattern, replacement in REPHRASED_MESSAGES:
            message = re.sub(pattern, replacement, message)
        if given := re.match(r"(\S+) must be one of (.*), got '(.*)'\.$", message):
            choices = re.findall(r"[\w-]+", given[2])
            name = given[1].replace("COMMAND", "the command")
            message = f"{name} must be one of {', '.join(choices)}, got {given[3]!r}."
            message += closest_suggestion(given[3], choices)
        elif message.startswith("COMMAND must be given"):
            message = f"the command must be given. Begin with '{self.prog} demo', or see --help."
        self.exit(2, f"{self.prog}: {escape_unprintable(message)}\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write with `write_stream`. Argparse prints help and version through this method."""
        name = "stderr" if file is sys.stderr else "stdout"
        lost = write_stream(name, message or "")
        if lost and name == "stdout":
            write_stream("stderr", f"{self.prog}: standard output could not be written: {lost}\n")
            raise SystemExit(3)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse like argparse, but report an unknown argument as an error of its subcommand, with
        the option that may have been meant.
        """
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            group = next(a for a in self._actions if isinstance(a, argparse._SubParsersAction))
            command = group.choices[found.command]
            options = [name for a in command._actions for name in a.option_strings]
            unknown = next((word for word in rest if word.startswith("-")), rest[0])
            hint = (
                closest_suggestion(unknown.split("=")[0], options) or f" See {command.prog} --help."
            )
            if re.fullmatch(r"\d+", unknown) and "--hidden" in options:
                hint = " Join widths by commas, --hidden 32,16."
            command.error(f"unknown argument {unknown}.{hint}")
        return found


def closest_suggestion(word: str, words: list[str]) -> str:
    """Return the end of a message that suggests the one of `words` closest to `word`, or "" if none
    is close.
    """
    near = closest_name(word, words)
    return f" Did you mean {near}?" if near else ""


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


def _parse_address(text: str) -> str:
    """Return the address of a scheduler, or "local". Raise an argparse error if the text is
    blank.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(
            f"must be 'local' or the address of a scheduler, got {text!r}."
        )
    return text


THREADS_OPTION = pack_argument(
    "--threads",
    type=_whole(1, high=MAX_THREADS),
    default=None,
    help="number of threads (default: all processors available)",
)
DASK_OPTION = pack_argument(
    "--dask",
    metavar="ADDRESS",
    type=_parse_address,
    default=None,
    help="address of a Dask scheduler whose workers hold the rows and read the data from the same "
    "path; 'local' starts workers on this machine",
)
HIDDEN_ACTIVATION_HELP = f"activation of the hidden layers: {ACTIVATION_NAMES}"
ACTIVATION_OPTION = pack_argument(
    "--activation", default="tanh", help=f"{HIDDEN_ACTIVATION_HELP} (default %(default)s)"
)
STATE_ACTIVATION_OPTION = pack_argument(
    "--activation", default=None, help=f"{HIDDEN_ACTIVATION_HELP}; only for a state dict"
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
    pack_argument("--sheet", default=None, help="for a table: the sheet of a workbook"),
    pack_argument(
        "--header",
        choices=("yes", "no"),
        default=None,
        help="for a table: whether the first line has names (default: as the cells show)",
    ),
    pack_argument(
        "--decimal",
        choices=("point", "comma"),
        default=None,
        help="for a table: the decimal mark (default: as the numbers show)",
    ),
    *(
        pack_argument(
            f"--{name}",
            action="append",
            default=None,
            metavar=metavar,
            help=f"for a table: {words}",
        )
        for name, metavar, words in (
            ("words", "COLUMN", "read a column as words; can be repeated, as can the next four"),
            ("ignore", "COLUMN", "leave out a column"),
            ("keep", "COLUMN", "use a column that looks like an identifier"),
            ("na", "VALUE", "cells with this content have no value; write --na=-1 for -1"),
            ("dates", "FORMAT", "read dates of a form such as %%d.%%m.%%Y"),
        )
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
        help="column of a table that holds y, by name or index from 0 (default: last)",
    ),
    *READING_OPTIONS,
]
SAVED_NETWORK_OPTIONS = [
    pack_argument("theta", metavar="model", help=MODEL_FILES_HELP),
    pack_argument(
        "--data",
        default=None,
        help=f"{DATA_SOURCES}; not needed for a file written by 'fastcurv train', which names its "
        "data; not scaled for a model from another program",
    ),
    *DATA_OPTIONS,
    STATE_ACTIVATION_OPTION,
    pack_argument(
        "--dtype",
        choices=DTYPE_NAMES,
        default=None,
        help="precision, if other than that of the model",
    ),
    pack_argument(
        "--l2", type=_real(0), default=None, help="weight decay, if other than that in the file"
    ),
]
DENSITY_OPTIONS = [
    pack_argument(
        "--probes",
        type=_whole(1),
        default=10,
        help="number of random vectors (default %(default)s)",
    ),
    pack_argument(
        "--steps", type=_whole(1), default=80, help="Lanczos steps per vector (default %(default)s)"
    ),
]
VERDICT_OPTIONS = [
    pack_argument(
        "--gradient-tol",
        type=_real(0),
        default=None,
        help="maximum gradient norm of a critical point",
    ),
    pack_argument(
        "--failure-probability",
        type=_real(0, 1),
        default=None,
        help="accept a minimum with this risk of error if no proof is possible",
    ),
    pack_argument(
        "--max-products", type=_whole(1), default=None, help="maximum number of Hessian products"
    ),
    pack_argument(
        "--require-certified",
        dest="certified",
        action="store_true",
        help="exit with status 1 unless the verdict is proved",
    ),
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
    "train": {
        "help": "train a network to a critical point and save it",
        "description": "A first method trains on mini-batches. Then a second-order method "
        "continues until the gradient vanishes.",
        "options": [
            pack_argument("data", nargs="?", help=f"{DATA_SOURCES}; may be left out with --from"),
            pack_argument(
                "--from",
                dest="start",
                metavar="MODEL",
                help=f"continue from a trained network: {MODEL_FILES_HELP}; the data are not "
                "scaled for a network from another program",
            ),
            pack_argument(
                "--hidden",
                type=_parse_widths,
                help="widths of the hidden layers, or 'none' (default 32,16)",
            ),
            pack_argument("--activation", help=f"{HIDDEN_ACTIVATION_HELP} (default tanh)"),
            pack_argument(
                "--residual", action="store_true", help="skip connections between equal widths"
            ),
            pack_argument(
                "--batch-norm", action="store_true", help="batch normalisation of the hidden layers"
            ),
            *DATA_OPTIONS,
            pack_argument(
                "--no-standardize",
                dest="raw",
                action="store_true",
                default=False,
                help="do not standardise features",
            ),
            pack_argument(
                "--held-out",
                type=_real(0, 0.9),
                help="fraction of the samples held out for the score (default 0.2)",
            ),
            pack_argument("--l2", type=_real(0), help="weight decay (default 0.001)"),
            pack_argument(
                "--method",
                default="adam",
                help=f"first method (default %(default)s): {METHOD_NAMES}",
            ),
            pack_argument(
                "--epochs",
                type=_whole(0),
                default=30,
                help="number of epochs of the first method (default %(default)s)",
            ),
            pack_argument(
                "--batch-size",
                type=_whole(1),
                default=64,
                help="samples per batch (default %(default)s)",
            ),
            pack_argument(
                "--learning-rate",
                type=_parse_positive,
                help="learning rate of the first method (default: that of the method)",
            ),
            pack_argument(
                "--refine",
                default="newton-cg",
                help="second method, one of those of --method, or 'none' (default %(default)s)",
            ),
            pack_argument(
                "--max-steps",
                type=_whole(1),
                default=200,
                help="maximum number of steps of the second method (default %(default)s)",
            ),
            pack_argument(
                "--max-time", type=_parse_positive, default=None, help="seconds for each method"
            ),
            pack_argument("--dtype", choices=DTYPE_NAMES, help="precision (default float64)"),
            pack_argument(
                "--out",
                help="file to write, .npz or .safetensors; an existing file is replaced (default "
                f"{DEFAULT_OUTPUT_FILE}, or theta-2.safetensors and so on if that exists)",
            ),
            DASK_OPTION,
            *COMMON_OPTIONS,
        ],
    },
    "predict": {
        "help": "write the predictions of a trained network for new samples, as CSV",
        "description": "One line per sample, in the units and labels of the training data. For a "
        "network from another program, the outputs are not converted. Columns are found by name "
        "if the data have names.",
        "options": [
            pack_argument("theta", metavar="model", help=MODEL_FILES_HELP),
            pack_argument(
                "samples",
                metavar="data",
                help="a table, a .npz file with an array X, or a data set",
            ),
            STATE_ACTIVATION_OPTION,
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
                "0.9 (jackknife+); reads the training data again",
            ),
            pack_argument(
                "--domain",
                action="store_true",
                help="also write 0 for each sample that is an extrapolation, and why; reads the "
                "training data again",
            ),
            pack_argument(
                "--data",
                default=None,
                help="training data for --interval and --domain (default: the path stored by "
                "'fastcurv train')",
            ),
            pack_argument("--out", help="file to write, .csv (default: standard output)"),
        ],
    },
    "spectrum": {
        "help": "compute the extreme eigenvalues and the spectral density of a trained network",
        "description": f"Up to {PLOT_DENSE_MAX_N} parameters the eigenvalues come from the whole "
        "matrix. Above, they come from products alone, and the output states which copies of "
        "multiple eigenvalues may be missing.",
        "options": [
            *SAVED_NETWORK_OPTIONS,
            pack_argument(
                "-k",
                type=_whole(1),
                default=5,
                help="eigenvalues at each end (default %(default)s)",
            ),
            *DENSITY_OPTIONS,
            pack_argument(
                "--figure", help="write a figure of the density to this file (.png, .svg, .pdf)"
            ),
            DASK_OPTION,
            *COMMON_OPTIONS,
        ],
    },
    "classify": {
        "help": "classify the point where training stopped, with evidence",
        "options": [
            *SAVED_NETWORK_OPTIONS,
            *VERDICT_OPTIONS,
            pack_argument(
                "--certificate",
                metavar="FILE",
                help="also write the proof to this file, .json, for 'fastcurv check'; exit with "
                "status 1 if there is none that can be checked",
            ),
            pack_argument(
                "--max-time", type=_parse_positive, default=None, help="seconds for the verdict"
            ),
            DASK_OPTION,
            *COMMON_OPTIONS,
        ],
    },
    "check": {
        "help": "check a certificate that 'fastcurv classify --certificate' wrote",
        "description": "The check uses no other part of this package: it runs "
        "check_certificate.py, which also runs alone. The exit status is 0 if the claim is "
        "confirmed, 1 if it is not confirmed, and 2 if the file is not understood.",
        "options": [
            pack_argument("certificate", help="the certificate, .json"),
            pack_argument(
                "--data",
                default=None,
                help="the file of rows, .json, if the certificate holds only its SHA-256",
            ),
        ],
    },
    "diagnose": {
        "help": "find out why training fails, and what helps",
        "description": "Prints the causes in the order in which to correct them, each with the "
        "command that helps. The cost is a verdict, a few gradients and regressions.",
        "options": [
            *SAVED_NETWORK_OPTIONS,
            pack_argument(
                "--compare",
                action="store_true",
                help="also train a linear, a shallower and a wider network",
            ),
            pack_argument(
                "--max-time", type=_parse_positive, default=None, help="maximum time in seconds"
            ),
            pack_argument(
                "--figure", help="write a figure of the layers to this file (.png, .svg, .pdf)"
            ),
            *COMMON_OPTIONS,
        ],
    },
    "report": {
        "help": "write one HTML page, on a network trained on a table and how far to trust it, or "
        "on a saved network, its verdict and its spectrum",
        "description": "A name that ends in .csv, .tsv, .csv.gz, .xlsx, .ods, .parquet, .feather, "
        ".dta or .sav is a table. A tanh network is "
        "trained on the table, and the page shows how well it predicts left-out rows, how "
        "uncertain its predictions are, and which rows matter most. Every other name is a saved "
        "network, and the page shows its training, verdict, spectrum and cost. Example: "
        "fastcurv report plants.csv --target height --out r.html --save "
        "net.safetensors; then fastcurv predict net.safetensors new.csv.",
        "options": [
            pack_argument(
                "theta", metavar="table or model", help=f"a table, or {MODEL_FILES_HELP}"
            ),
            *SAVED_NETWORK_OPTIONS[1:],
            pack_argument(
                "--hidden",
                type=_parse_widths,
                default=None,
                help="for a table: widths of the hidden layers, or 'none' (default 10)",
            ),
            pack_argument(
                "--alpha",
                type=_real(0),
                default=None,
                help="for a table: weight decay as in scikit-learn (default: the one with the "
                "largest evidence)",
            ),
            pack_argument(
                "--save",
                default=None,
                metavar="FILE",
                help="for a table: file of the network for 'fastcurv predict', .safetensors or "
                ".npz (default: next to the page)",
            ),
            pack_argument(
                "--network",
                action="store_true",
                default=None,
                help="for a table: keep the network where a linear model predicts better",
            ),
            pack_argument(
                "--groups",
                default=None,
                metavar="COLUMN",
                help="for a table: leave out rows with the same cell in this column together",
            ),
            *VERDICT_OPTIONS,
            pack_argument(
                "--max-time",
                type=_parse_positive,
                default=None,
                help="seconds for the verdict or, for a table, for the training",
            ),
            *DENSITY_OPTIONS,
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
        epilog=f"'fastcurv help COMMAND' explains a command. Start with: fastcurv demo. {_EPILOG}.",
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


def _replace_help_words(words: list[str]) -> list[str]:
    """Return the arguments with the words ``help`` and ``version`` replaced by the corresponding
    options.
    """
    if words[:1] == ["help"]:
        return [*words[1:2], "--help"]
    return ["--version"] if words == ["version"] else words


def main(argv: list[str] | None = None) -> int:
    """Run the command and return the exit status: 0 or 1 as the command returns it, 2 for a mistake
    in the input, 3 if results could not be computed or written, and 130 after Ctrl-C.

    Errors are reported in one line on standard error.
    """
    args = build_parser().parse_args(_replace_help_words(sys.argv[1:] if argv is None else argv))
    args.argv = sys.argv[1:] if argv is None else argv
    args.progress = not getattr(args, "quiet", True) and is_stream_terminal("stderr")
    out = CommandOutput(args.json)
    status, words = 0, ""
    try:
        inputs = (getattr(args, name, None) for name in ("theta", "data", "samples", "start"))
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
