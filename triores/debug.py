"""Find out what a program is waiting for, when it hangs or just when you're curious.

None of this costs anything until you call it. Inspecting a run doesn't change the run, and doesn't keep anything alive.

    import triores.debug

    triores.debug.register(signal.SIGUSR1)  # now 'kill -USR1 PID' or 'python -m triores PID' writes a dump
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

import trio

from ._checks import checked_seconds, shown
from ._exceptions import TaskCancelledException
from ._graph import ResultInfo, Snapshot, TaskInfo
from ._inspect import snapshot_of, watched
from ._result import ResultBase, current_trio_token, isfuture
from ._runs import Run, all_runs, run_here, schedule_points_of
from ._tree import text_of
from ._wait import Arrivals, CountDown

if TYPE_CHECKING:
    from types import FrameType

    from trio.lowlevel import TrioToken

__all__ = ["ResultInfo", "Snapshot", "TaskInfo", "dump", "explain", "register", "snapshot", "unregister", "watch"]

for _public in (ResultInfo, Snapshot, TaskInfo):
    _public.__module__ = __name__
del _public

_PATIENCE = 1  # seconds to wait for an answer from a run in another thread
_previous: dict[int, Any] = {}  # the handlers that we replaced, by the number of the signal
_ASCII = str.maketrans({"│": "|", "├": "|", "└": "`", "─": "-"})


def dump(file: TextIO | None = None, *, args: bool = True) -> None:
    """Write the task tree of this Trio run: which task is waiting for which result, and which task has to settle it.

    Outside a run, the dump shows all runs of this process that can be found. It never raises an `Exception`, whatever
    the state of the file and the run, and it changes nothing. The length of the dump is limited.

    Args:
        file: The file to write to; by default, standard error.
        args: Whether to show the arguments of captured calls, and the keys of requests. Pass False if they may contain
            secrets.
    """
    here = run_here()
    _write(_text([here] if here is not None else None, args=args), file)


def register(signum: int, file: TextIO | None = None, *, args: bool = True) -> None:
    """Write a dump whenever the process receives a signal, even while Trio is asleep.

    The dump shows all runs of the process that can be found: the main thread's, even in guest mode, and those of other
    threads. The previous handler isn't called; `unregister` restores it.

    Args:
        signum: The number of the signal, such as ``signal.SIGUSR1``.
        file: As for `dump`. The file has to stay open.
        args: As for `dump`.

    Raises:
        ValueError: If this isn't the main thread: Python doesn't let other threads set handlers.
        OSError: If this signal can't have a handler.
    """

    def handle(_signum: int, _frame: FrameType | None) -> None:
        _write(_text(None, args=args), file)

    previous = signal.signal(signum, handle)
    _previous.setdefault(signum, previous)


def unregister(signum: int) -> bool:
    """Restore the handler that was there before `register`.

    Returns:
        Whether the signal was registered.

    Raises:
        ValueError: If this isn't the main thread.
    """
    if signum not in _previous:
        return False
    previous = _previous[signum]
    signal.signal(signum, signal.SIG_DFL if previous is None else previous)
    del _previous[signum]
    return True


def watch(seconds: float, file: TextIO | None = None, *, args: bool = True) -> None:
    """Write one dump, as soon as a task of this run has waited this long for a result.

    While this is active, all dumps also show how long tasks have waited. It checks the tasks four times within the
    given time, so the dump may be up to a quarter of that time late. It runs in a system task, which ends after the
    dump, or with the run.

    Args:
        seconds: How long a task may wait, in seconds by the run's clock.
        file: As for `dump`. The file has to stay open.
        args: As for `dump`.

    Raises:
        TypeError: If ``seconds`` isn't a number.
        ValueError: If it isn't positive and finite.
        RuntimeError: If there is no Trio run here.
    """
    message = f"watch takes a positive, finite number of seconds, not {shown(seconds)}"
    checked = checked_seconds(seconds, message)
    if not 0 < checked < math.inf:
        raise ValueError(message)
    current_trio_token()
    trio.lowlevel.spawn_system_task(_watch, checked, file, args, name="<triores.debug.watch>")


def snapshot(*, args: bool = True, trio_token: TrioToken | None = None) -> Snapshot:
    """Return a snapshot of a Trio run: its tasks, and what each of them is waiting for.

    Args:
        args: As for `dump`.
        trio_token: The token of the run, if it isn't this thread's. The snapshot is then taken inside that run. If the
            run doesn't answer within a second, because some code doesn't return to Trio, the snapshot is taken from
            outside.

    Raises:
        RuntimeError: If there is no Trio run here and you don't pass ``trio_token``, or its run has ended.

    Example:
        ::

            for group in triores.debug.snapshot().deadlocks():
                print([task.name for task in group])
    """
    run = run_here()
    if trio_token is None or (run is not None and trio.lowlevel.current_trio_token() is trio_token):
        if run is None:
            raise RuntimeError(
                "there is no Trio run here; call this inside a run, or pass 'trio_token=token', with the token that "
                "trio.lowlevel.current_trio_token() returns in the run that you mean"
            )
        return snapshot_of(run, args=args)
    return _snapshot_elsewhere(trio_token, args=args)


def explain(result: ResultBase[Any]) -> str:
    """Describe a result in a few lines: its state, which tasks have to settle it or wait for it, and how it ended.

    If you pass a result, this never raises an `Exception`.

    Returns:
        The text.

    Raises:
        TypeError: If this isn't a result.

    Example:
        ::

            print(triores.debug.explain(page))
    """
    if not isfuture(result):
        raise TypeError(f"explain takes a triores result, not {shown(result)}")
    try:
        return "\n".join(_ended(result) if result.is_done() else _pending(result))
    except Exception as error:  # noqa: BLE001 # an explanation must not cause problems of its own
        return f"{type(result).__name__}: explaining it raised {type(error).__name__}"


# ---- the dump


def _text(runs: list[Run] | None, *, args: bool) -> str:
    try:
        runs = _runs_of_process() if runs is None else runs
        if not runs:
            return "There is no Trio run in this process.\n"
        titles = ["Trio run"] if len(runs) == 1 else [f"Trio run {n} of {len(runs)}" for n in range(1, len(runs) + 1)]
        return "\n".join(_text_of_run(run, title, args=args) for run, title in zip(runs, titles, strict=True))
    except Exception as error:  # noqa: BLE001 # a dump must never end the program
        return f"The dump of this program failed: {shown(error)}\n"


def _text_of_run(run: Run, title: str, *, args: bool) -> str:
    try:
        return text_of(snapshot_of(run, args=args), title)
    except Exception as error:  # noqa: BLE001 # the dump of the other runs may succeed
        return f"{title}: dumping it raised {shown(error)}\n"


def _runs_of_process() -> list[Run]:
    here = run_here()
    others = [run for run in all_runs() if here is None or run.root is not here.root]
    return others if here is None else [here, *others]


def _write(text: str, file: TextIO | None) -> None:
    to = sys.stderr if file is None else file
    if to is None:  # a program without a console
        return
    try:
        try:
            to.write(text)
        except UnicodeError:
            to.write(text.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii"))
        to.flush()
    except Exception:  # noqa: BLE001 # the file is closed, or the signal came while something was writing to it
        if file is None:
            with suppress(Exception):
                os.write(2, text.encode("utf-8", "backslashreplace"))


async def _watch(seconds: float, file: TextIO | None, args: bool) -> None:
    while True:
        await trio.sleep(seconds / 4)
        with suppress(Exception):  # or an error here would end the run
            if _has_waited(seconds):
                dump(file, args=args)
                return


def _has_waited(seconds: float) -> bool:
    """Note when each task began to wait, and return whether one has waited that long for a result."""
    now = trio.current_time()
    root = trio.lowlevel.current_root_task()
    todo = [] if root is None else [root]
    longest = 0.0
    for task in todo:  # the list grows during the loop
        todo.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)
        points, since = watched.get(task, (None, now))
        if points != schedule_points_of(task):
            watched[task] = schedule_points_of(task), now
        elif isinstance(task.custom_sleep_data, (ResultBase, CountDown, Arrivals)):
            longest = max(longest, now - since)
    return longest >= seconds


def _snapshot_elsewhere(token: TrioToken, *, args: bool) -> Snapshot:
    answers: list[Snapshot] = []
    answered = threading.Event()

    def look() -> None:
        with suppress(Exception):
            run = run_here()
            assert run is not None
            answers.append(snapshot_of(run, args=args))
        answered.set()

    try:
        token.run_sync_soon(look)
    except trio.RunFinishedError:
        raise RuntimeError("the Trio run has ended, so there is nothing to show") from None
    except OSError:  # the run has crashed, and its sockets are closed
        pass
    else:
        answered.wait(_PATIENCE)
    if answers:
        return answers[0]
    found = all_runs(token)
    if not found:
        raise RuntimeError("the Trio run doesn't answer, and there is no other way to find it")
    for _ in range(10):
        with suppress(RuntimeError):  # the run may go on in the meantime, and change a set while we read it
            return snapshot_of(found[0], args=args)
    return snapshot_of(found[0], args=args)


def _ended(result: ResultBase[Any]) -> list[str]:
    error = result.exception()
    if result.cancelled():
        return [str(TaskCancelledException(result))]
    if error is None:
        return [f"{result._work()} succeeded: {shown(result.unwrap())}"]
    lines = [f"{result._work()} failed: {shown(error)}"]
    traceback = result._traceback
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is not None:
        code = traceback.tb_frame.f_code
        lines.append(f'  raised in: File "{code.co_filename}", line {traceback.tb_lineno}, in {code.co_name}')
    return lines


def _pending(result: ResultBase[Any]) -> list[str]:
    token = result.trio_token
    if token is None:
        return [f"{result._work()} is pending, and doesn't belong to a Trio run yet, so nothing is waiting for it"]
    try:
        graph = snapshot(trio_token=token)
    except RuntimeError as error:
        return [f"{result._work()} is pending; {error}"]
    info = graph._info_of(result)
    waiters = graph.waiters_of(result)
    if info is None:
        lines = [f"{result._work()} is pending; no task is waiting for it, and nobody has promised to settle it"]
    else:
        lines = [f"{info.name}, {info.owed}, is pending"]
    owner = graph.owner_of(result)
    if owner is not None:
        lines.append(f"  to be settled by {_described(owner)}")
    statistics = result.statistics()
    lines.append(f"  waits: {statistics.waiters}, callbacks: {statistics.callbacks}")
    lines.extend(f"    {_described(task)}" for task in waiters[:5])
    more = len(waiters) - 5
    if more > 0:
        lines.append(f"    ... and {more:,} more task{'s' * (more != 1)}")
    return lines


def _described(task: TaskInfo) -> str:
    where = "" if task.file is None else f' (File "{task.file}", line {task.line}, in {task.function})'
    return f"{task.verdict}{' ' * bool(task.verdict)}task #{task.number} {task.name}: {task.state}{where}"
