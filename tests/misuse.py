"""Wrong uses of the package, each with the error that it gets: run by `test_misuse`, and shown by the documentation.

An entry's ``code`` is executed as it stands, inside a Trio run, with these names to hand:

- modules: ``concurrent``, ``outcome``, ``trio``, and all public names of ``triores``
- ``pending``, ``done``, ``failed``, ``cancelled``: futures
- ``waited``: a pending one that a task waits for, with ``seen`` as its callback
- ``capture``, ``finished``: captures that were not run, and that were
- ``nursery``, ``closed_nursery``: an open and a closed one; ``scope``: a cancel scope that was entered
- ``fetch(n)``: an async function; ``sync(n)``: a synchronous one; ``stream(n)``: an async generator function
- ``requests``: a `FutureMap` in which ``"a"`` is in flight; ``ended``: one whose reader has ended
- ``flights``: a `SingleFlight`
- ``send``, ``closed_send``: sending ends of channels
- ``executor``: a `concurrent.futures.Executor`; ``shut_down``: one that was shut down
- ``results``: what ``as_completed([waited])`` gave
- ``awkward``: an object that raises an ``AwkwardError`` when it is shown, compared or hashed
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Misuse:
    """A wrong use."""

    topic: str
    code: str
    error: str  # the name of its class
    message: str  # the sentence that tells what is wrong, or its beginning; ``...`` stands for whatever it may be
    instead: str  # what to do
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

NOT_DONE = "was read before it was done; call 'await result.wait_done()' before reading it"
WAIT_FIRST = "Wait for it first: `await pending`, or `await pending.wait_done()`."
AGAIN = "can be settled only once, and a capture run only once"
ASK_FIRST = "Where several parties may settle a future, ask `is_done()` first, or use `cancel()`, which returns False."
ELSEWHERE = "belongs to another Trio run, and can't be"
FROM_THREAD = "Go through the run it belongs to: `trio.from_thread.run_sync(fn, trio_token=result.trio_token)`."
NO_TRIO = "triores needs Trio: call this from inside trio.run(...)"
INSIDE = "Call it inside of `trio.run`."
COROUTINE = "expected an async function, but got the coroutine that calling 'fetch' made"
NO_PARENTHESES = "Pass the function and its arguments, without calling it."

MISUSES = (
    # ---- reading
    Misuse(READING, "pending.result()", "TaskNotDoneException", NOT_DONE, WAIT_FIRST),
    Misuse(READING, "pending.exception()", "TaskNotDoneException", NOT_DONE, WAIT_FIRST),
    Misuse(READING, "pending.outcome", "TaskNotDoneException", NOT_DONE, WAIT_FIRST),
    Misuse(READING, "capture.result()", "TaskNotDoneException", NOT_DONE, "Run the capture, and wait for it."),
    Misuse(
        READING,
        "failed.result()",
        "TaskFailedException",
        "failed; the exception it failed with is the cause of this one",
        "Ask `failed.exception()`, or catch this and look at its `__cause__`.",
    ),
    Misuse(
        READING,
        "await failed",
        "TaskFailedException",
        "failed; the exception it failed with is the cause of this one",
        "`await failed.wait_done()` only waits.",
    ),
    Misuse(
        READING,
        "cancelled.result()",
        "TaskCancelledException",
        "was cancelled: the future was cancelled: no longer wanted",
        "Ask `cancelled.cancelled()` where that is to be expected.",
    ),
    Misuse(
        READING,
        "'{:x}'.format(done)",
        "ValueError",
        "a result is formatted with '' or '#', not with 'x'",
        "`f'{result:#}'` shows a capture with its routine and arguments.",
    ),
    # ---- settling
    Misuse(SETTLING, "done.set_result(2)", "FutureSetAgainException", AGAIN, ASK_FIRST),
    Misuse(SETTLING, "done.set_exception(ValueError())", "FutureSetAgainException", AGAIN, ASK_FIRST),
    Misuse(SETTLING, "done.set_outcome(outcome.Value(2))", "FutureSetAgainException", AGAIN, ASK_FIRST),
    Misuse(SETTLING, "cancelled.set_result(2)", "FutureSetAgainException", AGAIN, ASK_FIRST),
    Misuse(
        SETTLING,
        "pending.set_exception('it broke')",
        "TypeError",
        "a future is given an exception object, not 'it broke'",
        "`pending.set_exception(ValueError('it broke'))`",
    ),
    Misuse(
        SETTLING,
        "pending.set_exception(ValueError)",
        "TypeError",
        "a future is given an exception object, not <class 'ValueError'>; call 'set_exception(ValueError())'",
        "`pending.set_exception(ValueError())`",
    ),
    Misuse(
        SETTLING,
        "pending.set_exception(None)",
        "TypeError",
        "a future is given an exception object, not None",
        "`pending.set_result(None)`, where that is what was meant.",
    ),
    Misuse(
        SETTLING,
        "pending.set_outcome(3)",
        "TypeError",
        "an outcome is an outcome.Value or an outcome.Error, not 3",
        "`pending.set_outcome(outcome.Value(3))`, or `pending.set_result(3)`",
    ),
    Misuse(
        SETTLING,
        "pending.cancel(ValueError())",
        "TypeError",
        "the reason of a cancellation is a text, not ValueError()",
        "`pending.cancel('no longer wanted')`; for an exception, `set_exception`.",
    ),
    # ---- ownership
    *(
        Misuse(OWNERSHIP, code, "RuntimeError", f"{ELSEWHERE} {what} from here; nothing was changed", way, where)
        for where, way in (
            ("in a thread", FROM_THREAD),
            ("in another run", "`result.trio_token.run_sync_soon(fn)` calls a function in the run it belongs to."),
        )
        for code, what in (
            ("waited.set_result(1)", "settled"),
            ("waited.set_exception(ValueError())", "settled"),
            ("waited.cancel()", "settled"),
            ("waited.add_done_callback(print)", "given a callback"),
            ("waited.remove_done_callback(seen)", "rid of a callback"),
        )
    ),
    *(
        Misuse(
            OWNERSHIP, code, "RuntimeError", message, "Wait in the run that the result belongs to.", "in another run"
        )
        for code, message in (
            ("await waited.wait_done()", f"{ELSEWHERE} waited for from here"),
            ("await waited", f"{ELSEWHERE} waited for from here"),
            ("await wait_all([pending, waited])", f"{ELSEWHERE} waited for from here"),
            ("await wait_any([pending, waited])", f"{ELSEWHERE} waited for from here"),
            ("as_completed([pending, waited])", f"{ELSEWHERE} waited for from here"),
            ("await results_to_channel([pending, waited], send)", f"{ELSEWHERE} waited for from here"),
            ("to_concurrent_future(waited)", f"{ELSEWHERE} given a callback from here"),
            ("await anext(results)", "this iterator belongs to another Trio run"),
            ("await flights.run('a', fetch, 1)", "belongs to another Trio run, where its nursery is"),
        )
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
        "a done callback is a synchronous function of one argument, not 3",
        "Pass a function that takes the result.",
    ),
    Misuse(
        CALLBACKS,
        "pending.add_done_callback(fetch)",
        "TypeError",
        "a done callback is a synchronous function of one argument, not <function fetch",
        "Start a task that does `await pending.wait_done()` first.",
    ),
    Misuse(
        CALLBACKS,
        "pending.add_done_callback(print, context='here')",
        "TypeError",
        "context is a contextvars.Context, not 'here'",
        "`context=contextvars.copy_context()`, which is the default.",
    ),
    Misuse(
        CALLBACKS,
        "def again(result):\n    result.add_done_callback(again)\n\ndone.add_done_callback(again)",
        "RecursionError",
        "maximum recursion depth exceeded",
        "A result that is done calls back at once: ask `is_done()` first.",
    ),
    Misuse(
        CALLBACKS,
        "own = Future()\nown.add_done_callback(lambda future: future.set_result(2))\nown.set_result(1)",
        "FutureSetAgainException",
        AGAIN,
        "What a callback raises leaves the call that settled the result, in a group. The result stays settled.",
        in_group=True,
    ),
    # ---- captures
    Misuse(
        CAPTURES,
        "ResultCapture.start_soon(nursery, fetch(1))",
        "TypeError",
        f"{COROUTINE}; not 'ResultCapture.start_soon(nursery, fetch(...), *args)' but",
        "`ResultCapture.start_soon(nursery, fetch, 1)`",
    ),
    Misuse(CAPTURES, "ResultCapture(fetch(1))", "TypeError", COROUTINE, "`ResultCapture(fetch, 1)`"),
    Misuse(
        CAPTURES,
        "ResultCapture.start_soon(nursery, 3)",
        "TypeError",
        "expected an async function, but got 3; the right call is 'ResultCapture.start_soon(nursery, async_fn, *args)'",
        "`ResultCapture.start_soon(nursery, fetch, 3)`",
    ),
    Misuse(
        CAPTURES,
        "ResultCapture.start_soon(fetch, nursery, 1)",
        "TypeError",
        "expected an async function, but got <trio.Nursery object",
        "The nursery comes first: `ResultCapture.start_soon(nursery, fetch, 1)`",
    ),
    Misuse(
        CAPTURES,
        "ResultCapture.start_soon(None, fetch, 1)",
        "TypeError",
        "expected a nursery, but got None; the right call is 'ResultCapture.start_soon(nursery, async_fn, *args)'",
        "`ResultCapture.start_soon(nursery, fetch, 1)`",
    ),
    Misuse(
        CAPTURES,
        "async with trio.open_nursery() as own:\n    ResultCapture.start_soon(own, sync, 1)",
        "TypeError",
        "expected an async function, but 'sync' is a synchronous one that returned 1",
        "`ResultCapture.start_soon(nursery, trio.to_thread.run_sync, sync, 1)`",
        in_group=True,
    ),
    Misuse(
        CAPTURES,
        "async with trio.open_nursery() as own:\n    ResultCapture.start_soon(own, stream, 1)",
        "TypeError",
        "expected an async function, but 'stream' is an async generator; loop over it with 'async for'",
        "Loop over it inside an async function.",
        in_group=True,
    ),
    Misuse(
        CAPTURES,
        "ResultCapture.start_soon(closed_nursery, fetch, 1)",
        "RuntimeError",
        "Nursery is closed to new arrivals",
        "Start tasks before the nursery's block has ended and all its tasks are done.",
    ),
    Misuse(
        CAPTURES,
        "ResultCapture.start_soon(nursery, fetch, 1, cancel_scope=5)",
        "TypeError",
        "cancel_scope is a trio.CancelScope, not 5",
        "`cancel_scope=trio.move_on_after(5)`",
    ),
    Misuse(
        CAPTURES,
        "ResultCapture.start_soon(nursery, fetch, 1, cancel_scope=scope)",
        "RuntimeError",
        "was entered before, and can't be entered around another task",
        "A scope can be entered once only: make one for each capture.",
    ),
    Misuse(
        CAPTURES,
        "await finished.run()",
        "FutureSetAgainException",
        AGAIN,
        "Make a capture for each run. `start_soon` has run it already.",
    ),
    Misuse(
        CAPTURES,
        "own = ResultCapture(fetch, 1)\nawait nursery.start(own.run)",
        "TypeError",
        "got an unexpected keyword argument 'task_status'",
        "A routine for `nursery.start` takes `task_status`; others are run by `nursery.start_soon(capture.run)`.",
    ),
    Misuse(
        CAPTURES,
        "ResultCapture.capture_start_and_done_results(nursery, fetch(1))",
        "TypeError",
        COROUTINE,
        NO_PARENTHESES,
    ),
    Misuse(
        CAPTURES,
        "ResultCapture.capture_start_and_done_results(None, fetch, 1)",
        "TypeError",
        "expected a nursery, but got None",
        "The nursery comes first, then the routine.",
    ),
    # ---- waiting
    Misuse(
        WAITING,
        "await wait_any([])",
        "RuntimeError",
        "wait_any was given no results, and so would wait for ever",
        "Look first whether there is anything to wait for.",
    ),
    Misuse(
        WAITING,
        "await wait_all(pending)",
        "TypeError",
        "wait_all takes several results, not Future(is_done=False) alone; call 'wait_all([result])'",
        "`await pending.wait_done()`",
    ),
    Misuse(WAITING, "await wait_any(pending)", "TypeError", "wait_any takes several results", "`await pending`"),
    Misuse(WAITING, "as_completed(pending)", "TypeError", "as_completed takes several results", "`await pending`"),
    Misuse(
        WAITING,
        "await wait_all([pending, fetch])",
        "TypeError",
        "wait_all takes results of triores, but <function fetch",
        "Start it first: `ResultCapture.start_soon(nursery, fetch, 1)`, or `gather`.",
    ),
    Misuse(
        WAITING,
        "await wait_any([pending, 3])",
        "TypeError",
        "wait_any takes results of triores, but 3 is none; nothing is waited for",
        "Pass results only.",
    ),
    Misuse(
        WAITING,
        "as_completed([pending, concurrent.futures.Future()])",
        "TypeError",
        "as_completed takes results of triores, but <Future at ... state=pending> is none",
        "`wrap_future` makes a result of it.",
    ),
    Misuse(WAITING, "await wait_all(3)", "TypeError", "'int' object is not iterable", "Pass an iterable of results."),
    Misuse(
        WAITING,
        "await results_to_channel([pending, 3], send)",
        "TypeError",
        "results_to_channel takes results of triores, but 3 is none",
        "Pass results only.",
    ),
    Misuse(
        WAITING,
        "await results_to_channel([done], closed_send)",
        "ClosedResourceError",
        "",
        "Leave the channel open; it is closed at the end.",
    ),
    # ---- fan-out
    Misuse(
        FAN_OUT,
        "await gather(fetch(1), fetch(2))",
        "TypeError",
        f"{COROUTINE}; not 'gather(fetch(...), ...)' but 'gather(functools.partial(fetch, *args), ...)'",
        "`await gather(partial(fetch, 1), partial(fetch, 2))`",
    ),
    Misuse(FAN_OUT, "await gather([fetch])", "TypeError", "expected an async function, but got [<", "`gather(*fns)`"),
    Misuse(
        FAN_OUT,
        "await gather(lambda: sync(1))",
        "TypeError",
        "expected an async function, but '...<lambda>' is a synchronous one that returned 1",
        "`await gather(partial(trio.to_thread.run_sync, sync, 1))`",
        in_group=True,
    ),
    Misuse(FAN_OUT, "await gather_outcomes(fetch(1))", "TypeError", COROUTINE, "`gather_outcomes(partial(fetch, 1))`"),
    Misuse(FAN_OUT, "await race(fetch(1))", "TypeError", COROUTINE, "`race(partial(fetch, 1))`"),
    Misuse(
        FAN_OUT,
        "await race()",
        "ValueError",
        "race was given no functions, and so has nothing to return; pass at least 1",
        "Look first whether there is anything to run.",
    ),
    Misuse(
        FAN_OUT,
        "await first_success()",
        "ValueError",
        "first_success was given no functions",
        "Look first whether there is anything to run.",
    ),
    Misuse(
        FAN_OUT,
        "await first_success(lambda: fetch(1), stagger=-1)",
        "ValueError",
        "stagger is a number of seconds of at least 0, or None to start all at once, not -1",
        "`stagger=None` starts all at once.",
    ),
    Misuse(
        FAN_OUT,
        "await first_success(lambda: fetch(1), stagger='soon')",
        "TypeError",
        "stagger is a number of seconds of at least 0, or None to start all at once, not 'soon'",
        "`stagger=0.25`",
    ),
    Misuse(FAN_OUT, "await amap(fetch(1), [1])", "TypeError", COROUTINE, "`await amap(fetch, [1])`"),
    Misuse(
        FAN_OUT,
        "await amap([1], fetch)",
        "TypeError",
        "expected an async function, but got [1]; the right call is 'amap(async_fn, items)'",
        "`await amap(fetch, [1])`",
    ),
    Misuse(
        FAN_OUT,
        "await amap(fetch, 3)",
        "TypeError",
        "amap takes its items from an iterable or an async iterable, not from 3",
        "`await amap(fetch, range(3))`",
    ),
    Misuse(
        FAN_OUT,
        "await amap(sync, [1])",
        "TypeError",
        "expected an async function, but 'sync' is a synchronous one that returned 1",
        "`await amap(partial(trio.to_thread.run_sync, sync), [1])`",
        in_group=True,
    ),
    Misuse(
        FAN_OUT,
        "await amap(stream, [1])",
        "TypeError",
        "expected an async function, but 'stream' is an async generator",
        "Loop over it inside an async function.",
        in_group=True,
    ),
    Misuse(
        FAN_OUT,
        "await amap(fetch, [1], limit=0)",
        "ValueError",
        "the limit of amap is how many calls run at once, at least 1, not 0",
        "`limit=None`, the default, is no limit.",
    ),
    Misuse(
        FAN_OUT,
        "await amap(fetch, [1], limit=2.5)",
        "TypeError",
        "the limit of amap is how many calls run at once, an integer such as 10, not 2.5",
        "`limit=2`",
    ),
    Misuse(
        FAN_OUT,
        "open_amap(fetch, [1], limit=True)",
        "TypeError",
        "the limit of open_amap is how many calls run at once, an integer such as 10, not True",
        "`limit=1`",
    ),
    Misuse(
        FAN_OUT,
        "open_amap(fetch, [1], limit=None)",
        "TypeError",
        "the limit of open_amap is how many calls run at once, an integer such as 10, not None",
        "A stream that may be endless needs a limit.",
    ),
    Misuse(
        FAN_OUT,
        "open_amap(fetch, [1], limit=-1)",
        "ValueError",
        "the limit of open_amap is how many calls run at once, at least 1, not -1",
        "`limit=1`",
    ),
    Misuse(
        FAN_OUT,
        "async with open_amap(fetch, [1], limit=1) as pages:\n    pass\nasync for page in pages:\n    page.result()",
        "ClosedResourceError",
        "open_amap gives no more results: its block has ended",
        "Loop inside the block.",
    ),
    # ---- requests in flight
    Misuse(
        REQUESTS,
        "with requests.expect('a'):\n    pass",
        "ValueError",
        "a request with the key 'a' is in flight already; give each request a key of its own",
        "Number the requests: `itertools.count()`.",
    ),
    Misuse(
        REQUESTS,
        "with requests.expect(['a']):\n    pass",
        "TypeError",
        "...unhashable type: 'list'",
        "Any hashable key will do, such as a tuple.",
    ),
    Misuse(
        REQUESTS,
        "requests.set_exception('unknown', 'it broke')",
        "TypeError",
        "a future is given an exception object, not 'it broke'",
        "`requests.set_exception(key, ValueError('it broke'))`",
    ),
    Misuse(
        REQUESTS,
        "requests.set_outcome('a', 3)",
        "TypeError",
        "an outcome is an outcome.Value or an outcome.Error, not 3",
        "`requests.set_result('a', 3)`",
    ),
    Misuse(
        REQUESTS,
        "requests['unknown']",
        "KeyError",
        "'unknown'",
        "`requests.get(key)`; and to settle a request, `requests.set_result(key, value)`, which returns False.",
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
        "was entered already, and a map serves one connection; make a new FutureMap() for the next connection",
        "A map for each connection.",
    ),
    Misuse(
        REQUESTS,
        "with ended.expect('b'):\n    pass",
        "TaskFailedException",
        "the block that reads the responses ended before this request was made",
        "Handle it as a request that fails: the connection is gone.",
    ),
    Misuse(
        REQUESTS,
        "requests.set_result('a', 1)",
        "RuntimeError",
        f"{ELSEWHERE} settled from here",
        FROM_THREAD,
        "in a thread",
    ),
    # ---- shared work
    Misuse(
        SHARING,
        "SingleFlight(fetch)",
        "TypeError",
        "expected a nursery, but got <function fetch",
        "`SingleFlight(nursery)`",
    ),
    Misuse(
        SHARING,
        "await flights.run('a', fetch(1))",
        "TypeError",
        f"{COROUTINE}; not 'flights.run(key, fetch(...), ...)' but 'flights.run(key, fetch, ...)'",
        "`await flights.run('a', fetch, 1)`",
    ),
    Misuse(
        SHARING,
        "await flights.run('a', 3)",
        "TypeError",
        "expected an async function, but got 3",
        "`await flights.run('a', fetch, 3)`",
    ),
    Misuse(
        SHARING,
        "await flights.run(['a'], fetch, 1)",
        "TypeError",
        "...unhashable type: 'list'",
        "Any hashable key will do, such as a tuple.",
    ),
    Misuse(
        SHARING,
        "await flights.run('a', sync, 1)",
        "TaskFailedException",
        "failed; the exception it failed with is the cause of this one",
        "`await flights.run('a', trio.to_thread.run_sync, sync, 1)`",
    ),
    Misuse(
        SHARING,
        "await SingleFlight(closed_nursery).run('a', fetch, 1)",
        "RuntimeError",
        "Nursery is closed to new arrivals",
        "Keep its nursery open as long as it is used.",
    ),
    # ---- bridges
    Misuse(
        BRIDGES,
        "wrap_future(pending)",
        "TypeError",
        "wrap_future takes a concurrent.futures.Future or an asyncio.Future, not Future(is_done=False)",
        "It is a result of Trio already: `await pending`.",
    ),
    Misuse(
        BRIDGES,
        "ensure_future(3, nursery)",
        "TypeError",
        "ensure_future takes something that can be awaited, not 3",
        "Pass a coroutine, another awaitable, or a future.",
    ),
    Misuse(
        BRIDGES,
        "ensure_future(fetch, nursery)",
        "TypeError",
        "ensure_future takes something that can be awaited, not <function fetch",
        "`ensure_future(fetch(1), nursery)`, or better `ResultCapture.start_soon(nursery, fetch, 1)`",
    ),
    Misuse(
        BRIDGES,
        "ensure_future(fetch(1), None)",
        "TypeError",
        "expected a nursery, but got None; the right call is 'ensure_future(awaitable, nursery)'",
        "`ensure_future(fetch(1), nursery)`",
    ),
    Misuse(
        BRIDGES,
        "ensure_future(fetch(1), closed_nursery)",
        "RuntimeError",
        "Nursery is closed to new arrivals",
        "Start tasks before the nursery's block has ended and all its tasks are done.",
    ),
    Misuse(
        BRIDGES,
        "to_concurrent_future(3)",
        "TypeError",
        "to_concurrent_future takes a result of triores, not 3",
        "Pass a `Future` or a `ResultCapture`.",
    ),
    Misuse(
        BRIDGES,
        "start_from_thread(nursery, fetch(1))",
        "TypeError",
        f"{COROUTINE}; not 'start_from_thread(nursery, fetch(...), ...)' but",
        "`start_from_thread(nursery, fetch, 1)`",
    ),
    Misuse(
        BRIDGES,
        "start_from_thread(fetch, fetch)",
        "TypeError",
        "expected a nursery, but got <function fetch",
        "`start_from_thread(nursery, fetch, 1)`",
    ),
    Misuse(
        BRIDGES,
        "start_from_thread(nursery, fetch, 1, trio_token=3)",
        "TypeError",
        "trio_token is what trio.lowlevel.current_trio_token() gives in a Trio run, not 3",
        "Get it in the nursery's run, and hand it to the thread.",
    ),
    Misuse(
        BRIDGES,
        "start_from_thread(nursery, fetch, 1)",
        "RuntimeError",
        "triores needs Trio, and Trio did not start this thread",
        "`start_from_thread(nursery, fetch, 1, trio_token=token)`",
        "in a thread",
    ),
    Misuse(
        BRIDGES,
        "await run_in_executor(nursery, sync, 1)",
        "TypeError",
        "run_in_executor takes a concurrent.futures.Executor, not <trio.Nursery object",
        "`await trio.to_thread.run_sync(sync, 1)` needs no executor.",
    ),
    Misuse(
        BRIDGES,
        "await run_in_executor(executor, 3)",
        "TypeError",
        "expected a synchronous function, but got 3",
        "`await run_in_executor(executor, sync, 3)`",
    ),
    Misuse(
        BRIDGES,
        "await run_in_executor(executor, fetch, 1)",
        "TypeError",
        "expected a synchronous function, but 'fetch' is an async one, which no executor runs",
        "`await fetch(1)`, or start a task.",
    ),
    Misuse(
        BRIDGES,
        "await run_in_executor(executor, fetch(1))",
        "TypeError",
        "expected a synchronous function, but got <coroutine object fetch",
        "`await fetch(1)`, or start a task.",
    ),
    Misuse(
        BRIDGES,
        "await run_in_executor(shut_down, sync, 1)",
        "RuntimeError",
        "cannot schedule new futures after shutdown",
        "Keep the executor open as long as it is used.",
    ),
    # ---- awkward values: nothing that a value does when it is looked at gets into the way
    Misuse(
        AWKWARD,
        "own = Future()\nown.set_result(awkward)\nown.set_result(awkward)",
        "FutureSetAgainException",
        "Future(result=<Awkward whose str() raised AwkwardError>) can be settled only once",
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
        "Callbacks are compared with `==`, so that bound methods are found again.",
    ),
    Misuse(
        AWKWARD,
        "await wait_all([awkward])",
        "TypeError",
        "wait_all takes results of triores, but <Awkward whose repr() raised AwkwardError> is none",
        "Pass results only.",
    ),
    *(
        Misuse(
            AWKWARD,
            f"own = Future()\nown.set_exception({error})\nawait own",
            "TaskFailedException",
            "failed; the exception it failed with is the cause of this one",
            f"An exception that is stored is not raised again, so a `{error.split('(')[0]}` does not end the reader.",
        )
        for error in (
            "StopIteration(3)",
            "StopAsyncIteration()",
            "GeneratorExit()",
            "KeyboardInterrupt()",
            "SystemExit(3)",
            "ExceptionGroup('two', [ValueError(), KeyError()])",
        )
    ),
)
