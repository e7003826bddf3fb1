"""``python -m triores PID``: make a running program dump its tasks, and what they are waiting for.

The program must have called ``triores.debug.register(signal.SIGUSR1)``. A signal without a handler would kill the
process, so on Linux we first check whether there is one. From Python 3.14 on, this also works with programs that
haven't registered anything, thanks to `sys.remote_exec`.
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
    """Ask a process for a dump, print one line about where to find it or what went wrong, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m triores", description="Make a running program dump its tasks, and what they are waiting for."
    )
    parser.add_argument("pid", type=int, metavar="PID", help="the process's ID; the dump goes to its standard error")
    parser.add_argument(
        "--signal", default="USR1", help="the signal that the process passed to triores.debug.register (default: USR1)"
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
        return _refuse(f"process {given.pid} belongs to another user")
    except (OSError, RuntimeError, OverflowError) as error:
        return _refuse(f"couldn't ask process {given.pid} for a dump: {error}")


def _ask(pid: int, signum: signal.Signals) -> int:
    if pid <= 0:
        return _refuse(f"{pid} isn't a process ID")
    handles = _handles(pid, signum)
    if handles:
        os.kill(pid, signum)
        return _report(
            f"sent {signum.name} to process {pid}; the dump goes to that process's standard error, or to the file that "
            "it passed to triores.debug.register"
        )
    if hasattr(sys, "remote_exec"):
        _execute(pid)
        return _report(f"asked process {pid} for a dump, which goes to that process's standard error")
    name = signum.name
    if handles is None:
        return _refuse(
            f"can't tell on this system whether process {pid} handles {name}, which would otherwise kill it; if it has "
            f"called 'triores.debug.register(signal.{name})', send the signal yourself: 'kill -{name[3:]} {pid}'"
        )
    return _refuse(
        f"process {pid} has no handler for {name}, which would kill it; add "
        f"'triores.debug.register(signal.{name})' to the program"
    )


def _handles(pid: int, signum: signal.Signals) -> bool | None:
    """Return whether a process has a handler for a signal, or None if there is no way to tell on this system."""
    if not (PROC / "self" / "status").exists():
        return None
    try:
        status = (PROC / str(pid) / "status").read_text()
    except FileNotFoundError:
        raise ProcessLookupError from None
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), None)
    return None if caught is None else bool(int(caught, 16) >> (signum - 1) & 1)


def _execute(pid: int) -> None:
    """Make the process write a dump as soon as it runs Python code, and wake it up in case it is asleep."""
    with tempfile.NamedTemporaryFile("w", suffix=".py", prefix="triores-", delete=False, encoding="utf-8") as script:
        script.write(_SCRIPT.format(path=script.name))
    try:
        sys.remote_exec(pid, script.name)  # type: ignore[attr-defined] # new in Python 3.14
    except BaseException:
        Path(script.name).unlink()
        raise
    # A sleeping process notices such a request only when a system call is interrupted. These two signals interrupt it
    # without a handler: the process stops, and continues right away.
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.01)
    os.kill(pid, signal.SIGCONT)


def _report(what: str) -> int:
    sys.stdout.write(f"triores: {what}\n")
    return 0


def _refuse(why: str) -> int:
    sys.stderr.write(f"triores: {why}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
