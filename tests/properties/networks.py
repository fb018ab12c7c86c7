"""Random networks as hypothesis draws them: sizes around the kernels' widths, every activation and
loss.
"""

import os
from dataclasses import dataclass

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import fastcurv as fc
from fastcurv.reference import ReferenceModel, ReferenceObjective

from ..plans import LAYOUTS, lay_out
from .units import units

LENGTHS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33]
SMOOTH = ("identity", "tanh", "sigmoid", "softplus", "silu", "gelu")
KINKED = ("relu", "leaky_relu", "elu")
LOSSES = ("mse", "cross_entropy", "binary_cross_entropy")

examples = settings(
    max_examples=int(os.environ.get("FASTCURV_EXAMPLES", "200")),
    deadline=None,
    derandomize="FASTCURV_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)


@dataclass
class Net:
    """A model on data at a point, with what it was made of."""

    model: fc.MLP
    options: dict
    X: np.ndarray
    y: np.ndarray
    theta: np.ndarray
    v: np.ndarray

    def objective(self, **changes):
        options = {**self.options, **changes}
        return fc.Objective(
            self.model, options.pop("X", self.X), options.pop("y", self.y), **options
        )

    def reference(self, **changes):
        """The same in NumPy, in whatever precision theta has."""
        m = self.model
        names = (
            [m.activation] * (len(m.sizes) - 2) if isinstance(m.activation, str) else m.activation
        )
        model = ReferenceModel(m.sizes, list(names), bias=m.bias, residual=m.residual)
        options = {**self.options, **changes}
        return ReferenceObjective(
            model, options.pop("X", self.X), options.pop("y", self.y), **options
        )

    def room(self, v=None, theta=None, dtype=None, **changes):
        """What rounding may do to the product with v: thirty units."""
        eps = np.finfo(self.theta.dtype if dtype is None else dtype).eps
        theta, v = self.theta if theta is None else theta, self.v if v is None else v
        return 30 * eps * units(self.reference(**changes), theta, v)


def make(seed, sizes, N, activation, loss, dtype="float64", residual=False, l2=0.0):
    """A network of everything that hypothesis chose, its numbers from a seed."""
    draw = np.random.default_rng(seed)
    model = fc.MLP(sizes, activation, residual=residual, dtype=dtype)
    X = draw.standard_normal((N, sizes[0])).astype(dtype)
    if loss == "cross_entropy":
        y = draw.integers(sizes[-1], size=N)
    elif loss == "binary_cross_entropy":
        y = draw.integers(2, size=(N, sizes[-1])).astype(dtype)
    else:
        y = draw.standard_normal((N, sizes[-1])).astype(dtype)
    theta = (model.init(seed=draw) + 0.1 * draw.standard_normal(model.n_params)).astype(dtype)
    v = draw.standard_normal(model.n_params).astype(dtype)
    return Net(model, {"loss": loss, "l2": l2}, X, y, theta, v)


@st.composite
def networks(
    draw, dtypes=("float64", "float32"), activations=SMOOTH + KINKED, losses=LOSSES, rows=40
):
    """A strategy for `Net`, whose plans lie in one of the layouts."""
    lay_out(*LAYOUTS[draw(st.sampled_from(list(LAYOUTS)))])
    hidden = draw(st.lists(st.sampled_from(LENGTHS), min_size=0, max_size=3))
    if hidden and draw(st.booleans()):
        hidden = hidden[:1] * len(hidden)  # equal widths, where a skip can join them
    sizes = [draw(st.sampled_from(LENGTHS)), *hidden, draw(st.sampled_from(LENGTHS[:8]))]
    return make(
        draw(st.integers(0, 2**32 - 1)),
        sizes,
        draw(st.integers(1, rows)),
        draw(st.sampled_from(activations)),
        draw(st.sampled_from(losses)),
        draw(st.sampled_from(dtypes)),
        draw(st.booleans()),
        draw(st.sampled_from([0.0, 0.01])),
    )
