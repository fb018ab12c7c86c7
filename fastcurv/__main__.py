"""``python -m fastcurv``: the shell command."""

import signal
import sys

from .cli import main

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # set where the import of fastcurv began
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())
