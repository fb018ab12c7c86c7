"""Write `playground.html` with its script as one file, which a browser opens without a network.

python examples/playground.py [FOLDER]
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).parent
PAGE_NAME = "playground.html"


def write(folder):
    """Write the page into `folder` and return its path."""
    page, script = (FOLDER / name for name in (PAGE_NAME, "playground.js"))
    reference = '<script src="playground.js"></script>'
    before, after = page.read_text(encoding="utf-8").split(reference)
    text = f"{before}<script>\n{script.read_text(encoding='utf-8')}</script>{after}"
    path = Path(folder) / PAGE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


if __name__ == "__main__":
    print(write(*sys.argv[1:] or ["figures"]))
