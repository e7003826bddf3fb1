"""The Trio runs of this process, and everything that dumps need from Trio beyond its public names.

Each private name is looked up when it is needed. If this version of Trio doesn't have it, dumps do without it, and say
less.
"""

from __future__ import annotations

import gc
import sys
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

if TYPE_CHECKING:
    from trio.lowlevel import Task, TrioToken

NEXT_STEP = "_next_send_fn"  # of a task: set if it's about to run. The abort function won't do: cancelling removes it
COUNTER = "_counter"  # of a task: its age
SCHEDULE_POINTS = "_schedule_points"  # of a task: how often it has run
WAITS_AT_END = "_parent_waiting_in_aexit"  # of a nursery
CANCEL_STATUS = "_cancel_status"  # of a task or a nursery: the status of the innermost scope around it
SCOPE, PARENT = "_scope", "_parent"  # of such a status: its scope, and the status around it
IS_CANCELLED = "effectively_cancelled"  # of such a status: whether its scope, or one around it, is cancelled
CANCEL_CALLED = "_cancel_called"  # of a scope; the public property may cancel the scope, if its deadline has passed
MODULE, RUNNER, CONTEXT = "trio._core._run", "Runner", "GLOBAL_RUN_CONTEXT"
ROOT, TOKEN, IS_GUEST = "init_task", "trio_token", "is_guest"  # of a runner, the object that holds a run together


class Run(NamedTuple):
    """A Trio run that can be inspected."""

    root: Task
    now: float | None  # by its clock, or None if the clock fails
    is_guest: bool  # if so, the host loop may also do something for its tasks


def run_here() -> Run | None:
    """Return this thread's run, or None if it has no run, or if Trio is a guest and the host loop has control."""
    try:
        root = trio.lowlevel.current_root_task()
    except RuntimeError:
        return None
    runner = getattr(getattr(sys.modules.get(MODULE), CONTEXT, None), "runner", None)
    return None if root is None else Run(root, _now(trio.current_time), _is_guest(runner))


def all_runs(token: TrioToken | None = None) -> list[Run]:
    """Return all runs of this process that can be found; if a token is given, only its run."""
    found: list[Run] = []
    for runner in _runners():
        root: Any = getattr(runner, ROOT, None)
        has_ended = getattr(getattr(root, "coro", None), "cr_frame", None) is None
        if not has_ended and (token is None or getattr(runner, TOKEN, None) is token):
            found.append(Run(root, _now(lambda runner=runner: runner.clock.current_time()), _is_guest(runner)))
    return found


def _runners() -> list[Any]:
    # This uses `type`, since `isinstance` would ask each object for its `__class__`, and so could run anybody's code.
    return [one for one in gc.get_objects() if type(one).__name__ == RUNNER and type(one).__module__ == MODULE]


def _now(clock: Any) -> float | None:
    try:
        return float(clock())
    except Exception:  # noqa: BLE001 # the user may have passed any clock
        return None


def _is_guest(runner: object) -> bool:
    return bool(getattr(runner, IS_GUEST, True))  # if we can't know, it might be


def age_of(task: Task) -> Any:
    """Return the key to sort tasks by."""
    return getattr(task, COUNTER, 0)


def is_asleep(task: Task) -> bool | None:
    """Return whether a task is asleep, or None if we can't know."""
    try:
        return getattr(task, NEXT_STEP) is None
    except AttributeError:
        return None


def schedule_points_of(task: Task) -> object:
    """Return something that changes whenever the task runs; failing that, whenever it waits for something else."""
    return getattr(task, SCHEDULE_POINTS, id(task.custom_sleep_data))


def waits_at_end_of(nursery: trio.Nursery) -> bool:
    """Return whether the nursery's parent sleeps until all of its tasks have ended."""
    return getattr(nursery, WAITS_AT_END, False)


def deadline_of(task: Task) -> float:
    """Return the earliest deadline that can still end a task's wait, among the scopes that the task has entered."""
    outside = getattr(task.parent_nursery, CANCEL_STATUS, None)
    status: Any = getattr(task, CANCEL_STATUS, None)
    deadline = inf
    while status is not None and status is not outside and not getattr(status, IS_CANCELLED, False):
        scope: Any = getattr(status, SCOPE, None)
        deadline = min(deadline, getattr(scope, "deadline", inf))
        if getattr(scope, "shield", False):
            break
        status = getattr(status, PARENT, None)
    return deadline


def is_shielded(task: Task) -> bool:
    """Return whether a shield keeps a cancellation away from a task."""
    status: Any = getattr(task, CANCEL_STATUS, None)
    if getattr(status, IS_CANCELLED, True):
        return False
    while status is not None and not getattr(getattr(status, SCOPE, None), CANCEL_CALLED, False):
        status = getattr(status, PARENT, None)
    return status is not None
