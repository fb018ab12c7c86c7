"""The shell command: `fastcurv` or `python -m fastcurv`.

The commands are in `commands.py`, their options in `parser.py`. A table is read by `tables.py` and
coded by `coding.py`; `table_fit.py` fits an estimator, and `network.py` stores it. `page.py` makes
the page of a fit with the numbers of `measure.py` and the charts of `pictures.py`; `report.py` and
`page.html` lay it out.
"""

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run the command and return the exit status. The status is 130 after Ctrl-C, whether this is
    pressed before a command begins, while it runs, or while its results are written.
    """
    try:
        from .parser import main as run

        return run(argv)
    except KeyboardInterrupt:
        # Ctrl-C may arrive before a command begins, or while its results are written.
        return 130
