"""Attributes that cannot be assigned, since other parts of the object were computed from them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import LinearOperator

# names of the attributes of every SciPy operator
SCIPY_ATTRIBUTES = (*vars(LinearOperator), "dtype", "shape", "ndim")


class ReadOnlyMixin:
    """A mixin whose public attributes can be assigned only once. Another assignment raises
    AttributeError with a message that states how to create a new object. Arrays are stored as
    read-only views.

    Only names that this library's classes define are read-only: subclasses in other packages may
    add and assign attributes of their own. Classes of which many objects are created, or that set
    an attribute more than once, write to ``vars(self)``, which also takes less time.

    Parameters
    ----------
    made_by : str, optional
        The call that creates a new object, such as ``fastcurv.Objective``, for the message.
    assignable : iterable of str
        Public attributes on which nothing else depends, such as counters.

    Examples
    --------
    >>> import fastcurv as fc
    >>> fc.MLP([2, 3, 1]).bias = False
    Traceback (most recent call last):
    AttributeError: MLP.bias is read-only. Create a new object with fastcurv.MLP(..., bias=...).
    """

    _read_only: ClassVar[frozenset[str]] = frozenset()
    _assignable: ClassVar[frozenset[str]] = frozenset()
    _made_by: ClassVar[str] = ""

    def __init_subclass__(
        cls, *, made_by: str | None = None, assignable: Iterable[str] = (), **options: Any
    ) -> None:
        super().__init_subclass__(**options)
        if made_by is not None:
            cls._made_by = made_by
        if cls.__module__.partition(".")[0] == "fastcurv":
            mixins = [c for c in cls.__mro__ if c.__module__.partition(".")[0] == "fastcurv"]
            parts = [c for c in mixins if c is cls or not issubclass(c, ReadOnlyMixin)]
            names = [name for c in parts for name in (*vars(c), *inspect.get_annotations(c))]
            names += SCIPY_ATTRIBUTES if issubclass(cls, LinearOperator) else ()
            own = {name for name in names if name[0] != "_"}
            free = {name for name in own if getattr(getattr(cls, name, None), "fset", None)}
            cls._assignable = cls._assignable | free | set(assignable)
            cls._read_only = (cls._read_only | own) - cls._assignable

    # The method is hidden from type checkers, which know the declared attributes.
    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            if name in self._read_only:
                if name in vars(self) or hasattr(type(self), name):
                    raise AttributeError(assignment_error_message(self, name))
                value = read_only_view(value)
            object.__setattr__(self, name, value)


def assignment_error_message(x: Any, name: str) -> str:
    """Return the error message for an assignment to the read-only attribute `name` of x."""
    kind, maker = type(x), x._made_by
    said = f"{kind.__name__}.{name} is read-only."
    if callable(getattr(kind, name, None)):
        return f"{said} Define it in a subclass."
    if not maker:
        return f"{said} Create a new object."
    if maker.startswith("fastcurv.") and name in inspect.signature(kind.__init__).parameters:
        return f"{said} Create a new object with {maker}(..., {name}=...)."
    return f"{said} It follows from the arguments of {maker}(...), so create a new object."


def read_only_view(x: Any) -> Any:
    """Return an array, or a CSR matrix of arrays, as a read-only view. Other objects are returned
    unchanged.
    """
    if isinstance(x, np.ndarray):
        view = x.view()
        view.setflags(write=False)
        return view
    if isinstance(x, csr_matrix):
        return csr_matrix(tuple(map(read_only_view, (x.data, x.indices, x.indptr))), shape=x.shape)
    return x


class FrozenRecord:
    """A base class of frozen dataclasses whose arrays are read-only, in copies as well."""

    def __post_init__(self) -> None:
        known = vars(self)
        for name, part in known.items():
            if isinstance(part, np.ndarray):
                known[name] = view = part.view()
                view.setflags(write=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        FrozenRecord.__post_init__(self)
