"""Wrong uses of the package, each with the error that it raises; `test_misuse` runs them, and the docs show them.

An entry's ``code`` is executed as it is, inside a Trio run, with these names:

- modules: ``concurrent``, ``outcome``, ``trio``, and all public names of ``triores``
- ``pending``, ``done``, ``failed``, ``cancelled``: futures
- ``waited``: a pending future that a task is waiting for, with ``seen`` as its callback
- ``capture``, ``finished``: a capture that hasn't been run, and one that has
- ``nursery``, ``closed_nursery``: an open and a closed one; ``scope``: a cancel scope that was entered
- ``fetch(n)``: an async function; ``sync(n)``: a synchronous one; ``stream(n)``: an async generator function
- ``requests``: a `FutureMap` in which ``"a"`` is in flight; ``ended``: one whose reader has ended
- ``flights``: a `SingleFlight`
- ``send``, ``closed_send``: sending ends of channels
- ``executor``: a `concurrent.futures.Executor`; ``shut_down``: one that was shut down
- ``results``: what ``as_completed([waited])`` returned
- ``awkward``: an object that raises an ``AwkwardError`` when it is shown, compared or hashed
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Misuse:
    """One wrong use."""

    topic: str
    code: str
    error: str  # the name of its class
    message: str  # the whole message, with ``...`` for what differs from run to run
    instead: str  # what to do instead, as the documentation shows it
    where: str = "here"  # or "outside of Trio", "in a thread", "in another run"
    in_group: bool = False  # whether a nursery wraps it in an exception group

    @property
    def pattern(self) -> str:
        """The message as a regular expression."""
        return ".*".join(re.escape(part) for part in self.message.split("..."))


READING = "Reading a result"
SETTLING = "Settling a future"
OWNERSHIP = "Results of another thread or another run"
CALLBACKS = "Callbacks"
CAPTURES = "Captured tasks"
WAITING = "Waiting"
FAN_OUT = "Fan-out"
REQUESTS = "Requests in flight"
SHARING = "Shared work"
BRIDGES = "Threads, executors and other futures"
AWKWARD = "Awkward values"

NOT_DONE = "{} was read before it was done; call 'await result.wait_done()' first"
WAIT_FIRST = "Wait for it first: `await pending`, or `await pending.wait_done()`."
DONE_AGAIN = "this Future was already settled, and a result can only be settled once; check 'result.is_done()' first"
FAILED = "this Future failed: {}"
ASK_FIRST = (
    "If several tasks may settle a future, check `is_done()` first, or use `cancel()`, which returns False instead of "
    "raising an error."
)
ELSEWHERE = (
    "Future(is_done=False) belongs to another Trio run, and can't be {} from here; nothing was changed. Put the call "
    "into a function fn: another thread can then call 'trio.from_thread.run_sync(fn, trio_token=result.trio_token)', "
    "and another Trio run or event loop can call 'result.trio_token.run_sync_soon(fn)'"
)
FROM_THREAD = "Go through the result's own run: `trio.from_thread.run_sync(fn, trio_token=result.trio_token)`."
NO_TRIO = "triores needs Trio: call this from inside trio.run(...)"
INSIDE = "Call it inside `trio.run`."
CALLED = "expected an async function, but got the coroutine that 'fetch' returned; call '{1}', not '{0}'"
SYNC = (
    "expected an async function, but '{0}' is synchronous, and returned 1; define it with 'async def', or run it in "
    "a thread: 'start_soon(nursery, trio.to_thread.run_sync, {0})'"
)

MISUSES = (
    # ---- reading
    Misuse(READING, "pending.result()", "TaskNotDoneException", NOT_DONE.format("this Future"), WAIT_FIRST),
    Misuse(READING, "pending.exception()", "TaskNotDoneException", NOT_DONE.format("this Future"), WAIT_FIRST),
    Misuse(READING, "pending.outcome", "TaskNotDoneException", NOT_DONE.format("this Future"), WAIT_FIRST),
    Misuse(
        READING,
        "capture.result()",
        "TaskNotDoneException",
        NOT_DONE.format("fetch(1)"),
        "Run the capture, and wait for it.",
    ),
    Misuse(
        READING,
        "pending.unwrap()",
        "TaskNotDoneException",
        NOT_DONE.format("this Future"),
        WAIT_FIRST,
    ),
    Misuse(
        READING,
        "failed.result()",
        "TaskFailedException",
        FAILED.format("ValueError()"),
        "Check `failed.exception()`, or call `failed.unwrap()`, which raises the original exception.",
    ),
    Misuse(
        READING,
        "cancelled.unwrap()",
        "TaskCancelledException",
        "this Future was cancelled, reason: 'no longer wanted'",
        "If you expect that, check `cancelled.cancelled()` first.",
    ),
    Misuse(
        READING,
        "cancelled.result()",
        "TaskCancelledException",
        "this Future was cancelled, reason: 'no longer wanted'",
        "If you expect that, check `cancelled.cancelled()` first.",
    ),
    Misuse(
        READING,
        "'{:x}'.format(done)",
        "ValueError",
        "the format of a result must be '' or '#', not 'x'",
        "`f'{result:#}'` shows a capture with its routine and arguments.",
    ),
    # ---- settling
    Misuse(SETTLING, "done.set_result(2)", "FutureSetAgainException", DONE_AGAIN, ASK_FIRST),
    Misuse(SETTLING, "done.set_exception(ValueError())", "FutureSetAgainException", DONE_AGAIN, ASK_FIRST),
    Misuse(SETTLING, "done.set_outcome(outcome.Value(2))", "FutureSetAgainException", DONE_AGAIN, ASK_FIRST),
    Misuse(
        SETTLING,
        "cancelled.set_result(2)",
        "FutureSetAgainException",
        DONE_AGAIN,
        ASK_FIRST,
    ),
    Misuse(
        SETTLING,
        "pending.set_exception('it broke')",
        "TypeError",
        "set_exception takes an exception object, not 'it broke'; call 'set_exception(ValueError('what went wrong'))'",
        "`pending.set_exception(ValueError('it broke'))`",
    ),
    Misuse(
        SETTLING,
        "pending.set_exception(ValueError)",
        "TypeError",
        "set_exception takes an exception object, not <class 'ValueError'>; call 'set_exception(ValueError())'",
        "`pending.set_exception(ValueError())`",
    ),
    Misuse(
        SETTLING,
        "pending.set_exception(None)",
        "TypeError",
        "set_exception takes an exception object, not None; call 'set_exception(ValueError('what went wrong'))'",
        "`pending.set_result(None)`, if that is what you meant.",
    ),
    Misuse(
        SETTLING,
        "pending.set_outcome(3)",
        "TypeError",
        "set_outcome takes an outcome.Value or an outcome.Error, not 3; call 'set_outcome(outcome.Value(value))', "
        "or 'set_result(value)'",
        "`pending.set_outcome(outcome.Value(3))`, or `pending.set_result(3)`",
    ),
    Misuse(
        SETTLING,
        "pending.cancel(ValueError())",
        "TypeError",
        "the reason for a cancellation must be a string, not ValueError(); call 'future.cancel(\"why\")'",
        "`pending.cancel('no longer wanted')`; for an exception, call `set_exception`.",
    ),
    # ---- ownership
    *(
        Misuse(OWNERSHIP, code, "RuntimeError", ELSEWHERE.format(what), way, where)
        for where, way in (
            ("in a thread", FROM_THREAD),
            (
                "in another run",
                "`result.trio_token.run_sync_soon(fn)` calls a function in the run that the result belongs to.",
            ),
        )
        for code, what in (
            ("waited.set_result(1)", "settled"),
            ("waited.set_exception(ValueError())", "settled"),
            ("waited.cancel()", "settled"),
            ("waited.remove_done_callback(seen)", "changed"),
        )
    ),
    Misuse(
        OWNERSHIP,
        "waited.add_done_callback(print)",
        "RuntimeError",
        ELSEWHERE.format("given a callback"),
        "`result.trio_token.run_sync_soon(fn)` calls a function in the run that the result belongs to.",
        "in another run",
    ),
    Misuse(OWNERSHIP, "waited.add_done_callback(print)", "RuntimeError", NO_TRIO, FROM_THREAD, "in a thread"),
    Misuse(
        OWNERSHIP,
        "pending.set_result(1)",
        "RuntimeError",
        ELSEWHERE.format("settled"),
        "Even if nobody is waiting, use `trio.from_thread.run_sync(fn, trio_token=result.trio_token)`.",
        "in a thread",
    ),
    *(
        Misuse(
            OWNERSHIP,
            code,
            "RuntimeError",
            ELSEWHERE.format("waited for"),
            "Wait in the run that the result belongs to, and pass on the outcome.",
            "in another run",
        )
        for code in (
            "await waited.wait_done()",
            "await waited",
            "await wait_all([pending, waited])",
            "await wait_any([pending, waited])",
            "as_completed([pending, waited])",
            "await results_to_channel([pending, waited], send)",
        )
    ),
    Misuse(
        OWNERSHIP,
        "to_concurrent_future(waited)",
        "RuntimeError",
        ELSEWHERE.format("given a callback"),
        "Call it in the run that the result belongs to; what it returns can be waited for in any thread.",
        "in another run",
    ),
    Misuse(
        OWNERSHIP,
        "await anext(results)",
        "RuntimeError",
        "this iterator belongs to another Trio run; call 'as_completed(results)' in this one",
        "Loop in the run that called `as_completed`.",
        "in another run",
    ),
    Misuse(
        OWNERSHIP,
        "await flights.run('a', fetch, 1)",
        "RuntimeError",
        "SingleFlight(in_flight=0) belongs to another Trio run, that of its nursery, so no task was started; make a "
        "SingleFlight in this run",
        "Make one in each run, or enter the same `SingleFlight()` once in each run.",
        "in another run",
    ),
    *(
        Misuse(OWNERSHIP, code, "RuntimeError", NO_TRIO, INSIDE, "outside of Trio")
        for code in (
            "pending.add_done_callback(print)",
            "as_completed([pending])",
            "ResultCapture.start_soon(nursery, fetch, 1)",
            "SingleFlight(nursery)",
            "wrap_future(concurrent.futures.Future())",
            "ensure_future(fetch(1), nursery)",
            "to_concurrent_future(done)",
        )
    ),
    # ---- callbacks
    Misuse(
        CALLBACKS,
        "pending.add_done_callback(3)",
        "TypeError",
        "a done callback must be a synchronous function that takes one argument, not 3; to run async code when a "
        "result is done, start a task that calls 'await result.wait_done()' first",
        "Pass a function that takes the result.",
    ),
    Misuse(
        CALLBACKS,
        "pending.add_done_callback(fetch)",
        "TypeError",
        "a done callback must be a synchronous function that takes one argument, not <function fetch>; to "
        "run async code when a result is done, start a task that calls 'await result.wait_done()' first",
        "Start a task that does `await pending.wait_done()` first.",
    ),
    Misuse(
        CALLBACKS,
        "pending.add_done_callback(print, context='here')",
        "TypeError",
        "context must be a contextvars.Context, not 'here'; pass 'contextvars.copy_context()'",
        "`context=contextvars.copy_context()`, which is the default.",
    ),
    # ---- captures
    Misuse(
        CAPTURES,
        "ResultCapture.start_soon(nursery, fetch(1))",
        "TypeError",
        CALLED.format(
            "ResultCapture.start_soon(nursery, fetch(...), *args)", "ResultCapture.start_soon(nursery, fetch, *args)"
        ),
        "`ResultCapture.start_soon(nursery, fetch, 1)`",
    ),
    Misuse(
        CAPTURES,
        "ResultCapture(fetch(1))",
        "TypeError",
        CALLED.format("ResultCapture(fetch(...), *args)", "ResultCapture(fetch, *args)"),
        "`ResultCapture(fetch, 1)`",
    ),
    Misuse(
        CAPTURES,
        "ResultCapture.start_soon(nursery, 3)",
        "TypeError",
        "expected an async function, but got 3; call 'ResultCapture.start_soon(nursery, async_fn, *args)'",
        "`ResultCapture.start_soon(nursery, fetch, 3)`",
    ),
    Misuse(
        CAPTURES,
        "ResultCapture.start_soon(fetch, nursery, 1)",
        "TypeError",
        "expected an async function, but got <trio.Nursery object at ...>; call 'ResultCapture.start_soon(nursery, "
        "async_fn, *args)'",
        "The nursery comes first: `ResultCapture.start_soon(nursery, fetch, 1)`",
    ),
    Misuse(
        CAPTURES,
        "ResultCapture.start_soon(None, fetch, 1)",
        "TypeError",
        "expected a nursery, but got None; call 'ResultCapture.start_soon(nursery, async_fn, *args)'",
        "`ResultCapture.start_soon(nursery, fetch, 1)`",
    ),
    Misuse(
        CAPTURES,
        "async with trio.open_nursery() as own:\n    ResultCapture.start_soon(own, sync, 1)",
        "TypeError",
        SYNC.format("sync"),
        "`ResultCapture.start_soon(nursery, trio.to_thread.run_sync, sync, 1)`",
        in_group=True,
    ),
    Misuse(
        CAPTURES,
        "async with trio.open_nursery() as own:\n    ResultCapture.start_soon(own, stream, 1)",
        "TypeError",
        "expected an async function, but 'stream' is an async generator; iterate over it with 'async for'",
        "Loop over it inside an async function.",
        in_group=True,
    ),
    Misuse(
        CAPTURES,
        "ResultCapture.start_soon(closed_nursery, fetch, 1)",
        "RuntimeError",
        "Nursery is closed to new arrivals",
        "Start tasks while the nursery is open.",
    ),
    Misuse(
        CAPTURES,
        "ResultCapture.start_soon(nursery, fetch, 1, cancel_scope=5)",
        "TypeError",
        "cancel_scope must be a trio.CancelScope, not 5; pass 'cancel_scope=trio.CancelScope()', or a time limit: "
        "'cancel_scope=trio.move_on_after(5)'",
        "`cancel_scope=trio.move_on_after(5)`",
    ),
    Misuse(
        CAPTURES,
        "ResultCapture.start_soon(nursery, fetch, 1, cancel_scope=scope)",
        "RuntimeError",
        "<trio.CancelScope at ..., exited> has been entered before, and can't be used again for another task; pass "
        "'cancel_scope=trio.CancelScope()', or a time limit: 'cancel_scope=trio.move_on_after(5)'",
        "A scope can be entered only once: make one for each capture.",
    ),
    Misuse(
        CAPTURES,
        "await finished.run()",
        "FutureSetAgainException",
        "fetch(1) was already started, and a capture can only run once; to run it again, make a new one",
        "Make a new capture for each run. `start_soon` has already run this one.",
    ),
    Misuse(
        CAPTURES,
        "own = ResultCapture(fetch, 1)\nawait nursery.start(own.run)",
        "TypeError",
        "fetch() got an unexpected keyword argument 'task_status'",
        "`nursery.start` needs a routine that takes `task_status`; for others, call `nursery.start_soon(own.run)`.",
    ),
    Misuse(
        CAPTURES,
        "ResultCapture.capture_start_and_done_results(nursery, fetch(1))",
        "TypeError",
        CALLED.format(
            "ResultCapture.capture_start_and_done_results(run_nursery, fetch(...), *args)",
            "ResultCapture.capture_start_and_done_results(run_nursery, fetch, *args)",
        ),
        "`ResultCapture.capture_start_and_done_results(nursery, fetch, 1)`",
    ),
    Misuse(
        CAPTURES,
        "ResultCapture.capture_start_and_done_results(None, fetch, 1)",
        "TypeError",
        "expected a nursery, but got None; call 'ResultCapture.capture_start_and_done_results(run_nursery, "
        "async_fn, *args)'",
        "The nursery comes first, then the routine.",
    ),
    # ---- waiting
    Misuse(
        WAITING,
        "async def own():\n    await itself\n\nitself = ResultCapture(own)\nawait itself.run()",
        "WaitCycleError",
        "this wait would never end, because a task can't wait for its own result:\n  own() waits for own(): File "
        "..., in own",
        "A task can't wait for its own result. If several tasks wait for each other, the message shows each wait.",
    ),
    Misuse(
        WAITING,
        "await wait_any([])",
        "RuntimeError",
        "wait_any got no results, so it would never return; pass at least one",
        "Check first whether there is anything to wait for.",
    ),
    Misuse(
        WAITING,
        "await wait_all(pending)",
        "TypeError",
        "wait_all takes an iterable of results, not a single Future(is_done=False); call 'wait_all([result])'",
        "`await pending.wait_done()`",
    ),
    Misuse(
        WAITING,
        "await wait_any(pending)",
        "TypeError",
        "wait_any takes an iterable of results, not a single Future(is_done=False); call 'wait_any([result])'",
        "`await pending`",
    ),
    Misuse(
        WAITING,
        "as_completed(pending)",
        "TypeError",
        "as_completed takes an iterable of results, not a single Future(is_done=False); call 'as_completed([result])'",
        "`await pending`",
    ),
    Misuse(
        WAITING,
        "await wait_all([pending, fetch])",
        "TypeError",
        "wait_all takes triores results, not <function fetch>; to start it and get a result, call "
        "'ResultCapture.start_soon(nursery, fetch, ...)'",
        "Start it first: `ResultCapture.start_soon(nursery, fetch, 1)`, or `gather`.",
    ),
    *(
        Misuse(
            WAITING,
            code,
            "TypeError",
            f"{name} takes triores results, not the coroutine that 'fetch' returned; "
            "to start it and get a result, call 'ResultCapture.start_soon(nursery, fetch, ...)'",
            "Start it first: `ResultCapture.start_soon(nursery, fetch, 1)`, or `gather`.",
        )
        for name, code in (
            ("wait_all", "await wait_all([pending, fetch(1)])"),
            ("as_completed", "as_completed([fetch(1), fetch(2)])"),
        )
    ),
    Misuse(
        WAITING,
        "await wait_any([pending, 3])",
        "TypeError",
        "wait_any takes triores results, not 3; call 'wait_any([result, ...])'",
        "Pass only results.",
    ),
    Misuse(
        WAITING,
        "as_completed([pending, concurrent.futures.Future()])",
        "TypeError",
        "as_completed takes triores results, not <Future at ... state=pending>; to turn it into a result, call "
        "'wrap_future(future)'",
        "`wrap_future(future)` turns it into a result.",
    ),
    Misuse(
        WAITING,
        "await wait_all(3)",
        "TypeError",
        "wait_all takes triores results, not 3; call 'wait_all([result, ...])'",
        "Pass an iterable of results.",
    ),
    Misuse(
        WAITING,
        "await results_to_channel([pending, 3], send)",
        "TypeError",
        "results_to_channel takes triores results, not 3; call 'results_to_channel([result, ...])'",
        "Pass only results.",
    ),
    Misuse(
        WAITING,
        "await results_to_channel([done], closed_send)",
        "ClosedResourceError",
        "",
        "Leave the channel open: `results_to_channel` closes it at the end.",
    ),
    # ---- fan-out
    Misuse(
        FAN_OUT,
        "await gather(fetch(1), fetch(2))",
        "TypeError",
        CALLED.format("gather(fetch(...), ...)", "gather(functools.partial(fetch, *args), ...)"),
        "`await gather(partial(fetch, 1), partial(fetch, 2))`",
    ),
    Misuse(
        FAN_OUT,
        "await gather([fetch])",
        "TypeError",
        "expected an async function, but got [<function fetch>]; call 'gather(functools.partial(async_fn, "
        "*args), ...)'",
        "`gather(*fns)`",
    ),
    Misuse(
        FAN_OUT,
        "await gather(lambda: sync(1))",
        "TypeError",
        SYNC.format("<lambda>"),
        "`await gather(partial(trio.to_thread.run_sync, sync, 1))`",
        in_group=True,
    ),
    Misuse(
        FAN_OUT,
        "await gather_outcomes(fetch(1))",
        "TypeError",
        CALLED.format("gather_outcomes(fetch(...), ...)", "gather_outcomes(functools.partial(fetch, *args), ...)"),
        "`await gather_outcomes(partial(fetch, 1))`",
    ),
    Misuse(
        FAN_OUT,
        "await race(fetch(1))",
        "TypeError",
        CALLED.format("race(fetch(...), ...)", "race(functools.partial(fetch, *args), ...)"),
        "`await race(partial(fetch, 1))`",
    ),
    Misuse(
        FAN_OUT,
        "await race()",
        "ValueError",
        "race got no functions, so it has nothing to return; pass at least 1",
        "Check first whether there is anything to run.",
    ),
    Misuse(
        FAN_OUT,
        "await first_success()",
        "ValueError",
        "first_success got no functions, so it has nothing to return; pass at least 1",
        "Check first whether there is anything to run.",
    ),
    Misuse(
        FAN_OUT,
        "await first_success(lambda: fetch(1), stagger=-1)",
        "ValueError",
        "stagger must be a number of seconds, 0 or more, or None to start all at once, not -1",
        "`stagger=None` starts all of them at once.",
    ),
    Misuse(
        FAN_OUT,
        "await first_success(lambda: fetch(1), stagger='soon')",
        "TypeError",
        "stagger must be a number of seconds, 0 or more, or None to start all at once, not 'soon'",
        "`stagger=0.25`",
    ),
    Misuse(
        FAN_OUT,
        "await amap(fetch(1), [1])",
        "TypeError",
        CALLED.format("amap(fetch(...), items)", "amap(fetch, items)"),
        "`await amap(fetch, [1])`",
    ),
    Misuse(
        FAN_OUT,
        "await amap([1], fetch)",
        "TypeError",
        "expected an async function, but got [1]; call 'amap(async_fn, items)'",
        "`await amap(fetch, [1])`",
    ),
    Misuse(
        FAN_OUT,
        "await amap(fetch, 3)",
        "TypeError",
        "the items of amap must be an iterable or an async iterable, not 3",
        "`await amap(fetch, range(3))`",
    ),
    Misuse(
        FAN_OUT,
        "await amap(sync, [1])",
        "TypeError",
        SYNC.format("sync"),
        "`await amap(partial(trio.to_thread.run_sync, sync), [1])`",
        in_group=True,
    ),
    Misuse(
        FAN_OUT,
        "await amap(stream, [1])",
        "TypeError",
        "expected an async function, but 'stream' is an async generator; iterate over it with 'async for'",
        "Loop over it inside an async function.",
        in_group=True,
    ),
    Misuse(
        FAN_OUT,
        "await amap(fetch, [1], limit=0)",
        "ValueError",
        "the limit of amap must be at least 1, not 0; it is the number of calls to run at once",
        "`limit=None`, the default, means no limit.",
    ),
    Misuse(
        FAN_OUT,
        "await amap(fetch, [1], limit=2.5)",
        "TypeError",
        "the limit of amap must be an integer or None, not 2.5; it is the number of calls to run at once",
        "`limit=2`",
    ),
    Misuse(
        FAN_OUT,
        "open_amap(fetch, [1], limit=True)",
        "TypeError",
        "the limit of open_amap must be an integer or None, not True; it is the number of calls to run at once",
        "`limit=1`",
    ),
    Misuse(
        FAN_OUT,
        "open_amap(fetch, [1], limit=-1)",
        "ValueError",
        "the limit of open_amap must be at least 1, not -1; it is the number of calls to run at once",
        "`limit=1`",
    ),
    Misuse(
        FAN_OUT,
        "async with open_amap(fetch, [1], limit=1) as pages:\n    pass\nasync for page in pages:\n    page.result()",
        "ClosedResourceError",
        "open_amap has no more results: its block has ended, or is being cancelled",
        "Loop inside the block.",
    ),
    Misuse(
        FAN_OUT,
        "async with open_amap(fetch, [1]) as pages:\n    pass\npages.add(2)",
        "ClosedResourceError",
        "the block of open_amap(fetch, ...) has ended, so you can't add 2; add items while the block is running",
        "Add items in the loop or in a call.",
    ),
    Misuse(
        FAN_OUT,
        "async for page in open_amap(fetch, [1]):\n    page.result()",
        "TypeError",
        "use open_amap with 'async with', not with 'async for': 'async with open_amap(fn, items) as results:', and "
        "in the block, 'async for capture in results:'",
        "`async with open_amap(fetch, [1]) as pages:`, then `async for page in pages:`",
    ),
    Misuse(
        FAN_OUT,
        "await open_amap(fetch, [1])",
        "TypeError",
        "use open_amap with 'async with', not with 'await': 'async with open_amap(fn, items) as results:', and in "
        "the block, 'async for capture in results:'",
        "`await amap(fetch, [1])` returns all values at once.",
    ),
    Misuse(
        FAN_OUT,
        "with open_amap(fetch, [1]):\n    pass",
        "TypeError",
        "use open_amap with 'async with', not with 'with': 'async with open_amap(fn, items) as results:', and in the "
        "block, 'async for capture in results:'",
        "`async with open_amap(fetch, [1]) as pages:`",
    ),
    Misuse(
        FAN_OUT,
        "pages = open_amap(fetch, [1])\nasync with pages:\n    pass\nasync with pages:\n    pass",
        "RuntimeError",
        "this open_amap block has been entered before; call 'open_amap(...)' for each block",
        "Call `open_amap` again for each block.",
    ),
    # ---- requests in flight
    Misuse(
        REQUESTS,
        "with requests.expect('a'):\n    pass",
        "ValueError",
        "a request with the key 'a' is already in flight; give each request its own key, or wait until the first "
        "one is done",
        "Number the requests, for example with `itertools.count()`.",
    ),
    Misuse(
        REQUESTS,
        "await requests.expect('b')",
        "TypeError",
        "use 'expect' with 'with', not with 'await': 'with requests.expect(key) as future:', and in the block, "
        "'await future'",
        "`with requests.expect('b') as future:`, then `await future`",
    ),
    Misuse(
        REQUESTS,
        "async with requests.expect('b'):\n    pass",
        "TypeError",
        "use 'expect' with 'with', not with 'async with': 'with requests.expect(key) as future:', and in the block, "
        "'await future'",
        "`with requests.expect('b') as future:`",
    ),
    Misuse(
        REQUESTS,
        "with requests.expect(['a']):\n    pass",
        "TypeError",
        "...unhashable type: 'list'...",
        "Any hashable key will do, such as a tuple.",
    ),
    Misuse(
        REQUESTS,
        "requests.set_exception('unknown', 'it broke')",
        "TypeError",
        "set_exception takes an exception object, not 'it broke'; call 'set_exception(ValueError('what went wrong'))'",
        "`requests.set_exception(key, ValueError('it broke'))`",
    ),
    Misuse(
        REQUESTS,
        "requests.set_outcome('a', 3)",
        "TypeError",
        "set_outcome takes an outcome.Value or an outcome.Error, not 3; call 'set_outcome(outcome.Value(value))', "
        "or 'set_result(value)'",
        "`requests.set_result('a', 3)`",
    ),
    Misuse(
        REQUESTS,
        "requests['unknown']",
        "KeyError",
        "'unknown'",
        "Call `requests.get(key)`. To settle a request, call `requests.set_result(key, value)`, which returns False "
        "for an unknown key.",
    ),
    Misuse(
        REQUESTS,
        "requests['b'] = Future()",
        "TypeError",
        "'FutureMap' object does not support item assignment",
        "`with requests.expect('b') as future:`",
    ),
    Misuse(
        REQUESTS,
        "with ended:\n    pass",
        "RuntimeError",
        "the reader's block of FutureMap(in_flight=0, reader='ended') has already been entered, and a map serves "
        "only one connection; make a new FutureMap() for the next connection",
        "Make a new map for each connection.",
    ),
    Misuse(
        REQUESTS,
        "with ended.expect('b'):\n    pass",
        "FutureNeverSetException",
        "the block that reads the responses ended before this request was made",
        "Handle it like any other failed request: the connection is gone. `ended.closed` shows that, too.",
    ),
    Misuse(
        REQUESTS,
        "with requests.expect('b', 3):\n    pass",
        "TypeError",
        "the future of a request must be a Future, not 3; call 'requests.expect(key)', which makes one for you",
        "`with requests.expect('b') as future:`",
    ),
    Misuse(
        REQUESTS,
        "FutureMap(lost=ConnectionError('gone'))",
        "TypeError",
        "lost must be a synchronous function that returns an exception, not ConnectionError('gone'); call "
        "'FutureMap(lost=lambda cause: ConnectionLost(...))'",
        "Each request needs its own exception: `FutureMap(lost=lambda cause: ConnectionError('gone'))`",
    ),
    Misuse(
        REQUESTS,
        "own = FutureMap(lost=print)\nwith own:\n    pass\nwith own.expect('b'):\n    pass",
        "TypeError",
        "lost(cause) must return an exception object, not None; call 'FutureMap(lost=lambda cause: "
        "ConnectionLost(...))'",
        "Return an exception. A class works, too: `FutureMap(lost=ConnectionError)` calls it with the cause.",
    ),
    Misuse(
        REQUESTS,
        "with requests:\n    pass",
        "RuntimeError",
        NO_TRIO,
        "Enter it in the Trio task that reads the responses.",
        "outside of Trio",
    ),
    Misuse(
        REQUESTS,
        "with requests:\n    pass",
        "RuntimeError",
        "FutureMap(in_flight=1, reader='not started') belongs to another Trio run, and can't be entered here; "
        "nothing was changed. Make a new FutureMap() in this run instead",
        "Read the responses in the run that makes the requests.",
        "in another run",
    ),
    Misuse(
        REQUESTS,
        "requests.set_result('a', 1)",
        "RuntimeError",
        ELSEWHERE.format("settled"),
        FROM_THREAD,
        "in a thread",
    ),
    # ---- shared work
    Misuse(
        SHARING,
        "SingleFlight(fetch)",
        "TypeError",
        "expected a nursery, but got <function fetch>; call 'SingleFlight(nursery)'",
        "`SingleFlight(nursery)`",
    ),
    Misuse(
        SHARING,
        "await flights.run('a', fetch(1))",
        "TypeError",
        CALLED.format("flights.run(key, fetch(...), ...)", "flights.run(key, fetch, ...)"),
        "`await flights.run('a', fetch, 1)`",
    ),
    Misuse(
        SHARING,
        "await flights.run('a', 3)",
        "TypeError",
        "expected an async function, but got 3; call 'flights.run(key, async_fn, ...)'",
        "`await flights.run('a', fetch, 3)`",
    ),
    Misuse(
        SHARING,
        "await flights.run(['a'], fetch, 1)",
        "TypeError",
        "...unhashable type: 'list'...",
        "Any hashable key will do, such as a tuple.",
    ),
    Misuse(
        SHARING,
        "await flights.run('a', sync, 1)",
        "TypeError",
        SYNC.format("sync"),
        "`await flights.run('a', trio.to_thread.run_sync, sync, 1)`",
    ),
    Misuse(
        SHARING,
        "await SingleFlight(closed_nursery).run('a', fetch, 1)",
        "RuntimeError",
        "Nursery is closed to new arrivals",
        "Keep the nursery open for as long as you use it.",
    ),
    Misuse(
        SHARING,
        "await SingleFlight().run('a', fetch, 1)",
        "RuntimeError",
        "SingleFlight(in_flight=0) has no nursery, so no task was started; call 'run' inside 'async with flights:', "
        "or make it with a nursery: 'SingleFlight(nursery)'",
        "Put `async with flights:` around everything that calls `run`.",
    ),
    Misuse(
        SHARING,
        "own = SingleFlight()\nasync with own:\n    async with own:\n        pass",
        "RuntimeError",
        "the block of SingleFlight(in_flight=0) is already open; enter it once, around all calls to 'run'",
        "Enter it once, around everything that calls `run`; in `main`, for example.",
    ),
    Misuse(
        SHARING,
        "async with flights:\n    pass",
        "RuntimeError",
        "SingleFlight(in_flight=0) was given a nursery, and runs its tasks there; call 'run' without a block around "
        "it, or make a SingleFlight() without a nursery",
        "`SingleFlight()` or `SingleFlight(nursery)`",
    ),
    # ---- bridges
    Misuse(
        BRIDGES,
        "wrap_future(3)",
        "TypeError",
        "wrap_future takes a concurrent.futures.Future or an asyncio.Future, not 3; for other awaitables, call "
        "'ensure_future(obj, nursery)'",
        "Pass the future that `submit` returned.",
    ),
    Misuse(
        BRIDGES,
        "ensure_future(3, nursery)",
        "TypeError",
        "ensure_future takes something that can be awaited, not 3; to start an async function, call "
        "'ResultCapture.start_soon(nursery, async_fn, ...)'",
        "Pass a coroutine, another awaitable, or a future.",
    ),
    Misuse(
        BRIDGES,
        "ensure_future(fetch, nursery)",
        "TypeError",
        "ensure_future takes something that can be awaited, not <function fetch>; to start an async "
        "function, call 'ResultCapture.start_soon(nursery, async_fn, ...)'",
        "`ensure_future(fetch(1), nursery)`, or better `ResultCapture.start_soon(nursery, fetch, 1)`",
    ),
    Misuse(
        BRIDGES,
        "ensure_future(fetch(1), None)",
        "TypeError",
        "expected a nursery, but got None; call 'ensure_future(awaitable, nursery)'",
        "`ensure_future(fetch(1), nursery)`",
    ),
    Misuse(
        BRIDGES,
        "ensure_future(fetch(1), closed_nursery)",
        "RuntimeError",
        "Nursery is closed to new arrivals",
        "Start tasks while the nursery is open.",
    ),
    Misuse(
        BRIDGES,
        "to_concurrent_future(3)",
        "TypeError",
        "to_concurrent_future takes a triores result, not 3",
        "Pass a `Future` or a `ResultCapture`.",
    ),
    Misuse(
        BRIDGES,
        "start_from_thread(nursery, fetch(1))",
        "TypeError",
        CALLED.format("start_from_thread(nursery, fetch(...), ...)", "start_from_thread(nursery, fetch, ...)"),
        "`start_from_thread(nursery, fetch, 1)`",
    ),
    Misuse(
        BRIDGES,
        "start_from_thread(fetch, fetch)",
        "TypeError",
        "expected a nursery, but got <function fetch>; call 'start_from_thread(nursery, async_fn, ...)'",
        "`start_from_thread(nursery, fetch, 1)`",
    ),
    Misuse(
        BRIDGES,
        "start_from_thread(nursery, fetch, 1, trio_token=3)",
        "TypeError",
        "trio_token must be what trio.lowlevel.current_trio_token() returns in a Trio run, not 3",
        "Get the token in the nursery's run, and pass it to the thread.",
    ),
    Misuse(
        BRIDGES,
        "start_from_thread(nursery, fetch, 1)",
        "RuntimeError",
        "triores needs Trio, and Trio didn't start this thread; call "
        "'start_from_thread(nursery, async_fn, ..., trio_token=token)', with the token that "
        "trio.lowlevel.current_trio_token() returns in the nursery's run",
        "`start_from_thread(nursery, fetch, 1, trio_token=token)`",
        "in a thread",
    ),
    Misuse(
        BRIDGES,
        "await run_in_executor(nursery, sync, 1)",
        "TypeError",
        "run_in_executor takes an executor, not <trio.Nursery object at ...>; pass an object whose 'submit(fn, ...)' "
        "returns a concurrent.futures.Future, or, to use one of Trio's own threads, call "
        "'trio.to_thread.run_sync(fn, ...)'",
        "`await trio.to_thread.run_sync(sync, 1)` needs no executor.",
    ),
    Misuse(
        BRIDGES,
        "await run_in_executor(concurrent.futures.ThreadPoolExecutor, sync, 1)",
        "TypeError",
        "run_in_executor takes an executor, not <class 'concurrent.futures.thread.ThreadPoolExecutor'>; pass an object "
        "whose 'submit(fn, ...)' returns a concurrent.futures.Future, or, to use one of Trio's own threads, call "
        "'trio.to_thread.run_sync(fn, ...)'",
        "Pass an instance: `ThreadPoolExecutor()`.",
    ),
    Misuse(
        BRIDGES,
        "await run_in_executor(executor, 3)",
        "TypeError",
        "expected a synchronous function, but got 3; call 'run_in_executor(executor, fn, ...)'",
        "`await run_in_executor(executor, sync, 3)`",
    ),
    Misuse(
        BRIDGES,
        "await run_in_executor(executor, fetch, 1)",
        "TypeError",
        "expected a synchronous function, but 'fetch' is async, and executors can't run async functions; call "
        "'await fetch(...)', or start a task",
        "`await fetch(1)`, or start a task.",
    ),
    Misuse(
        BRIDGES,
        "await run_in_executor(executor, fetch(1))",
        "TypeError",
        "expected a synchronous function, but got <coroutine object fetch at ...>; call 'run_in_executor(executor, "
        "fn, ...)'",
        "`await fetch(1)`, or start a task.",
    ),
    Misuse(
        BRIDGES,
        "await run_in_executor(shut_down, sync, 1)",
        "RuntimeError",
        "cannot schedule new futures after shutdown",
        "Keep the executor open for as long as you use it.",
    ),
    # ---- awkward values: whatever a value does when it is shown or compared, it doesn't get in the way
    Misuse(
        AWKWARD,
        "own = Future()\nown.set_result(awkward)\nown.set_result(awkward)",
        "FutureSetAgainException",
        DONE_AGAIN,
        ASK_FIRST,
    ),
    Misuse(
        AWKWARD,
        "with requests.expect(awkward):\n    pass",
        "AwkwardError",
        "",
        "A key needs a `__hash__` and an `__eq__` that work.",
    ),
    Misuse(
        AWKWARD,
        "await flights.run(awkward, fetch, 1)",
        "AwkwardError",
        "",
        "A key needs a `__hash__` and an `__eq__` that work.",
    ),
    Misuse(
        AWKWARD,
        "waited.remove_done_callback(awkward)",
        "AwkwardError",
        "",
        "Callbacks are compared with `==`, so that bound methods are found. Pass one that can be compared.",
    ),
    Misuse(
        AWKWARD,
        "await wait_all([awkward])",
        "TypeError",
        "wait_all takes triores results, not <Awkward whose repr() raised AwkwardError>; call 'wait_all([result, "
        "...])'",
        "Pass only results.",
    ),
    *(
        Misuse(
            AWKWARD,
            f"own = Future()\nown.set_exception({error})\nawait own",
            "TaskFailedException",
            FAILED.format(error),
            "The original exception would do harm in the task that reads it. It is the cause of this one.",
        )
        for error in (
            "StopIteration(3)",
            "StopAsyncIteration()",
            "GeneratorExit()",
            "KeyboardInterrupt()",
            "SystemExit(3)",
        )
    ),
)
