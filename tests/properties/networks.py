"""Hypothesis strategies for random networks: sizes around the kernels' vector widths, every
activation and every loss.
"""

import os

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from .. import nets
from ..plans import LAYOUTS, lay_out
from .units import units

WIDTHS = [width for width in nets.LENGTHS if width <= 33]

examples = settings(
    max_examples=int(os.environ.get("FASTCURV_EXAMPLES", "100")),
    deadline=None,
    derandomize="FASTCURV_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)


class Net(nets.Net):
    """A random network with data, parameters theta and a direction v."""

    def rounding_allowance(self, v=None, theta=None, dtype=None, **changes):
        """Return thirty rounding units of the Hessian product with v, the allowed norm of its
        error, as a float. `changes` are passed to the reference objective.
        """
        eps = np.finfo(self.theta.dtype if dtype is None else dtype).eps
        theta, v = self.theta if theta is None else theta, self.v if v is None else v
        return 30 * eps * units(self.reference(**changes), theta, v)


def make(seed, *given, **options):
    """Return a `Net` of the given sizes and options, with random data, parameters and direction `v`
    from a seed.
    """
    rng = np.random.default_rng(seed)
    net = nets.draw(rng, *given, kind=Net, **options)
    net.v = net.direction(rng)
    return net


@st.composite
def networks(draw, dtypes=nets.DTYPES, rows=40):
    """Return a strategy that sets a random layout of plans and draws a `Net` with at most `rows`
    samples.
    """
    lay_out(*LAYOUTS[draw(st.sampled_from(list(LAYOUTS)))])
    hidden = draw(st.lists(st.sampled_from(WIDTHS), min_size=0, max_size=3))
    if hidden and draw(st.booleans()):
        hidden = hidden[:1] * len(hidden)  # equal widths, so that skip connections are possible
    return make(
        draw(st.integers(0, 2**32 - 1)),
        [draw(st.sampled_from(WIDTHS)), *hidden, draw(st.sampled_from(WIDTHS[:8]))],
        draw(st.sampled_from(nets.ACTIVATIONS)),
        draw(st.sampled_from(nets.LOSSES)),
        draw(st.integers(1, rows)),
        dtype=draw(st.sampled_from(dtypes)),
        residual=draw(st.booleans()),
        l2=draw(st.sampled_from([0.0, 0.01])),
    )
