"""Draw the rooms of the package from its imports: who is built on whom.

    python docs/rooms.py

writes docs/rooms.svg and prints how many rooms and arrows there are. A room is a folder of
``fastcurv/`` or a file beside the folders; an arrow leads from a room to one that it imports,
imports inside functions and for types alone included. Every arrow leads downward.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fastcurv"
CORE = ("network", "krylov", "spectrum", "critical", "optimize")
DOORS = ("convert", "estimators", "plots", "cli", "distributed")
FACE = ("", "__main__")  # what is imported by name, and what runs: the package's face, no rooms
WIDTH, HEIGHT, BOX = 960, 92, (112, 40)  # of the picture, of a row, of a room
COLOURS = {"core": "#0072b2", "door": "#e69f00", "below": "#6b7280"}


def dotted(path: Path) -> str:
    """Return the name of a module under the package, "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def nodes_of(node: ast.AST, loaded: bool):
    """Yield the nodes below one; if `loaded`, only those that an import of the file runs."""
    for child in ast.iter_child_nodes(node):
        later = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        later |= isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not (loaded and later):
            yield child
            yield from nodes_of(child, loaded)


def imported_by(path: Path, name: str, modules, loaded: bool = False) -> set[str]:
    """Return what a file imports of the package, as dotted names; at its head or, unless `loaded`
    asks for what is loaded with it, inside a function or for types.
    """
    package = name.split(".") if name and path.stem == "__init__" else name.split(".")[:-1]
    found = set()
    for node in nodes_of(tree(path), loaded):
        if isinstance(node, ast.Import):
            names = [a.name.split(".") for a in node.names]
            found |= {".".join(n[1:]) or "fastcurv" for n in names if n[0] == "fastcurv"}
        elif isinstance(node, ast.ImportFrom):
            inner = node.module.split(".") if node.module else []
            if node.level:
                base = [*package[: len(package) - node.level + 1], *inner]
            elif inner[:1] == ["fastcurv"]:
                base = inner[1:]
            else:
                continue
            for alias in node.names:
                full = ".".join([*base, alias.name])
                found.add(full if full in modules or not base else ".".join(base))
    return found


def room(name: str) -> str:
    """Return the room that a module stands in."""
    return name.split(".")[0]


def arrows() -> dict[str, set[str]]:
    """Return, for each room, the rooms that it imports."""
    modules = {dotted(path): path for path in sorted(PACKAGE.rglob("*.py"))}
    found: dict[str, set[str]] = {room(name): set() for name in modules if name not in FACE}
    for name, path in modules.items():
        if name not in FACE:
            there = {room(other) for other in imported_by(path, name, modules)}
            found[room(name)] |= (there & set(found)) - {room(name)}
    return found


def levels(found: dict[str, set[str]]) -> list[list[str]]:
    """Return the rooms by rows, each above all that it imports; a ValueError for a circle."""
    rows: list[list[str]] = []
    placed: set[str] = set()
    while len(placed) < len(found):
        row = sorted(name for name in found if name not in placed and found[name] <= placed)
        if not row:
            raise ValueError(f"rooms import each other: {sorted(set(found) - placed)}")
        rows.append(row)
        placed |= set(row)
    return rows[::-1]


def reduced(found: dict[str, set[str]]) -> dict[str, set[str]]:
    """Leave out arrows to a room that another arrow leads to anyway."""

    @functools.cache
    def below(name: str) -> frozenset[str]:
        return frozenset(found[name]).union(*(below(other) for other in found[name]))

    return {
        name: {to for to in there if not any(to in below(other) for other in there)}
        for name, there in found.items()
    }


def drawing() -> str:
    """Return the picture as SVG: rows of rooms, arrows downward, those left out that follow."""
    found = arrows()
    rows = levels(found)
    width, height = BOX
    at = {
        name: (WIDTH * (i + 1) / (len(row) + 1), HEIGHT * (r + 0.5))
        for r, row in enumerate(rows)
        for i, name in enumerate(row)
    }
    total = HEIGHT * len(rows)
    text = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" role="img" '
        'aria-label="The rooms of fastcurv, each built on those below it" '
        'font-family="sans-serif" font-size="14">',
        f'<rect width="{WIDTH}" height="{total}" fill="white"/>',
    ]
    for name, there in sorted(reduced(found).items()):
        for other in sorted(there):
            (x, y), (to, bottom) = at[name], at[other]
            middle = (y + bottom) / 2
            text.append(
                f'<path d="M{x:.0f} {y + height / 2:.0f}C{x:.0f} {middle:.0f} {to:.0f} '
                f'{middle:.0f} {to:.0f} {bottom - height / 2:.0f}" fill="none" stroke="#9ca3af"/>'
            )
    for name, (x, y) in at.items():
        kind = "core" if name in CORE else "door" if name in DOORS else "below"
        text += [
            f'<rect x="{x - width / 2:.0f}" y="{y - height / 2:.0f}" width="{width}" '
            f'height="{height}" rx="6" fill="white" stroke="{COLOURS[kind]}" stroke-width="2"/>',
            f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle">{name}</text>',
        ]
    return "\n".join([*text, "</svg>"]) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "rooms.svg").write_text(drawing(), encoding="utf-8")
    known = arrows()
    print(f"{len(known)} rooms, {sum(map(len, known.values()))} arrows between them")
