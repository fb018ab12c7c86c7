"""Protocols of objectives and operators: the required methods. Vectors are ``(n,)`` arrays.

Optional methods are used where an object has them. Of an objective: ``value_and_gradient(theta)``,
``rounding_bound(theta)`` (of the gradient), ``jacobian(theta)``, ``astype(dtype)``, ``batch(rows)``
with ``n_samples``, ``batches(size, rng)`` (each row once, in random order), and certificates, see
`Certificate`. Of an operator: ``rounding_bound(v)`` (of a product),
``quadratic_form(V)``, ``to_dense()``, ``astype(dtype)``, ``reduced(space)`` (a `Reduction` or
None), ``gram_operator()`` (a `DenseReduction` or None).

The following attributes are called between subpackages and are not meant for users. All are
optional: an object without one does not have the feature that needs it.

Of an objective:

- ``why_unproved``: the reason why nothing can be proved about the loss, or "" if proofs are
  possible.

Of a model, ``fold_batch_norm(theta, statistics)``: the network without batch normalisation and its
theta.

Of an operator:

- ``fast_product``: the engine's product without checks, for one search, or None;
- ``summed_matrix()``: the matrix ``(n, n)`` summed over rows, or None where that is impossible;
- ``exact_diagonal()``: the diagonal ``(n,)``;
- ``diagonal_cost``: the cost of ``exact_diagonal()`` in products, infinite if it is not available;
- ``estimated_seconds``: the seconds that a product and the matrix of ``summed_matrix()`` take on
one core; infinite if not known;
- ``reduction_forms(products)``: the reductions that may replace this operator, each with the
  seconds of a run of `products` products: see `fastcurv.spectrum.forms`.
"""

from __future__ import annotations

from typing import (
    Any,
    Literal,
    NamedTuple,
    Protocol,
    TypeAlias,
    TypeVar,
    get_args,
    runtime_checkable,
)

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]  # a real array in the precision of a model or an operator
Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.intp]
Class = TypeVar("Class")
Seed: TypeAlias = (
    "int | np.integer[Any] | np.random.SeedSequence | np.random.BitGenerator"
    " | np.random.Generator | None"
)

# Allowed names in arguments, for type checkers and for checks at run time.
Scheme: TypeAlias = Literal["auto", "he", "xavier", "lecun"]
Which: TypeAlias = Literal["LA", "SA", "LM", "BE"]
Space: TypeAlias = Literal["samples", "outputs", "inputs", "parameters"]
Axis: TypeAlias = Literal["linear", "log"]
Tracing: TypeAlias = Literal["auto", "exact", "hutchinson"]
Walking: TypeAlias = Literal["follow", "newton-mr"]
FirstOrder: TypeAlias = Literal["sgd", "momentum", "nesterov", "rmsprop", "adam", "l-bfgs", "lbfgs"]
SecondOrder: TypeAlias = Literal[
    "newton", "damped-newton", "newton-mr", "saddle-free-newton", "newton-cg", "trust-region",
    "cubic", "gauss-newton", "levenberg-marquardt", "lm",
]  # fmt: skip
Descent: TypeAlias = FirstOrder | SecondOrder
Solver: TypeAlias = Descent | Literal["auto"]
#: Names of certificates, which are proved statements about an objective: attributes of its
#: ``certificates``, see `fastcurv.certify.certificates.Certificates`, or of the objective itself. A
#: bound of infinity or NaN means that no bound is known.
Certificate: TypeAlias = Literal[
    "attains_lower_bound", "curvature_floor", "flat_directions", "kinks",
    "loss_lower_bound", "orbit_spread", "orbits", "precise_gradient", "precise_value", "probes",
    "ray_to_infimum", "relu_rows", "residual_bounds", "saturation", "third_bound",
    "third_bound_in_units", "why_no_minimum",
]  # fmt: skip
SPACE_NAMES = get_args(Space)  # spaces in which a spectrum can be computed
# Names from the lists above that are used between subpackages and not meant for users; the pages of
# the documentation leave them out.
INTERNAL_NAMES = frozenset(
    ("diagonal_cost", "estimated_seconds", "exact_diagonal", "fast_product", "fold_batch_norm",
     "reduction_forms", "rounded", "summed_matrix", "why_unproved")
)  # fmt: skip


class OperatorLike(Protocol):
    """A square matrix known by its products: an array, a sparse matrix, a `LinearOperator`."""

    @property
    def shape(self) -> tuple[Any, ...]:
        """The size ``(n, n)``."""

    def __matmul__(self, x: Any, /) -> Any:
        """Return the product with a vector ``(n,)`` or a block ``(n, k)``."""


class SupportsDerivatives(Protocol):
    """The minimal objective: number of parameters, gradient, and Hessian as an operator."""

    @property
    def n_params(self) -> int:
        """The length of theta."""

    def gradient(self, theta: Any, /) -> Any:
        """Return the gradient ``(n_params,)``."""

    def hessian(self, theta: Any, /) -> Any:
        """Return the Hessian as an operator ``(n_params, n_params)``."""


class SupportsValue(Protocol):
    """An objective that can compute its value."""

    def value(self, theta: Any, /) -> Any:
        """Return the loss as a number."""


class SupportsGradient(SupportsValue, Protocol):
    """The minimum that any minimiser needs: number of parameters, value and gradient."""

    @property
    def n_params(self) -> int:
        """The length of theta."""

    def gradient(self, theta: Any, /) -> Any:
        """Return the gradient ``(n_params,)``."""


class SupportsHessian(SupportsValue, Protocol):
    """The minimum for a line search along curvature: number of parameters, value and Hessian."""

    @property
    def n_params(self) -> int:
        """The length of theta."""

    def hessian(self, theta: Any, /) -> Any:
        """Return the Hessian as an operator ``(n_params, n_params)``."""


class TwiceDifferentiable(SupportsValue, SupportsDerivatives, Protocol):
    """An objective with value, gradient and Hessian."""


class KinkObjective(Protocol):
    """A loss as a smooth function of a point (n_params,), which joins theta (n_theta,) and slopes
    (n_slopes,) at kinks, with the bounds of a proof.
    """

    n_params: int
    n_theta: int
    n_slopes: int
    n_kinks: int
    n_collapsed: int
    n_copies: int

    def with_slope_units(self, units: np.ndarray) -> Any:
        """Return the objective with the slopes in the given units."""

    def hessian(self, point: np.ndarray) -> np.ndarray:
        """Return the Hessian at the point as a matrix (n_params, n_params)."""

    def hessian_error(self, point: np.ndarray) -> float:
        """Return a bound on the 2-norm of the error of `hessian` at the point."""

    def precise_gradient(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradient at the point and bounds on the errors of its entries."""

    def third_bound(self, point: np.ndarray, radius: float) -> float:
        """Return a Lipschitz constant of the Hessian within `radius` of the point."""

    def hypothesis_margins(self, point: np.ndarray, radius: float) -> Any:
        """Return the margins of the hypotheses of a proof within `radius` of the point."""


class Subspace(Protocol):
    """A subspace of dimension m of an n-dimensional space, outside which an operator H ``(n, n)``
    is the multiple c = `complement_eigenvalue` of the identity: ``H = E (E'HE) E' + c (I - E E')``,
    where E ``(n, m)`` has orthonormal columns. The complement has dimension `n_complement`.
    """

    n: int
    complement_eigenvalue: float
    n_complement: int
    space: str

    def embed(self, x: np.ndarray) -> np.ndarray:
        """Return ``E x`` (n,), the vector of parameter space with coordinates x (m,), or rows (k,
        n) for rows (k, m).
        """

    def project(self, v: np.ndarray) -> np.ndarray:
        """Return ``E' v`` (m,) for v (n,), or rows (k, m) for rows (k, n)."""


class Reduction(Subspace, Protocol):
    """A smaller symmetric operator R ``(m, m)``, R = E'HE, that represents H in a `Subspace`.

    If `lowest` is True, no eigenvalue of H is below `complement_eigenvalue`. E may be known only by
    its action on eigenvectors. Then `embed` is valid for eigenvectors of R and `project` for those
    of H, up to their lengths.
    """

    shape: tuple[int, int]
    lowest: bool

    def product(self, v: np.ndarray, out: np.ndarray | None = None) -> Any:
        """Return ``R v``, written to `out` if that is given."""

    def complement_rows(self, start: int, stop: int) -> np.ndarray:
        """Return rows ``start .. stop - 1`` of an orthonormal basis (n_complement, n) of the
        complement.
        """

    def lift_eigenpairs(self, X: Array, found: Any, rng: Any) -> LiftedEigenpairs:
        """Convert eigenpairs of R to eigenpairs of H. X holds the eigenvectors as rows, `found` has
        the eigenvalues `values`, the `residuals` and an estimate `scale` of ||R||, and rng is a
        random generator.
        """

    def find_coordinates(self, V: Array, most: float) -> Array | None:
        """Return the coordinates of the rows of V. Return None if, for a row, the distance from the
        space exceeds `most` times the length of the row.
        """


class LiftedEigenpairs(NamedTuple):
    """Eigenpairs of a `Reduction` as eigenpairs of H. `kept` is a mask, True for the pairs that are
    pairs of H in the subspace. The other pairs have eigenvalues that differ from
    `complement_eigenvalue` by at most `zero`, and belong to the complement. `residuals` has an
    estimate of the residual of each pair. `jointly_orthogonal` is True if the vectors are
    orthogonal only if all are embedded in one call.
    """

    kept: NDArray[np.bool_]
    residuals: NDArray[np.float64]
    zero: float
    jointly_orthogonal: bool


@runtime_checkable
class DenseReduction(Protocol):
    """A `Reduction` available as a matrix. The protocol is not derived from another protocol,
    because checks at run time would then take long.
    """

    n: int
    complement_eigenvalue: float
    n_complement: int
    space: str

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The matrix ``(m, m)``."""

    @property
    def core_matrix(self) -> NDArray[np.float64]:
        """The matrix (m, m) without the multiple `complement_eigenvalue` of the identity."""

    @property
    def norm(self) -> float:
        """The Frobenius norm of `core_matrix`."""

    def matrix_with_bounds(self) -> EnclosedMatrix:
        """Return the matrix, recomputed with proved bounds on its errors."""


class EnclosedMatrix(NamedTuple):
    """The matrix ``E'HE`` computed by products, with error bounds.

    The error of column i of `products` has a norm of at most ``bounds[i]``. The eigenvalues of H
    are those of the exact matrix and copies of `complement_eigenvalue`, each to within `error`.
    """

    products: NDArray[np.float64]
    bounds: NDArray[np.float64]
    error: float


# --------------------------------------------------------------------------------------------------
# The rule that decides which facts of an object may be used: proofs, error bounds, engine steps,
# casts and faster products.
#
# A fact is an attribute. An object states it if its exact class is one of this library's, which
# enter a table where they are defined, or if the body of its class defines the attribute. Facts
# are neither inherited nor forwarded: a subclass of a library class may replace the loss or the
# products and still inherit attributes that were written for the original. An operator derived from
# another one, its `whole`, has only the facts that the other one states.

# Methods that an operator may offer in addition to its products.
OPTIONAL_OPERATOR_METHODS = (
    "rounding_bound", "quadratic_form", "to_dense", "astype", "reduced",
    "gram_operator", "assembled", "fast_product", "summed_matrix", "exact_diagonal",
    "diagonal_cost", "gradient", "objective", "estimated_seconds", "reduction_forms",
)  # fmt: skip
PRODUCT_METHODS = "__matmul__", "product", "matmat", "_matmat", "matvec", "_matvec"
NOT_OFFERED_REASON = "none is offered"
_LIBRARY_CLASSES: set[type] = set()


def library_class(kind: type[Class]) -> type[Class]:
    """Enter a class of this library into the table of classes whose attributes are facts. Usable
    as a class decorator.
    """
    _LIBRARY_CLASSES.add(kind)
    return kind


def is_library_object(x: Any) -> bool:
    """Return True if the exact class of x is one of this library's, and so is that of the operator
    from which x is derived.
    """
    if type(x) not in _LIBRARY_CLASSES:
        return False
    whole = x.__dict__.get("whole")
    return whole is None or is_library_object(whole)


def states(x: Any, name: str) -> bool:
    """Return True if x states the fact `name`: the body of its class defines the attribute, or its
    exact class is one of this library's that has the attribute.

    Examples
    --------
    >>> import fastcurv as fc
    >>> class Shifted(fc.Objective):
    ...     def value(self, theta):
    ...         return super().value(theta) + 1.0
    >>> given = fc.MLP([1, 1]), [[1.0]], [[2.0]], "mse"
    >>> states(fc.Objective(*given), "certificates"), states(Shifted(*given), "certificates")
    (True, False)
    """
    kind = type(x)
    if kind not in _LIBRARY_CLASSES:
        return name in vars(kind)
    if not is_library_object(x) and not states(x.__dict__["whole"], name):
        return False
    # A `StatedOperator` forwards the facts that the class of its operator states.
    return hasattr(kind, name) or (hasattr(kind, "__getattr__") and hasattr(x, name))


def missing_reason(x: Any, name: str) -> str:
    """Return the reason why x does not state the fact `name`, as a clause, or "" if it does. An
    attribute that is None counts as missing.
    """
    if states(x, name):
        return "" if getattr(x, name) is not None else NOT_OFFERED_REASON
    if not hasattr(x, name):
        return NOT_OFFERED_REASON
    kind = type(x)
    if kind in _LIBRARY_CLASSES:
        return missing_reason(x.__dict__["whole"], name)
    return f"the class {kind.__name__} does not define {name} itself"


def missing_bound_reason(x: Any, name: str = "rounding_bound") -> str:
    """Return the reason why the method `name` of x, which bounds rounding errors, is not stated or
    returns None, or "" if it returns a bound.
    """
    why = missing_reason(x, name)
    return why or (getattr(x, "why_unproved", "") if is_library_object(x) else "")
