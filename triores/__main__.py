"""``python -m triores PID``: have a running program dump who waits for what, to its own standard error.

The program has to have called ``triores.debug.register(signal.SIGUSR1)``. A signal for which a process has no handler
would end it. So Linux is asked first whether there is a handler. From Python 3.14 on, a program that has registered
nothing can be asked too, by `sys.remote_exec`.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PROC = Path("/proc")

_SCRIPT = """\
import os
os.unlink({path!r})
import triores.debug
triores.debug.dump()
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask a process for a dump; return the exit code, and say in one line why if it isn't 0."""
    parser = argparse.ArgumentParser(
        prog="python -m triores", description="Have a running program dump which of its tasks waits for which result."
    )
    parser.add_argument("pid", type=int, metavar="PID", help="the process; the dump goes to its standard error")
    parser.add_argument(
        "--signal", default="USR1", help="the signal that it has passed to triores.debug.register (default: USR1)"
    )
    given = parser.parse_args(arguments)
    signum = getattr(signal, f"SIG{given.signal.upper().removeprefix('SIG')}", None)
    if not isinstance(signum, signal.Signals):
        return _refuse(f"there is no signal {given.signal!r} on this system")
    try:
        return _ask(given.pid, signum)
    except ProcessLookupError:
        return _refuse(f"there is no process {given.pid}")
    except PermissionError:
        return _refuse(f"process {given.pid} belongs to somebody else")
    except (OSError, RuntimeError, OverflowError) as error:
        return _refuse(f"process {given.pid} can't be asked: {error}")


def _ask(pid: int, signum: signal.Signals) -> int:
    if pid <= 0:
        return _refuse(f"{pid} isn't the number of a process")
    handles = _handles(pid, signum)
    if handles:
        os.kill(pid, signum)
        return 0
    if hasattr(sys, "remote_exec"):
        _execute(pid)
        return 0
    name = signum.name
    if handles is None:
        return _refuse(
            f"this system doesn't tell whether process {pid} handles {name}, which would end it otherwise; if it has "
            f"called 'triores.debug.register(signal.{name})', send the signal yourself: 'kill -{name[3:]} {pid}'"
        )
    return _refuse(
        f"process {pid} has no handler for {name}, and would be ended by it; add "
        f"'triores.debug.register(signal.{name})' to the program"
    )


def _handles(pid: int, signum: signal.Signals) -> bool | None:
    """Return whether a process has a handler for a signal, or None if the system doesn't tell."""
    if not (PROC / "self" / "status").exists():
        return None
    try:
        status = (PROC / str(pid) / "status").read_text()
    except FileNotFoundError:
        raise ProcessLookupError from None
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), None)
    return None if caught is None else bool(int(caught, 16) >> (signum - 1) & 1)


def _execute(pid: int) -> None:
    """Have the process run a dump as soon as it runs Python code, and wake it, since it may be asleep."""
    with tempfile.NamedTemporaryFile("w", suffix=".py", prefix="triores-", delete=False, encoding="utf-8") as script:
        script.write(_SCRIPT.format(path=script.name))
    try:
        sys.remote_exec(pid, script.name)  # type: ignore[attr-defined] # new in Python 3.14
    except BaseException:
        Path(script.name).unlink()
        raise
    # A process that sleeps looks for such requests only when a system call is interrupted. These two signals need no
    # handler: it stops, and goes on at once.
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.01)
    os.kill(pid, signal.SIGCONT)


def _refuse(why: str) -> int:
    sys.stderr.write(f"triores: {why}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
