"""What hand-written Trio code uses instead of a future: an event, and a slot for the value."""

from __future__ import annotations

import trio


class Slot:
    """A value that comes later."""

    __slots__ = ("event", "value")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.value = -1

    def put(self, value: int) -> None:
        """Store the value, and wake the tasks that wait for it."""
        self.value = value
        self.event.set()
