"""The checksums of all files below a path, read in a few threads: one capture per file.

If a file can't be read, the program prints an error and goes on: the file's capture keeps the exception until its turn
comes. The output is sorted by path, in the format that ``sha256sum --check`` reads. The program doesn't follow links to
directories, and skips what has no contents to read, such as pipes and sockets.

    python docs/examples/checksums.py PATH

The exit status is 1 if anything couldn't be read.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import trio

from triores import ResultCapture

if TYPE_CHECKING:
    import io

THREADS = 8  # how many files are read at once
CHUNK = 1 << 20  # bytes


def files_below(root: Path) -> tuple[list[Path], list[OSError]]:
    """Return the sorted paths of all files, and an error for each directory that can't be listed."""
    if not os.path.isdir(root):  # noqa: PTH112 - Path.is_dir raises if we may not read a parent directory
        return [root], []
    errors: list[OSError] = []
    paths = [Path(folder, name) for folder, _, names in os.walk(root, onerror=errors.append) for name in names]
    return sorted(paths), errors


def read_checksum(path: Path) -> str | None:
    """Return the SHA-256 of a file, or None if this path isn't a regular file."""
    if not stat.S_ISREG(path.stat().st_mode):
        return None  # opening a pipe would block until somebody writes to it
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


async def checksum(path: Path, threads: trio.CapacityLimiter) -> str | None:
    """Do the same in a thread. The thread only reads, so on Ctrl-C, we can safely abandon it."""
    return await trio.to_thread.run_sync(read_checksum, path, limiter=threads, abandon_on_cancel=True)


def print_checksum(digest: str, path: Path) -> None:
    """Print a line as ``sha256sum`` does: it begins with a backslash if some characters of the path are escaped."""
    escaped = str(path).replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "" if escaped == str(path) else "\\"
    print(f"{mark}{digest}  {escaped}")


def print_error(path: Path, error: OSError) -> None:
    """Print an error line."""
    print(f"checksums: {str(path)!r}: {error.strerror}", file=sys.stderr)


async def main(root: Path) -> bool:
    """Print the checksums, and return whether everything could be read."""
    paths, errors = await trio.to_thread.run_sync(files_below, root, abandon_on_cancel=True)
    all_read = not errors
    for unlisted in errors:
        print_error(unlisted.filename, unlisted)
    threads = trio.CapacityLimiter(THREADS)
    async with trio.open_nursery() as nursery:
        captures = [
            ResultCapture.start_soon(nursery, checksum, path, threads, suppress_exception=True) for path in paths
        ]
        for path, capture in zip(paths, captures, strict=True):
            await capture.wait_done()
            error = capture.exception()
            if isinstance(error, OSError):
                print_error(path, error)
                all_read = False
            elif (digest := capture.result()) is not None:
                print_checksum(digest, path)
    return all_read


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print the SHA-256 checksum of every file below a path.")
    parser.add_argument("path", metavar="PATH", type=Path, help="a directory, or one file")
    arguments = parser.parse_args()
    cast("io.TextIOWrapper", sys.stdout).reconfigure(errors="surrogateescape")  # for file names that aren't valid text
    sys.exit(0 if trio.run(main, arguments.path) else 1)
