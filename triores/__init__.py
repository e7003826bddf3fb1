"""Futures, captured tasks and bounded fan-out for Trio.

Results
    ResultCapture           the result of a task in a nursery: ``ResultCapture.start_soon(nursery, fn, *args)``
    Future                  a result that you set by hand
    ResultBase              what both have in common: ``await result``, ``unwrap()``, ``result()``, ``exception()``
    wait_all, wait_any      wait until all of several results are done, or until the first one is
    as_completed            iterate over results as they are settled
    results_to_channel      send results to a channel as they are settled

Many calls at once
    gather                  call several functions, and return all their values
    gather_outcomes         the same, with an ``outcome.Value`` or ``outcome.Error`` for each
    race, first_success     the first to finish, and the first to succeed
    amap                    call one function for each item, at most ``limit`` at a time, and return a list
    open_amap               the same, but get each result as soon as it's ready
    AmapResults             what ``open_amap`` gives you: iterate over it, and add items to it
    ItemCapture             one of the results that you iterate over, with its ``item``

Requests and shared work
    FutureMap               the requests in flight on one connection
    SingleFlight            one call, shared by all callers that use the same key

Threads, executors, asyncio
    run_in_executor         call a function in a thread pool, a process pool or a cluster
    wrap_future             turn a future of concurrent.futures or asyncio into a result
    to_concurrent_future    let a thread wait for a result
    start_from_thread       start a task from any thread
    ensure_future           turn anything that can be awaited into a result
    isfuture                check whether an object is a result

Exceptions
    TaskNotDoneException, TaskFailedException, TaskCancelledException,
    FutureSetAgainException, FutureCancelledException, FutureNeverSetException, WaitCycleError

For more about one of them, call ``help`` on it: ``help(triores.gather)``.
"""

from ._amap import AmapResults as AmapResults
from ._amap import ItemCapture as ItemCapture
from ._amap import amap as amap
from ._amap import open_amap as open_amap
from ._capture import ResultCapture as ResultCapture
from ._exceptions import FutureCancelledException as FutureCancelledException
from ._exceptions import FutureNeverSetException as FutureNeverSetException
from ._exceptions import FutureSetAgainException as FutureSetAgainException
from ._exceptions import TaskCancelledException as TaskCancelledException
from ._exceptions import TaskFailedException as TaskFailedException
from ._exceptions import TaskNotDoneException as TaskNotDoneException
from ._exceptions import WaitCycleError as WaitCycleError
from ._executor import run_in_executor as run_in_executor
from ._foreign import ensure_future as ensure_future
from ._foreign import wrap_future as wrap_future
from ._future import Future as Future
from ._future_map import FutureMap as FutureMap
from ._gather import first_success as first_success
from ._gather import gather as gather
from ._gather import gather_outcomes as gather_outcomes
from ._gather import race as race
from ._result import ResultBase as ResultBase
from ._result import ResultStatistics as ResultStatistics
from ._result import isfuture as isfuture
from ._single_flight import SingleFlight as SingleFlight
from ._threads import start_from_thread as start_from_thread
from ._threads import to_concurrent_future as to_concurrent_future
from ._wait import as_completed as as_completed
from ._wait import results_to_channel as results_to_channel
from ._wait import wait_all as wait_all
from ._wait import wait_any as wait_any

__all__ = [
    "AmapResults",
    "Future",
    "FutureCancelledException",
    "FutureMap",
    "FutureNeverSetException",
    "FutureSetAgainException",
    "ItemCapture",
    "ResultBase",
    "ResultCapture",
    "ResultStatistics",
    "SingleFlight",
    "TaskCancelledException",
    "TaskFailedException",
    "TaskNotDoneException",
    "WaitCycleError",
    "amap",
    "as_completed",
    "ensure_future",
    "first_success",
    "gather",
    "gather_outcomes",
    "isfuture",
    "open_amap",
    "race",
    "results_to_channel",
    "run_in_executor",
    "start_from_thread",
    "to_concurrent_future",
    "wait_all",
    "wait_any",
    "wrap_future",
]

__version__ = "0.1.0"


def _name_the_public_module() -> None:
    for name in __all__:
        globals()[name].__module__ = __name__


_name_the_public_module()
