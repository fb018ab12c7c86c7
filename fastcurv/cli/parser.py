"""The shell command: its arguments, and one function per subcommand to call."""

import argparse
import sys

from . import commands
from .datasets import NAMES

_DATA = f"one of {', '.join(NAMES)}, or a .npz file with arrays X and y"
DTYPES = ("float32", "float64")


def build_parser():
    """The parser for ``fastcurv`` and ``python -m fastcurv``."""
    parser = argparse.ArgumentParser(
        prog="fastcurv",
        description="Exact curvature of multilayer perceptrons: spectra, verdicts, the way down "
        "from saddles.",
        epilog="'fastcurv COMMAND --help' explains a command. Begin with: fastcurv demo",
    )
    add = parser.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser
    _demo(add)
    _train(add)
    _spectrum(add)
    _classify(add)
    _report(add)
    _bench(add)
    info = add("info", help="print versions, the kernels chosen for this processor, threads")
    info.set_defaults(run=commands.info)
    return parser


def main(argv=None):
    """Run the command; returns the exit status.

    Mistakes in the input are one line on standard error.
    """
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except (ValueError, TypeError, ImportError) as error:
        print(f"fastcurv {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"fastcurv {args.command}: interrupted", file=sys.stderr)
        return 130
    return 0


def _demo(add):
    p = add(
        "demo",
        help="train on real data, look at the spectrum, read the verdict, leave a saddle",
        description="Train a 64-32-16-10 net on scikit-learn's digits to a critical point, with "
        "its spectrum at "
        "three moments, the verdict at the end, and a saddle found and left. Less than a minute.",
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
    p.set_defaults(run=commands.demo)


def _train(add):
    p = add(
        "train",
        help="train a network to a critical point and save it",
        description="Mini-batches first, then a second-order method until the gradient is gone.",
    )
    p.add_argument("data", help=_DATA)
    p.add_argument(
        "--hidden", type=_widths, default=(32, 16), help="widths of the hidden layers (32,16)"
    )
    _activation(p)
    p.add_argument("--residual", action="store_true", help="skip connections where widths agree")
    p.add_argument(
        "--batch-norm", action="store_true", help="batch normalisation of the hidden layers"
    )
    p.add_argument("--l2", type=float, default=1e-3, help="weight decay (default %(default)s)")
    p.add_argument("--method", default="adam", help="first method (default %(default)s)")
    p.add_argument(
        "--epochs", type=int, default=30, help="of the first method (default %(default)s)"
    )
    p.add_argument("--batch-size", type=int, default=64, help="(default %(default)s)")
    p.add_argument(
        "--polish", default="newton-cg", help="second method, or 'none' (default %(default)s)"
    )
    p.add_argument(
        "--max-steps", type=int, default=200, help="of the second method (default %(default)s)"
    )
    p.add_argument("--dtype", choices=DTYPES, default="float64", help="(default %(default)s)")
    p.add_argument("--out", default="theta.npz", help="file to write (default %(default)s)")
    _common(p)
    p.set_defaults(run=commands.train)


def _spectrum(add):
    p = add(
        "spectrum",
        help="the extreme eigenvalues and the spectral density of a trained network",
    )
    _saved(p)
    p.add_argument("-k", type=int, default=5, help="eigenvalues at each end (default %(default)s)")
    _density_options(p)
    p.add_argument("--figure", help="write the density as a picture there (.png, .svg, .pdf)")
    _common(p)
    p.set_defaults(run=commands.spectrum)


def _classify(add):
    p = add("classify", help="the verdict on where a trained network stopped, with its evidence")
    _saved(p)
    _verdict_options(p)
    _common(p)
    p.set_defaults(run=commands.classify)


def _report(add):
    p = add("report", help="one HTML file: accuracy, spectrum, verdict")
    _saved(p)
    _verdict_options(p)
    _density_options(p)
    p.add_argument(
        "--out", default="fastcurv-report.html", help="file to write (default %(default)s)"
    )
    _common(p)
    p.set_defaults(run=commands.report)


def _bench(add):
    p = add(
        "bench",
        help="time gradients and products on this machine",
        description="fastcurv alone; 'make bench' in a checkout compares with torch and JAX.",
    )
    p.add_argument(
        "--sizes", type=_widths, default=(784, 512, 512, 10), help="widths (784,512,512,10)"
    )
    p.add_argument("--samples", type=int, default=1024, help="(default %(default)s)")
    _activation(p)
    p.add_argument(
        "--dtype", choices=DTYPES, nargs="+", default=DTYPES, help="one or both (default both)"
    )
    _threads(p)
    p.set_defaults(run=commands.bench)


def _saved(p):
    p.add_argument("theta", help="a .npz file that 'fastcurv train' saved")
    p.add_argument("--data", default=None, help=f"other data than it was trained on: {_DATA}")


def _density_options(p):
    p.add_argument("--probes", type=int, default=10, help="random vectors (default %(default)s)")
    p.add_argument(
        "--steps", type=int, default=80, help="Lanczos steps per vector (default %(default)s)"
    )


def _verdict_options(p):
    p.add_argument(
        "--gradient-tol", type=float, default=None, help="gradient norm of a critical point"
    )
    p.add_argument(
        "--curvature-tol", type=float, default=1e-4, help="relative (default %(default)s)"
    )
    p.add_argument(
        "--failure-probability",
        type=float,
        default=None,
        help="accept a minimum with this risk where a proof is out of reach",
    )
    p.add_argument("--max-products", type=int, default=None, help="budget of Hessian products")


def _common(p):
    p.add_argument("--seed", type=int, default=0, help="(default %(default)s)")
    _threads(p)
    p.add_argument("--quiet", action="store_true", help="no progress bars")


def _threads(p):
    p.add_argument(
        "--threads", type=int, default=None, help="(default: every processor it may use)"
    )


def _activation(p):
    p.add_argument(
        "--activation", default="tanh", help="of the hidden layers (default %(default)s)"
    )


def _widths(text):
    """``64,32`` or ``64-32`` as a tuple of positive integers."""
    try:
        widths = tuple(int(part) for part in text.replace("-", ",").split(",") if part)
    except ValueError:
        widths = ()
    if not widths or min(widths) < 1:
        raise argparse.ArgumentTypeError(f"widths like 32,16 are wanted, got {text!r}")
    return widths
