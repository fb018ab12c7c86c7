"""The shell command: its arguments, and one function per subcommand to call."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import fastcurv as fc

from . import commands
from .datasets import LOSSES, WHAT
from .models import WHAT as MODELS
from .output import Output, silence

DTYPES = ("float32", "float64")
MAX_THREADS = 1024
_EPILOG = (
    "exit status: 0 done; 1 stopped short of what was asked for, or not certified where "
    "--certified asked; 2 the input is bad, found before any work"
)


class Parser(argparse.ArgumentParser):
    """One line on standard error for whatever is wrong, as the commands themselves say it."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument (-[^:/]*(?:/-[^:]*)?|\w+): (is )?", r"\1 is \2", message)
        message = re.sub(r" is is ", " is ", message)
        given = re.match(r"COMMAND is invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if given:
            commands = re.findall(r"[\w-]+", given[2])
            message = f"there is no command {given[1]!r}; wanted one of {', '.join(commands)}"
            message += near(given[1], commands)
        elif message.endswith("are required: COMMAND"):
            message = f"a command is missing; begin with '{self.prog} demo', or see --help"
        self.exit(2, f"{self.prog}: {message}\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse, but what is left over is an error of the command that was given it, with
        the option that may have been meant.
        """
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            group = next(a for a in self._actions if isinstance(a, argparse._SubParsersAction))
            command = group.choices[found.command]
            options = [name for a in command._actions for name in a.option_strings]
            unknown = next((word for word in rest if word.startswith("-")), rest[0])
            hint = near(unknown.split("=")[0], options) or f"; see {command.prog} --help"
            if re.fullmatch(r"\d+", unknown) and "--hidden" in options:
                hint = "; widths are joined by commas: --hidden 32,16"
            command.error(f"unknown argument {unknown}{hint}")
        return found


def near(word: str, words: list[str]) -> str:
    """The end of a sentence that names the nearest of some words, or nothing."""
    found = difflib.get_close_matches(word, words, 1)
    return f"; did you mean {found[0]}?" if found else ""


def build_parser() -> argparse.ArgumentParser:
    """The parser for ``fastcurv`` and ``python -m fastcurv``."""
    parser = Parser(
        prog="fastcurv",
        description="Exact curvature of multilayer perceptrons: spectra, verdicts, the way down "
        "from saddles.",
        epilog="'fastcurv COMMAND --help' explains a command. Begin with: fastcurv demo. "
        f"{_EPILOG}.",
    )
    _version(parser)
    group = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[..., Any], **words: Any) -> argparse.ArgumentParser:
        command = group.add_parser(name, epilog=_EPILOG, **words)
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", help="one JSON object, nothing else")
        _version(command)
        return command

    _demo(add)
    _train(add)
    _spectrum(add)
    _classify(add)
    _report(add)
    _bench(add)
    add(
        "info",
        commands.info,
        help="print versions, the kernels chosen for this processor, threads",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status.

    Mistakes in the input are one line on standard error.
    """
    try:
        args = build_parser().parse_args(argv)
    except BrokenPipeError:  # --help | head -1
        silence()
        return 0
    args.progress = not getattr(args, "quiet", True) and sys.stderr.isatty()
    out = Output(args.json)
    try:
        status = args.run(args, out)
        out.close()
    except (ValueError, TypeError, ImportError, OSError, MemoryError, OverflowError) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        print(f"fastcurv {args.command}: {words}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"fastcurv {args.command}: interrupted", file=sys.stderr)
        return 130
    return int(status or 0)


def _version(p: argparse.ArgumentParser) -> None:
    p.add_argument("--version", action="version", version=f"fastcurv {fc.__version__}")


def _demo(add: Any) -> None:
    p = add(
        "demo",
        commands.demo,
        help="train on real data, look at the spectrum, read the verdict, leave a saddle",
        description="Train a 64-32-16-10 net on scikit-learn's digits to a critical point, with "
        "its spectrum at three moments, the verdict at the end, and a saddle found and left. Less "
        "than a minute.",
    )
    p.add_argument(
        "--out", default="fastcurv-demo.html", help="the report to write (default %(default)s)"
    )
    p.add_argument(
        "--picture", help="also write spectra and escape as one picture there (.png, .svg)"
    )
    p.add_argument(
        "--quick", action="store_true", help="a smaller net and fewer samples, in seconds"
    )
    _common(p)


def _train(add: Any) -> None:
    p = add(
        "train",
        commands.train,
        help="train a network to a critical point and save it",
        description="Mini-batches first, then a second-order method until the gradient is gone.",
    )
    p.add_argument("data", help=WHAT)
    p.add_argument(
        "--hidden", type=_widths, default=(32, 16), help="widths of the hidden layers (32,16)"
    )
    _activation(p)
    p.add_argument("--residual", action="store_true", help="skip connections where widths agree")
    p.add_argument(
        "--batch-norm", action="store_true", help="batch normalisation of the hidden layers"
    )
    _data_options(p)
    p.add_argument("--raw", action="store_true", default=False, help="do not standardise features")
    p.add_argument(
        "--held-out",
        type=_real(0, 0.9),
        default=0.2,
        help="share of the samples kept for the score (default %(default)s)",
    )
    p.add_argument("--l2", type=_real(0), default=1e-3, help="weight decay (default %(default)s)")
    p.add_argument("--method", default="adam", help="first method (default %(default)s)")
    p.add_argument(
        "--epochs", type=_whole(0), default=30, help="of the first method (default %(default)s)"
    )
    p.add_argument("--batch-size", type=_whole(), default=64, help="(default %(default)s)")
    p.add_argument(
        "--polish", default="newton-cg", help="second method, or 'none' (default %(default)s)"
    )
    p.add_argument(
        "--max-steps", type=_whole(), default=200, help="of the second method (default %(default)s)"
    )
    p.add_argument("--max-time", type=_real(0), default=None, help="seconds for each method")
    p.add_argument("--dtype", choices=DTYPES, default="float64", help="(default %(default)s)")
    p.add_argument(
        "--out",
        default="theta.npz",
        help="file to write, .npz or .safetensors (default %(default)s)",
    )
    _dask(p)
    _common(p)


def _spectrum(add: Any) -> None:
    p = add(
        "spectrum",
        commands.spectrum,
        help="the extreme eigenvalues and the spectral density of a trained network",
    )
    _saved(p)
    p.add_argument(
        "-k", type=_whole(), default=5, help="eigenvalues at each end (default %(default)s)"
    )
    _density_options(p)
    p.add_argument("--figure", help="write the density as a picture there (.png, .svg, .pdf)")
    _dask(p)
    _common(p)


def _classify(add: Any) -> None:
    p = add(
        "classify",
        commands.classify,
        help="the verdict on where a trained network stopped, with its evidence",
    )
    _saved(p)
    _verdict_options(p)
    _dask(p)
    _common(p)


def _report(add: Any) -> None:
    p = add("report", commands.report, help="one HTML file: training, spectrum, verdict, cost")
    _saved(p)
    _verdict_options(p)
    _density_options(p)
    p.add_argument(
        "--out", default="fastcurv-report.html", help="file to write (default %(default)s)"
    )
    _common(p)


def _bench(add: Any) -> None:
    p = add(
        "bench",
        commands.bench,
        help="time gradients and products on this machine",
        description="fastcurv alone; 'make bench' in a checkout compares with torch and JAX.",
    )
    p.add_argument(
        "--sizes", type=_widths, default=(784, 512, 512, 10), help="widths (784,512,512,10)"
    )
    p.add_argument("--samples", type=_whole(), default=1024, help="(default %(default)s)")
    _activation(p)
    p.add_argument(
        "--dtype", choices=DTYPES, nargs="+", default=DTYPES, help="one or both (default both)"
    )
    _threads(p)


def _saved(p: argparse.ArgumentParser) -> None:
    p.add_argument("theta", metavar="model", help=MODELS)
    p.add_argument(
        "--data",
        default=None,
        help=f"{WHAT}; what 'fastcurv train' wrote names its own, a model of another program takes "
        "them as they stand",
    )
    _data_options(p)
    p.add_argument(
        "--activation", default=None, help="of the hidden layers, where a state dict is given"
    )
    p.add_argument("--dtype", choices=DTYPES, default=None, help="other precision than its own")
    p.add_argument("--l2", type=_real(0), default=None, help="other weight decay than recorded")


def _data_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--loss", choices=LOSSES, default=None, help="(default: the one that suits the data)"
    )
    p.add_argument("--target", default=None, help="column of a .csv that holds y (default: last)")


def _density_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--probes", type=_whole(), default=10, help="random vectors (default %(default)s)"
    )
    p.add_argument(
        "--steps", type=_whole(), default=80, help="Lanczos steps per vector (default %(default)s)"
    )


def _verdict_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--gradient-tol", type=_real(0), default=None, help="gradient norm of a critical point"
    )
    p.add_argument(
        "--curvature-tol", type=_real(0), default=1e-4, help="relative (default %(default)s)"
    )
    p.add_argument(
        "--failure-probability",
        type=_real(0, 1),
        default=None,
        help="accept a minimum with this risk where a proof is out of reach",
    )
    p.add_argument("--max-products", type=_whole(), default=None, help="budget of Hessian products")
    p.add_argument(
        "--certified", action="store_true", help="exit with status 1 unless the verdict is proved"
    )


def _common(p: argparse.ArgumentParser) -> None:
    p.add_argument("--seed", type=_whole(0), default=0, help="(default %(default)s)")
    _threads(p)
    p.add_argument("--quiet", action="store_true", help="no progress bars (a pipe never gets any)")


def _threads(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--threads",
        type=_whole(1, MAX_THREADS),
        default=None,
        help="(default: every processor it may use)",
    )


def _dask(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--dask",
        metavar="ADDRESS",
        default=None,
        help="of a scheduler whose workers hold the rows and see the data under the same path; "
        "'local' starts workers here",
    )


def _activation(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--activation", default="tanh", help="of the hidden layers (default %(default)s)"
    )


def _whole(low: int = 1, high: int = 2**31 - 1) -> Callable[[str], int]:
    """A whole number between two others, as argparse's ``type``."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            upto = f"from {low} to {high}" if high <= MAX_THREADS else f"of at least {low}"
            raise argparse.ArgumentTypeError(f"is {text}; wanted a whole number {upto}")
        return number

    return read


def _real(low: float, high: float = float("inf")) -> Callable[[str], float]:
    """A finite number between two others, as argparse's ``type``."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not low <= number <= high or number == float("inf"):
            upto = f"of at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
            raise argparse.ArgumentTypeError(f"is {text}; wanted a number {upto}")
        return number

    return read


def _widths(text: str) -> tuple[int, ...]:
    """``64,32`` or ``64-32`` as a tuple of positive integers."""
    try:
        widths = tuple(int(part) for part in text.replace("-", ",").split(",") if part)
    except ValueError:
        widths = ()
    if not widths or min(widths) < 1 or max(widths) > 1 << 24:
        raise argparse.ArgumentTypeError(f"is {text!r}; wanted widths like 32,16")
    return widths
