"""The examples in the package's docstrings run, with stand-ins for what they leave out, such as a connection."""

from __future__ import annotations

import ast
import concurrent.futures
import contextlib
import inspect
import io
import multiprocessing
import re
import textwrap
import threading
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import triores

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


def examples() -> Iterator[tuple[str, str]]:
    """The name of each public object whose docstring has an example, and the example."""
    for name in triores.__all__:
        public: Any = getattr(triores, name)
        members: dict[str, Any] = dict(vars(public)) if inspect.isclass(public) else {}
        for qualified, documented in [(name, public), *((f"{name}.{member}", members[member]) for member in members)]:
            doc = inspect.getdoc(documented) if callable(documented) else None
            if doc is not None and (found := re.search(r"^Example:\n.*?::\n\n(.*)", doc, re.DOTALL | re.MULTILINE)):
                yield qualified, textwrap.dedent(found[1])


EXAMPLES = dict(examples())


async def fetch(url: str) -> str:
    await trio.lowlevel.checkpoint()
    return f"the page at {url}"


async def measure(path: str) -> int:
    await trio.lowlevel.checkpoint()
    return len(path)


async def responses(numbers: list[int]) -> AsyncIterator[tuple[int, str]]:
    for number in numbers:
        await trio.testing.wait_all_tasks_blocked()
        yield number, f"answer {number}"


async def stand_ins(nursery: trio.Nursery) -> dict[str, Any]:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"answer")
    pages = [triores.ResultCapture.start_soon(nursery, fetch, url) for url in ("/a", "/b")]
    future: triores.Future[Any] = triores.Future()
    result: triores.Future[str] = triores.Future()
    result.set_result("a result")
    # Threads instead of processes, which take a long time to start.
    pools = SimpleNamespace(futures=SimpleNamespace(ProcessPoolExecutor=thread_pool))
    return {
        **{name: getattr(triores, name) for name in triores.__all__},
        "concurrent": pools,
        "multiprocessing": multiprocessing,
        "partial": partial,
        "pool": SimpleNamespace(submit=call_at_once),
        "threading": threading,
        "trio": trio,
        "fetch": fetch,
        "download": fetch,
        "measure": measure,
        "get_user": measure_number,
        "get_orders": measure_number,
        "hash_file": str.upper,
        "responses": responses,
        "nursery": nursery,
        "token": trio.lowlevel.current_trio_token(),
        "stream": ours,
        "request": b"request",
        "requests": Requests(),
        "number": 7,
        "url": "/a",
        "urls": ["/a", "/b", "/c"],
        "path": "/tmp/file",
        "pages": pages,
        "future": future,
        "result": result,
    }


def thread_pool(*, mp_context: object) -> concurrent.futures.ThreadPoolExecutor:
    assert mp_context is multiprocessing.get_context("spawn")
    return concurrent.futures.ThreadPoolExecutor(1)


def call_at_once(fn: Callable[..., Any], *args: object) -> concurrent.futures.Future[Any]:
    future = concurrent.futures.Future[Any]()
    future.set_result(fn(*args))
    return future


async def measure_number(number: int) -> int:
    await trio.lowlevel.checkpoint()
    return number


class Requests(dict[int, triores.Future[bytes]]):
    """Answers each request as soon as it is registered, as the reader of a connection would."""

    def __setitem__(self, number: int, future: triores.Future[bytes]) -> None:
        super().__setitem__(number, future)
        future.set_result(b"response")


async def call_client(namespace: dict[str, Any]) -> None:
    """Call the two functions that the example of FutureMap defines."""

    async def send(number: int, question: str) -> None:
        await trio.lowlevel.checkpoint()

    namespace["send"] = send
    answers = await triores.gather(
        partial(namespace["call"], 0, b"first"),
        partial(namespace["call"], 1, b"second"),
        partial(namespace["read_responses"], [1, 0]),
    )
    assert answers[:2] == ("answer 0", "answer 1")
    with pytest.raises(ConnectionError):
        await namespace["call"](2, b"third")


AFTERWARDS = {"FutureMap": call_client}
IN_A_THREAD = {"run_in_executor", "start_from_thread"}


def test_the_docstrings_with_examples_are_found() -> None:
    assert {"ResultCapture", "Future", "as_completed", "gather", "FutureMap", "start_from_thread"} <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
async def test_each_example_runs(name: str) -> None:
    code = compile(EXAMPLES[name], f"<{name}>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    with contextlib.redirect_stdout(io.StringIO()):
        async with trio.open_nursery() as nursery:
            namespace = await stand_ins(nursery)
            if name in IN_A_THREAD:
                await trio.to_thread.run_sync(eval, code, namespace)
            else:
                awaiting = eval(code, namespace)
                if inspect.iscoroutine(awaiting):
                    await awaiting
            if name in AFTERWARDS:
                await AFTERWARDS[name](namespace)
        for thread in threading.enumerate():
            if thread.name.endswith("(<lambda>)"):  # a thread that an example started
                thread.join()
