"""Helpers that run the example programs as a user would, or import them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
TIME_LIMIT = 30  # seconds; if a program takes longer, it hangs


def run_example(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run a program with warnings as errors."""
    # These override the environment of the tests: "dumb" keeps colours out of the output, and "strict" raises an error
    # for file names that can't be encoded.
    environment = {**os.environ, "TERM": "dumb", "PYTHONIOENCODING": "utf-8:strict"}
    return subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *arguments],
        capture_output=True,
        check=False,
        env=environment,
        timeout=TIME_LIMIT,
    )


def load_example(name: str) -> Any:
    """Import a program without running it, to test what is hard to provoke in a separate process."""
    spec = importlib.util.spec_from_file_location(f"example_{Path(name).stem}", EXAMPLES / name)
    assert spec is not None and spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
