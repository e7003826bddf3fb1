"""In random programs (see `_programs`), the dump marks every task that hangs, and none that can go on."""

from __future__ import annotations

import _programs as programs
import pytest
import trio
from _helpers import SOAK
from trio.testing import MockClock

from triores import debug

# Nothing is cancelled in these programs, so a program ends only because everything that it waited for has happened.
_OFTEN = ("pause", "one", "everything", "children", "gathered", "mapped")
_RARELY = ("future", "any_of", "next_of", "started", "locked", "block")
QUIET: dict[str, int] = {**dict.fromkeys(_OFTEN, 2), **dict.fromkeys(_RARELY, 1)}


class Look(trio.abc.Instrument):
    """Takes a snapshot whenever no task is ready to run."""

    def __init__(self) -> None:
        self.snapshots: list[debug.Snapshot] = []

    def before_io_wait(self, timeout: float) -> None:  # the signature is Trio's
        is_over = trio.current_time() > programs._NEVER / 2  # by then, a hanging program has been ended
        if not trio.lowlevel.current_statistics().tasks_runnable and not is_over:
            self.snapshots.append(debug.snapshot())


def looked_at(seed: int, mix: dict[str, int]) -> tuple[bool, list[debug.Snapshot]]:
    trio._core._run._r.seed(seed)  # so that the tasks of a seed always run in the same order
    program, look = programs.Program(seed, mix), Look()
    with program._noting_refusals():  # so that the check for cycles lets the program hang
        trio.run(program._main, clock=MockClock(autojump_threshold=0), instruments=[look])
    return program.hangs, look.snapshots


@pytest.mark.leaves_results  # failures that nobody reads are part of the random programs
@pytest.mark.parametrize("seed", range(2000 if SOAK else 40))
def test_every_task_that_hangs_is_marked_and_no_task_that_goes_on_is(seed: int) -> None:
    hangs, snapshots = looked_at(seed, QUIET)
    for snapshot in snapshots[: -1 if hangs else None]:
        assert hangs or not [task for task in snapshot.tasks if task.verdict]
    if hangs:
        unmarked = [task.name for task in snapshots[-1].tasks if not task.verdict]
        assert unmarked == ["_programs.Program._end_what_hangs"]


@pytest.mark.leaves_results  # failures that nobody reads are part of the random programs
@pytest.mark.parametrize("seed", range(2000 if SOAK else 40))
def test_a_deadlock_is_found_in_every_hanging_program_whatever_its_tasks_cancel(seed: int) -> None:
    hangs, snapshots = looked_at(seed, programs.HOSTILE)
    assert not hangs or snapshots[-1].deadlocks()
