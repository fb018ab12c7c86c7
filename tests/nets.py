"""Networks that tests use, and the lists of activations and losses that tests cover.

The lists come from the library's own tables, so that every test over a list includes a new row of a
table. `draw` returns a network with data and a point theta:

    net = draw(rng, [5, 9, 3], "gelu", "cross_entropy", N=40, l2=0.1, dtype=dtype)
    net.ob.hessian(net.theta) @ net.direction(rng)        # the objective
    net.ref.gradient(net.theta)                   # the NumPy oracle for equal data
    net.objective(n_threads=2, l2=0.0)            # the objective with other options
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest

import fastcurv as fc
from fastcurv import _engine
from fastcurv.network.rows import RowSource
from fastcurv.structure import tables

from .reference import ReferenceModel, ReferenceObjective

ACTIVATIONS = tuple(tables.ACTIVATIONS)
KINKED = tuple(name for name, row in tables.ACTIVATIONS.items() if row.kink)
SMOOTH = tuple(name for name, row in tables.ACTIVATIONS.items() if not row.kink)
PIECEWISE_LINEAR = tuple(name for name, row in tables.ACTIVATIONS.items() if not row.bend)
KERNELS = tuple(_engine.LOSSES)  # losses with kernels in C
# losses with one output for each target
LOSSES = tuple(name for name in tables.LOSSES if name != "gaussian_nll")
GIVEN = tuple(name for name in LOSSES if name not in KERNELS)  # losses evaluated by NumPy functions
DTYPES = ("float32", "float64")
EPS = {dtype: float(np.finfo(dtype).eps) for dtype in DTYPES}
CURVATURES = ("hessian", "ggn", "empirical_fisher")  # methods of an objective
LENGTHS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65]  # around the widths of all SIMD vectors


def kernel_tables(without: str = "") -> list[Any]:
    """Return pytest parameters of the kernel tables to test, except `without`: by day the default
    table and the plain loops, and nightly all that this CPU can run.
    """
    day = {_engine.chosen_arch(), "reference"}
    names = [name for name in _engine.available_archs() if name != without]
    return [n if n in day else pytest.param(n, marks=pytest.mark.nightly) for n in names]


every_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
every_loss = pytest.mark.parametrize("loss", LOSSES)


# --- user-defined activations


def hyperbolic(z):
    """Return tanh and its first two derivatives at z, for use as a user-defined activation."""
    a, e = np.tanh(z), np.exp(-2 * np.abs(z))
    p = 4 * e / (1 + e) ** 2
    return a, p, -2 * a * p


def arctan(z):
    w = 1 / (1 + z * z)
    return np.arctan(z), w, -2 * z * w * w


def wave(z):
    return z + 0.3 * np.sin(2 * z), 1 + 0.6 * np.cos(2 * z), -1.2 * np.sin(2 * z)


def bent(z):
    root = np.sqrt(z * z + 1)
    return z * (z / (1 + root)) / 2 + z, z / (2 * root) + 1, 1 / (2 * root**3)


def bell(z):
    e = np.exp(-z * z / 2)
    return e, -z * e, (z - 1) * (z + 1) * e


def square(z):
    return z * z / 2, z, np.ones_like(z)


def cube(z):
    return z**3 / 6, z * z / 2, z


OWN = {
    phi.__name__: fc.Activation(phi) for phi in (hyperbolic, arctan, wave, bent, bell, square, cube)
}
every_own = pytest.mark.parametrize("own", OWN)


def targets(
    rng: np.random.Generator, loss: str, N: int, d_out: int, dtype: str = "float64",
    soft: bool = False,
) -> np.ndarray:  # fmt: skip
    """Return random targets of N samples that a loss accepts: (N,) for classes and (N, d_out)
    otherwise. With `soft`, classes and labels become numbers from 0 to 1.
    """
    kind, given = tables.loss_spec(loss).targets, tables.loss_spec(loss).given
    if given is not None and given.least is not None:  # counts or positive numbers
        numbers = (
            rng.poisson(2.0, (N, d_out)) if given.least[1] else rng.exponential(2.0, (N, d_out))
        )
        return (numbers + (0 if given.least[1] else 0.1)).astype(dtype)
    if kind == "numbers":
        return rng.standard_normal((N, d_out)).astype(dtype)
    hard = rng.integers(d_out, size=N) if kind == "classes" else rng.integers(2, size=(N, d_out))
    if soft:
        return (rng.random((N, d_out)) / (d_out if kind == "classes" else 1)).astype(dtype)
    return hard if kind == "classes" else hard.astype(dtype)


@dataclass
class Net:
    """A model with data and a point theta. `options` are passed to its objective."""

    model: fc.MLP
    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None
    theta: np.ndarray
    options: dict[str, Any]

    def __post_init__(self) -> None:
        self.n, self.ob = self.model.n_params, self.objective()

    def given(self, changes: dict[str, Any]) -> tuple[tuple[Any, Any], dict[str, Any]]:
        """Return ((X, y), options) for an objective of this network, with the given changes."""
        options = {"sample_weight": self.weight, **self.options, **changes}
        return (options.pop("X", self.X), options.pop("y", self.y)), options

    def objective(self, kind: Any = fc.Objective, **changes: Any) -> Any:
        """Return an objective of the class `kind`, with the given options changed."""
        rows, options = self.given(changes)
        return kind(self.model, *rows, **options)

    def reference(self, **changes: Any) -> ReferenceObjective:
        """Return the NumPy reference of the objective, with the given options changed."""
        m, (rows, options) = self.model, self.given(changes)
        of_the_loss = "loss", "l2", "l2_biases", "sample_weight"
        known = {name: options[name] for name in of_the_loss if name in options}
        names = m.activation if isinstance(m.activation, str) else list(m.activation)
        how = {"bias": m.bias, "residual": m.residual, "batch_norm": m.batch_norm}
        return ReferenceObjective(ReferenceModel(m.sizes, names, **how), *rows, **known)

    @cached_property
    def ref(self) -> ReferenceObjective:
        return self.reference()

    def exact(self, v: np.ndarray | None = None) -> np.ndarray:
        """Return the reference's gradient at theta, or its Hessian product with v by complex steps,
        in long double.
        """
        theta, step = self.theta.astype(np.clongdouble), np.longdouble(1e-100)
        if v is None:
            return self.reference().value_and_gradient(theta)[1].real
        moved = theta + 1j * step * v.astype(np.longdouble)
        return self.reference().value_and_gradient(moved)[1].imag / step

    def direction(self, rng: np.random.Generator, *columns: int) -> np.ndarray:
        """Return a random vector (n,) or block (n, columns) in the dtype of theta."""
        return rng.standard_normal((self.n, *columns)).astype(self.theta.dtype)


def draw(
    rng: np.random.Generator | int, sizes: Any, activation: Any = "tanh", loss: str = "mse",
    N: int = 17, *, bias: bool = True, residual: bool = False, batch_norm: bool = False,
    weights: bool = False, l2: float = 0.0, dtype: str = "float64", soft: bool = False,
    kind: Any = Net, **options: Any,
) -> Any:  # fmt: skip
    """Return a random network with N random samples, as an instance of `kind`. All numbers are
    exact in the dtype, so that engine and reference have equal data. `X` and `y` replace the random
    data, and other options are passed to the objective.
    """
    rng = np.random.default_rng(rng)
    model = fc.MLP(
        sizes, activation, bias=bias, residual=residual, dtype=dtype, batch_norm=batch_norm
    )
    X = options.pop("X", None)
    X = rng.standard_normal((N, sizes[0])).astype(dtype) if X is None else X
    y = options.pop("y", None)
    y = targets(rng, loss, len(X), sizes[-1], dtype, soft) if y is None else y
    weight = rng.uniform(0.25, 2, len(X)).astype(dtype) if weights else None
    layers: list[Any] = []
    for l, (m, k) in enumerate(model.shapes):
        W = rng.standard_normal(m * k).reshape(m, k) / k**0.5
        layers.append([W, rng.standard_normal(m) / 2 if bias else None])
        if batch_norm and l < len(model.shapes) - 1:  # gamma is not 1, beta not 0
            layers[-1] += [1 + 0.3 * rng.standard_normal(m), 0.3 * rng.standard_normal(m)]
    theta = model.flatten(layers).astype(dtype)
    return kind(model, X, y, weight, theta, {"loss": loss, "l2": l2, **options})


class Blocks(RowSource):
    """A source of the given blocks (X, y) or (X, y, weights), of any sizes."""

    def __init__(self, *given: Any, entries: float | None = None) -> None:
        self.given, self.entries = given, entries

    def blocks(self, size: int) -> Any:
        for X, y, *weight in self.given:
            yield X, y, weight[0] if weight else None


def stating(**facts: Any) -> Any:
    """Return an object whose class body states the given functions and numbers."""
    body = {name: staticmethod(x) if callable(x) else x for name, x in facts.items()}
    return type("Stating", (), body)()


class Around:
    """A wrapper of an objective that delegates all attributes, whose class the library does not
    recognise.
    """

    def __init__(self, ob: Any) -> None:
        self.ob = ob

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ob, name)


def no_point_nearby_is_lower(
    ob: Any, theta: np.ndarray, rng: np.random.Generator, largest: float = 1e-2
) -> bool:
    """Return True if none of 600 random points at distances from 1e-4 `largest` to `largest` has a
    lower loss than theta. Some of these points differ in only a few parameters.
    """
    value, n = ob.value(theta), len(theta)
    for size in largest * 10.0 ** -np.arange(5.0):
        for share in (1.0, 0.5, 2.5 / n):
            steps = rng.standard_normal((40, n)) * (rng.random((40, n)) < share)
            steps *= size / np.maximum(np.linalg.norm(steps, axis=1), 1e-300)[:, None]
            if min(ob.value(theta + s) for s in steps) < value * (1 - 1e-14):
                return False
    return True
