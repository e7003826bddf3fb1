"""The text of a `Snapshot`: a tree of tasks, with two lines for each, and of limited length.

Equal siblings with equal children share one entry. We find them by keys, not by comparing pairs, so there can be any
number of them. Long lists are shortened, and then the tasks that can't go on come first.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ._graph import Snapshot, TaskInfo

_MAX_SIBLINGS = 12  # entries directly below one task
_MAX_DEPTH = 25  # levels of the tree
_MAX_ENTRIES = 150  # entries in the whole tree
_MAX_DEADLOCKS = 5
_MAX_OTHERS = 2 * _MAX_DEADLOCKS


class _Group(NamedTuple):
    """A group of equal tasks, of which only the first is shown."""

    first: TaskInfo
    others: tuple[int, ...]  # the numbers of a few others
    size: int
    children: tuple[_Group, ...]
    key: int


def text_of(snapshot: Snapshot, title: str = "Trio run") -> str:
    """Return the text of a dump."""
    roots = _grouped(snapshot)
    lines = [*_head(snapshot, title), "", *_lines(roots)]
    return "".join(f"{line}\n" for line in lines)


def _head(snapshot: Snapshot, title: str) -> Iterator[str]:
    proven = sum(task.verdict == "!!" for task in snapshot.tasks)
    suspected = sum(task.verdict == "??" for task in snapshot.tasks)
    yield f"{title}: {_number(len(snapshot.tasks))}"
    if proven:
        yield f"!! {_number(proven)} can't go on: only a cancellation can help"
    if suspected:
        yield f"?? {_number(suspected)} can't go on, unless another thread or some other code helps"
    deadlocks = _deadlocks(snapshot)
    for text in deadlocks[:_MAX_DEADLOCKS]:
        yield f"   {text}"
    more = len(deadlocks) - _MAX_DEADLOCKS
    if more > 0:
        yield f"   ... and {more:,} more such group{'s' * (more != 1)}"


def _number(count: int) -> str:
    return f"{count:,} task{'s' * (count != 1)}"


def _deadlocks(snapshot: Snapshot) -> Sequence[str]:
    """Describe each cycle, and the single tasks that nobody can help, in one line for equal ones."""
    groups = snapshot.deadlocks()
    counts = Counter(group[0]._kind for group in groups if not _is_cycle(group))
    lines: dict[object, str] = {}
    for group in groups:
        first = group[0]
        if _is_cycle(group):
            lines[first.number] = _cycle(group)
        else:
            lines.setdefault(first._kind, f"no known task can help {_like(first, counts[first._kind])}")
    return list(lines.values())


def _is_cycle(group: Sequence[TaskInfo]) -> bool:
    return len(group) > 1 or group[0].number in group[0].needs


def _cycle(group: Sequence[TaskInfo]) -> str:
    by_number = {task.number: task for task in group}
    chain = [group[0]]
    while (following := _next(chain[-1], by_number)) not in chain:
        chain.append(following)
    chain = chain[chain.index(following) :]
    shown = chain if len(chain) <= _MAX_SIBLINGS else chain[: _MAX_SIBLINGS - 1]
    texts = [_named(task) for task in shown]
    if len(shown) < len(chain):
        texts.append(f"{len(chain) - len(shown):,} more tasks")
    return f"a cycle: {' -> '.join(texts)} -> #{chain[0].number}"


def _next(task: TaskInfo, group: dict[int, TaskInfo]) -> TaskInfo:
    return group[next(need for need in task.needs if need in group)]


def _named(task: TaskInfo) -> str:
    return f"#{task.number} {task.name}"


def _like(task: TaskInfo, count: int) -> str:
    return _named(task) if count == 1 else f"{count:,} tasks like {_named(task)}"


# ---- the tree


def _grouped(snapshot: Snapshot) -> tuple[_Group, ...]:
    children: dict[int | None, list[_Group]] = {}
    keys: dict[object, int] = {}
    for task in reversed(snapshot.tasks):  # children before their parents
        below = _merged(children.pop(task.number, ()))
        key = (task._kind, tuple((group.key, group.size) for group in below))
        children.setdefault(task.parent, []).append(_Group(task, (), 1, below, keys.setdefault(key, len(keys))))
    return _merged(children.get(None, ()))


def _merged(groups: Sequence[_Group]) -> tuple[_Group, ...]:
    merged: dict[int, _Group] = {}
    for group in reversed(groups):  # they were collected from last to first
        same = merged.get(group.key)
        if same is None:
            merged[group.key] = group
        else:
            others = (*same.others, group.first.number)[:_MAX_OTHERS]
            merged[group.key] = same._replace(size=same.size + 1, others=others)
    return tuple(merged.values())


def _lines(roots: tuple[_Group, ...]) -> Iterator[str]:
    left = _MAX_ENTRIES
    todo: list[tuple[_Group | str, str, str]] = [(one, "", "") for one in reversed(_cut(roots))]
    while todo:
        entry, branch, below = todo.pop()
        if isinstance(entry, str):
            yield f"   {branch}{entry}"
            continue
        if not left:
            yield "   ... and more tasks, not shown here"
            return
        left -= 1
        task = entry.first
        yield f"{task.verdict or '  '} {branch}{_headline(entry)}"
        stem = below + ("│  " if entry.children else "   ")
        if task.file is not None:
            yield f'   {stem}  File "{task.file}", line {task.line}, in {task.function}'
        children: Sequence[_Group | str] = _cut(entry.children)
        if children and len(below) >= 3 * _MAX_DEPTH:
            children = [f"... and tasks below {_named(task)}, not shown here"]
        for index, child in enumerate(reversed(children)):
            is_last = index == 0
            todo.append((child, below + ("└─ " if is_last else "├─ "), below + ("   " if is_last else "│  ")))


def _headline(group: _Group) -> str:
    task = group.first
    notes: list[str] = []
    if task.waited is not None:
        notes.append(f"for {task.waited:.3g} s or more")
    if task.time_left is not None:
        notes.append(f"{task.time_left:.3g} s left")
    if task.verdict and group.others:  # the first lines may name them
        more = ", ..." if len(group.others) < group.size - 1 else ""
        others = "the other is" if len(group.others) == 1 else "the others are"
        notes.append(f"{others} {', '.join(f'#{number}' for number in group.others)}{more}")
    state = f"{task.state} ({', '.join(notes)})" if notes else task.state
    return f"{_like(task, group.size)}: {state}"


def _cut(groups: Sequence[_Group]) -> Sequence[_Group | str]:
    if len(groups) <= _MAX_SIBLINGS:
        return groups
    first = sorted(groups, key=lambda group: not group.first.verdict)  # a stable sort
    return [*first[: _MAX_SIBLINGS - 1], f"... and {_number(_count(first[_MAX_SIBLINGS - 1 :]))} not shown here"]


def _count(groups: Iterable[_Group]) -> int:
    return sum(group.size for group in groups)
