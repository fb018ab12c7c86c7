"""Rows of a caller, and what becomes of them when the file they lie in is cut short."""

from __future__ import annotations

from typing import Any

from .._engine import maps_behind, still_there


class Given:
    """What a caller gave, an attribute of whoever was given it: a ValueError once the memory-mapped
    file behind it was cut short.
    """

    name: str

    def __set_name__(self, owner: Any, name: str) -> None:
        self.name = name

    def __get__(self, ob: Any, owner: Any = None) -> Any:
        if ob is None:
            return self
        try:
            given = ob.__dict__[self.name]
        except KeyError:
            raise AttributeError(f"{type(ob).__name__} has no {self.name} yet") from None
        still_there(maps_behind(**{self.name: given}))
        return given

    def __set__(self, ob: Any, given: Any) -> None:
        ob.__dict__[self.name] = given
