"""Protocols of objectives and operators: the required methods. Vectors are ``(n,)`` arrays.

Optional methods are used where an object has them. Of an objective: ``value_and_gradient(theta)``,
``rounding_bound(theta)`` (of the gradient), ``jacobian(theta)``, ``astype(dtype)``, ``batch(rows)``
with ``n_samples``, ``batches(size, rng)`` (each row once, in random order), and certificates, see
`Certificate`. Of an operator: ``rounding_bound(v)`` (of a product),
``quadratic_form(V)``, ``to_dense()``, ``astype(dtype)``.

The following attributes are called between subpackages and are not meant for users. All are
optional: an object without one does not have the feature that needs it.

Of an objective:

- ``why_unproved``: the reason why nothing can be proved about the loss, or "" if proofs are
  possible.

Of a model, ``fold_batch_norm(theta, statistics)``: the network without batch normalisation and its
theta.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import (
    Any,
    Literal,
    Protocol,
    TypeAlias,
    TypeVar,
)

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]  # a real array in the precision of a model or an operator
Floats: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.intp]
Class = TypeVar("Class")
Function = TypeVar("Function", bound=Callable[..., Any])
Seed: TypeAlias = (
    "int | np.integer | np.random.SeedSequence | np.random.BitGenerator"
    " | np.random.Generator | None"
)

# Allowed names in arguments, for type checkers and for checks at run time.
Scheme: TypeAlias = Literal["auto", "he", "xavier", "lecun"]
Which: TypeAlias = Literal["LA", "SA", "LM", "BE"]
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
# Names from the lists above that are used between subpackages and not meant for users; the pages of
# the documentation leave them out.
INTERNAL_NAMES = frozenset(("fold_batch_norm", "rounded", "why_unproved"))


class OperatorLike(Protocol):
    """A square matrix known by its products: an array, a sparse matrix, a `LinearOperator`."""

    @property
    def shape(self) -> tuple[int, ...]:
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


# --------------------------------------------------------------------------------------------------
# The rule that decides which facts of an object may be used: proofs, error bounds, engine steps,
# casts and faster products.
#
# A fact is an attribute. An object states it if its exact class is one of this library's, which
# enter a table where they are defined, or if the body of its class defines the attribute. Facts
# are neither inherited nor forwarded: a subclass of a library class may replace the loss or the
# products and still inherit attributes that were written for the original. A block of an operator,
# its `whole`, and a sum of operators, its `terms`, have only the facts that all of these state.

# Methods that an operator may offer in addition to its products.
OPTIONAL_OPERATOR_METHODS = (
    "rounding_bound", "quadratic_form", "to_dense", "astype", "assembled", "gradient", "objective",
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


def _sources(x: object) -> list[object]:
    """Return the operators from which an object of this library is derived: its whole or terms."""
    attributes = vars(x)
    whole = [attributes["whole"]] if "whole" in attributes else []
    return whole + [op for _, op in attributes.get("terms", ())]


def is_library_object(x: object) -> bool:
    """Return True if the exact class of x is one of this library's, and so are those of the
    operators from which x is derived.
    """
    if type(x) not in _LIBRARY_CLASSES:
        return False
    attributes = vars(x)
    derived = "whole" in attributes or "terms" in attributes
    return not derived or all(map(is_library_object, _sources(x)))


def states(x: object, name: str) -> bool:
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
    if not all(is_library_object(source) or states(source, name) for source in _sources(x)):
        return False
    # A `StatedOperator` forwards the facts that the class of its operator states.
    return hasattr(kind, name) or (hasattr(kind, "__getattr__") and hasattr(x, name))


def missing_reason(x: object, name: str) -> str:
    """Return the reason why x does not state the fact `name`, as a clause, or "" if it does. An
    attribute that is None counts as missing.
    """
    if states(x, name):
        return "" if getattr(x, name) is not None else NOT_OFFERED_REASON
    if not hasattr(x, name):
        return NOT_OFFERED_REASON
    kind = type(x)
    if kind in _LIBRARY_CLASSES:
        return next(filter(None, (missing_reason(source, name) for source in _sources(x))))
    return f"the class {kind.__name__} does not define {name} itself"


def missing_bound_reason(x: object) -> str:
    """Return the reason why rounding errors of the products or gradients of x have no known bound,
    or "" if they have.
    """
    if is_library_object(x) and hasattr(x, "why_unproved"):
        return str(x.why_unproved)
    return missing_reason(x, "rounding_bound")


# --------------------------------------------------------------------------------------------------
# Functions of an object that the layer with the knowledge enters by the exact class.

_REGISTERED: dict[tuple[type, str], Callable[..., Any]] = {}
REGISTERING: list[Callable[[], object]] = []  # each fills the table; the package enters imports


def register(name: str, kind: type) -> Callable[[Function], Function]:
    """Return a decorator that enters a function of an object as a capability of the class."""

    def enter(function: Function) -> Function:
        _REGISTERED[kind, name] = function
        return function

    return enter


def registered(kind: type, name: str) -> Callable[..., Any] | None:
    """Return the function entered for exactly this class under the name, or None."""
    while REGISTERING and (kind, name) not in _REGISTERED:
        REGISTERING.pop()()
    return _REGISTERED.get((kind, name))


def capability(x: object, name: str) -> Callable[..., Any] | None:
    """Return the capability `name` of an object, a function of the remaining arguments: the one
    entered for the exact class, or the method that the body of the object's class defines. Return
    None if there is neither.
    """
    function = registered(type(x), name) if is_library_object(x) else None
    if function is not None:
        return partial(function, x)
    return None if missing_reason(x, name) else getattr(x, name)
