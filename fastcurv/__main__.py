"""``python -m fastcurv``: the shell command."""

import sys

from fastcurv_command import main

if __name__ == "__main__":
    sys.exit(main())
