"""Write some pages to print: ten claims of the lectures that are often repeated, each with its
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
CLAIMS = {  # two on a page, a high picture with a low one
    3: "hidden_way_out",
    28: "covariate_shift",
    58: "minimum_ratio",
    52: "where_training_stops",
    12: "plateaus",
    49: "escape_step",
    44: "eigenvalues_tell",
    24: "escape_times",
    8: "poor_minima",
    81: "newton_steps",
}
PAGE_SIZE = (8.27, 11.69)  # inches of A4
PICTURE_SCALE = 0.79  # at which words of 9 points have over 7
TEXT_HEIGHT = 0.85  # inches of a claim, what is found, and the command
ROOM = 10.75  # inches of a page for claims and pictures
DOTS_PER_INCH = 140  # of the pictures of the gallery
LINE_LENGTH = 110  # characters of 9 points in a line
SOURCE = "fastcurv, https://github.com/OWNER/fastcurv, BSD-3-Clause license"


def claim_and_result(number):
    """Return a claim of docs/lectures.md, the lecture that makes it, and what is found."""
    page = (FOLDER.parent / "docs" / "lectures.md").read_text()
    row = re.search(
        rf"^\| (?:\d+, )*{number}(?:, \d+)* \| (.+?) \| (.+?) \| .+ \|$", page, re.MULTILINE
    )
    lecture = re.findall(r"^## (.+)$", page[: row.start()], re.MULTILINE)[-1]
    claim, result = (words.replace("**", "").replace("`", "") for words in row.groups())
    # other rows are not on the pages
    return claim, lecture, re.sub(r",? [^.,]*\brow \d+", "", result)


def pages(folder):
    """Return the claims of each page, as lists of (number, picture, height in inches)."""
    with optional_import("plots"):
        from matplotlib.image import imread

    divided, room = [], 0.0
    for number, name in CLAIMS.items():
        image = imread(Path(folder) / f"{name}.png")
        height = PICTURE_SCALE * image.shape[0] / DOTS_PER_INCH
        if height + TEXT_HEIGHT > room:
            divided.append([])
            room = ROOM
        divided[-1].append((number, image, height))
        room -= height + TEXT_HEIGHT
    return divided


def draw_page(claims, number, n_pages):
    """Return a page with its claims and pictures as a figure; the page's number counts from 1."""
    figure = plots.new_figure(PAGE_SIZE)
    figure.set_layout_engine("none")
    title = "Ten claims about the training of networks, tested"
    figure.text(0.06, 0.97, f"{title} ({number} of {n_pages})", fontsize=14, weight="bold")
    width, inch, top = (1 / PAGE_SIZE[0], 1 / PAGE_SIZE[1], 0.955)
    for row, image, height in claims:
        claim, lecture, result = claim_and_result(row)
        claim_lines = textwrap.wrap(f"{lecture.partition(':')[0]}: {claim}", LINE_LENGTH - 18)
        result_lines = textwrap.wrap(result, LINE_LENGTH)
        below = top
        for lines, size, look in (
            (claim_lines, 10, {"weight": "bold"}),
            (result_lines, 9, {}),
            ([f"python examples/{CLAIMS[row]}.py"], 8, {"family": "monospace"}),
        ):
            figure.text(0.06, below, "\n".join(lines), fontsize=size, va="top", **look)
            below -= (1.25 * size * len(lines) + 2) / 72 * inch
        shape = PICTURE_SCALE * image.shape[1] / DOTS_PER_INCH * width, height * inch
        ax = figure.add_axes((0.06, below - shape[1], *shape))
        ax.imshow(image)
        ax.set_axis_off()
        top -= (height + TEXT_HEIGHT) * inch
    words = f"Try it in a browser, without installing anything: the file {playground.PAGE_NAME}."
    figure.text(0.06, 0.012, f"{words}\n{SOURCE}", fontsize=8)
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
    divided = pages(folder)
    with PdfPages(path, metadata={"CreationDate": None}) as file:
        for number, claims in enumerate(divided, 1):
            file.savefig(draw_page(claims, number, len(divided)))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", default="figures", help="folder (default %(default)s)")
    print(write(parser.parse_args().out))
