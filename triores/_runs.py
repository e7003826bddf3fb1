"""The Trio runs of this process, and all that this package's dump takes from Trio beyond its public names.

Each private name is looked up when it is needed, and done without if this version of Trio lacks it. Then the dump is
plainer.
"""

from __future__ import annotations

import gc
import sys
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

if TYPE_CHECKING:
    from trio.lowlevel import Task, TrioToken

NEXT_STEP = "_next_send_fn"  # of a task that is about to run; not its abort function, which a cancellation takes away
COUNTER = "_counter"  # of a task: its age
SCHEDULE_POINTS = "_schedule_points"  # of a task: how often it has run
WAITS_AT_END = "_parent_waiting_in_aexit"  # of a nursery
CANCEL_STATUS = "_cancel_status"  # of a task or a nursery: that of the innermost scope around it
SCOPE, PARENT = "_scope", "_parent"  # of such a status: its scope, and the status around it
IS_CANCELLED = "effectively_cancelled"  # of such a status: whether its scope is cancelled, or one around it
MODULE, RUNNER, CONTEXT = "trio._core._run", "Runner", "GLOBAL_RUN_CONTEXT"
ROOT, TOKEN, IS_GUEST = "init_task", "trio_token", "is_guest"  # of the object that holds a run together, a runner


class Run(NamedTuple):
    """A Trio run that can be looked at."""

    root: Task
    now: float | None  # by its clock, or None if it fails
    is_guest: bool  # so that its host may do something for its tasks


def run_here() -> Run | None:
    """Return the run of this thread, unless there is none, or it is a guest that doesn't run just now."""
    try:
        root = trio.lowlevel.current_root_task()
    except RuntimeError:
        return None
    runner = getattr(getattr(sys.modules.get(MODULE), CONTEXT, None), "runner", None)
    return None if root is None else Run(root, _now(trio.current_time), _is_guest(runner))


def all_runs(token: TrioToken | None = None) -> list[Run]:
    """Return the runs of this process that can be found; or only that of a token."""
    found: list[Run] = []
    for runner in _runners():
        root: Any = getattr(runner, ROOT, None)
        has_ended = getattr(getattr(root, "coro", None), "cr_frame", None) is None
        if not has_ended and (token is None or getattr(runner, TOKEN, None) is token):
            found.append(Run(root, _now(lambda runner=runner: runner.clock.current_time()), _is_guest(runner)))
    return found


def _runners() -> list[Any]:
    # By `type`, since `isinstance` would ask objects that lie about their class.
    return [one for one in gc.get_objects() if type(one).__name__ == RUNNER and type(one).__module__ == MODULE]


def _now(clock: Any) -> float | None:
    try:
        return float(clock())
    except Exception:  # noqa: BLE001 # it may be anybody's clock
        return None


def _is_guest(runner: object) -> bool:
    return bool(getattr(runner, IS_GUEST, True))  # if it isn't known, it may be one


def age_of(task: Task) -> Any:
    """Return what tasks are sorted by."""
    return getattr(task, COUNTER, 0)


def is_asleep(task: Task) -> bool | None:
    """Return whether a task sleeps; None if that isn't known."""
    try:
        return getattr(task, NEXT_STEP) is None
    except AttributeError:
        return None


def schedule_points_of(task: Task) -> object:
    """Return what changes whenever a task runs; or else, whenever it waits for something else."""
    return getattr(task, SCHEDULE_POINTS, id(task.custom_sleep_data))


def waits_at_end_of(nursery: trio.Nursery) -> bool:
    """Return whether the nursery's parent sleeps until all of its tasks have ended."""
    return getattr(nursery, WAITS_AT_END, False)


def deadline_of(task: Task) -> float:
    """Return the earliest deadline that can still end a wait, of the scopes that the task has itself entered."""
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
