"""A wait that could never end is an error: `WaitCycleError`.

A false alarm would destroy a working program, and a miss is only a worse diagnosis. So the rules are strict:

- A task needs another one first if it sleeps until a result is done that the other one will settle, or until each of
  several is; or if it sleeps at the end of a nursery, and the other one is a child there. Nothing else counts: what
  somebody else may settle, release or send; the first of several; the end of a `race`; a task in ``nursery.start``.
- If the tasks that a task needs include the task itself, nothing but a cancellation can end its wait. What it is
  cancelled by must reach all waits of the circle at once; if not, one of them would end by itself. So each cancel scope
  around one of the waits must be around all of them. A scope that a task on the circle entered may be meant to end that
  wait alone, also if it is around all of them, and so there is no error then. Two kinds of scopes mean nothing of that
  sort. One is that of a nursery of a task on the circle without a time limit of its own; if it is around some of the
  waits only, none but tasks on the circle must run in it, or one of the others might end it. The other is the scope
  that `SingleFlight` puts around a call that is waited for on the circle: it is cancelled when nobody waits any more.
- There is no error if something on the circle is being cancelled already.
- If tasks are on several circles at once, as packages that need one another are, the shortest circle may have others in
  its nurseries, and yet none of them can go on. So if a circle isn't refused, the tasks on all circles through the
  waiting one are looked at together, by the same rules.

The search runs when a task is about to sleep, and looks at a few tasks at most. What a task waits for is in its
``custom_sleep_data``: an object with a method ``_awaited``, as `triores._result` describes; anything else there is not
our business. Trio doesn't tell all that is needed in public: see the end of this file.
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
        """A result, as far as this module knows it."""

        def _owner(self) -> Task | None: ...

        def _work(self) -> str: ...

    class Sleep(Protocol):
        """What a task in a wait of triores has in its ``custom_sleep_data``, if it needs each of some results."""

        def _awaited(self) -> Sequence[Awaited]: ...


enabled = os.environ.get("TRIORES_WAIT_CYCLES") != "0"
shared_scopes: WeakSet[trio.CancelScope] = WeakSet()  # those of `SingleFlight`

_LIMIT = 32  # tasks that are looked at; also children of one nursery, and parents of the task that is about to sleep
_RESULTS = 100  # results of one wait that are looked at


# A task that sleeps, what for (a result, or None at the end of a nursery), and the task that it needs for that.
_Wait: TypeAlias = "tuple[Task, Awaited | None, Task]"


class _Scope:
    """A cancel scope around a wait."""

    __slots__ = ("nursery", "status", "task")

    def __init__(self, status: Any, task: Task, nursery: trio.Nursery | None) -> None:
        self.status = status  # Trio's object for a scope while it is entered; it is the same one for all tasks
        self.task = task  # which entered it
        self.nursery = nursery  # whose scope it is


def about_to_sleep(sleep: Sleep) -> None:
    """Note what the task here is about to sleep for, or refuse it.

    Raises:
        WaitCycleError: If the wait could never end.
    """
    task = current_task()
    task.custom_sleep_data = sleep
    if enabled and _may_close_a_circle(task, sleep):
        message = _message_of_circle(task)
        if message is not None:
            task.custom_sleep_data = None
            del sleep, task  # the error's traceback keeps this frame alive
            raise WaitCycleError(message)


def _may_close_a_circle(task: Task, sleep: Sleep) -> bool:
    """A fast path: most tasks that others wait for are busy, or sleep for something that isn't known here."""
    for result in sleep._awaited():
        owner = result._owner()
        if owner is not None and (owner is task or owner.custom_sleep_data is not None or owner.child_nurseries):
            return True
    return False


def _message_of_circle(task: Task) -> str | None:
    try:
        circle = _circle_of(task)
    except AttributeError:  # this version of Trio lacks something, see below
        return None
    return None if circle is None else _message(circle)


# ---- the search


def _circle_of(start: Task) -> list[_Wait] | None:
    """Return the waits of a circle that the task would close for good."""
    above = _held_by(start)
    reached: dict[Task, _Wait] = {}  # by which wait
    waits: list[_Wait] = []  # all that were looked at
    shortest: list[_Wait] | None = None
    todo = [start]
    for task in todo:
        for wait in _waits_of(task, above):
            waits.append(wait)
            needed = wait[2]
            if needed is start:
                circle = _way_to(wait, reached)
                if _is_hopeless(circle):
                    return circle
                shortest = shortest or circle
            elif needed not in reached and len(todo) < _LIMIT:
                reached[needed] = wait
                todo.append(needed)
    if shortest is not None and _is_hopeless(_on_circles(start, waits)):
        return shortest
    return None


def _waits_of(task: Task, above: dict[Task, Task]) -> Iterable[_Wait]:
    """Return what a task waits for, as far as tasks have to end for it, or to settle a result."""
    sleep: object = task.custom_sleep_data
    if sleep is not None:
        awaited = getattr(type(sleep), "_awaited", None)
        results = () if awaited is None else awaited(sleep)[:_RESULTS]
        return [(task, result, owner) for result in results if (owner := result._owner()) is not None]
    nursery = _nursery_at_whose_end_it_sleeps(task)
    if nursery is None:
        return ()
    children = _children_of(nursery)
    few = list(children) if len(children) <= _LIMIT else [above[task]] if task in above else ()
    return [(task, None, child) for child in few if child.eventual_parent_nursery is None]


def _on_circles(start: Task, waits: list[_Wait]) -> list[_Wait]:
    """Return those of the waits that are on any circle through the task."""
    tasks, before = {start}, 0
    while len(tasks) > before:
        before = len(tasks)
        tasks.update(task for task, _, needed in waits if needed in tasks)
    return [wait for wait in waits if wait[2] in tasks]


def _held_by(task: Task) -> dict[Task, Task]:
    """Return the parents that sleep until this task has ended, each with the child that it sleeps for."""
    above: dict[Task, Task] = {}
    while len(above) < _LIMIT:
        nursery = task.parent_nursery
        if nursery is None or _nursery_at_whose_end_it_sleeps(nursery.parent_task) is not nursery:
            break
        above[nursery.parent_task] = task
        task = nursery.parent_task
    return above


def _way_to(last: _Wait, reached: dict[Task, _Wait]) -> list[_Wait]:
    way = [last]
    while (wait := reached.get(way[-1][0])) is not None:
        way.append(wait)
    return way[::-1]


def _nursery_at_whose_end_it_sleeps(task: Task) -> trio.Nursery | None:
    if task.custom_sleep_data is not None:  # it may go on before all children have ended, as that of `race`
        return None
    nurseries = task.child_nurseries
    return nurseries[-1] if nurseries and _sleeps_at_end_of(nurseries[-1]) else None


# ---- the rule about cancel scopes


def _is_hopeless(waits: list[_Wait]) -> bool:
    """Return whether no cancellation can let one of these waits end by itself."""
    tasks = {task for task, _, _ in waits}
    # A sleep at the end of a nursery isn't cancelled by itself: it ends when the tasks in there have ended.
    around_each = [list(_scopes_around(task)) for task, result, _ in waits if result is not None]
    if any(not scopes or _is_being_cancelled(scopes) for scopes in around_each):
        return False
    around_all = set[Any].intersection(*({scope.status for scope in scopes} for scopes in around_each))
    shared = {scope for _, result, _ in waits if (scope := getattr(result, "cancel_scope", None)) in shared_scopes}
    for scope in itertools.chain(*around_each):
        is_around_all = scope.status in around_all
        if scope.task not in tasks:
            is_harmless = is_around_all
        elif scope.nursery is not None:
            is_harmless = _lasts(scope.nursery, None if is_around_all else tasks)
        else:
            is_harmless = _scope_of(scope.status) in shared
        if not is_harmless:
            return False
    return True


def _lasts(nursery: trio.Nursery, only: set[Task] | None) -> bool:
    """Return whether the nursery lasts as long as its tasks; if some are given, it must have no others."""
    scope = nursery.cancel_scope
    if scope.deadline != math.inf:
        return False
    return only is None or not (scope.shield or _starts_in(nursery) or nursery.child_tasks - only)


def _is_being_cancelled(around: list[_Scope]) -> bool:
    now = trio.current_time()
    return _is_cancelled(around[0].status) or any(_scope_of(scope.status).deadline <= now for scope in around)


def _scopes_around(task: Task) -> Iterator[_Scope]:
    """Yield the cancel scopes around a task, from the innermost one outwards; none if they can't be known."""
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


def _message(circle: list[_Wait]) -> str:
    lines: list[str] = []
    for task, result, needed in circle:
        what = f"its child, {_name(needed)}" if result is None else result._work()
        lines.append(f"\n  {_name(task)} waits for {what}{_place(task)}")
    why = "these tasks wait for one another in a circle; let one of them end without waiting for the next"
    if len(circle) == 1:
        why = "it is for a result of the very task that would wait"
    return f"this wait would never end, because {why}:{''.join(lines)}"


def _name(task: Task) -> str:
    return f"task {task.name.rpartition('<locals>.')[2]}"


def _place(task: Task) -> str:
    """Return where a task's own code waits, in the style of a traceback."""
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


# ---- what this needs of Trio beyond its public names; without any of these, there is no error

_sleeps_at_end_of: Callable[[trio.Nursery], bool] = attrgetter("_parent_waiting_in_aexit")
_children_of: Callable[[trio.Nursery], Collection[Task]] = attrgetter("_children")  # `child_tasks` copies all of them
_starts_in: Callable[[trio.Nursery], int] = attrgetter("_pending_starts")  # tasks that will run there once started
_status_of: Callable[[Task | trio.Nursery], Any] = attrgetter("_cancel_status")
_status_around: Callable[[Any], Any] = attrgetter("_parent")
_scope_of: Callable[[Any], trio.CancelScope] = attrgetter("_scope")
_is_cancelled: Callable[[Any], bool] = attrgetter("effectively_cancelled")
