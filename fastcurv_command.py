"""The entry point of the shell command, outside the package: Ctrl-C while NumPy, SciPy and fastcurv
are imported ends the process at once, without a traceback.
"""

import signal


def main() -> int:
    """Import the command, run it and return its exit status."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from fastcurv.applications.cli import main as run

    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, handler)
    status: int = run()
    return status
