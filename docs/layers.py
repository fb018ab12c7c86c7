"""Draw the layers of the package from its imports.

    python docs/layers.py

writes docs/layers.svg. A module imports only from its own layer and from lower ones. The boxes of a
layer are its subpackages, or a subpackage's modules where these stand in several layers.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import fastcurv

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(fastcurv.__file__).parent  # the checkout, or what is installed
# Modules by layer, from the core upward; a subpackage means its modules that no row names.
LAYERS = {
    "core": "_engine common structure network krylov spectrum optimize",
    "scale": ("network.rows network.streaming network.shards distributed"),
    "proofs": "certify",
    "verdicts": (
        "critical optimize.finish optimize.lower_points optimize.refine optimize.kink_search "
        "optimize.find optimize.minimize optimize.units"
    ),
    "applications": "applications testing",
}
WIDTH, ROW, BOX = 960, 86, 26  # of the picture, of a layer, height of a box
COLOURS = ("#0072b2", "#009e73", "#cc79a7", "#d55e00", "#e69f00")


def layer_of(name: str) -> int | None:
    """Return the number of a module's layer, 1 for the core; None if no row names it."""
    rows = [row.split() for row in LAYERS.values()]
    for wanted in (name, name.partition(".")[0]):
        for number, row in enumerate(rows, start=1):
            if wanted in row:
                return number
    return None


@functools.cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_by(path: Path, name: str, modules, inside: bool = True) -> set[str]:
    """Return what a file imports of the package, as dotted names; with `inside` also inside
    functions. What only type checkers import is left out.
    """
    package = name.split(".")[:-1]
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            later = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            if typing_only or (later and not inside):
                continue
            if isinstance(child, ast.Import):
                names = [a.name.split(".") for a in child.names]
                found.update(".".join(n[1:]) or "fastcurv" for n in names if n[0] == "fastcurv")
            elif isinstance(child, ast.ImportFrom):
                inner = child.module.split(".") if child.module else []
                if child.level:
                    base = [*package[: len(package) - child.level + 1], *inner]
                elif inner[:1] == ["fastcurv"]:
                    base = inner[1:]
                else:
                    continue
                for alias in child.names:
                    full = ".".join([*base, alias.name])
                    found.add(full if full in modules or not base else ".".join(base))
            visit(child)

    visit(tree(path))
    return found


def modules() -> dict[str, Path]:
    """Return the modules of the package by their dotted names. A subpackage's ``__init__.py``,
    which joins its modules, belongs to no layer.
    """
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent.name == "_engine":
            found["_engine"] = path
        elif path.stem not in ("__init__", "__main__"):
            found[".".join(path.relative_to(PACKAGE).with_suffix("").parts)] = path
    return found


def boxes() -> list[list[str]]:
    """Return the boxes of each layer, from the highest layer down."""
    known = modules()
    rows: list[list[str]] = [[] for _ in LAYERS]
    for name in known:
        number, package = layer_of(name), name.partition(".")[0]
        if number is not None:
            there = {layer_of(n) for n in known if n.partition(".")[0] == package}
            box = package if len(there) == 1 or layer_of(package) == number else name
            if box not in rows[number - 1]:
                rows[number - 1].append(box)
    return rows[::-1]


def imports_between() -> set[tuple[int, int]]:
    """Return the pairs of layers of which the first imports the second."""
    known = modules()
    pairs = set()
    for name, path in known.items():
        for other in imported_by(path, name, known, inside=False):
            if layer_of(other) and layer_of(other) != layer_of(name):
                pairs.add((layer_of(name), layer_of(other)))
    return pairs


def drawing() -> str:
    """Return the picture as SVG: a row for each layer, and an arrow for each pair of layers of
    which the upper one imports the lower one.
    """
    rows, height = boxes(), ROW * len(LAYERS)
    text = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="The five layers of fastcurv, each importing only lower ones" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for r, (title, row) in enumerate(zip(list(LAYERS)[::-1], rows)):
        number, top = len(LAYERS) - r, r * ROW
        colour = COLOURS[number - 1]
        text.append(
            f'<rect x="4" y="{top + 4}" width="{WIDTH - 78}" height="{ROW - 12}" rx="6" '
            f'fill="none" stroke="{colour}" stroke-width="2"/>'
            f'<text x="14" y="{top + 22}" font-weight="bold" fill="{colour}">'
            f"{number}. {title}</text>"
        )
        x, y = 130.0, top + 22
        for name in row:
            width = 6.4 * len(name) + 14
            if x + width > WIDTH - 84:
                x, y = 130.0, y + BOX
            text.append(f'<text x="{x:.0f}" y="{y}">{name}</text>')
            x += width
    for high, low in sorted(imports_between()):
        x = WIDTH - 70 + 13 * (5 - high) + 2 * low
        begin, end = (len(LAYERS) - high) * ROW + 40, (len(LAYERS) - low) * ROW + 20
        text.append(
            f'<path d="M{x} {begin}V{end}m-3 -7l3 7l3 -7" fill="none" '
            f'stroke="{COLOURS[high - 1]}"/>'
        )
    return "\n".join([*text, "</svg>"]) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "layers.svg").write_text(drawing(), encoding="utf-8")
    print(", ".join(f"{high} imports {low}" for high, low in sorted(imports_between())))
