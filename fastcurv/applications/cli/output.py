"""Output of the shell command: lines for a reader, or one JSON object for a program."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...common.errors import escape_unprintable, one_line

# Modules that compute are imported where they are used, so that `--help` does not wait for them.
from ...common.files import check_writable_path, expand_home, write_atomically
from ...common.optional import optional_import
from ...common.progress import is_stream_terminal

PAGE_SUFFIXES, TABLE_SUFFIXES = (".html", ".htm"), (".csv",)


class CommandOutput:
    """The standard output of a command: lines for a reader, or facts for a program.

    A failure to write does not stop the command, so that results are still saved.

    Parameters
    ----------
    as_json : bool
        Print no lines; `close` prints all facts as one JSON object.

    Attributes
    ----------
    lost : str
        The reason why output could not be written. Empty if all was written, or if standard output
        is missing or closed by its reader, as by ``| head``.
    working : bool
        Whether the input passed all checks: a later failure is not a mistake in the input.
    """

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.facts: dict[str, Any] = {}
        self.lost = ""
        self.working = False

    def print_text(self, text: str = "") -> None:
        """Print lines for a reader. Unprintable characters, which names from files may contain, are
        escaped.
        """
        if not self.as_json:
            text = "\n".join(map(escape_unprintable, text.split("\n")))
            self.lost = write_stream("stdout", text + "\n") or self.lost

    def print_csv(self, text: str) -> None:
        """Print `text`, comma-separated values for a program, without changes. On a terminal,
        unprintable characters are escaped.
        """
        if not self.as_json:
            if is_stream_terminal("stdout"):
                text = "\n".join(map(escape_unprintable, text.split("\n")))
            self.lost = write_stream("stdout", text) or self.lost

    def add_facts(self, **facts: Any) -> None:
        """Store facts for a program."""
        self.facts.update(facts)

    def close(self) -> None:
        if self.as_json:
            from ...spectrum.results import to_json_value

            text = json.dumps(to_json_value(self.facts), indent=2, allow_nan=False)
            self.lost = write_stream("stdout", text.replace("\x7f", "\\u007f") + "\n") or self.lost


def write_stream(name: str, text: str = "") -> str:
    """Write `text` to the stream `name`, ``stdout`` or ``stderr``, and flush. Return the reason of
    a failure, or "" without one.

    Characters outside the stream's encoding are written as escape sequences. A missing stream
    (``>&-``, pythonw) or a closed pipe (e.g. ``| head``) is not a failure. After a failure all
    further output is discarded.
    """
    stream = getattr(sys, name)
    if stream is None:
        return ""
    try:
        code = stream.encoding or "utf-8"
        stream.write(text.encode(code, "backslashreplace").decode(code))
        stream.flush()
    except (OSError, ValueError) as error:
        # The disk may be full, the terminal lost, or the file closed.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        return "" if isinstance(error, BrokenPipeError) else str(error)
    return ""


def write_figure_file(figure: Any, path: str | os.PathLike[str]) -> Path:
    """Write a figure atomically in the format given by the suffix, and return the absolute path to
    which it was written.

    """
    file = io.BytesIO()
    figure.savefig(file, format=Path(path).suffix[1:].lower(), dpi=160)
    return write_atomically(path, file.getvalue())


def verdict_lines(point: Any) -> str:
    sure = " (certified)" if point.certified else ""
    first = f"verdict: {point.kind.replace('_', ' ')}{sure}"
    return "\n".join([first, *repr(point).splitlines()[1:]])


def verdict_facts(point: Any) -> dict[str, Any]:
    """Return the fields of a verdict that are numbers, strings or None, as a dict by name. Vectors
    are left out.
    """
    vectors = {name for name, value in vars(point).items() if isinstance(value, np.ndarray)}
    left_out = vectors | {"nearest_verdict"}
    return {name: value for name, value in point.to_dict().items() if name not in left_out}


def check_output_path(
    path: str | Path | None, name: str = "out", kinds: Sequence[str] = (), joined: str = " or "
) -> None:
    """Check that a file can be written at a path (see `check_writable_path`), and that its name
    ends in one of the suffixes `kinds`, if there are any. In the message the suffixes are separated
    by `joined`.
    """
    if path is None:
        return
    if kinds and Path(path).suffix.lower() not in kinds:
        wanted = joined.join(kinds)
        raise ValueError(f"{name} must end in {wanted}, got {str(path)!r}.")
    check_writable_path(path, name, folders=True)


def check_inputs_kept(args: Namespace, *inputs: Any) -> None:
    """Raise ValueError if an output of a command is the same file as one of the inputs, which are
    paths, names of data sets or None.
    """
    for option in ("out", "figure", "save"):
        path: Any = getattr(args, option, None)
        for source in filter(None, inputs) if path else ():
            same = False
            with contextlib.suppress(OSError, ValueError):  # the source may name no file
                same = expand_home(path).samefile(expand_home(source))
            if same:
                raise ValueError(
                    f"{option} must differ from the inputs, got {one_line(path, 300)!r}, which is "
                    f"{one_line(source, 300)}. Choose another name."
                )


def check_figure_output(path: str | Path | None) -> None:
    """Check the path of a figure with `check_output_path`, and that matplotlib can be imported."""
    check_output_path(path, "figure", (".png", ".svg", ".pdf"), ", ")
    if path is not None:
        with optional_import("pictures"):
            import matplotlib.figure  # noqa: F401
