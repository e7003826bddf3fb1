"""The check for waits that could never end, which raise a `WaitCycleError`.

A false alarm would break a working program, while a missed cycle only makes a hang harder to diagnose. So the rules
are strict:

- Task A needs task B if A sleeps until B has settled a result (or until several results are done, and B will settle
  one of them), or if A sleeps at the end of a nursery and B is a child there. Nothing else counts: not what
  another task may settle, release or send; not a wait for the first of several results; not the end of a `race`; and
  not a task in ``nursery.start``.
- If a task needs itself, directly or through other tasks, only a cancellation can end its wait. It is an error only if
  no cancellation could end one of the cycle's waits alone, and so break the cycle. So each cancel scope around one of
  the waits must be around all of them. And if a task in the cycle entered the scope, even one around all of the waits,
  the scope may be there to end a single wait, so there is no error. Two kinds of scopes can't have that purpose, and
  are allowed. One is the scope of a nursery that has no time limit of its own, and that belongs to a task in the cycle
  or to a task that sleeps at the end of a nursery until a task in the cycle has ended. If such a scope is around only
  some of the waits, only these tasks may run in its nursery, since any other task might cancel it. The other kind is
  the scope that `SingleFlight` puts around a call that the cycle waits for: it is only cancelled once nobody waits for
  the call.
- There is no error if anything in the cycle is already being cancelled.
- A task may be on several cycles at once. Then the nurseries of the shortest cycle may contain tasks that aren't on
  that cycle, but can't go on either. So if the shortest cycle alone isn't an error, the tasks on all cycles through the
  waiting task are checked together, by the same rules.

The search runs when a task is about to sleep, and checks only a few tasks. A task's ``custom_sleep_data`` says what it
waits for: an object with a method ``_awaited``, as described in `triores._result`; we ignore anything else. Not
everything that the search needs from Trio is public: see the end of this file.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakSet

import trio
from trio.lowlevel import current_task

from ._exceptions import WaitCycleError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from types import FrameType
    from typing import Protocol

    from trio.lowlevel import Task

    class Awaited(Protocol):
        """What this module knows about a result."""

        _owner: Task | None

        def _work(self) -> str: ...

    class Sleep(Protocol):
        """The ``custom_sleep_data`` of a task in one of our waits, if it waits for all of its results."""

        def _awaited(self) -> Sequence[Awaited]: ...


enabled = os.environ.get("TRIORES_WAIT_CYCLES") != "0"
shared_scopes: WeakSet[trio.CancelScope] = WeakSet()  # the scopes of `SingleFlight`

_LIMIT = 32  # how many tasks to check, how many children of one nursery, and how many ancestors of the task
_RESULTS = 100  # how many results of one wait to check


# A sleeping task, what it sleeps for (a result, or None at the end of a nursery), and the task that it needs for that.
_Wait: TypeAlias = "tuple[Task, Awaited | None, Task]"


class _Scope:
    """A cancel scope around a wait."""

    __slots__ = ("nursery", "status", "task")

    def __init__(self, status: Any, task: Task, nursery: trio.Nursery | None) -> None:
        self.status = status  # Trio's object for a scope while it is entered; all tasks share it
        self.task = task  # the task that entered it
        self.nursery = nursery  # the nursery that it belongs to, if any


def about_to_sleep(sleep: Sleep, results: Sequence[Awaited]) -> None:
    """Record what the current task is about to sleep for, or raise an error if that could never end.

    Args:
        sleep: What to store in the task's ``custom_sleep_data``.
        results: The results that the task needs, all of them.

    Raises:
        WaitCycleError: If the wait could never end.
    """
    task = current_task()
    task.custom_sleep_data = sleep
    if enabled and _may_close_a_cycle(task, results):
        message = _message_of_cycle(task)
        if message is not None:
            task.custom_sleep_data = None
            del sleep, results, task  # the error's traceback keeps this frame alive
            raise WaitCycleError(message)


def _may_close_a_cycle(task: Task, results: Sequence[Awaited]) -> bool:
    """A fast path: most tasks that settle results are busy, or wait for something that we know nothing about."""
    for result in results:
        owner = result._owner
        if owner is not None and (owner is task or owner.custom_sleep_data is not None or owner.child_nurseries):
            return True
    return False


def _message_of_cycle(task: Task) -> str | None:
    try:
        cycle = _cycle_of(task)
    except AttributeError:  # this version of Trio lacks something that we need; see the end of this file
        return None
    return None if cycle is None else _message(cycle)


# ---- the search


def _cycle_of(start: Task) -> list[_Wait] | None:
    """Return the waits of a cycle through this task that could never end, or None."""
    above = _held_by(start)
    reached: dict[Task, _Wait] = {}  # each task, and the wait that leads to it
    waits: list[_Wait] = []  # all the waits that were checked
    shortest: list[_Wait] | None = None
    todo = [start]
    for task in todo:
        for wait in _waits_of(task, above):
            waits.append(wait)
            needed = wait[2]
            if needed is start:
                cycle = _way_to(wait, reached)
                if _is_hopeless(cycle):
                    return cycle
                shortest = shortest or cycle
            elif needed not in reached and len(todo) < _LIMIT:
                reached[needed] = wait
                todo.append(needed)
    if shortest is not None and _is_hopeless(_on_cycles(start, waits)):
        return shortest
    return None


def _waits_of(task: Task, above: dict[Task, Task]) -> Iterable[_Wait]:
    """Return a task's waits for other tasks, which have to end or to settle a result."""
    sleep: object = task.custom_sleep_data
    if sleep is not None:
        awaited = getattr(type(sleep), "_awaited", None)
        results = () if awaited is None else awaited(sleep)[:_RESULTS]
        return [(task, result, owner) for result in results if (owner := result._owner) is not None]
    nursery = _exiting_nursery(task)
    if nursery is None:
        return ()
    children = _children_of(nursery)
    few = list(children) if len(children) <= _LIMIT else [above[task]] if task in above else ()
    return [(task, None, child) for child in few if child.eventual_parent_nursery is None]


def _on_cycles(start: Task, waits: list[_Wait]) -> list[_Wait]:
    """Return the waits that lead back to the task."""
    tasks, before = {start}, 0
    while len(tasks) > before:
        before = len(tasks)
        tasks.update(task for task, _, needed in waits if needed in tasks)
    return [wait for wait in waits if wait[2] in tasks]


def _held_by(task: Task) -> dict[Task, Task]:
    """Return the ancestors that sleep until this task has ended, each with the child that it is waiting for."""
    above: dict[Task, Task] = {}
    while len(above) < _LIMIT:
        nursery = task.parent_nursery
        if nursery is None or _exiting_nursery(nursery.parent_task) is not nursery:
            break
        if task.eventual_parent_nursery is not None:  # `nursery.start` ends once the task has called `started()`
            break
        above[nursery.parent_task] = task
        task = nursery.parent_task
    return above


def _way_to(last: _Wait, reached: dict[Task, _Wait]) -> list[_Wait]:
    way = [last]
    while (wait := reached.get(way[-1][0])) is not None:
        way.append(wait)
    return way[::-1]


def _exiting_nursery(task: Task) -> trio.Nursery | None:
    if task.custom_sleep_data is not None:  # it may wake before all children have ended, as in `race`
        return None
    nurseries = task.child_nurseries
    return nurseries[-1] if nurseries and _sleeps_at_end_of(nurseries[-1]) else None


# ---- the rule about cancel scopes


def _is_hopeless(waits: list[_Wait]) -> bool:
    """Return whether these waits, which form a cycle, could never end: no cancellation could end one alone."""
    tasks = {task for task, _, _ in waits}
    stuck = tasks.union(*map(_held_by, tasks))
    # A task that sleeps at the end of a nursery can't be cancelled alone: it sleeps until the nursery's tasks have
    # ended.
    around_each = [list(_scopes_around(task)) for task, result, _ in waits if result is not None]
    if any(not scopes or _is_being_cancelled(scopes) for scopes in around_each):
        return False
    around_all = set[Any].intersection(*({scope.status for scope in scopes} for scopes in around_each))
    shared = {scope for _, result, _ in waits if (scope := getattr(result, "cancel_scope", None)) in shared_scopes}
    for scope in itertools.chain(*around_each):
        is_around_all = scope.status in around_all
        if is_around_all and scope.task not in tasks:
            is_harmless = True
        elif scope.nursery is not None:
            is_harmless = scope.task in stuck and _lasts(scope.nursery, None if is_around_all else stuck)
        else:
            is_harmless = _scope_of(scope.status) in shared
        if not is_harmless:
            return False
    return True


def _lasts(nursery: trio.Nursery, only: set[Task] | None) -> bool:
    """Return whether the nursery has no time limit of its own and, if ``only`` is given, contains no other tasks."""
    scope = nursery.cancel_scope
    if scope.deadline != math.inf:
        return False
    return only is None or not (scope.shield or _starts_in(nursery) or nursery.child_tasks - only)


def _is_being_cancelled(around: list[_Scope]) -> bool:
    now = trio.current_time()
    return _is_cancelled(around[0].status) or any(_scope_of(scope.status).deadline <= now for scope in around)


def _scopes_around(task: Task) -> Iterator[_Scope]:
    """Yield the cancel scopes around a task, from the innermost outwards; none if we can't find out."""
    status = _status_of(task)
    entered_by: Task | None = task
    while entered_by is not None:
        nurseries = {_status_of(nursery): nursery for nursery in entered_by.child_nurseries}
        parent = entered_by.parent_nursery
        outside = None if parent is None else _status_of(parent)
        while status is not None and status is not outside:
            yield _Scope(status, entered_by, nurseries.get(status))
            status = _status_around(status)
        entered_by = None if parent is None else parent.parent_task


# ---- the message


def _message(cycle: list[_Wait]) -> str:
    lines: list[str] = []
    of_task = cycle[-1][1]  # the result of the task: what the task before it in the cycle waits for
    for task, result, needed in cycle:
        who = _name(task) if of_task is None else of_task._work()
        what = f"its child, {_name(needed)}" if result is None else result._work()
        lines.append(f"\n  {who} waits for {what}{_place(task)}")
        of_task = result
    why = "these tasks wait for each other in a cycle; let one of them end without waiting for the next"
    if len(cycle) == 1:
        why = "a task can't wait for its own result"
    return f"this wait would never end, because {why}:{''.join(lines)}"


def _name(task: Task) -> str:
    return f"task {task.name.rpartition('<locals>.')[2]}"


def _place(task: Task) -> str:
    """Return the line in the task's own code that waits, in the style of a traceback."""
    own = [(frame.f_code, line) for frame, line in _frames(task) if _library_of(frame) not in ("triores", "trio")]
    if not own:
        return ""
    code, line = own[-1]
    return f': File "{code.co_filename}", line {line}, in {code.co_name}'


def _frames(task: Task) -> Iterable[tuple[FrameType, int]]:
    if task is not current_task():
        return task.iter_await_frames()
    frame = sys._getframe()
    while _library_of(frame) == "triores" and frame.f_back is not None:
        frame = frame.f_back
    return [(frame, frame.f_lineno)]


def _library_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]


# ---- what this file needs from Trio beyond its public names; if any of it is missing, no error is ever raised

_sleeps_at_end_of: Callable[[trio.Nursery], bool] = attrgetter("_parent_waiting_in_aexit")
_children_of: Callable[[trio.Nursery], Collection[Task]] = attrgetter("_children")  # `child_tasks` copies all of them
_starts_in: Callable[[trio.Nursery], int] = attrgetter("_pending_starts")  # how many tasks `nursery.start` is starting
_status_of: Callable[[Task | trio.Nursery], Any] = attrgetter("_cancel_status")
_status_around: Callable[[Any], Any] = attrgetter("_parent")
_scope_of: Callable[[Any], trio.CancelScope] = attrgetter("_scope")
_is_cancelled: Callable[[Any], bool] = attrgetter("effectively_cancelled")
