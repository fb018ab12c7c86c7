"""The shell command: `fastcurv` or `python -m fastcurv`."""

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
