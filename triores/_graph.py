"""A frozen snapshot of a Trio run: which task is waiting for what, and which tasks can't go on.

A snapshot holds only numbers, text of limited length, and weak references to results: no tasks, frames or values. So
keeping a snapshot keeps nothing else alive.

The set of tasks that can go on is a least fixed point. A task can go on if the nodes that it needs can: all of them,
or, for some waits, any of them. A node is a task, a result, or one of two nodes that stand for everything else:

- `OUTSIDE`: whatever happens on its own: time passes, data arrives, a thread finishes its work for a task.
- `ANY_HELPER`: whoever calls ``set_result``, ``event.set()`` or ``send``. This node can go on if any helper can.

Tasks that can't be reached from these nodes can't go on. We compute this twice. The first time, other threads and
signal handlers count as helpers, since we can't know what they do, and any helper may settle any result. If a task
can't go on even then, that is proven (``!!``). The second time, only tasks of this run count as helpers, and a result
that some tasks have promised to settle can only be settled by those. If a task can't go on then, that is suspected
(``??``).
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from weakref import ReferenceType

    from ._result import ResultBase

Verdict: TypeAlias = Literal["", "!!", "??"]

OUTSIDE = "outside"
ANY_HELPER = "any helper"


@dataclass(frozen=True)
class TaskInfo:
    """A task, as it was when the snapshot was taken.

    Attributes:
        number: Its number in the dump, such as 3 for ``#3``.
        name: The task's name, or the captured call that it runs.
        parent: The number of the task whose nursery it runs in, or None for the main task and for system tasks.
        state: What it is doing or waiting for, in words.
        file: The file with the line of its own code that it is waiting or running in, or None if that isn't known.
        line: The number of that line, or None.
        function: The name of the function that contains it, or None.
        results: The numbers of the pending results that it waits for.
        owes: The numbers of the pending results that it has to settle.
        needs: The numbers of the tasks that it waits for, if they are known.
        verdict: ``!!`` if only a cancellation can help it; ``??`` if that is likely; otherwise empty.
        waited: How many seconds `watch` has seen it wait, or None.
        time_left: How many seconds are left until a time limit of its own ends the wait, or None.
    """

    number: int
    name: str
    parent: int | None
    state: str
    file: str | None
    line: int | None
    function: str | None
    results: tuple[int, ...]
    owes: tuple[int, ...]
    needs: tuple[int, ...]
    verdict: Literal["", "!!", "??"]
    waited: float | None
    time_left: float | None
    _kind: tuple[object, ...] = field(repr=False)  # equal for tasks that do the same thing


@dataclass(frozen=True)
class ResultInfo:
    """A pending result that a task waits for, or has to settle.

    Attributes:
        number: Its number, counted from 1.
        name: The call that it captures, or its type and number.
        owners: The numbers of the tasks that have to settle it, if they are known.
        owed: How it will be settled, as a relative clause: ``which task #2 runs``.
        waiters: The numbers of the tasks that wait for it.
    """

    number: int
    name: str
    owners: tuple[int, ...]
    owed: str
    waiters: tuple[int, ...]


@dataclass(frozen=True)
class Snapshot:
    """The tasks of a run at one moment, and what each of them waits for.

    It holds numbers and short strings, and doesn't keep any task or result alive.

    Attributes:
        tasks: All tasks of the run except Trio's own, parents before their children.
        pending: The pending results that tasks wait for, or have to settle.
    """

    tasks: tuple[TaskInfo, ...]
    pending: tuple[ResultInfo, ...]
    _numbers: Mapping[int, tuple[ReferenceType[ResultBase[Any]], int]] = field(repr=False)  # of the results, by id

    def waiters_of(self, result: ResultBase[Any]) -> tuple[TaskInfo, ...]:
        """Return the tasks that wait for a result."""
        info = self._info_of(result)
        return () if info is None else tuple(self.tasks[number - 1] for number in info.waiters)

    def owner_of(self, result: ResultBase[Any]) -> TaskInfo | None:
        """Return the task that has to settle a result, or the first of several; None if it isn't known."""
        info = self._info_of(result)
        return None if info is None or not info.owners else self.tasks[info.owners[0] - 1]

    def deadlocks(self) -> tuple[tuple[TaskInfo, ...], ...]:
        """Return the groups of tasks that wait for each other, and groups of one for tasks that nobody can help.

        These are the root causes, proven or suspected. Other tasks may be waiting for them.
        """
        stuck = {task.number: list(task.needs) for task in self.tasks if task.verdict}
        for number, needs in stuck.items():
            stuck[number] = [need for need in needs if need in stuck]
        return tuple(
            tuple(self.tasks[number - 1] for number in group)
            for group in components(stuck)
            if all(need in group for number in group for need in stuck[number])
        )

    def to_json(self) -> str:
        """Return the whole snapshot as JSON, for programs that look for hangs."""
        tasks = [asdict(task) for task in self.tasks]
        for task in tasks:
            del task["_kind"]
        deadlocks = [[task.number for task in group] for group in self.deadlocks()]
        return json.dumps(
            {"tasks": tasks, "pending": [asdict(result) for result in self.pending], "deadlocks": deadlocks}
        )

    def _info_of(self, result: ResultBase[Any]) -> ResultInfo | None:
        reference, number = self._numbers.get(id(result), (None, 0))
        return None if reference is None or reference() is not result else self.pending[number - 1]


class Need(NamedTuple):
    """What a node needs in order to go on: all of these nodes, or any of them."""

    nodes: Collection[object]
    every: bool = True


def reached(needs: Mapping[object, Need], helpers: Iterable[object]) -> set[object]:
    """Return the nodes that can go on. `ANY_HELPER` can go on if at least one of the ``helpers`` can."""
    waiting: dict[object, int] = {}
    dependents: defaultdict[object, list[object]] = defaultdict(list)
    able: list[object] = [OUTSIDE]
    helpers = set(helpers)
    for node, need in needs.items():
        waiting[node] = (len(need.nodes) if need.every else min(1, len(need.nodes))) or -1
        for needed in need.nodes:
            dependents[needed].append(node)
        if need.every and not need.nodes:
            able.append(node)
    seen: set[object] = set(able)
    for node in able:  # the list grows during the loop
        enabled = list(dependents[node])
        if node in helpers and ANY_HELPER not in seen:
            seen.add(ANY_HELPER)
            able.append(ANY_HELPER)
        for dependent in enabled:
            waiting[dependent] -= 1
            if waiting[dependent] == 0 and dependent not in seen:
                seen.add(dependent)
                able.append(dependent)
    return seen


def components(graph: Mapping[int, Sequence[int]]) -> list[list[int]]:
    """Return the strongly connected components of a graph, by Kosaraju's algorithm, without recursion."""
    backwards: defaultdict[int, list[int]] = defaultdict(list)
    for node, following in graph.items():
        for after in following:
            backwards[after].append(node)
    seen: set[int] = set()
    groups: list[list[int]] = []
    for start in reversed(_postorder(graph)):
        if start not in seen:
            seen.add(start)
            group = [start]
            for node in group:  # the list grows during the loop
                before = [one for one in backwards[node] if one not in seen]
                seen.update(before)
                group.extend(dict.fromkeys(before))
            groups.append(sorted(group))
    return sorted(groups)


def _postorder(graph: Mapping[int, Sequence[int]]) -> list[int]:
    """Return the nodes in the order in which a depth-first search leaves them, also known as postorder."""
    postorder: list[int] = []
    seen: set[int] = set()
    for start in graph:
        stack = [(start, iter(graph[start]))] if start not in seen else []
        seen.add(start)
        while stack:
            node, following = stack[-1]
            after = next((one for one in following if one not in seen), None)
            if after is None:
                postorder.append(node)
                stack.pop()
            else:
                seen.add(after)
                stack.append((after, iter(graph[after])))
    return postorder
