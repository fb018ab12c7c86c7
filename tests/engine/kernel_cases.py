"""What the tests of kernels share: lengths, tables and dtypes."""

import numpy as np
import pytest

from fastcurv import _engine as engine

DTYPES = [np.float32, np.float64]

every_arch = pytest.mark.parametrize("arch", engine.available_archs())
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
every_form = pytest.mark.parametrize("b_form", ["padded", "packed", "plain"])


def whole(rng, shape, dtype):
    """Whole numbers, small enough that every sum of their products is exact in any order."""
    return rng.integers(-9, 10, shape).astype(dtype)
