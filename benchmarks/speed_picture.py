"""Draw docs/speed.png from the first table of docs/speed.md.

python benchmarks/speed_picture.py
"""

import re
from pathlib import Path

import command
import numpy as np

DOCS = Path(__file__).resolve().parent.parent / "docs"


def main():
    args = command.parser(__doc__).parse_args()
    with command.run(args) as numbers:
        draw(numbers)


def draw(numbers):
    """Draw the table as bars."""
    from fastcurv import plots

    text = (DOCS / "speed.md").read_text().split("\n\n")
    table = next(part for part in text if "torch / fastcurv" in part)
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in table.splitlines()[2:]]
    dtypes = ("float32", "float64")
    names = [", ".join([*row[0].split(", ")[:3], dtype]) for row in rows for dtype in dtypes]
    cells = np.array([[cell.split(" / ") for cell in row[1:3]] for row in rows], dtype=float)
    ratios = cells.swapaxes(1, 2).reshape(-1, 2)
    numbers["times as long"] = dict(zip(names, ratios))
    figure = plots.new_figure((7.6, 4.8))
    ax = figure.add_subplot()
    at = np.arange(len(names))
    for k, (name, color) in enumerate((("torch", plots.ORANGE), ("JAX", plots.BLUE))):
        ax.barh(at + 0.2 - 0.4 * k, ratios[:, k], 0.38, color=color, label=name)
        for y, x in zip(at, ratios[:, k]):
            ax.text(x * 1.02, y + 0.2 - 0.4 * k, f"{x:.3g}", va="center", fontsize=8)
    ax.axvline(1, color=plots.GREY, lw=1)
    ax.set_xscale("log")
    ax.set_xlim(0.9, 80)
    ax.set_xticks([1, 2, 5, 10, 20, 50], labels=["1", "2", "5", "10", "20", "50"])
    ax.set_yticks(at, labels=names, fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("time of one Hessian-vector product, fastcurv = 1")
    ax.legend(frameon=False, loc="lower right")
    figure.savefig(DOCS / "speed.png", dpi=130)


if __name__ == "__main__":
    main()
