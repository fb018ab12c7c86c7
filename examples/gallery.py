"""Run every example and build one page to teach from, in the order of the lectures' story: each
claim with its picture, its sentence, its code and what it does not show. ``make examples`` does it.

python examples/gallery.py [--quick | --full] [--out figures] [--only toy_surface taylor_error]
"""

import argparse
import ast
import base64
import html
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import playground
from common import SCALES, full_times

from fastcurv.cli.report import Report

HERE = Path(__file__).parent
STORY = {
    "What a critical point is": (
        "taylor_error",
        "eigenvalues_tell",
        "toy_surface",
        "escape_step",
    ),
    "Saddles, or poor minima?": (
        "saddles_against_size",
        "finding_saddles",
        "minimum_ratio",
        "wider_net",
        "hidden_way_out",
        "poor_minima",
        "ten_million",
    ),
    "What slows training": (
        "plateaus",
        "escape_times",
        "failed_training",
        "why_it_fails",
        "losses",
    ),
    "Depth": (
        "gradients_by_depth",
        "initial_scale",
        "skip_connections",
        "covariate_shift",
    ),
    "One network, many solutions": (
        "permutations",
        "many_starts",
    ),
    "Stochastic gradients": (
        "learning_rates",
        "early_stopping",
        "batch_size",
    ),
    "Newton's method": (
        "newton_parabola",
        "hessian_cost",
        "newton_steps",
    ),
    "A fitted network": ("slopes",),
}
ORDER = tuple(name for names in STORY.values() for name in names)
# Networks this small gain nothing from a second thread, and waiting threads take time of their own.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "FASTCURV_NUM_THREADS": "1"}
CONTENTS = "<!-- contents -->"
CORRECTIONS = ("Half right: ", "Wrong: ")
# What L1 to L18 are, in one sentence.
LECTURES = (
    "The numbers L1 to L18 refer to claims of five lectures on how neural networks are trained: "
    "Andrew Ng's on local optima and plateaus (L1 to L3); Hung-yi Lee's two on points of small "
    "gradient, their Hessian and how to leave them (L4 to L9); one on vanishing gradients, "
    "initialisation, batch normalisation and skip connections (L10, L11); and Hugo Larochelle's on "
    "symmetry, stochastic gradient descent, early stopping, mini-batches, momentum and Newton's "
    "method (L12 to L18)."
)


class Lectures(Report):
    """A report with a list of its sections, pictures from files, and code."""

    def contents(self):
        return self._add(CONTENTS)

    def link(self, target, words):
        return self._add(f'<p><a href="{target}">{html.escape(words)}</a></p>')

    def picture(self, path, caption):
        data, name = base64.b64encode(path.read_bytes()).decode(), html.escape(caption)
        shown = f'<img alt="{name}" src="data:image/png;base64,{data}">'
        text = f"<figcaption>{html.escape(caption, quote=False)}</figcaption>"
        return self._add(f'<figure class="image">{shown}{text}</figure>')

    def code(self, path, seconds):
        words = f"<code>examples/{path.name}</code>, {seconds:.0f} s of a processor"
        source = html.escape(path.read_text(), quote=False)
        return self._add(f"<details><summary>{words}</summary><pre>{source}</pre></details>")

    def to_html(self):
        links = (f'<li><a href="#s{n}">{h}</a></li>' for n, h in enumerate(self._headings, 1))
        return super().to_html().replace(CONTENTS, f"<nav><ul>{''.join(links)}</ul></nav>")


def main():
    args = parse()
    began = time.perf_counter()
    Path(args.out).mkdir(parents=True, exist_ok=True)
    page = Lectures("The lectures, seen")
    page.text(
        "Each claim about the surface that training moves on, run on real networks, with a "
        f"picture and a number. {LECTURES}"
    )
    page.link("playground.html", "Playground: train a small network and see all its eigenvalues")
    page.contents()
    correct(page, args.only or ORDER)
    playground.write(args.out)
    failed, spent = [], {}
    for name in args.only or ORDER:
        start = processor_time()
        print(name, flush=True)  # before it runs: some take minutes
        # A process each, so that one cannot disturb the next and memory is given back.
        command = [sys.executable, str(HERE / f"{name}.py"), "--out", args.out]
        command += [] if args.scale == "normal" else [f"--{args.scale}"]
        run = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD | os.environ)
        seconds = processor_time() - start
        if run.returncode:
            failed.append(name)
            print(f"{name}: FAILED\n{run.stderr}", file=sys.stderr)
            continue
        sentence = run.stdout.strip().splitlines()[-2]
        print(f"  {seconds:.0f} s. {sentence}", flush=True)
        spent[name] = seconds
        title, *paragraphs = docstring(name)
        page.section(f"{chapter(name)}: {title}")
        page.picture(Path(args.out) / f"{name}.png", sentence)
        for paragraph in paragraphs:
            page.text(paragraph)
        page.code(HERE / f"{name}.py", seconds)
        remember(Path(args.out) / "captions.json", name, sentence)
    if spent:
        longest = max(spent, key=spent.get)
        words = (
            f"{sum(spent.values()):.0f} s of processor time, the longest {longest} with "
            f"{spent[longest]:.0f} s"
        )
        page.text(f"All of this took {words}.")
        seconds = time.perf_counter() - began
        print(f"{len(spent)} examples in {words}; {seconds:.0f} s in all")
    print(f"gallery: {page.write(Path(args.out) / 'index.html')}")
    return 1 if failed else 0


def processor_time():
    """Seconds of processor time of all examples so far: they survive other work beside them."""
    times = os.times()
    return times.children_user + times.children_system


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


def correct(page, names):
    """List first the claims that are wrong or half right."""
    page.section("Claims that are wrong, or half right")
    for name in names:
        for paragraph in docstring(name):
            if paragraph.startswith(CORRECTIONS):
                page.text(f"{paragraph} (`{name}`)")


def chapter(name):
    """Return the heading under which an example appears."""
    return next(heading for heading, names in STORY.items() if name in names)


def docstring(name):
    """Return the paragraphs of an example's docstring: the claim first, the limits last."""
    text = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text()))
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


if __name__ == "__main__":
    sys.exit(main())
