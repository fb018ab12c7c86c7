"""Attributes that cannot be assigned, since other parts of the object were computed from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from scipy.sparse import csr_matrix


class ReadOnlyMixin:
    """A mixin whose attributes named in `_read_only` can be assigned only once, and whose methods
    cannot be replaced. Another assignment raises AttributeError. Arrays are stored as read-only
    views.

    Subclasses may add and assign attributes of their own.

    Examples
    --------
    >>> import fastcurv as fc
    >>> fc.MLP([2, 3, 1]).bias = False
    Traceback (most recent call last):
    AttributeError: MLP.bias is read-only. Create a new object.
    """

    _read_only: ClassVar[frozenset[str]] = frozenset()

    # The method is hidden from type checkers, which know the declared attributes.
    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: object) -> None:
            of_class = getattr(type(self), name, None)
            if name in self._read_only:
                # A property or another value of the class is not overridden by an attribute.
                fixed = name in vars(self) or of_class is not None
                value = read_only_view(value)
            else:
                fixed = callable(of_class) and name[0] != "_"
            if fixed:
                raise AttributeError(
                    f"{type(self).__name__}.{name} is read-only. Create a new object."
                )
            object.__setattr__(self, name, value)


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
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray):
                vars(self)[name] = read_only_view(value)

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        FrozenRecord.__post_init__(self)
