"""The message of an import from a source folder whose engine is not compiled."""

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path


def reason() -> str:
    """Return why the engine cannot be imported, and what to do: an installed copy elsewhere on the
    path is hidden by the source folder.
    """
    here = Path(__file__).resolve().parents[2]
    engines = [f"fastcurv/_engine/core{suffix}" for suffix in EXTENSION_SUFFIXES]
    for folder in map(Path, sys.path):
        if any((folder / engine).is_file() for engine in engines):
            return (
                f"Python imports fastcurv from its source folder {here}, which is not "
                f"built for this Python, and not the copy installed in {folder}. Leave the source "
                "folder, or run in it: pip install -e ."
            )
    return f"fastcurv is not built for this Python in {here}. Run there: pip install -e ."
