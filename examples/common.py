"""Shared code of the examples: command line, outcome, data, stored tables.

Every example has ``main(scale, out)``. ``scale`` is "quick" (seconds, for tests), "normal" (at most
three minutes on two cores) or "full" (the size of a paper). It leaves a picture in ``out`` and
returns an `Outcome`.

What takes minutes is an ``experiment(scale)``, whose rows ``make experiments`` writes to
``examples/data``. At the normal size an example draws these; "quick" makes some of them again.
"""

import argparse
import csv
import re
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from story import claim

from fastcurv import plots
from fastcurv.common.optional import optional_import

SCALES = ("quick", "normal", "full")
DATA = Path(__file__).parent / "data"
saved = {"slides": False}  # whether `save` also writes slides; set by the command line

# Minutes that `--full` takes where it is more than three: estimates, from the normal size and how
# the work grows.
FULL_MINUTES = {
    "minimum_ratio": 6,
    "saddles_against_size": 50,
    "poor_minima": 15,
    "plateaus": 30,
    "failed_training": 8,
    "gradients_by_depth": 15,
    "skip_connections": 7,
    "learning_rates": 20,
    "where_training_stops": 13,
}


def full_times():
    """Return a text that lists the examples that take more than three minutes with ``--full``, with
    their times.
    """
    slow = ", ".join(f"{name} {minutes}" for name, minutes in FULL_MINUTES.items())
    return (
        f"--full takes at most three minutes on two cores, except, in minutes, by estimate: {slow}."
    )


@dataclass(frozen=True)
class Outcome:
    """One sentence with the figures that support or contradict the claim, the figures, and the path
    of the picture.
    """

    sentence: str
    picture: Path
    numbers: dict = field(default_factory=dict)


def command_line(main, **options):
    """Run an example from the shell: ``--quick``, ``--full``, ``--out DIR``, and its own options,
    each given with its help.
    """
    doc = sys.modules[main.__module__].__doc__
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="scale", action="store_const", const="quick", help="seconds")
    size.add_argument(
        "--full",
        dest="scale",
        action="store_const",
        const="full",
        help=f"the size of a paper: {full_minutes(main)}",
    )
    parser.add_argument(
        "--out", default="figures", help="folder for the picture (default %(default)s)"
    )
    parser.add_argument("--slides", action="store_true", help="a slide too, as SVG and PDF")
    for name, words in options.items():
        parser.add_argument(f"--{name}", help=words)
    args = parser.parse_args()
    saved["slides"] = args.slides
    outcome = main(args.scale or "normal", args.out, **{name: vars(args)[name] for name in options})
    print(outcome.sentence)
    print(f"picture: {outcome.picture}")


def full_minutes(main):
    """Return how long ``--full`` takes, in words."""
    minutes = FULL_MINUTES.get(Path(sys.modules[main.__module__].__file__).stem)
    return "at most three minutes" if minutes is None else f"about {minutes} minutes, by estimate"


def pick(scale, quick, normal, full):
    """Return the value for a scale."""
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {scale!r}")
    return {"quick": quick, "normal": normal, "full": full}[scale]


def table_of(script, experiment, scale):
    """Return the columns of an experiment, as arrays by name: those kept in ``examples/data`` at
    the normal size, made now at any other.
    """
    if scale == "normal":
        return read_table(DATA / f"{Path(script).stem}.csv")
    return columns(experiment(scale))


def columns(rows):
    """Turn rows, one dict each, into arrays by name."""
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def write_table(path, rows, remark):
    """Write rows as a CSV file whose first line is a comment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.write(f"# {remark}\n")
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: short(value) for name, value in row.items()})


def first_index(met):
    """Return the first index at which `met` is True, or ``len(met)`` if there is none."""
    return int(np.argmax([*met, True]))


def short(value):
    """Return a float with six digits, and anything else unchanged."""
    return f"{value:.6g}" if isinstance(value, (float, np.floating)) else value


def read_table(path):
    """Return the columns of a file by `write_table`, as integers, floats (an empty cell is NaN) or
    words.
    """
    with path.open(newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return {name: as_numbers([row[name] for row in rows]) for name in rows[0]}


def as_numbers(cells):
    """Return the cells as an array of integers if all are integers, else of floats, else of
    words.
    """
    for kind in (int, float):
        try:
            return np.array([kind(cell or "nan") for cell in cells])
        except ValueError:
            pass
    return np.array(cells)


def select(table, **wanted):
    """Return the rows of a table in which these columns have these values."""
    chosen = np.ones(len(next(iter(table.values()))), dtype=bool)
    for name, value in wanted.items():
        chosen &= table[name] == value
    return {name: column[chosen] for name, column in table.items()}


def binomial_interval(successes, n, risk=0.05):
    """Return the interval of Clopper and Pearson for a probability, whose coverage is at least 1 -
    risk.
    """
    from scipy.stats import beta

    low = beta.ppf(risk / 2, successes, n - successes + 1) if successes else 0.0
    high = beta.ppf(1 - risk / 2, successes + 1, n - successes) if successes < n else 1.0
    return float(low), float(high)


def save(figure, script, out):
    """Write ``figure`` as ``out/<name of the script>.png`` and return the path."""
    path = Path(out) / (Path(script).stem + ".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = getattr(figure, "figure", figure)
    for ax in figure.axes:
        plots.plain_numbers(ax.xaxis, ax.yaxis)
    figure.savefig(path, dpi=140)
    if saved["slides"]:
        save_slide(figure, claim(path.stem), path)
    return path


def slide_lines(claim):
    """Return the first sentence of a claim in lines that fit on a slide."""
    first = re.split(r"(?<=\.) ", claim.replace("`", ""), maxsplit=1)[0]
    return textwrap.wrap(first, 66)


def save_slide(figure, sentence, path):
    """Write a figure below one sentence as SVG and PDF of 16:9, and return that text.

    The figure is drawn as it is, on a page that extends beyond it: the page is as much smaller than
    a slide of 13.33 by 7.5 inches as the figure is smaller than its place there, and the sentence
    has 24 points on it.
    """
    size = figure.get_size_inches()
    shrunk = max(size / (12.5, 5.6))
    page = shrunk * np.array([13.333, 7.5])
    corner = np.array([(size[0] - page[0]) / 2, -0.02 * page[1]])
    at, words = (corner + (0.04, 0.96) * page) / size, "\n".join(slide_lines(sentence))
    title = figure.text(*at, words, fontsize=24 * shrunk, va="top", linespacing=1.25)
    title.set_in_layout(False)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for legend in figure.legends:  # without an anchor they are placed relative to the page
        legend.set_bbox_to_anchor((0, 0, 1, 1), transform=figure.transFigure)
    box = figure.bbox_inches.from_bounds(*corner, *page)
    for suffix, date in ((".svg", "Date"), (".pdf", "CreationDate")):
        figure.savefig(path.with_suffix(suffix), bbox_inches=box, metadata={date: None})
    return title


def constant_then_decay(rate, hold):
    """Return the learning rate as a function of the update: `rate` until update `hold`, then it
    decreases as 1/t.
    """
    return lambda t: rate * hold / max(t, hold)


def digits(n_samples=None, n_features=64, seed=0):
    """Return samples of scikit-learn's digits, centred. Fewer features are their leading principal
    components, scaled.

    Returns
    -------
    X (n_samples, n_features), y (n_samples,)
    """
    with optional_import("the data", "demo"):
        from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std()
    if n_features < 64:
        _, _, Vt = np.linalg.svd(X, full_matrices=False)
        X = X @ Vt[:n_features].T
        X /= X.std()
    rows = np.random.default_rng(seed).permutation(len(X))[:n_samples]
    return np.ascontiguousarray(X[rows]), y[rows]


def two_spirals(n_samples=200, noise=0.1, turns=1.0, seed=0):
    """Return two classes in the plane, wound around each other: X (n_samples, 2), y
    (n_samples,).
    """
    rng = np.random.default_rng(seed)
    y = np.arange(n_samples) % 2
    t = np.sqrt(rng.uniform(0.05, 1.0, n_samples))
    angle = 2 * np.pi * turns * t + np.pi * y
    X = 2 * t[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return X + noise * rng.standard_normal(X.shape), y
