"""Protocols of objectives and operators: the required methods, and the optional ones that
algorithms use if present.

An algorithm names the protocol it needs and checks ``isinstance(ob, Protocol)``, so that all
assumptions about objects from outside are stated here, and not at the places of use. Vectors are
``(n,)`` arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]  # real, in the precision of a model or an operator
Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.intp]
Seed: TypeAlias = "int | np.integer[Any] | np.random.Generator | None"

# Allowed names in arguments, for type checkers and for checks at run time.
Loss: TypeAlias = Literal["mse", "cross_entropy", "binary_cross_entropy"]
Activation: TypeAlias = Literal[
    "identity", "relu", "leaky_relu", "tanh", "sigmoid", "softplus", "silu", "gelu", "elu"
]
Scheme: TypeAlias = Literal["auto", "he", "xavier", "lecun"]
Which: TypeAlias = Literal["LA", "SA", "LM", "BE"]
Space: TypeAlias = Literal["samples", "outputs", "inputs", "parameters"]
Axis: TypeAlias = Literal["linear", "log"]
Tracing: TypeAlias = Literal["auto", "hutchinson", "hutch++", "xtrace"]
Norming: TypeAlias = Literal["auto", "hutchinson", "hutch++"]
Diagonals: TypeAlias = Literal["auto", "hutchinson", "xdiag"]
Walking: TypeAlias = Literal["newton-mr", "gradient-norm"]
FirstOrder: TypeAlias = Literal["sgd", "momentum", "nesterov", "rmsprop", "adam", "l-bfgs", "lbfgs"]
SecondOrder: TypeAlias = Literal[
    "newton", "damped-newton", "newton-mr", "saddle-free-newton", "newton-cg", "trust-region",
    "cubic", "gauss-newton",
]  # fmt: skip
Layered: TypeAlias = Activation | Callable[..., Any] | Sequence[Activation | Callable[..., Any]]
Descent: TypeAlias = FirstOrder | SecondOrder
Solver: TypeAlias = Descent | Literal["auto"]
SPACES = get_args(Space)  # spaces in which a spectrum can be computed


class Operator(Protocol):
    """A square matrix known by its products: an array, a sparse matrix, a `LinearOperator`."""

    @property
    def shape(self) -> tuple[Any, ...]: ...

    def __matmul__(self, x: Any, /) -> Any: ...


@runtime_checkable
class Differentiable(Protocol):
    """The minimal objective: its length, gradient, and Hessian as an operator."""

    @property
    def n_params(self) -> int: ...

    def gradient(self, theta: Any, /) -> Any: ...

    def hessian(self, theta: Any, /) -> Any: ...


@runtime_checkable
class Valued(Protocol):
    """An objective with its value."""

    def value(self, theta: Any, /) -> Any: ...


class Smooth(Valued, Protocol):
    """The minimum that any minimiser needs: a length, a value and a gradient."""

    @property
    def n_params(self) -> int: ...

    def gradient(self, theta: Any, /) -> Any: ...


class Curved(Valued, Protocol):
    """The minimum for a line search along curvature: a length, a value and a Hessian."""

    @property
    def n_params(self) -> int: ...

    def hessian(self, theta: Any, /) -> Any: ...


class Whole(Valued, Differentiable, Protocol):
    """An objective with value, gradient and Hessian."""


@runtime_checkable
class BoundsGradient(Protocol):
    """An objective with a bound on the rounding of its `gradient`."""

    def rounding_bound(self, theta: np.ndarray) -> float: ...


@runtime_checkable
class Precise(Protocol):
    """An objective with a gradient in more than float64, and a bound on ``||g - true g||``."""

    def precise_gradient(self, theta: np.ndarray) -> tuple[np.ndarray, float]: ...


@runtime_checkable
class ThirdBound(Protocol):
    """An objective with a Lipschitz constant of its Hessian on the ball of `radius` around theta,
    inf if unknown.
    """

    def third_bound(self, theta: np.ndarray, radius: float) -> float: ...


@runtime_checkable
class ThirdBoundInUnits(Protocol):
    """An objective with a Lipschitz constant of ``C H C`` in x on the ball ``theta + C x``, ``||x||
    <= radius``, with C = diag(units).
    """

    def third_bound_in(self, theta: np.ndarray, radius: float, units: np.ndarray) -> float: ...


@runtime_checkable
class BoundedBelow(Protocol):
    """An objective with a known lower bound on its value."""

    @property
    def loss_lower_bound(self) -> Any: ...


@runtime_checkable
class Kinked(Protocol):
    """An objective that counts the kinks it may meet at theta, or within an optional `radius` of
    it: those it cannot exclude.
    """

    def kinks(self, theta: np.ndarray) -> int: ...


@runtime_checkable
class Symmetric(Protocol):
    """An objective with the tangents of its proved symmetry groups, as columns ``(n, s)``."""

    def flat_directions(self, theta: np.ndarray) -> np.ndarray: ...


@runtime_checkable
class Orbits(Protocol):
    """An objective with its proved symmetry groups: tangents, how fast they turn, and their finite
    action.
    """

    def orbits(self, theta: np.ndarray, radius: float) -> Any: ...


@runtime_checkable
class OrbitsInUnits(Protocol):
    """An objective with a bound on how much faster the tangents of `orbits` turn in other units of
    theta.
    """

    def orbit_spread(self, units: np.ndarray) -> float: ...


@runtime_checkable
class Probed(Protocol):
    """An objective with vectors that reach curvature invisible to the gradient, as columns ``(n,
    p)``.
    """

    def probes(self, theta: np.ndarray) -> np.ndarray: ...


@runtime_checkable
class Saturating(Protocol):
    """An objective that reports how saturated its units are."""

    def saturation(self, theta: np.ndarray) -> dict[str, Any]: ...


@runtime_checkable
class Floored(Protocol):
    """An objective with a lower bound on the eigenvalues of its Hessian at theta, or -inf."""

    def curvature_floor(self, theta: np.ndarray) -> float: ...


@runtime_checkable
class RunsAway(Protocol):
    """An objective that may return a direction along which its value falls for ever to an infimum
    that is not attained, else None.
    """

    def ray_to_infimum(self, theta: np.ndarray) -> Any: ...


@runtime_checkable
class PreciseValue(Protocol):
    """An objective with a value in extended precision, and a bound on its error, infinite if
    unknown.
    """

    def precise_value(self, theta: np.ndarray) -> tuple[float, float]: ...


@runtime_checkable
class SaysWhy(Protocol):
    """An objective that says why `RunsAway` returns a direction, as part of a sentence, or None."""

    def why_no_minimum(self, theta: np.ndarray) -> str | None: ...


@runtime_checkable
class SumOfSquares(Protocol):
    """An objective whose loss is a sum of squared residuals, with bounds on these."""

    def residual_bounds(self, theta: np.ndarray, radius: float) -> Any: ...


@runtime_checkable
class HasJacobian(Protocol):
    """An objective with the Jacobian of a network's outputs, ``(N d_out, n)``, as an operator."""

    def jacobian(self, theta: np.ndarray) -> Any: ...


@runtime_checkable
class BoundsProducts(Protocol):
    """An operator with a bound on the rounding of its product with v."""

    def rounding_bound(self, v: np.ndarray) -> float: ...


@runtime_checkable
class QuadraticForms(Protocol):
    """An operator that computes ``v'Hv`` at a lower cost than a product."""

    def quadratic(self, V: np.ndarray) -> Any: ...


@runtime_checkable
class BoundsColumns(Protocol):
    """An operator with bounds on the rounding of its columns, ``(n,)``."""

    def column_bounds(self) -> np.ndarray: ...


@runtime_checkable
class Castable(Protocol):
    """An operator or objective that can be converted to another precision."""

    def astype(self, dtype: Any) -> Any: ...


@runtime_checkable
class HeldByKinks(Protocol):
    """A loss as a smooth function of theta and of slopes at kinks, with the bounds of a proof."""

    n_params: int
    n_theta: int
    n_slopes: int
    n_kinks: int
    n_collapsed: int
    n_copies: int

    def in_units(self, units: np.ndarray) -> Any: ...

    def hessian(self, point: np.ndarray) -> np.ndarray: ...

    def hessian_error(self, point: np.ndarray) -> float: ...

    def precise_gradient(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...

    def third_bound(self, point: np.ndarray, radius: float) -> float: ...

    def margins(self, point: np.ndarray, radius: float) -> Any: ...


@runtime_checkable
class OnKinks(Protocol):
    """An objective whose kinks can be smoothed, or replaced by slopes at an active set."""

    def leaks(self) -> list[float]: ...

    def smoothed(self, width: float) -> Any: ...

    def felt(self, gates: list[np.ndarray]) -> list[np.ndarray]: ...

    def copies(
        self, theta: np.ndarray, gates: list[np.ndarray], collapsed: list[np.ndarray]
    ) -> list[np.ndarray]: ...

    def held(
        self,
        gates: list[np.ndarray],
        collapsed: list[np.ndarray],
        parents: list[np.ndarray] | None = None,
    ) -> Any: ...


@runtime_checkable
class Batched(Protocol):
    """An objective over rows, which can be restricted to some of them."""

    n_samples: int

    def batch(self, rows: np.ndarray) -> Any: ...


@runtime_checkable
class Epochs(Protocol):
    """An objective that iterates over mini-batches, with each row once and in random order, for
    rows that are read block by block.
    """

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Any]: ...


@runtime_checkable
class Dense(Protocol):
    """An operator that can return its dense matrix."""

    def to_dense(self) -> np.ndarray: ...


class Reduction(Protocol):
    """A smaller symmetric operator R ``(m, m)`` that represents H ``(n, n)``: ``H = E R E' + rest
    (I - E E')``, E ``(n, m)`` with orthonormal columns.

    `embed` maps coordinates ``(m,)``, or rows of them, to parameter space, and `project` is its
    transpose; ``outside(i, j)`` returns rows i to j of an orthonormal basis of the complement,
    which has dimension `n_rest`. ``carried(X, found, rng)`` converts pairs of R, with vectors as
    rows of X, to pairs of H, and ``inside(V, most)`` returns the coordinates of rows V, or None if
    they leave the space by more than `most`. If `lowest`, no eigenvalue is below `rest`. E may be
    known only by its action on eigenvectors: then `embed` is valid for those of R, and `project`
    for those of H, up to length.
    """

    shape: tuple[int, int]
    n: int
    rest: float
    n_rest: int
    space: str
    lowest: bool

    def product(self, v: np.ndarray, out: np.ndarray | None = None) -> Any: ...

    def embed(self, x: np.ndarray) -> np.ndarray: ...

    def project(self, v: np.ndarray) -> np.ndarray: ...

    def outside(self, start: int, stop: int) -> np.ndarray: ...

    def carried(self, X: Array, found: Any, rng: Any) -> Carried: ...

    def inside(self, V: Array, most: float) -> Array | None: ...


class Carried(NamedTuple):
    """Pairs of a `Reduction` as pairs of H: a mask of those `kept`, while the others belong to the
    complement to within `zero`; their residuals; and whether vectors are orthogonal only if
    embedded `together`.
    """

    kept: NDArray[np.bool_]
    residuals: NDArray[np.float64]
    zero: float
    together: bool


@runtime_checkable
class Reducible(Protocol):
    """An operator that may have a `Reduction`; None if that does not pay."""

    def reduced(self, space: str | None = None) -> Any: ...


@runtime_checkable
class Written(Protocol):
    """A `Reduction` available as a matrix (m, m) in float64, with the Frobenius norm `norm` of the
    matrix without `rest`; `enclosed` recomputes it with proved bounds.
    """

    n: int
    rest: float
    n_rest: int
    space: str

    @property
    def matrix(self) -> NDArray[np.float64]: ...

    @property
    def bare(self) -> NDArray[np.float64]: ...  # without `rest`

    @property
    def norm(self) -> float: ...

    def enclosed(self) -> Enclosed: ...


@runtime_checkable
class Writable(Protocol):
    """An operator that may have a `Written` reduction."""

    def written(self) -> Any: ...


class Enclosed(NamedTuple):
    """The matrix ``E'HE`` as computed by products, with error bounds: each column of `products` is
    off by at most its entry of `bounds` in norm; apart from that, the eigenvalues of H are those of
    this matrix and copies of `rest`, each to within `error`.
    """

    products: NDArray[np.float64]
    bounds: NDArray[np.float64]
    error: float


@runtime_checkable
class ProvedReach(Protocol):
    """The range of the products of H ``(n, n)``, m of n dimensions, with a proof: ``H = E (E'HE) E'
    + rest (I - E E')`` to within a bound, E ``(n, m)`` orthonormal to within a bound.

    ``embed(x)`` returns ``E x``, ``project(rows)`` returns ``E'`` times rows ``(b, n)``, and
    ``outside(seed)`` a unit vector orthogonal to the range.
    """

    n: int
    m: int
    rest: float
    n_rest: int
    space: str

    def matrix(self) -> Enclosed: ...

    def embed(self, x: np.ndarray) -> np.ndarray: ...

    def project(self, rows: np.ndarray) -> np.ndarray: ...

    def outside(self, seed: int = 0) -> np.ndarray: ...


@runtime_checkable
class Reaching(Protocol):
    """An operator that may prove the range of its products, of at most `most` dimensions; None if
    it cannot.
    """

    def reach(self, most: int) -> Any: ...
