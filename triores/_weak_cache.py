"""A cache that maps objects, by identity, to what was made from them, and keeps neither alive."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any, Generic, TypeVar

from trio.lowlevel import enable_ki_protection

V = TypeVar("V")


class WeakCache(Generic[V]):
    """Unlike a `weakref.WeakKeyDictionary`, this never calls its keys' ``__eq__`` or ``__hash__``."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any], weakref.ref[Any]]] = {}

    def get(self, key: object) -> V | None:
        """Return what was made from this very object, or None if that is gone."""
        entry = self._entries.get(id(key))
        # An id is reused once its object is gone, so the entry may belong to a key that has just died.
        return entry[1]() if entry is not None and entry[0]() is key else None

    def set(self, key: object, value: V) -> None:
        """Remember what was made from an object."""
        entries, number = self._entries, id(key)
        entries[number] = weakref.ref(key, partial(_forget, entries, number)), weakref.ref(value)


@enable_ki_protection  # a weak reference's callback would swallow the KeyboardInterrupt
def _forget(entries: dict[int, Any], number: int, _key: object) -> None:
    entries.pop(number, None)
