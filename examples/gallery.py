"""Run every example and build one page from their pictures and sentences: what ``make examples``
does.

python examples/gallery.py [--quick | --full] [--out figures] [--only toy_surface taylor_error]
"""

import argparse
import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from common import SCALES, full_times

from fastcurv.cli.report import Report

HERE = Path(__file__).parent
ORDER = (
    "saddles_against_size",
    "plateaus",
    "taylor_error",
    "eigenvalues_tell",
    "toy_surface",
    "escape_step",
    "escape_times",
    "minimum_ratio",
    "wider_net",
    "hidden_way_out",
    "gradients_by_depth",
    "skip_connections",
    "covariate_shift",
    "permutations",
    "many_starts",
    "learning_rates",
    "early_stopping",
    "batch_size",
    "newton_parabola",
    "hessian_cost",
    "newton_steps",
    "losses",
)
# What L1 to L18 are, in one sentence.
LECTURES = (
    "L1 to L18 number the claims of five lectures on how neural networks are trained: Andrew Ng's "
    "on local optima and plateaus (L1 to L3); Hung-yi Lee's two on points of small gradient, their "
    "Hessian and the ways out (L4 to L9); a course's on vanishing gradients, initialisation, batch "
    "normalisation and skip connections (L10, L11); and Hugo Larochelle's on symmetry, stochastic "
    "gradient descent, early stopping, mini-batches, momentum and Newton's method (L12 to L18)."
)


def main():
    args = parse()
    began = time.perf_counter()
    page = Report("The lectures, seen")
    page.text(
        "Each claim about the surface that training moves on, run on real networks, with a "
        f"picture and a number. {LECTURES}"
    ).contents()
    failed, spent = [], {}
    for name in args.only or ORDER:
        start = time.perf_counter()
        print(name, flush=True)  # before it runs: some take minutes
        # A process each, so that one cannot disturb the next and memory is given back.
        command = [sys.executable, str(HERE / f"{name}.py"), "--out", args.out]
        command += [] if args.scale == "normal" else [f"--{args.scale}"]
        run = subprocess.run(command, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if run.returncode:
            failed.append(name)
            print(f"{name}: FAILED\n{run.stderr}", file=sys.stderr)
            continue
        sentence = run.stdout.strip().splitlines()[-2]
        print(f"  {seconds:.0f} s. {sentence}", flush=True)
        spent[name] = seconds
        title, claim = docstring(name)
        page.section(title).text(claim).image(Path(args.out) / f"{name}.png", sentence)
        page.text(f"`examples/{name}.py`, {seconds:.0f} s")
        remember(Path(args.out) / "captions.json", name, sentence)
    seconds = time.perf_counter() - began
    if spent:
        longest = max(spent, key=spent.get)
        page.text(
            f"All of this took {seconds:.0f} seconds on {os.cpu_count()} processors, the longest "
            f"of it {longest}."
        )
        print(
            f"{len(spent)} examples in {seconds:.0f} s, the longest {longest} with "
            f"{spent[longest]:.0f} s"
        )
    print(f"gallery: {page.write(Path(args.out) / 'index.html')}")
    return 1 if failed else 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog=full_times())
    size = parser.add_mutually_exclusive_group()
    words = {
        "quick": "seconds each",
        "normal": "at most three minutes each (default)",
        "full": "the size of a paper",
    }
    for scale in SCALES:
        size.add_argument(
            f"--{scale}", dest="scale", action="store_const", const=scale, help=words[scale]
        )
    parser.set_defaults(scale="normal")
    parser.add_argument("--out", default="figures", help="folder (default %(default)s)")
    parser.add_argument(
        "--only", nargs="+", choices=ORDER, metavar="NAME", help=f"some of: {', '.join(ORDER)}"
    )
    return parser.parse_args()


def remember(path, name, sentence):
    """Keep what a picture shows beside it, for the page of the site."""
    captions = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(captions | {name: sentence}, indent=1))


def docstring(name):
    """The first sentence of an example's docstring, and the rest."""
    text = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text()))
    head, _, rest = text.partition("\n\n")
    return " ".join(head.split()), " ".join(rest.split())


if __name__ == "__main__":
    sys.exit(main())
