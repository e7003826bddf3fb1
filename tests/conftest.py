"""What concerns the whole test suite."""

from __future__ import annotations

import gc
import signal
from typing import TYPE_CHECKING

import _helpers
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

# A shell starts a program in the background with Ctrl-C ignored, and then the tests that press it would wait forever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_task_rescheduled_twice() -> Generator[None]:
    """Fail each test in which a task is woken twice, which is a fault even if the test doesn't notice."""
    with _helpers.no_task_rescheduled_twice():
        yield


def pytest_collection_finish() -> None:
    """Let the garbage collections that many tests ask for skip what was imported, which takes most of their time."""
    if hasattr(gc, "freeze"):  # PyPy has none
        gc.freeze()
