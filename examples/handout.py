"""Write two pages to print: ten claims of the lectures that are often repeated, each with its
picture, what is found, and the command that draws it. ``make handout`` runs it.

python examples/handout.py [--out figures]

The sentences are those of ``docs/lectures.md``. A picture that is not in the folder is drawn first.
"""

import argparse
import importlib
import re
import textwrap
from pathlib import Path

import playground
from story import FOLDER

from fastcurv import plots
from fastcurv.common.optional import optional_import

# by the number of the claim in docs/lectures.md: the example whose picture is shown
CLAIMS = {
    52: "where_training_stops",
    3: "hidden_way_out",
    8: "poor_minima",
    44: "eigenvalues_tell",
    58: "minimum_ratio",
    12: "plateaus",
    24: "escape_times",
    28: "covariate_shift",
    71: "constant_rate",
    81: "newton_steps",
}
N_PAGES = 2
PAGE_SIZE = (8.27, 11.69)  # inches of A4
LINE_LENGTH = 56  # characters of 9 points to the right of a picture


def claim_and_result(number):
    """Return a claim of docs/lectures.md and what is found."""
    page = (FOLDER.parent / "docs" / "lectures.md").read_text()
    row = re.search(rf"^\| {number} \| (.+?) \| (.+?) \| .+ \|$", page, re.MULTILINE)
    claim, result = (words.replace("**", "").replace("`", "") for words in row.groups())
    # other rows are not on the pages
    result = re.sub(r" \(row \d+\)", "", result)
    return claim, re.sub(r" [^.]*\brow \d+[^.]*\.", "", result)


def draw_page(number, folder):
    """Return one of the pages, numbered from 0, as a figure."""
    with optional_import("plots"):
        from matplotlib.image import imread

    size = len(CLAIMS) // N_PAGES
    figure = plots.new_figure(PAGE_SIZE)
    figure.set_layout_engine("none")
    title = "Ten claims about the training of networks, tested"
    figure.text(0.06, 0.965, f"{title} ({number + 1} of {N_PAGES})", fontsize=14, weight="bold")
    for k, (row, name) in enumerate([*CLAIMS.items()][number * size : (number + 1) * size]):
        top = 0.945 - 0.178 * k
        ax = figure.add_axes((0.06, top - 0.165, 0.40, 0.16))
        ax.imshow(imread(Path(folder) / f"{name}.png"))
        ax.set_axis_off()
        claim, result = claim_and_result(row)
        claim_lines = textwrap.wrap(claim, LINE_LENGTH - 12)
        result_lines = textwrap.wrap(result, LINE_LENGTH)
        place = {"va": "top", "linespacing": 1.2}
        figure.text(0.48, top - 0.005, "\n".join(claim_lines), fontsize=10, weight="bold", **place)
        below = top - 0.005 - 0.0165 * len(claim_lines) - 0.004
        figure.text(0.48, below, "\n".join(result_lines), fontsize=9, **place)
        below -= 0.0135 * len(result_lines) + 0.007
        command = f"python examples/{name}.py"
        figure.text(0.48, below, command, fontsize=8, family="monospace", **place)
    words = f"Try it in a browser, without installing anything: the file {playground.PAGE_NAME}."
    figure.text(0.06, 0.028, words, fontsize=9)
    return figure


def write(folder):
    """Write handout.pdf and the playground into `folder`, and return the path of the first. Missing
    pictures are drawn.
    """
    with optional_import("plots"):
        from matplotlib.backends.backend_pdf import PdfPages

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in CLAIMS.values():
        if not (folder / f"{name}.png").exists():
            importlib.import_module(name).main("normal", folder)
    playground.write(folder)
    path = folder / "handout.pdf"
    with PdfPages(path, metadata={"CreationDate": None}) as pages:
        for number in range(N_PAGES):
            pages.savefig(draw_page(number, folder))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", default="figures", help="folder (default %(default)s)")
    print(write(parser.parse_args().out))
