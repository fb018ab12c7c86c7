"""``python -m fastcurv``: the shell command."""

import signal
import sys

from .applications.cli import main

if __name__ == "__main__":
    # The import of fastcurv has set this handler.
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
