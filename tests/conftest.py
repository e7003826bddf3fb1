"""Fixtures and hooks for the whole test suite."""

from __future__ import annotations

import gc
import signal
from typing import TYPE_CHECKING

import _helpers
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

# Programs that a shell starts in the background ignore Ctrl-C, so the tests that press it would wait forever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_task_rescheduled_twice() -> Generator[None]:
    """Fail any test in which a task is woken twice, which is a bug even if the test itself doesn't notice."""
    with _helpers.no_task_rescheduled_twice():
        yield


def pytest_collection_finish() -> None:
    """Make the many garbage collections of the tests faster: they skip whatever was imported."""
    if hasattr(gc, "freeze"):  # PyPy doesn't have it
        gc.freeze()
