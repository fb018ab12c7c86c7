"""What the tests of activations and losses share: lengths, tables and dtypes."""

import numpy as np
import pytest

from fastcurv import _engine as engine

LENGTHS = [1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65]  # around every vector width
DTYPES = [np.float32, np.float64]
LD = np.longdouble

every_arch = pytest.mark.parametrize("arch", engine.available_archs())
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
