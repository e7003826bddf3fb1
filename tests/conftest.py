"""What concerns the whole test suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests with trio-asyncio last: once imported, it has asyncio itself run on Trio, for good."""
    items.sort(key=lambda item: item.path.name == "test_bridge_trio_asyncio.py")
