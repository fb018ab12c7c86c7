"""What algorithms may ask of an objective or an operator: the least that works, and what is used
where it is offered.

An algorithm names the protocol it needs and asks ``isinstance(ob, Protocol)``; so what a room takes
from outside stands here, and not at the places of use. Vectors are ``(n,)`` arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]  # real, of a model's or an operator's precision
Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.intp]
Seed: TypeAlias = "int | np.integer[Any] | np.random.Generator | None"

# Names that arguments take, for type checkers and for the checks at run time.
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
SPACES = get_args(Space)  # in which questions can be asked


class Operator(Protocol):
    """A square matrix that is known by its products: an array, a sparse matrix, a
    `LinearOperator`.
    """

    @property
    def shape(self) -> tuple[Any, ...]: ...

    def __matmul__(self, x: Any, /) -> Any: ...


@runtime_checkable
class Differentiable(Protocol):
    """The least an objective is: its length, gradient, and Hessian as an operator."""

    @property
    def n_params(self) -> int: ...

    def gradient(self, theta: Any, /) -> Any: ...

    def hessian(self, theta: Any, /) -> Any: ...


@runtime_checkable
class Valued(Protocol):
    """An objective with its value."""

    def value(self, theta: Any, /) -> Any: ...


class Smooth(Valued, Protocol):
    """What the least of methods goes down on: a length, a value and a gradient."""

    @property
    def n_params(self) -> int: ...

    def gradient(self, theta: Any, /) -> Any: ...


class Curved(Valued, Protocol):
    """What a line search along curvature takes: a length, a value and a Hessian."""

    @property
    def n_params(self) -> int: ...

    def hessian(self, theta: Any, /) -> Any: ...


class Whole(Valued, Differentiable, Protocol):
    """An objective with value, gradient and Hessian."""


@runtime_checkable
class BoundsGradient(Protocol):
    """A bound on the rounding of the gradient that `gradient` returns."""

    def rounding_bound(self, theta: np.ndarray) -> float: ...


@runtime_checkable
class Precise(Protocol):
    """The gradient in more than float64, and a bound on ``||g - true g||``."""

    def precise_gradient(self, theta: np.ndarray) -> tuple[np.ndarray, float]: ...


@runtime_checkable
class ThirdBound(Protocol):
    """A Lipschitz constant of the Hessian on the ball of `radius` around theta; inf: not known."""

    def third_bound(self, theta: np.ndarray, radius: float) -> float: ...


@runtime_checkable
class ThirdBoundInUnits(Protocol):
    """The same for ``C H C`` by x on the ball ``theta + C x``, ``||x|| <= radius``, C =
    diag(units).
    """

    def third_bound_in(self, theta: np.ndarray, radius: float, units: np.ndarray) -> float: ...


@runtime_checkable
class BoundedBelow(Protocol):
    """A number that the value is nowhere below."""

    @property
    def loss_lower_bound(self) -> Any: ...


@runtime_checkable
class Kinked(Protocol):
    """How many kinks are met within `radius` of theta, or cannot be excluded there."""

    def kinks(self, theta: np.ndarray) -> int: ...


@runtime_checkable
class Symmetric(Protocol):
    """Tangents of proved symmetry groups, as columns ``(n, s)``."""

    def flat_directions(self, theta: np.ndarray) -> np.ndarray: ...


@runtime_checkable
class Orbits(Protocol):
    """Proved symmetry groups: tangents, how fast they turn, and their finite action."""

    def orbits(self, theta: np.ndarray, radius: float) -> Any: ...


@runtime_checkable
class OrbitsInUnits(Protocol):
    """By what the tangents of `orbits` may turn faster in other units of theta, at most."""

    def orbit_spread(self, units: np.ndarray) -> float: ...


@runtime_checkable
class Probed(Protocol):
    """Vectors that reach curvature which the gradient cannot see, as columns ``(n, p)``."""

    def probes(self, theta: np.ndarray) -> np.ndarray: ...


@runtime_checkable
class Saturating(Protocol):
    """How saturated the units are."""

    def saturation(self, theta: np.ndarray) -> dict[str, Any]: ...


@runtime_checkable
class Floored(Protocol):
    """A number that no eigenvalue of the Hessian at theta is below, or -inf."""

    def curvature_floor(self, theta: np.ndarray) -> float: ...


@runtime_checkable
class RunsAway(Protocol):
    """A direction along which the value falls for ever to an infimum that is not attained, or
    None.
    """

    def ray_to_infimum(self, theta: np.ndarray) -> Any: ...


@runtime_checkable
class PreciseValue(Protocol):
    """The value from extended precision, and a bound on its error, infinity where none is known."""

    def precise_value(self, theta: np.ndarray) -> tuple[float, float]: ...


@runtime_checkable
class SaysWhy(Protocol):
    """Why there is such a direction, as part of a sentence, or None."""

    def why_no_minimum(self, theta: np.ndarray) -> str | None: ...


@runtime_checkable
class SumOfSquares(Protocol):
    """What is known of the residuals of a loss that is a sum of their squares."""

    def residual_bounds(self, theta: np.ndarray, radius: float) -> Any: ...


@runtime_checkable
class HasJacobian(Protocol):
    """The Jacobian of a network's outputs, ``(N d_out, n)``, as an operator."""

    def jacobian(self, theta: np.ndarray) -> Any: ...


@runtime_checkable
class BoundsProducts(Protocol):
    """An operator with a bound on the rounding of its product with v."""

    def rounding_bound(self, v: np.ndarray) -> float: ...


@runtime_checkable
class QuadraticForms(Protocol):
    """An operator with a cheaper ``v'Hv`` than by a product."""

    def quadratic(self, V: np.ndarray) -> Any: ...


@runtime_checkable
class BoundsColumns(Protocol):
    """An operator with bounds on the rounding of its columns, ``(n,)``."""

    def column_bounds(self) -> np.ndarray: ...


@runtime_checkable
class Castable(Protocol):
    """An operator or objective that exists in another precision too."""

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
    """An objective whose kinks can be rounded off, or replaced by slopes at an active set."""

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
    """An objective over rows, and that of some of them."""

    n_samples: int

    def batch(self, rows: np.ndarray) -> Any: ...


@runtime_checkable
class Epochs(Protocol):
    """Its rows, each once and in random order, as objectives of so many: for those that are read
    block by block.
    """

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Any]: ...


@runtime_checkable
class Dense(Protocol):
    """An operator that can be written down."""

    def to_dense(self) -> np.ndarray: ...


class Reduction(Protocol):
    """A smaller symmetric operator R ``(m, m)`` that stands for H ``(n, n)``: ``H = E R E' + rest
    (I - E E')``, E ``(n, m)`` with orthonormal columns.

    `embed` takes coordinates ``(m,)``, or rows of them, to parameter space, `project` is its
    transpose; ``outside(i, j)`` are rows i to j of an orthonormal basis of the complement, of
    dimension `n_rest`. ``carried(X, found, rng)`` tells what pairs of R, X their vectors as
    rows, are worth as pairs of H, and ``inside(V, most)`` are coordinates of rows V, or None
    where they leave the space by more than `most`. Where `lowest`, no eigenvalue is below `rest`.

    E may also be known by its eigenvectors alone: `embed` is then right for those of R, `project`
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
    """Pairs of a `Reduction` as pairs of its whole: which of them are `kept`, the others being of
    the complement to within `zero`; their residuals; whether the vectors are orthogonal only where
    they are made `together`.
    """

    kept: NDArray[np.bool_]
    residuals: NDArray[np.float64]
    zero: float
    together: bool


@runtime_checkable
class Reducible(Protocol):
    """An operator that may have a `Reduction`, or None where it is not worth while."""

    def reduced(self, space: str | None = None) -> Any: ...


@runtime_checkable
class Written(Protocol):
    """A `Reduction` that is there as a matrix (m, m) in float64, `norm` its Frobenius norm but for
    `rest`; `enclosed` makes it again with proved bounds.
    """

    n: int
    rest: float
    n_rest: int
    space: str

    @property
    def matrix(self) -> NDArray[np.float64]: ...

    @property
    def bare(self) -> NDArray[np.float64]: ...  # but for `rest`

    @property
    def norm(self) -> float: ...

    def enclosed(self) -> Enclosed: ...


@runtime_checkable
class Writable(Protocol):
    """An operator that may have a `Written` reduction."""

    def written(self) -> Any: ...


class Enclosed(NamedTuple):
    """``E'HE`` by products, as they come, and what it may be off by: each column of `products` at
    most by `bounds` in norm; and with that taken away, the eigenvalues of H are those of this
    matrix and copies of `rest`, each to within `error`.
    """

    products: NDArray[np.float64]
    bounds: NDArray[np.float64]
    error: float


@runtime_checkable
class ProvedReach(Protocol):
    """What the products of H ``(n, n)`` reach, m of n dimensions, with a proof: ``H = E (E'HE) E' +
    rest (I - E E')`` to within a bound, E ``(n, m)`` orthonormal to within a bound.

    ``embed(x)`` is ``E x``, ``project(rows)`` is ``E'`` times rows ``(b, n)``; ``outside(seed)`` a
    unit vector out of reach.
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
    """An operator that may prove what its products reach, at most `most` dimensions; else None."""

    def reach(self, most: int) -> Any: ...
