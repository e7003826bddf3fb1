"""FutureMap: the blocks of callers, answers, and the end of the reader."""

from __future__ import annotations

import contextlib
import gc
import re
import signal
import sys
import threading
import traceback
import weakref
from collections import Counter
from collections.abc import Mapping
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import outcome
import pytest
import trio
from _helpers import in_foreign_run, in_foreign_thread
from trio.testing import wait_all_tasks_blocked

from triores import (
    Future,
    FutureMap,
    FutureNeverSetException,
    ResultCapture,
    TaskCancelledException,
    TaskFailedException,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class CutError(Exception):
    pass


class OurError(Exception):
    pass


def causes(error: BaseException | None) -> list[BaseException]:
    """An exception and the chain of its causes."""
    chain: list[BaseException] = []
    while error is not None:
        chain.append(error)
        error = error.__cause__
    return chain


def kinds(error: BaseException | None) -> list[type[BaseException]]:
    return [type(cause) for cause in causes(error)]


@pytest.fixture
def no_collector() -> Iterator[None]:
    if sys.implementation.name != "cpython":
        pytest.skip("only CPython frees objects by counting references")
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# ---- the callers' blocks


def test_a_block_registers_a_pending_future_under_its_key() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as future:
        assert requests["a"] is future
        assert type(future) is Future
        assert not future.is_done()
    assert not requests


def test_nothing_is_registered_before_the_block_is_entered() -> None:
    requests = FutureMap[str, int]()
    block = requests.expect("a")
    assert not requests
    with block:
        assert list(requests) == ["a"]


def test_entering_a_block_again_makes_a_new_future() -> None:
    requests = FutureMap[str, int]()
    block = requests.expect("a")
    with block as first:
        assert requests.set_result("a", 1)
    with block as second:
        assert second is not first
        assert not second.is_done()


def leave_by_returning(requests: FutureMap[str, int]) -> None:
    pass


def leave_with_a_result(requests: FutureMap[str, int]) -> None:
    assert requests.set_result("a", 1)
    assert requests["a"].result() == 1


def leave_by_a_failure(requests: FutureMap[str, int]) -> None:
    assert requests.set_exception("a", CutError())
    requests["a"].result()


def leave_by_an_exception(requests: FutureMap[str, int]) -> None:
    raise CutError


def leave_by_ctrl_c(requests: FutureMap[str, int]) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("leave", "raised"),
    [
        (leave_by_returning, None),
        (leave_with_a_result, None),
        (leave_by_a_failure, TaskFailedException),
        (leave_by_an_exception, CutError),
        (leave_by_ctrl_c, KeyboardInterrupt),
    ],
)
def test_however_a_block_ends_its_entry_is_removed_and_the_exception_is_passed_on(
    leave: Callable[[FutureMap[str, int]], None], raised: type[BaseException] | None
) -> None:
    requests = FutureMap[str, int]()
    with requests.expect("other"):
        with pytest.raises(raised) if raised else contextlib.nullcontext(), requests.expect("a"):
            leave(requests)
        assert list(requests) == ["other"]


async def test_a_cancelled_caller_leaves_no_entry() -> None:
    requests = FutureMap[str, int]()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, requests, "a")
            await wait_all_tasks_blocked()
            assert list(requests) == ["a"]
            scope.cancel()
    assert scope.cancelled_caught
    assert not requests
    assert not requests.set_result("a", 1)


async def ask(requests: FutureMap[str, int], key: str) -> int:
    with requests.expect(key) as future:
        return await future


@pytest.mark.parametrize("by", [CutError, None])
def test_a_future_still_pending_when_its_block_ends_fails_with_a_never_set_exception(
    by: type[Exception] | None,
) -> None:
    requests = FutureMap[str, int]()
    with contextlib.suppress(CutError), requests.expect("a") as future:
        if by is not None:
            raise by
    error = future.exception()
    assert type(error) is FutureNeverSetException
    assert str(error) == "the block that expected this response ended before it came"
    assert (error.__cause__, error.__context__, error.__traceback__) == (None, None, None)


async def test_when_a_caller_leaves_other_tasks_that_wait_for_its_future_are_woken() -> None:
    requests = FutureMap[str, int]()
    async with trio.open_nursery() as nursery:
        future = Future[int]()
        other = ResultCapture.start_soon(nursery, future.wait_done)
        with trio.CancelScope() as scope, requests.expect("a", future):
            nursery.start_soon(cancel, scope)
            await future
    assert scope.cancelled_caught
    assert other.result() is None


async def cancel(scope: trio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


def test_a_done_future_does_not_change_when_its_block_ends() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as future:
        assert requests.set_result("a", 1)
    assert future.result() == 1


async def test_when_a_block_ends_its_entry_is_removed_before_callbacks_run() -> None:
    requests = FutureMap[str, int]()
    found: list[object] = []
    with requests.expect("a") as future:
        future.add_done_callback(lambda _: found.append(list(requests)))
    assert found == [[]]


def test_with_must_set_the_future_of_a_caller_that_fails_gets_its_exception() -> None:
    requests = FutureMap[str, int]()
    with pytest.raises(CutError), requests.expect("a") as future, future.must_set():
        raise CutError
    assert kinds(future.exception()) == [CutError]


async def test_using_the_key_of_a_pending_request_raises_an_error_and_changes_nothing() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as future:
        for given in ((), (Future[int](),)):
            with pytest.raises(ValueError, match=r"^a request with the key 'a' is already in flight"):
                requests.expect("a", *given).__enter__()
        assert requests["a"] is future
        assert requests.set_result("a", 1)
        assert future.result() == 1


def test_the_key_of_a_done_request_can_be_used_again() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as first, requests.expect("b"):
        assert requests.set_result("a", 1)
        with requests.expect("a") as second:
            assert requests["a"] is second is not first
            assert list(requests) == ["b", "a"]  # in the order of registration
            assert requests.set_result("a", 2)
            assert (first.result(), second.result()) == (1, 2)
        assert list(requests) == ["b"]
    assert not requests


def test_the_end_of_an_old_block_does_not_remove_a_newer_request_with_its_key() -> None:
    requests = FutureMap[str, int]()
    with contextlib.ExitStack() as first, requests.expect("b"):
        first.enter_context(requests.expect("a"))
        assert requests.set_result("a", 1)
        with requests.expect("a") as second:
            first.close()
            assert requests["a"] is second
            assert not second.is_done()


# ---- futures passed by the caller


class Download(Future[int]):
    """A user's future, which has an additional attribute."""

    def __init__(self, progress: list[int]) -> None:
        super().__init__()
        self.progress = progress


async def test_a_future_passed_by_the_caller_is_registered_and_yielded() -> None:
    requests = FutureMap[str, int]()
    download = Download([])
    with requests.expect("a", download) as future:
        assert future is download is requests["a"]
        future.progress.append(1)
        assert requests.set_result("a", 7)
        assert download.result() == 7
    assert not requests


async def test_a_future_passed_by_the_caller_fails_too_if_it_is_pending_at_the_end() -> None:
    requests = FutureMap[str, int]()
    download = Download([])
    with requests.expect("a", download):
        pass
    assert kinds(download.exception()) == [FutureNeverSetException]


def test_a_future_that_is_already_done_may_be_registered() -> None:
    requests = FutureMap[str, int]()
    done = Future[int]()
    done.set_result(1)
    with requests.expect("a", done):
        assert requests.set_result("a", 2) is False
    assert done.result() == 1


async def test_a_pending_future_cannot_be_registered_twice_under_one_key() -> None:
    requests = FutureMap[str, int]()
    download = Download([])
    with requests.expect("a", download), pytest.raises(ValueError, match=r"^a request with the key 'a'"):
        requests.expect("a", download).__enter__()


@pytest.mark.parametrize("wrong", [3, "b", Future, ResultCapture(trio.sleep, 0)])
def test_passing_anything_but_a_future_raises_an_error(wrong: Any) -> None:
    requests = FutureMap[str, int]()
    with pytest.raises(TypeError, match=r"^the future of a request must be a Future"):
        requests.expect("a", wrong).__enter__()
    assert not requests


async def test_passing_a_pending_future_of_another_run_raises_an_error_and_changes_nothing() -> None:
    requests = FutureMap[str, int]()
    future = Future[int]()

    async def register() -> None:
        with pytest.raises(RuntimeError, match="belongs to another Trio run, and can't be registered from here"):
            requests.expect("a", future).__enter__()

    await in_foreign_run(register)
    assert not requests
    assert not future.is_done()


async def test_a_future_made_outside_any_run_belongs_to_the_run_that_registers_it() -> None:
    requests = FutureMap[str, int]()
    future = await in_foreign_thread(Future[int])
    with requests.expect("a", future):
        assert future.trio_token is trio.lowlevel.current_trio_token()


async def test_a_map_that_is_read_in_one_run_takes_no_requests_from_another() -> None:
    requests = FutureMap[str, int]()

    def register() -> None:
        with pytest.raises(RuntimeError, match="belongs to another Trio run, and can't take a request here"):
            requests.expect("a").__enter__()

    async def register_in_a_run() -> None:
        register()

    with requests:
        await in_foreign_thread(register)
        await in_foreign_run(register_in_a_run)
        assert not requests


def test_entering_a_block_inside_itself_raises_an_error_and_its_entry_is_still_removed() -> None:
    requests = FutureMap[str, int]()
    block = requests.expect("a")
    with block as future:
        with pytest.raises(ValueError, match=r"^a request with the key 'a'"):
            block.__enter__()
        assert requests["a"] is future
    assert not requests


def test_a_block_removes_only_its_own_entry() -> None:
    requests = FutureMap[str, int]()
    block = requests.expect("a")
    with block:
        pass
    with requests.expect("a") as future:
        block.__exit__(None, None, None)
        assert requests["a"] is future


@pytest.mark.parametrize(
    "key", [0, -1, "", "é", b"\0", None, True, 2.5, float("nan"), (), (1, ("a",)), frozenset({1}), object(), int, ...]
)
def test_any_hashable_object_can_be_a_key(key: object) -> None:
    requests = FutureMap[object, int]()
    with requests.expect(key) as future:
        assert key in requests
        assert requests.set_result(key, 1)
        assert future.result() == 1
    assert not requests


def test_equal_keys_are_the_same_key() -> None:
    requests = FutureMap[float, str]()
    with requests.expect(1) as future:
        assert requests.set_result(1.0, "one")
        assert future.result() == "one"


async def test_an_unhashable_key_raises_an_error_and_changes_nothing() -> None:
    requests = FutureMap[Any, int]()
    with requests:
        with pytest.raises(TypeError, match="hashable"):
            requests.expect([]).__enter__()
        with pytest.raises(TypeError, match="hashable"):
            requests.set_result([], 1)
        with pytest.raises(TypeError, match="hashable"):
            requests.set_exception([], CutError())
        with pytest.raises(TypeError, match="hashable"):
            requests.set_outcome([], outcome.Value(1))
    assert not requests


class Counted:
    """A key that counts how often it is looked up."""

    def __init__(self, number: int, lookups: Counter[str]) -> None:
        self.number = number
        self.lookups = lookups

    def __hash__(self) -> int:
        self.lookups["hash"] += 1
        return hash(self.number)

    def __eq__(self, other: object) -> bool:
        self.lookups["eq"] += 1
        return isinstance(other, Counted) and self.number == other.number


@pytest.mark.parametrize("in_flight", [1, 2000])
def test_the_cost_of_a_request_does_not_grow_with_the_number_in_flight(in_flight: int) -> None:
    requests = FutureMap[Counted, int]()
    lookups: Counter[str] = Counter()
    keys = [Counted(number, lookups) for number in range(in_flight)]
    with contextlib.ExitStack() as blocks:
        for key in keys:
            blocks.enter_context(requests.expect(key))
        for key in reversed(keys):
            assert requests.set_result(key, 1)
    assert not requests
    assert lookups == {
        "hash": 5 * in_flight
    }  # two to register it, one to settle it, and two to remove its own entry only


# ---- the mapping


def test_a_map_is_a_mapping_from_keys_to_futures_in_the_order_of_registration() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("b") as b, requests.expect("a") as a:
        assert isinstance(requests, Mapping)
        assert len(requests) == 2
        assert list(requests) == ["b", "a"]
        assert dict(requests) == {"b": b, "a": a}
        assert "a" in requests
        assert "c" not in requests
        assert requests.get("c") is None
        with pytest.raises(KeyError, match=r"^'c'$"):
            requests["c"]


def test_a_map_equals_only_itself_and_is_hashable() -> None:
    one, other = FutureMap[str, int](), FutureMap[str, int]()
    assert one == one
    assert one != other
    assert one != {}
    assert len({one, other}) == 2


def test_the_mapping_is_read_only() -> None:
    requests: Any = FutureMap[str, int]()
    with pytest.raises(TypeError, match="item assignment"):
        requests["a"] = Future[int]()
    with requests.expect("a"), pytest.raises(TypeError, match="item deletion"):
        del requests["a"]


async def test_the_repr_of_a_map_shows_the_number_of_requests_and_the_state_of_the_reader() -> None:
    requests = FutureMap[str, int]()
    assert repr(requests) == "FutureMap(in_flight=0, reader='not started')"
    with requests.expect("a"):
        with requests:
            assert repr(requests) == "FutureMap(in_flight=1, reader='reading')"
        assert repr(requests) == "FutureMap(in_flight=1, reader='ended')"


# ---- answers

SETTLE: list[Callable[[FutureMap[str, int], str], bool]] = [
    lambda requests, key: requests.set_result(key, 1),
    lambda requests, key: requests.set_exception(key, CutError()),
    lambda requests, key: requests.set_outcome(key, outcome.Value(1)),
    lambda requests, key: requests.set_outcome(key, outcome.Error(CutError())),
]


def test_an_answer_settles_only_the_future_of_its_key() -> None:
    requests = FutureMap[str, int | None]()
    error = CutError()
    with (
        requests.expect("a") as a,
        requests.expect("b") as b,
        requests.expect("c") as c,
        requests.expect("d") as d,
        requests.expect("e") as e,
    ):
        assert requests.set_result("a", None) is True
        assert requests.set_exception("b", error) is True
        assert requests.set_outcome("c", outcome.Value(3)) is True
        assert requests.set_outcome("d", outcome.Error(error)) is True
        assert a.result() is None
        assert b.exception() is error
        assert c.result() == 3
        assert d.exception() is error
        assert not e.is_done()


@pytest.mark.parametrize("settle", SETTLE)
def test_an_unknown_answer_returns_false_and_changes_nothing(
    settle: Callable[[FutureMap[str, int], str], bool],
) -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as future:
        assert settle(requests, "b") is False
        assert dict(requests) == {"a": future}
        assert not future.is_done()


@pytest.mark.parametrize("settle", SETTLE)
def test_a_repeated_answer_returns_false_and_changes_nothing(
    settle: Callable[[FutureMap[str, int], str], bool],
) -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as future:
        assert requests.set_result("a", 7)
        assert settle(requests, "a") is False
        assert future.result() == 7
        assert dict(requests) == {"a": future}


@pytest.mark.parametrize("settle", SETTLE)
def test_a_late_answer_returns_false_and_changes_nothing(settle: Callable[[FutureMap[str, int], str], bool]) -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as future:
        pass
    assert settle(requests, "a") is False
    assert kinds(future.exception()) == [FutureNeverSetException]
    assert not requests


@pytest.mark.parametrize("settle", SETTLE)
def test_an_answer_to_a_request_already_settled_by_its_caller_returns_false(
    settle: Callable[[FutureMap[str, int], str], bool],
) -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as future:
        assert future.cancel("no longer wanted")
        assert settle(requests, "a") is False
        assert future.cancelled()


@pytest.mark.parametrize("key", ["a", "unknown"])
@pytest.mark.parametrize("wrong", [CutError, "cut", None])
def test_set_exception_without_an_exception_raises_an_error_even_if_nobody_waits(wrong: Any, key: str) -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as future:
        with pytest.raises(TypeError, match=r"^set_exception takes an exception object, not "):
            requests.set_exception(key, wrong)
        assert not future.is_done()


@pytest.mark.parametrize("key", ["a", "unknown"])
def test_set_outcome_without_an_outcome_raises_an_error_even_if_nobody_waits(key: str) -> None:
    requests: FutureMap[str, Any] = FutureMap()
    with requests.expect("a") as future:
        with pytest.raises(TypeError, match=r"^set_outcome takes an outcome\.Value or an outcome\.Error, not 3; "):
            requests.set_outcome(key, 3)  # type: ignore[arg-type]  # this is the mistake
        assert not future.is_done()


async def test_if_a_callback_fails_its_exception_is_logged_and_the_reader_continues(
    caplog: pytest.LogCaptureFixture,
) -> None:
    requests = FutureMap[str, int]()
    with requests, requests.expect("a") as a, requests.expect("b") as b, requests.expect("c") as c:
        for future in (a, b, c):
            future.add_done_callback(fails_with(OurError()))
        assert requests.set_result("a", 1)
        assert requests.set_outcome("b", outcome.Value(2))
        assert requests.set_exception("c", CutError())
        assert (a.result(), b.result(), kinds(c.exception())) == (1, 2, [CutError])
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [OurError] * 3


@pytest.mark.parametrize("settle", SETTLE)
async def test_settling_a_request_of_another_run_raises_an_error_and_changes_nothing(
    settle: Callable[[FutureMap[str, int], str], bool],
) -> None:
    requests = FutureMap[str, int]()
    refused: list[BaseException] = []

    def settle_elsewhere() -> None:
        try:
            settle(requests, "a")
        except RuntimeError as error:
            refused.append(error)

    with requests.expect("a") as future:
        future.add_done_callback(lambda _: None)
        thread = threading.Thread(target=settle_elsewhere)
        thread.start()
        thread.join()
        assert "belongs to another Trio run" in str(refused[0])
        assert not future.is_done()
        assert settle(requests, "a")


# ---- the reader's block


@pytest.fixture(params=["return", "exception", "cancellation"])
def ending(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def end_reading(requests: FutureMap[str, int], ending: str) -> BaseException | None:
    """Enter the reader's block, let callers wait, end the block, and return the exception that ended it."""
    error: BaseException | None = None
    with contextlib.suppress(CutError), trio.CancelScope() as scope, requests:
        await wait_all_tasks_blocked()
        try:
            if ending == "exception":
                raise CutError
            if ending == "cancellation":
                scope.cancel()
                await trio.sleep_forever()
        except BaseException as raised:
            error = raised
            raise
    return error


async def test_however_the_reader_ends_waiting_callers_get_an_exception(ending: str) -> None:
    requests = FutureMap[str, int]()
    seen: list[FutureNeverSetException] = []

    async def caller(key: str) -> None:
        with pytest.raises(FutureNeverSetException) as caught:
            await ask(requests, key)
        seen.append(caught.value)

    async with trio.open_nursery() as nursery:
        for key in ("a", "b", "c"):
            nursery.start_soon(caller, key)
        cause = await end_reading(requests, ending)
    assert len(set(map(id, seen))) == 3
    for error in seen:
        assert error.__cause__ is cause
    assert not requests
    assert kinds(cause) == {"return": [], "exception": [CutError], "cancellation": [trio.Cancelled]}[ending]


async def test_if_the_reader_is_cancelled_lost_requests_count_as_failed_not_cancelled() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as future:
        await end_reading(requests, "cancellation")
        assert not future.cancelled()


async def test_however_the_reader_ends_requests_that_nobody_waits_for_fail_too(ending: str) -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as a, requests.expect("b") as b:
        assert requests.set_result("b", 1)
        cause = await end_reading(requests, ending)
        assert kinds(a.exception()) == [FutureNeverSetException, *kinds(cause)]
        assert causes(a.exception())[1:] == ([] if cause is None else [cause])
        assert str(a.exception()) == "the block that reads the responses ended before the response to this request came"
        assert b.result() == 1
        assert list(requests) == ["a", "b"]  # each caller removes its own entry
    assert not requests


async def test_callers_that_come_after_the_reader_has_ended_get_the_same_kind_of_exception(ending: str) -> None:
    requests = FutureMap[str, int]()
    cause = await end_reading(requests, ending)
    seen: list[BaseException] = []
    for _ in range(2):
        with pytest.raises(FutureNeverSetException) as caught, requests.expect("a"):
            raise AssertionError("the block must not be entered")
        assert kinds(caught.value) == [FutureNeverSetException, *kinds(cause)]
        assert caught.value.__cause__ is cause
        assert str(caught.value).endswith("before this request was made")
        seen.append(caught.value)
    assert seen[0] is not seen[1]
    assert not requests


async def test_entering_a_block_after_the_reader_has_ended_raises_an_error_even_if_it_was_made_before() -> None:
    requests = FutureMap[str, int]()
    block = requests.expect("a")
    with requests:
        pass
    with pytest.raises(FutureNeverSetException):
        block.__enter__()
    assert not requests


async def test_a_map_is_closed_once_its_readers_block_has_ended(ending: str) -> None:
    requests = FutureMap[str, int]()
    found: list[bool] = [requests.closed]
    with requests.expect("a") as future:
        future.add_done_callback(lambda _: found.append(requests.closed))
        with contextlib.suppress(CutError), trio.CancelScope() as scope, requests:
            found.append(requests.closed)
            if ending == "exception":
                raise CutError
            if ending == "cancellation":
                scope.cancel()
                await trio.lowlevel.checkpoint()
    assert found == [False, False, True]
    assert requests.closed


# ---- lost: the exception for requests without an answer


class LostError(Exception):
    pass


async def test_pending_and_later_requests_raise_the_exception_made_by_lost(ending: str) -> None:
    made: list[tuple[LostError, BaseException | None]] = []

    def lost(cause: BaseException | None) -> LostError:
        made.append((LostError(), cause))
        return made[-1][0]

    requests = FutureMap[str, int](lost=lost)
    seen: list[LostError] = []

    async def caller(key: str) -> None:
        try:
            await ask(requests, key)
        except LostError as error:
            seen.append(error)

    async with trio.open_nursery() as nursery:
        for key in ("a", "b"):
            nursery.start_soon(caller, key)
        await wait_all_tasks_blocked()
        with requests.expect("answered") as answered:
            assert requests.set_result("answered", 1)
            cause = await end_reading(requests, ending)
            assert answered.result() == 1
    for key in ("a", "c"):
        await caller(key)
    assert [(id(error), error.__cause__, error.__context__) for error in seen[2:]] == [
        (id(error), None, None) for error, _ in made[2:]
    ]
    assert set(map(id, seen)) == {id(error) for error, _ in made}
    assert len(seen) == len(made) == 4  # a new exception each time
    assert all(given is cause for _, given in made)


async def test_lost_may_be_an_exception_class() -> None:
    requests = FutureMap[str, int](lost=LostError)
    with requests.expect("a") as future:
        cause = await end_reading(requests, "exception")
        assert repr(future.exception()) == "LostError(CutError())"
    with pytest.raises(LostError) as caught, requests.expect("b"):
        pass
    assert caught.value.args == (cause,)


@pytest.mark.parametrize("kind", [OurError, KeyboardInterrupt])
async def test_if_lost_raises_an_exception_the_request_gets_that_exception(
    kind: type[BaseException], ending: str
) -> None:
    def lost(cause: BaseException | None) -> LostError:
        raise kind("lost") from cause

    requests = FutureMap[str, int](lost=lost)
    with requests.expect("a") as a, requests.expect("b") as b:
        cause = await end_reading(requests, ending)
        for future in (a, b):
            assert kinds(future.exception()) == [kind, *kinds(cause)]
        assert a.exception() is not b.exception()
    with pytest.raises((OurError, TaskFailedException)) as caught, requests.expect("c"):
        pass
    assert kind in kinds(caught.value)
    assert requests.closed


async def test_if_lost_does_not_return_an_exception_the_request_gets_a_type_error() -> None:
    not_an_exception: Any = LostError
    requests = FutureMap[str, int](lost=lambda _: not_an_exception)
    with requests.expect("a") as future:
        with requests:
            pass
        assert re.fullmatch(
            r"lost\(cause\) must return an exception object, not <class '.*LostError'>; call "
            r"'FutureMap\(lost=lambda cause: ConnectionLost\(\.\.\.\)\)'",
            str(future.exception()),
        )
    with pytest.raises(TypeError, match=r"^lost\(cause\) must return"), requests.expect("b"):
        pass


async def never() -> LostError:
    raise AssertionError


@pytest.mark.parametrize("wrong", [LostError(), 3, "lost", never])
def test_lost_has_to_be_a_synchronous_function(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^lost must be a synchronous function"):
        FutureMap[str, int](lost=wrong)


def depth(error: BaseException) -> int:
    """The number of frames in the traceback of an exception."""
    return len(list(traceback.walk_tb(error.__traceback__)))


async def test_if_lost_returns_the_cause_itself_its_traceback_does_not_grow() -> None:
    requests = FutureMap[str, int](lost=lost_as_the_cause)
    cause = await end_reading(requests, "exception")
    assert cause is not None
    depths: list[int] = []
    for _ in range(3):
        with pytest.raises(CutError) as caught, requests.expect("a"):
            pass
        assert caught.value is cause
        depths.append(depth(cause))
    assert len(set(depths)) == 1


async def test_if_lost_returns_the_readers_cancellation_no_caller_is_cancelled() -> None:
    requests = FutureMap[str, int](lost=lost_as_the_cause)
    with requests.expect("a") as future:
        await end_reading(requests, "cancellation")
        with pytest.raises(TaskCancelledException):
            await future
    with pytest.raises(TaskCancelledException), requests.expect("b"):
        pass


async def test_each_request_gets_its_own_exception_object_and_the_cause_does_not_change() -> None:
    requests = FutureMap[str, int]()
    cause = CutError()
    with requests.expect("a") as a, requests.expect("b") as b:
        with pytest.raises(CutError), requests:
            raise cause
        traceback = cause.__traceback__
        assert a.exception() is not b.exception()
        for future in (a, b):
            error = future.exception()
            assert error is not None
            assert error.__cause__ is cause
            assert error.__traceback__ is None
            with pytest.raises(TaskFailedException):
                future.result()
            assert error.__traceback__ is None
            assert error.__context__ is None
    with pytest.raises(FutureNeverSetException), requests.expect("c"):
        pass
    assert cause.__traceback__ is traceback


async def test_the_exception_that_ends_the_reader_is_passed_on() -> None:
    error = CutError()
    with pytest.raises(CutError) as caught, FutureMap[str, int]():
        raise error
    assert caught.value is error


async def test_requests_may_be_registered_before_the_reader_begins() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as future, requests as entered:
        assert entered is requests
        assert requests.set_result("a", 1)
        assert future.result() == 1


@pytest.mark.parametrize("ended", [False, True])
async def test_the_readers_block_can_be_entered_only_once(ended: bool) -> None:
    requests = FutureMap[str, int]()
    with contextlib.ExitStack() as reader:
        reader.enter_context(requests)
        if ended:
            reader.close()
        state = "ended" if ended else "reading"
        with pytest.raises(
            RuntimeError, match=rf"^the reader's block of .* reader='{state}'.* has already been entered"
        ):
            requests.__enter__()
        if not ended:
            with requests.expect("a") as future:
                assert requests.set_result("a", 1)  # nothing has changed
                assert future.result() == 1


def fails_with(error: BaseException) -> Callable[[Future[int]], None]:
    def fail_so(_future: Future[int]) -> None:
        raise error

    return fail_so


async def test_if_a_callback_fails_as_the_reader_ends_all_requests_are_still_settled(
    ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as a, requests.expect("b") as b:
        for future in (a, b):
            future.add_done_callback(fails_with(OurError()))
        cause = await end_reading(requests, ending)
        for future in (a, b):
            assert kinds(future.exception()) == [FutureNeverSetException, *kinds(cause)]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [OurError] * 2


async def test_if_callbacks_raise_system_exit_as_the_reader_ends_the_first_one_is_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as a, requests.expect("b") as b, requests.expect("c") as c:
        a.add_done_callback(fails_with(SystemExit("a")))
        b.add_done_callback(fails_with(SystemExit("b")))
        with pytest.raises(SystemExit, match=r"^a$") as caught, requests:
            raise CutError
        for future in (a, b, c):
            assert kinds(future.exception()) == [FutureNeverSetException, CutError]
    assert type(caught.value.__context__) is CutError
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["b"]


async def test_when_callbacks_run_the_reader_has_ended_and_they_may_settle_other_requests() -> None:
    requests = FutureMap[str, int]()
    found: list[object] = []

    def settle_other(future: Future[int]) -> None:
        found.append(requests.set_result("b", 2))
        with pytest.raises(FutureNeverSetException), requests.expect("c"):
            pass
        blocks.close()  # the entries are removed while the end of the reader iterates over them

    with contextlib.ExitStack() as blocks:
        a, b, c = (blocks.enter_context(requests.expect(key)) for key in "abd")
        a.add_done_callback(settle_other)
        with requests:
            pass
        assert not requests
    assert found == [True]
    assert kinds(a.exception()) == kinds(c.exception()) == [FutureNeverSetException]
    assert b.result() == 2


def test_outside_a_trio_run_the_readers_block_says_that_it_needs_trio() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as future:
        with pytest.raises(RuntimeError, match="triores needs Trio"):
            requests.__enter__()
        assert repr(requests) == "FutureMap(in_flight=1, reader='not started')"
        assert not future.is_done()


async def test_the_readers_block_cannot_be_entered_if_a_request_belongs_to_another_run() -> None:
    requests = FutureMap[str, int]()

    async def read() -> None:
        with pytest.raises(RuntimeError, match=r"belongs to another Trio run, and can't be entered here; nothing"):
            requests.__enter__()

    with requests.expect("a") as future:
        await in_foreign_run(read)
        assert not future.is_done()
        with requests:
            assert requests.set_result("a", 1)
    requests = FutureMap[str, int]()
    with requests.expect("done") as done, requests.expect("free", await in_foreign_thread(Future[int])):
        done.cancel()
        with requests:
            pass


async def test_a_caller_cancelled_as_the_reader_ends_gets_its_own_cancellation() -> None:
    requests = FutureMap[str, int]()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, requests, "a")
            await wait_all_tasks_blocked()
            scope.cancel()
            with requests:
                pass
    assert scope.cancelled_caught
    assert not requests


async def test_after_the_reader_has_ended_answers_return_false() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as a:
        with requests:
            pass
        assert [settle(requests, "a") for settle in SETTLE] == [False] * 4
        assert kinds(a.exception()) == [FutureNeverSetException]


# ---- Ctrl-C


class Interrupting:
    """A key that presses Ctrl-C while it is being looked up, after the given number of earlier lookups."""

    def __init__(self, lookups: int) -> None:
        self.lookups = lookups

    def __hash__(self) -> int:
        if not self.lookups:
            signal.raise_signal(signal.SIGINT)
        self.lookups -= 1
        return 1


@pytest.mark.parametrize("lookups", [0, 1, 2, 3])  # those that register the entry, and those that remove it
def test_ctrl_c_cannot_interrupt_the_registration_or_the_removal_of_a_request(lookups: int) -> None:
    requests = FutureMap[Interrupting, int]()
    steps: list[str] = []

    async def main() -> None:
        with requests.expect(Interrupting(lookups)):
            steps.append("in the block")
        steps.append("after the block")
        await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert steps == ["in the block", "after the block"]
    assert not requests


def lost_to_ctrl_c(cause: BaseException | None) -> LostError:
    signal.raise_signal(signal.SIGINT)
    return LostError()


def test_ctrl_c_cannot_interrupt_the_end_of_the_reader() -> None:
    requests = FutureMap[str, int](lost=lost_to_ctrl_c)
    futures: list[Future[int]] = []

    async def main() -> None:
        with requests.expect("a") as a, requests.expect("b") as b:
            futures.extend((a, b))
            with requests:
                pass
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert [kinds(future.exception()) for future in futures] == [[LostError]] * 2
    assert repr(requests) == "FutureMap(in_flight=0, reader='ended')"


def test_entering_the_readers_block_is_protected_from_ctrl_c() -> None:
    protected: list[bool] = []

    class Watched(FutureMap[str, int]):
        def __repr__(self) -> str:
            protected.append(trio.lowlevel.currently_ki_protected())
            return "watched"

    async def main() -> None:
        requests = Watched()
        with requests, pytest.raises(RuntimeError, match="of watched has already been entered"):
            requests.__enter__()

    trio.run(main)
    assert protected == [True]


# ---- references


def raised_elsewhere() -> CutError:
    """An exception whose traceback refers to nothing in the test."""
    try:
        raise CutError
    except CutError as error:
        return error


def end(requests: FutureMap[Any, Any], error: BaseException) -> None:
    """End the reader's block in a frame that isn't part of any traceback."""
    requests.__enter__()
    requests.__exit__(type(error), error, error.__traceback__)


def lost_as_the_cause(cause: BaseException | None) -> BaseException:
    return cause or LostError()


def lost_by_raising(cause: BaseException | None) -> LostError:
    raise LostError from cause


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("lost", [None, LostError, lost_by_raising, lost_as_the_cause])
async def test_a_map_whose_reader_has_ended_is_freed_at_once(lost: Any) -> None:
    requests = FutureMap[str, int](lost=lost)
    error = raised_elsewhere()
    with requests.expect("a") as future:
        end(requests, error)
    fail_late(requests)
    gone: list[weakref.ref[Any]] = [weakref.ref(requests), weakref.ref(future), weakref.ref(error)]
    del requests, future, error
    assert [ref() for ref in gone] == [None, None, None]


def fail_late(requests: FutureMap[str, int]) -> None:
    block = requests.expect("late")
    del requests
    with contextlib.suppress(Exception):
        held = [block]
        del block
        held.pop().__enter__()
        raise AssertionError


def failure_of(call: Callable[[FutureMap[Any, int]], object], held: list[FutureMap[Any, int]]) -> BaseException:
    """The exception that a call raises. Neither this frame nor the call's holds the map; only the library's could."""
    try:
        call(held.pop())
    except BaseException as error:
        return error
    raise AssertionError


def expect_again(requests: FutureMap[Any, int]) -> None:
    block = [requests.expect("a")]
    del requests
    block.pop().__enter__()


def expect_wrong(requests: FutureMap[Any, int]) -> None:
    wrong: Any = 3
    block = [requests.expect("b", wrong)]
    del requests
    block.pop().__enter__()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    "call",
    [
        methodcaller("set_result", [], 1),
        methodcaller("set_exception", [], CutError()),
        methodcaller("set_outcome", [], outcome.Value(1)),
        methodcaller("set_exception", "unknown", None),
        methodcaller("set_outcome", "unknown", None),
        methodcaller("set_outcome", "a", None),
        methodcaller("__enter__"),
        expect_again,
        expect_wrong,
    ],
)
async def test_a_map_is_freed_at_once_even_if_its_reader_failed_in_a_call_to_it(
    call: Callable[[FutureMap[Any, int]], object],
) -> None:
    requests = FutureMap[Any, int]()
    requests.__enter__()
    with requests.expect("a") as future:
        error = failure_of(call, [requests])
        requests.__exit__(type(error), error, error.__traceback__)
    gone: list[weakref.ref[Any]] = [weakref.ref(requests), weakref.ref(future)]
    del requests, future, error
    assert [ref() for ref in gone] == [None, None]


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    "settle",
    [
        methodcaller("set_result", "a", 1),
        methodcaller("set_exception", "a", CutError()),
        methodcaller("set_outcome", "a", outcome.Value(1)),
    ],
)
async def test_a_map_is_freed_at_once_even_if_a_call_from_a_thread_failed(
    settle: Callable[[FutureMap[Any, int]], object],
) -> None:
    requests = FutureMap[Any, int]()
    requests.__enter__()
    with requests.expect("a") as future:
        held = [requests]
        error = await in_foreign_thread(lambda: failure_of(settle, held))
        assert type(error) is RuntimeError
        requests.__exit__(type(error), error, error.__traceback__)
    gone: list[weakref.ref[Any]] = [weakref.ref(requests), weakref.ref(future)]
    del requests, future, error
    assert [ref() for ref in gone] == [None, None]


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("lost", [None, LostError, lost_by_raising])
async def test_the_exception_of_a_failed_caller_is_freed_at_once(lost: Any) -> None:
    requests = FutureMap[str, int](lost=lost)
    seen: list[BaseException] = []

    async def caller() -> None:
        try:
            with requests.expect("a") as future:
                try:
                    await future
                finally:
                    del future  # otherwise this frame would create a cycle
        except Exception as error:
            seen.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller)
        await wait_all_tasks_blocked()
        end(requests, raised_elsewhere())
    gone = weakref.ref(seen.pop())
    assert gone() is None
