"""Takes a `Snapshot` of a Trio run.

This changes nothing: no task, no result, no registration.

- A task has to settle a future if it is inside the future's ``must_set`` block, or if it is the reader of a `FutureMap`
  in which the future is registered. We find such a block by the method that will be called at its end: the coroutine
  holds a reference to it.
- A task is running, rather than asleep, if its outermost frame is on the stack of a thread.
- What a task is waiting for is determined by its innermost call to a triores or Trio function.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import sys
from dataclasses import dataclass, field
from functools import partial
from inspect import unwrap
from math import inf
from pathlib import Path
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import trio

from ._amap import _Engine
from ._capture import ResultCapture
from ._checks import call_of, name_of, on_one_line, shown
from ._executor import _until_done
from ._foreign import _cancel_too
from ._future import _MustSet
from ._future_map import FutureMap, _Expected
from ._gather import first_success, race
from ._graph import ANY_HELPER, OUTSIDE, Need, ResultInfo, Snapshot, TaskInfo, Verdict, reached
from ._result import ResultBase
from ._runs import age_of, deadline_of, is_asleep, is_shielded, schedule_points_of, waits_at_end_of
from ._stacks import (
    Place,
    Step,
    handles_signals,
    held_by,
    place_of,
    place_of_call,
    place_of_thread,
    places_on_stacks,
    steps_of,
)
from ._wait import Arrivals, CountDown, _AsCompleted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import CodeType

    from trio.lowlevel import Task

    from ._runs import Run

_FEW = 3  # how many results of a wait to name, at most
_LONG = 200  # characters that a name may have


@dataclass
class _Result:
    """A pending result, with what is known about it so far."""

    result: ResultBase[Any]
    number: int
    label: str  # for a future, its type and number; for a capture, its call, filled in when it is needed
    request: str = ""
    owners: dict[int, str] = field(default_factory=dict[int, str])  # numbers of tasks, and why each has to settle it
    waiters: list[int] = field(default_factory=list[int])  # numbers of tasks
    owed: str = ""  # which tasks have to settle it, in words


class _Wait(NamedTuple):
    """What a task waits for."""

    text: str
    need: Need = Need([OUTSIDE])
    results: Sequence[ResultBase[Any]] = ()
    kind: object = None  # equal for equal waits; by default, the text
    helps: bool = True  # whether the task could do something for others if it went on


@dataclass
class _Inspected:
    """A task, and what was found out about it."""

    task: Task
    number: int
    parent: int | None
    time_left: float | None  # seconds until a time limit of its own ends its wait
    name: str = ""
    owes: list[int] = field(default_factory=list[int])  # numbers of results
    place: Place | None = None
    library: list[Step] = field(default_factory=list[Step])  # the steps below the user's own code

    def held(self) -> list[Any]:
        """Return everything that these steps hold."""
        return [held for step in self.library for held in step.held]


def snapshot_of(run: Run, *, args: bool) -> Snapshot:
    """Take a snapshot of a run.

    Args:
        run: The run.
        args: Whether to show the arguments of captured calls, and the keys of requests.
    """
    return _Reader(run, args=args).read()


class _Reader:
    def __init__(self, run: Run, *, args: bool) -> None:
        self._run = run
        self._args = args
        self._tasks: list[_Inspected] = []
        self._numbers: dict[Task | None, int] = {}
        self._results: dict[int, _Result] = {}  # by id
        self._futures = 0  # how many of the results aren't captures
        self._starting: dict[trio.Nursery, list[int]] = {}  # tasks that will move there when they call `started()`
        self._on_stacks = places_on_stacks()

    def read(self) -> Snapshot:
        for task, parent in _tasks_below(self._run.root):
            number = self._numbers[task] = len(self._tasks) + 1
            above = None if parent is None else self._numbers[parent]
            self._tasks.append(_Inspected(task, number, above, self._time_left(task)))
            if task.eventual_parent_nursery is not None:
                self._starting.setdefault(task.eventual_parent_nursery, []).append(number)
        for inspected in self._tasks:
            try:
                self._inspect(inspected)
            except Exception as error:  # noqa: BLE001 # one odd task must not hide the others
                inspected.name = inspected.name or f"a task that can't be inspected ({type(error).__name__})"
        waits = [self._wait_of(inspected) for inspected in self._tasks]
        for wait in waits:
            for result in wait.results:
                self._known(result)
        return self._snapshot(waits)

    # ---- what a task is doing

    def _inspect(self, inspected: _Inspected) -> None:
        inspected.name = _short(inspected.task.name.replace("<locals>.", ""))
        for step in steps_of(inspected.task):
            if step.library:
                inspected.library.append(step)
            else:
                inspected.place = place_of(step.frame)
                inspected.library.clear()
            if step.library == "trio":  # Trio's code holds nothing of ours
                continue
            held = step.held
            self._find_debts(held, inspected.number)
            if step.frame.f_code is _CAPTURE:
                for capture in held:
                    if _is(capture, ResultCapture) and capture._owner is inspected.task:
                        inspected.name = self._call(capture)
        if inspected.place is None and inspected.library:
            inspected.place = place_of(inspected.library[0].frame)

    def _find_debts(self, held: Sequence[Any], number: int) -> None:
        for block in _entered(held):
            if _is(block, _MustSet):
                if not block._future.is_done():
                    self._known(block._future).owners[number] = "has to settle"
            elif _is(block, FutureMap):
                self._find_requests(block, number)
            elif not block._future.is_done():
                self._known(block._future).request = self._request(block._key)

    def _find_requests(self, requests: FutureMap[Any, Any], reader: int) -> None:
        for key, future in list(requests._futures.items()):
            if not future.is_done():
                known = self._known(future)
                known.request = self._request(key)
                known.owners[reader] = "reads"

    def _request(self, key: object) -> str:
        return f"the response to {f'request {_short(shown(key))}' if self._args else 'a request'}"

    def _wait_of(self, inspected: _Inspected) -> _Wait:
        try:
            task = inspected.task
            running = self._place_on_stack(task)
            if running is not None:
                inspected.place = running
                return _Wait("running")
            if is_asleep(task) is False:
                return _Wait("about to run")
            wait = (
                self._wait_for_results(inspected)
                or self._wait_for_tasks(inspected)
                or self._wait_for_thread(inspected)
                or self._wait_in_trio(inspected)
            )
            # If we don't know which tasks are asleep, we can't say which can go on.
            return wait if is_asleep(task) else wait._replace(need=Need([OUTSIDE]))
        except Exception as error:  # noqa: BLE001 # one odd task must not hide the others
            return _Wait(f"can't be inspected: {type(error).__name__}")

    def _place_on_stack(self, task: Task) -> Place | None:
        """Return the place of a task that is running, or None."""
        return self._on_stacks.get(id(getattr(task.coro, "cr_frame", None)))

    def _wait_for_results(self, inspected: _Inspected) -> _Wait | None:
        sleep: Any = inspected.task.custom_sleep_data
        if _is(sleep, ResultBase):
            return _Wait("waiting for {}", self._need([sleep]), [sleep], "one")
        if _is(sleep, CountDown):
            pending = [result for result in sleep.results if not result.is_done()]
            several = f"{len(sleep.results)} results, {len(pending)} of them pending: "
            return _Wait(f"waiting for {several * (len(sleep.results) > 1)}{{}}", self._need(pending), pending)
        if _is(sleep, Arrivals):
            results = [result for result in _results_of(sleep, inspected.library) if not result.is_done()]
            if results:
                several = f"the first of {len(results)} pending results: " * (len(results) > 1)
                return _Wait(f"waiting for {several}{{}}", self._need(results, every=False), results)
            return _Wait(
                f"waiting for the next result of {_call_in(inspected.library) or 'several'}", Need([ANY_HELPER])
            )
        return None

    def _wait_for_tasks(self, inspected: _Inspected) -> _Wait | None:
        nurseries = inspected.task.child_nurseries
        if not nurseries or not waits_at_end_of(nurseries[-1]):
            return None
        nursery = nurseries[-1]
        numbers = sorted(self._numbers[task] for task in nursery.child_tasks if task in self._numbers)
        starting = self._starting.get(nursery, [])
        call = _call_in(inspected.library)
        who = f"in {call}, waiting" if call else "waiting"
        what = f"task #{numbers[0]}" if len(numbers) == 1 else f"{len(numbers)} tasks"
        if starting:
            also = f"{len(starting)} task{'s' * (len(starting) > 1)} that nursery.start is starting"
            what = f"{what} and {also}" if numbers else also
        is_race = any(step.frame.f_code in _RACES for step in inspected.library)
        if any(step.frame.f_code is _START for step in inspected.library):
            text = f"waiting in nursery.start until {what} calls started()"
        elif is_race and len(numbers) > 1:
            text = f"{who} for the first of {what}"
        elif call:
            text = f"{who} for {what}"
        else:
            text = f"waiting at the end of a nursery for {what}"
        return _Wait(text, Need([*numbers, *starting], every=not is_race), kind=("nursery", call, is_race))

    def _wait_for_thread(self, inspected: _Inspected) -> _Wait | None:
        for step in inspected.library:
            if step.frame.f_code is _EXECUTOR:
                future = next((held for held in step.held if _is(held, concurrent.futures.Future)), None)
                if future is not None and not future.running():
                    return _Wait("waiting for an executor, which has queued its call")
                return _Wait(f"waiting for a call in an executor{place_of_call(future)}", kind="executor")
            if step.frame.f_code is _THREAD:
                where = place_of_thread(f" from {inspected.task.name}")
                return _Wait(f"waiting for a thread{where}", kind="thread")
        return None

    def _wait_in_trio(self, inspected: _Inspected) -> _Wait:
        codes = [step.frame.f_code for step in inspected.library if step.library == "trio"]
        call = next((code for code in codes if code not in _ON_THE_WAY), None)
        if _LOCK in codes and call in (_LOCK, _CONDITION):
            return self._wait_for_lock(inspected.held())
        if call is _LIMITER:
            return self._wait_for_token(inspected.held())
        if call in _ENDED_BY_HELPER:
            return _Wait(_in_triores(inspected.library, call) or _ENDED_BY_HELPER[call], Need([ANY_HELPER]))
        if call is _FOREVER:
            return _Wait("sleeping until cancelled", helps=False)
        if call is None or call in _TIME:
            return _Wait("sleeping")
        return _Wait(f"waiting in Trio's {_public(call)}")

    def _wait_for_lock(self, held: list[Any]) -> _Wait:
        lock = next(one for one in held if _is(one, trio.Lock, trio.StrictFIFOLock))
        number = self._numbers.get(lock.statistics().owner)
        if number is None:
            return _Wait("waiting for a lock")
        return _Wait(f"waiting for a {type(lock).__name__} that task #{number} holds", Need([number]))

    def _wait_for_token(self, held: list[Any]) -> _Wait:
        limiter = next(one for one in held if _is(one, trio.CapacityLimiter))
        borrowers: list[Any] = limiter.statistics().borrowers
        holders = sorted(self._numbers[one] for one in borrowers if one in self._numbers)
        text = f"waiting for a token from a CapacityLimiter; {len(borrowers)} in use"
        if holders:
            few = ", ".join(f"#{number}" for number in holders[:_FEW]) + ", ..." * (len(holders) > _FEW)
            text += f", by task{'s' * (len(holders) > 1)} {few}"
        return _Wait(text, Need([self._numbers.get(one, OUTSIDE) for one in borrowers], every=False), kind="token")

    # ---- results

    def _known(self, result: ResultBase[Any]) -> _Result:
        known = self._results.get(id(result))
        if known is None:
            self._futures += not isinstance(result, ResultCapture)
            label = "" if isinstance(result, ResultCapture) else f"{type(result).__name__} {self._futures}"
            known = self._results[id(result)] = _Result(result, len(self._results) + 1, label)
        return known

    def _need(self, results: Iterable[ResultBase[Any]], *, every: bool = True) -> Need:
        return Need([("result", id(result)) for result in results], every)

    def _name_of(self, known: _Result) -> str:
        if isinstance(known.result, ResultCapture):
            return self._call(known.result)
        return f"{known.label} ({known.request})" if known.request else known.label

    def _call(self, capture: ResultCapture[Any]) -> str:
        known = self._known(capture)
        if not known.label:
            known.label = _short(call_of(capture.routine, capture.args) if self._args else name_of(capture.routine))
        return known.label

    def _find_owners(self, known: _Result) -> None:
        owner = known.result._owner
        if owner in self._numbers:
            known.owners = {self._numbers[owner]: "runs"}
        for number in known.owners:
            self._tasks[number - 1].owes.append(known.number)
        if known.owners:
            known.owed = "which " + " and ".join(
                f"task #{number} {how}" for number, how in list(known.owners.items())[:_FEW]
            )
        elif _is_foreign(known.result):
            known.owed = "which another library settles"
        elif isinstance(known.result, ResultCapture):
            known.owed = "whose task hasn't begun" if known.result._started else "which hasn't been started"
        else:
            known.owed = "which nobody reads" if known.request else "which nobody has promised to settle"

    def _needs_of_result(self, known: _Result, *, promises: bool) -> Need:
        owner = known.result._owner
        if owner is not None:
            return Need([self._numbers.get(owner, OUTSIDE)])
        if _is_foreign(known.result) or (isinstance(known.result, ResultCapture) and known.result._started):
            return Need([OUTSIDE])
        if promises and known.owners:
            return Need(list(known.owners), every=False)
        return Need([ANY_HELPER])

    # ---- the snapshot

    def _snapshot(self, waits: list[_Wait]) -> Snapshot:
        results = list(self._results.values())
        for known in results:
            self._find_owners(known)
        infos = tuple(map(self._info, self._tasks, waits, self._verdicts(waits)))
        pending = tuple(
            ResultInfo(known.number, self._name_of(known), tuple(known.owners), known.owed, tuple(known.waiters))
            for known in results
        )
        return Snapshot(infos, pending, {id(known.result): (ref(known.result), known.number) for known in results})

    def _info(self, inspected: _Inspected, wait: _Wait, verdict: Verdict) -> TaskInfo:
        results = [self._known(result) for result in wait.results]
        needs = {need: None for need in wait.need.nodes if isinstance(need, int)}
        for known in results:
            known.waiters.append(inspected.number)
            needs |= dict.fromkeys(known.owners)
        few = [f"{self._name_of(known)}, {known.owed}" for known in results[:_FEW]]
        shown_results = "; ".join(few) + ("; ..." if len(results) > _FEW else "")
        state = wait.text.replace("{}", shown_results, 1)
        shielded = is_shielded(inspected.task)
        if shielded:
            state += ", shielded from a cancellation"
        place = inspected.place
        owners = [self._tasks[need - 1].task.name for need in list(needs)[:_FEW]] if results else ()
        return TaskInfo(
            number=inspected.number,
            name=inspected.name,
            parent=inspected.parent,
            state=state,
            file=place and place.file,
            line=place and place.line,
            function=place and place.function,
            results=tuple(known.number for known in results),
            owes=tuple(inspected.owes),
            needs=tuple(needs),
            verdict=verdict,
            waited=self._waited(inspected.task),
            time_left=inspected.time_left,
            _kind=(inspected.task.name, wait.kind or wait.text, shielded, place, verdict, *owners),
        )

    def _verdicts(self, waits: list[_Wait]) -> list[Verdict]:
        needs: dict[object, Need] = {}
        for inspected, wait in zip(self._tasks, waits, strict=True):
            needs[inspected.number] = wait.need if inspected.time_left is None else Need([OUTSIDE])
        helpers: list[object] = [
            inspected.number for inspected, wait in zip(self._tasks, waits, strict=True) if wait.helps
        ]
        is_alone = len(sys._current_frames()) == 1 and not self._run.is_guest and not handles_signals()
        able: list[set[object]] = []
        for promises in (False, True):
            for key, known in self._results.items():
                needs["result", key] = self._needs_of_result(known, promises=promises)
            able.append(reached(needs, helpers if promises or is_alone else [*helpers, OUTSIDE]))
        strictly, likely = able
        return [
            "!!" if inspected.number not in strictly else "" if inspected.number in likely else "??"
            for inspected in self._tasks
        ]

    def _time_left(self, task: Task) -> float | None:
        if self._run.now is None:
            return None
        left = deadline_of(task) - self._run.now
        return left if 0 < left < inf else None  # a time limit that has expired won't end anything else

    def _waited(self, task: Task) -> float | None:
        seen = watched.get(task)
        if seen is None or self._run.now is None or seen[0] != schedule_points_of(task):
            return None
        if not is_asleep(task) or self._place_on_stack(task) is not None:
            return None
        return self._run.now - seen[1]


# What `watch` has seen: for each task, how often it has run, and the time when that was first noticed.
watched: WeakKeyDictionary[Task, tuple[object, float]] = WeakKeyDictionary()


# ---- tasks and their coroutines


def _tasks_below(root: Task) -> Iterator[tuple[Task, Task | None]]:
    """Yield each task with its parent, in tree order, without Trio's own tasks and those of `watch`."""
    todo: list[tuple[Task, Task | None]] = [(root, None)]
    while todo:
        task, parent = todo.pop()
        if task is not root:
            yield task, parent
        children = [child for nursery in task.child_nurseries for child in list(nursery.child_tasks)]
        children.sort(key=age_of)
        if task is root:
            todo.extend((child, None) for child in reversed(children) if not child.name.startswith("<"))
        else:
            todo.extend((child, task) for child in reversed(children))


def _entered(held: Sequence[Any]) -> Iterator[Any]:
    """Yield the ``with`` blocks of triores that a coroutine is inside of."""
    ends = {one for one in held if type(one) is FunctionType}
    for one in held:
        block: Any = one.__self__ if type(one) is MethodType else one
        if block is one and not (ends and _is(one, *_BLOCKS, *_CONTEXTLIB) and _end_of(one) in ends):
            continue  # before Python 3.14, a coroutine holds the bound method; since then, the function and the block
        if _is(block, *_BLOCKS):
            yield block
        elif _is(block, *_CONTEXTLIB):
            yield from _entered_in(block)


def _end_of(block: object) -> object:
    return getattr(type(block), "__exit__", None) or getattr(type(block), "__aexit__", None)


def _entered_in(block: Any) -> Iterator[Any]:
    """Yield the triores blocks that a contextlib block, such as an exit stack, has entered."""
    if hasattr(block, "gen"):
        yield from _entered(held_by(block.gen))
    yield from _entered([method for _, method in _any(list(getattr(block, "_exit_callbacks", ())))])


def _any(obj: Any) -> Any:
    """Return the object unchanged, as Any: pyright complains about partly unknown types otherwise."""
    return obj


def _is(obj: object, *types: type[Any]) -> bool:
    """Like `isinstance`, but doesn't ask the object for its ``__class__``, which could run arbitrary code."""
    return issubclass(type(obj), types)


def _call_in(library: Sequence[Step]) -> str:
    """Return the public triores function that a task sleeps in, or an empty string."""
    for step in library:
        if step.library == "triores":
            name = step.frame.f_code.co_name
            module = Path(step.frame.f_code.co_filename).stem
            return _CALLS.get(module, "" if name.startswith("_") else name)
    return ""


def _in_triores(library: Sequence[Step], call: CodeType) -> str:
    """Describe a wait for one of Trio's primitives that is a detail of a triores function; return "" for others."""
    codes = [step.frame.f_code for step in library if step.library == "triores"]
    if call is _SEMAPHORE and not _RACES.isdisjoint(codes):
        return "in first_success, waiting to start the next function"
    return _IN_MAP.get(codes[-1], "") if codes else ""


def _public(code: CodeType) -> str:
    name: str = getattr(code, "co_qualname", code.co_name)  # new in Python 3.11
    return ".".join(part.lstrip("_") if not part.startswith("__") else part for part in name.split("."))


def _results_of(arrivals: object, library: Sequence[Step]) -> list[Any]:
    """Return the results that a `wait_any`, an `as_completed` or a `results_to_channel` waits for."""
    for step in library:
        for held in step.held:
            if _is(held, _AsCompleted) and held._arrivals is arrivals:
                return list(held.left.values())
    return []


def _is_foreign(result: ResultBase[Any]) -> bool:
    fns = (getattr(waiter, "fn", None) for waiter in result._registered())
    return any(isinstance(fn, partial) and fn.func is _cancel_too for fn in fns)


def _short(text: str) -> str:
    return on_one_line(text if len(text) <= _LONG else f"{text[: _LONG - 3]}...")


# ---- what we know about triores and Trio


def _code_of(function: Any) -> CodeType:
    code: CodeType = unwrap(function).__code__
    return code


# These are Any, or pyright would complain about partly unknown types.
_AnyCapture: Any = ResultCapture
_AnyEngine: Any = _Engine
_AnySender: Any = trio.MemorySendChannel
_AnyReceiver: Any = trio.MemoryReceiveChannel
_BLOCKS: Any = (_MustSet, FutureMap, _Expected)
_CONTEXTLIB: Any = tuple(one for one in vars(contextlib).values() if isinstance(one, type))
_CALLS = {
    "_amap": "a map",
    "_single_flight": "a SingleFlight",
    "_future_map": "a FutureMap",
    "_wait": "several",
}
_CAPTURE = _code_of(_AnyCapture._capture)
_EXECUTOR = _code_of(_until_done)
_RACES = {_code_of(race), _code_of(first_success)}

_START = _code_of(trio.Nursery.start)
_THREAD = _code_of(trio.to_thread.run_sync)
_LOCK = _code_of(trio.Lock.acquire)
_CONDITION = _code_of(trio.Condition.wait)
_SEMAPHORE = _code_of(trio.Semaphore.acquire)
_LIMITER = _code_of(trio.CapacityLimiter.acquire_on_behalf_of)
_FOREVER = _code_of(trio.sleep_forever)
_TIME = {_code_of(trio.sleep), _code_of(trio.sleep_until)}
_ENDED_BY_HELPER = {
    _code_of(trio.Event.wait): "waiting for a trio.Event",
    _CONDITION: "waiting for a trio.Condition",
    _SEMAPHORE: "waiting for a trio.Semaphore",
    _code_of(_AnyReceiver.receive): "waiting for an item from a memory channel",
    _code_of(_AnySender.send): "waiting for room in a memory channel",
    _code_of(trio.lowlevel.ParkingLot.park): "parked",
}
_IN_MAP: dict[CodeType, str] = {
    _code_of(_AnyEngine._make_calls): "waiting for the next item of a map, or for room in it",
    _code_of(_AnyEngine._wait_for_room): "reading the items of a map, waiting for room in it",
}
_ON_THE_WAY = {  # functions that only call one of the others
    _code_of(trio.Lock.__aenter__),
    _code_of(trio.CapacityLimiter.acquire),
    _code_of(trio.Condition.acquire),
    _code_of(_AnyReceiver.__anext__),
}
