"""Protocols of objectives and operators: the required methods. Vectors are ``(n,)`` arrays.

Optional methods are used where an object has them. Of an objective: ``value_and_gradient(theta)``,
``rounding_bound(theta)`` (of the gradient), ``jacobian(theta)``, ``astype(dtype)``, ``batch(rows)``
with ``n_samples``, ``batches(size, rng)`` (each row once, in random order), and certificates, see
`Certificate`. Of an operator: ``rounding_bound(v)`` (of a product), ``column_error_bounds()`` (n,),
``quadratic_form(V)``, ``to_dense()``, ``astype(dtype)``, ``reduced(space)`` (a `Reduction` or
None), ``gram_operator()`` (a `DenseReduction` or None), ``range_space(max_dim)`` (a `ProvedRange`
of at most that many dimensions, or None).

The following attributes are called between subpackages and are not meant for users. All are
optional: an object without one does not have the feature that needs it.

Of an objective:

- ``with_model(model)``: the objective of another network on the same rows;
- ``engine_steps``: an `EngineSteps` or None;
- ``plan_layout()``: the division of the rows in the engine;
- ``sum_over_rows(part, *arguments)``: the sum of a function over shards of the rows;
- ``why_unproved``: the reason why nothing can be proved about the loss, or "" if proofs are
  possible.

Of a model, ``fold_batch_norm(theta, statistics)``: the network without batch normalisation and its
theta.

Of an operator:

- ``fast_product``: the engine's product without checks, for one search, or None;
- ``summed_matrix()``: the matrix ``(n, n)`` summed over rows, or None where that is impossible;
- ``estimated_seconds``: the seconds that a product and the matrix of ``summed_matrix()`` take on
one core; infinite if not known;
- ``candidate_operators(products)``: the smaller operators that may replace this one, each with the
  seconds of a run of `products` products: see `fastcurv.spectrum.forms`.
"""

from __future__ import annotations

from operator import attrgetter, is_
from typing import (
    Any,
    Literal,
    NamedTuple,
    Protocol,
    TypeAlias,
    cast,
    get_args,
    runtime_checkable,
)
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]  # a real array in the precision of a model or an operator
Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.intp]
Seed: TypeAlias = "int | np.integer[Any] | np.random.Generator | None"

# Allowed names in arguments, for type checkers and for checks at run time.
Scheme: TypeAlias = Literal["auto", "he", "xavier", "lecun"]
Which: TypeAlias = Literal["LA", "SA", "LM", "BE"]
Space: TypeAlias = Literal["samples", "outputs", "inputs", "parameters"]
Axis: TypeAlias = Literal["linear", "log"]
Tracing: TypeAlias = Literal["auto", "hutchinson", "hutch++", "xtrace"]
Norming: TypeAlias = Literal["auto", "hutchinson", "hutch++"]
Diagonals: TypeAlias = Literal["auto", "hutchinson", "xdiag"]
Walking: TypeAlias = Literal["follow", "newton-mr", "gradient-norm"]
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
    "attains_lower_bound", "curvature_floor", "flat_directions", "has_pure_methods", "kinks",
    "loss_lower_bound", "orbit_spread", "orbits", "precise_gradient", "precise_value", "probes",
    "ray_to_infimum", "relu_rows", "residual_bounds", "saturation", "third_bound",
    "third_bound_in_units", "why_no_minimum",
]  # fmt: skip
SPACE_NAMES = get_args(Space)  # spaces in which a spectrum can be computed
# Names from the lists above that are used between subpackages and not meant for users; `dir` of an
# object omits these names.
NAMES_HIDDEN_FROM_DIR = frozenset(
    ("engine_steps", "estimated_seconds", "fast_product", "fold_batch_norm", "plan_layout",
     "candidate_operators", "sum_over_rows", "summed_matrix", "why_unproved", "with_model")
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


class ProvedRange(Subspace, Protocol):
    """The range of the products of H, a `Subspace` with a proof: up to bounds, E is orthonormal and
    H is `complement_eigenvalue` times the identity outside.
    """

    m: int

    def matrix(self) -> EnclosedMatrix:
        """Return ``E'HE`` with error bounds."""

    def complement_vector(self, seed: int = 0) -> np.ndarray:
        """Return a unit vector orthogonal to the range."""


class EngineSteps(Protocol):
    """The steps of minimisers that the engine computes for an objective whose loss it evaluates, as
    the objective's ``engine_steps``. A method returns None if the engine cannot compute the
    steps.
    """

    objective: Any

    @property
    def uses_matrix(self) -> bool:
        """True if `levenberg_solver` returns a run, because the Gauss-Newton matrix is positive
        semidefinite everywhere.
        """

    def levenberg_solver(self, theta: Array) -> Any:
        """Return a run of Levenberg-Marquardt steps from `theta`, which is updated in place."""

    def point_evaluator(self) -> Any:
        """Return an evaluator of losses, gradients and products at the current point of a run and
        at trial points. The result is None unless evaluations take so little time that overhead in
        Python matters, and the GGN is positive semidefinite.
        """

    def locked_run_function(self, minimiser: Any) -> Any:
        """Return ``minimiser.run`` with the objective's own plan bound as its first argument."""

    def kronecker_coordinates(self) -> Any:
        """Return the `fastcurv.network.kronecker.KroneckerCoordinates` of the parameters."""


# --------------------------------------------------------------------------------------------------
# The rule that decides if an attribute of an object belongs to the functions that the object has.
# Proofs, engine steps, casts and faster products are used only if it does.
#
# A subclass, an assigned attribute or a wrapper may replace the value of an objective, or the
# products of an operator, and still inherit or forward attributes that were written for the
# original functions. An attribute is the object's own
# - if it was assigned to the object itself;
# - if a class defines it, and no function that this class has is replaced by a class derived from
#   it or by an assignment;
# - if the object forwards all functions of one other object, whose own attribute it is.
# Classes of this library count as one class, and the attributes of an objective that they read
# count as its functions.

LOSS_METHODS = "value", "gradient", "value_and_gradient", "hessian", "ggn", "jacobian"
PRODUCT_METHODS = "__matmul__", "product", "matmat", "_matmat", "matvec", "_matvec"
LOSS_AND_PRODUCT_METHODS = (*LOSS_METHODS, *PRODUCT_METHODS)
# Attributes of an objective that the proofs and the engine read, in addition to its functions.
OBJECTIVE_DATA_ATTRIBUTES = (
    "model", "loss", "l2", "l2_biases", "X", "y", "sample_weight", "dtype", "n_params", "n_samples",
    "__getattribute__",
)  # fmt: skip
# Methods that an operator may offer in addition to its products.
OPTIONAL_OPERATOR_METHODS = (
    "rounding_bound", "column_error_bounds", "quadratic_form", "to_dense", "astype", "reduced",
    "gram_operator", "range_space", "assembled", "fast_product", "summed_matrix", "gradient",
    "objective",
)  # fmt: skip
NOT_OFFERED_REASON = "none is offered"
_OWNERSHIP_ATTRIBUTES = (*LOSS_AND_PRODUCT_METHODS, *OBJECTIVE_DATA_ATTRIBUTES)
# Cache of `replaced_reason` with the entries {class: {(name, functions): (getter of the class's
# functions, the functions found, attributes that must not be assigned on the object,
# explanation)}}.
_REPLACED_CACHE: WeakKeyDictionary[type, dict[Any, Any]] = WeakKeyDictionary()


def missing_reason(x: Any, name: str, functions: tuple[str, ...] = ()) -> str:
    """Return the reason why an object has no attribute `name` that belongs to its own functions, as
    a clause, or "" if it has one. An attribute that is None counts as missing.

    Parameters
    ----------
    x : object
        An objective or an operator.
    name : str
        An attribute, such as ``certificates``, ``engine_steps`` or ``rounding_bound``.
    functions : tuple of str
        The functions that the attribute must belong to: all by default.

    Examples
    --------
    >>> import fastcurv as fc
    >>> ob = fc.Objective(fc.MLP([1, 1]), [[1.0]], [[2.0]], "mse")
    >>> missing_reason(ob, "certificates")
    ''
    >>> ob.value = lambda theta: 0.0
    >>> missing_reason(ob, "certificates")
    'Objective replaces value, so proofs about the original do not apply'
    """
    why = replaced_reason(x, name, functions)
    if why or getattr(x, name, None) is not None:
        return why
    return getattr(x, "why_unproved", "") or NOT_OFFERED_REASON


def replaced_reason(x: Any, name: str, functions: tuple[str, ...] = ()) -> str:
    """Return the reason why the attribute `name` does not belong to the functions of x, as
    `missing_reason` does, but without evaluating the attribute if a class defines it.
    """
    kind, assigned = type(x), _instance_attributes(x)
    # The part of the result that depends on the class alone is cached until a function of the class
    # changes.
    parts, then, deciding, why = _REPLACED_CACHE.get(kind, {}).get(
        (name, functions), (None, (), (), "")
    )
    if parts and all(map(is_, parts(kind), then)) and assigned.keys().isdisjoint(deciding):
        return str(why)
    home, wanted = _defining_class(kind, name), functions or LOSS_AND_PRODUCT_METHODS
    if name in assigned and not _is_data_descriptor(_getattr_static(kind, name)):
        home = next(
            (
                one
                for one in kind.__mro__
                if _is_library_class(one) and _declares_attribute(one, name)
            ),
            None,
        )
        if home is None:
            return ""
    if home is None:
        if not hasattr(x, name):
            return NOT_OFFERED_REASON
        within = _find_wrapped_object(x, assigned, wanted)
        if isinstance(within, str):
            return _describe_override(kind, within)
        return replaced_reason(within, name, functions)
    for one in wanted:
        if (
            one in assigned
            and _defining_class(home, one)
            and not _is_data_descriptor(_getattr_static(kind, one))
        ):
            return _describe_override(kind, one)
    why = _describe_replaced_function(kind, home, functions)
    if name not in assigned:
        parts = attrgetter(
            "__class__", *(one for one in _OWNERSHIP_ATTRIBUTES if hasattr(kind, one))
        )
        deciding = frozenset((name, *wanted))
        _REPLACED_CACHE.setdefault(kind, {})[name, functions] = parts, parts(kind), deciding, why
    return why


def replaces_products(op: Any) -> bool:
    """Return True if the operator has an optional method that was written for a product method
    which a subclass or an instance has since replaced.
    """
    if _is_library_class(type(op)) and _instance_attributes(op).keys().isdisjoint(PRODUCT_METHODS):
        return False
    there = (
        name
        for name in OPTIONAL_OPERATOR_METHODS
        if is_own_attribute(op, name) or hasattr(op, name)
    )
    return any(replaced_reason(op, name) for name in there)


def product_method_name(op: Any) -> str:
    """Return the name of the product method that takes precedence: the first one found among the
    attributes of the operator itself and then of its classes, in the order of inheritance.
    """
    places = (_instance_attributes(op), *(kind.__dict__ for kind in type(op).__mro__))
    return next(name for place in places for name in PRODUCT_METHODS if name in place)


def unwrap_object(x: Any) -> Any:
    """Return the object whose functions the wrapper x forwards, through any number of wrappers, or
    x itself if x is not a wrapper.
    """
    within = x
    while not isinstance(
        found := _find_wrapped_object(within, _instance_attributes(within), LOSS_METHODS), str
    ):
        within = found
    return within


def is_own_attribute(x: Any, name: str) -> bool:
    """Return True if an attribute belongs to the object or its class, and is not forwarded from
    another object.
    """
    return name in _instance_attributes(x) or _defining_class(type(x), name) is not None


def _describe_override(kind: type, function: str) -> str:
    return f"{kind.__name__} replaces {function}, so proofs about the original do not apply"


def _instance_attributes(x: Any) -> dict[str, Any]:
    """Return the attributes that were assigned to the object itself."""
    try:
        return cast("dict[str, Any]", object.__getattribute__(x, "__dict__"))
    except AttributeError:
        # Objects of classes with __slots__ have no __dict__.
        return {}


def _defining_class(kind: type, name: str) -> type | None:
    """Return the class that defines an attribute of `kind`, which is `kind` itself or one of its
    base classes, or None if there is none.
    """
    for one in kind.__mro__:
        if name in one.__dict__ and one is not object:
            return one
    return None


def _getattr_static(kind: type, name: str) -> Any:
    return getattr(_defining_class(kind, name), "__dict__", {}).get(name)


def _declares_attribute(kind: type, name: str) -> bool:
    """Return True if the class `kind` itself has an annotation for the attribute, which its
    instances assign.
    """
    return name in kind.__dict__.get("__annotations__", ())


def _is_data_descriptor(part: Any) -> bool:
    """Return True if a class attribute has a method ``__set__``, as properties do, so that it
    takes precedence over an instance attribute.
    """
    return hasattr(type(part), "__set__")


def _is_library_class(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in ("fastcurv", "scipy")


def _is_library_function(part: Any) -> bool:
    """Return True if a function of one of this library's classes is the library's own, possibly
    wrapped, and was not assigned to the class by other code.
    """
    part = getattr(part, "fget", part)
    while part is not None:
        names = getattr(part, "__globals__", None)
        if names is None or names["__name__"].partition(".")[0] not in ("fastcurv", "scipy"):
            return False
        part = getattr(part, "__wrapped__", None)
    return True


def _describe_replaced_function(kind: type, home: type, functions: tuple[str, ...]) -> str:
    """Return a clause that names a function which a class `kind` takes from another class than the
    class `home`, which defines an attribute, or "" if there is none. All functions are compared
    unless `functions` is given.
    """
    ours = _is_library_class(home)
    for name in functions or (_OWNERSHIP_ATTRIBUTES if ours else LOSS_AND_PRODUCT_METHODS):
        now, then = _defining_class(kind, name), _defining_class(home, name)
        if now is None or (then is None and not ours):
            continue
        part = now.__dict__[name]
        if not ours:
            same = now is then
        elif name in LOSS_AND_PRODUCT_METHODS:
            same = _is_library_class(now) and _is_library_function(part)
        else:
            # An array or number assigned to the object precedes a value that the class states.
            stated = then is None and not _is_data_descriptor(part) and name != "__getattribute__"
            same = _is_library_class(now) or stated
        if not same:
            return _describe_override(kind, name)
    return ""


def _find_wrapped_object(x: Any, assigned: dict[str, Any], functions: tuple[str, ...]) -> Any:
    """Return the one object whose functions an object forwards. If there is none, return the name
    of a function that the object defines itself or takes from a further object.
    """
    within: Any = None
    for name in functions:
        method = None if is_own_attribute(x, name) else getattr(x, name, None)
        if method is None and not is_own_attribute(x, name):
            continue
        source = None if method is None else getattr(method, "__self__", None)
        if source is None or source is x or (within is not None and source is not within):
            return name
        within = source
    return functions[0] if within is None else within
