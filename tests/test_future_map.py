"""FutureMap."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Mapping
from operator import methodcaller
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import outcome
import pytest
import trio
from _faults import SOAK
from hypothesis import given, settings
from trio.testing import wait_all_tasks_blocked

from triores import Future, FutureMap, FutureNeverSetException, TaskFailedException

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

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
        pytest.skip("only CPython frees objects by reference counts")
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


def test_each_entering_makes_a_future_of_its_own() -> None:
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
def test_however_a_block_ends_its_entry_is_removed_and_the_exception_goes_on(
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


def test_a_block_leaves_a_pending_future_as_it_is() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as future:
        pass
    assert not future.is_done()


def test_must_set_gives_others_who_wait_an_end_when_the_caller_leaves() -> None:
    requests = FutureMap[str, int]()
    with pytest.raises(CutError), requests.expect("a") as future, future.must_set():
        raise CutError
    assert kinds(future.exception()) == [CutError]


def test_a_key_in_flight_is_refused_and_the_first_request_is_unharmed() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as future:
        with pytest.raises(
            ValueError, match=r"^a request with the key 'a' is in flight already; give each request a key"
        ):
            requests.expect("a").__enter__()
        assert requests["a"] is future
        assert requests.set_result("a", 1)
        assert future.result() == 1
        with pytest.raises(ValueError, match=r"^a request with the key 'a'"):  # done, but its block has not ended
            requests.expect("a").__enter__()
    with requests.expect("a") as again:
        assert again is not future


def test_a_block_within_itself_is_refused_and_still_removes_its_entry() -> None:
    requests = FutureMap[str, int]()
    block = requests.expect("a")
    with block as future:
        with pytest.raises(ValueError, match=r"^a request with the key 'a'"):
            block.__enter__()
        assert requests["a"] is future
    assert not requests


def test_a_block_removes_no_entry_but_its_own() -> None:
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
def test_a_key_is_anything_hashable(key: object) -> None:
    requests = FutureMap[object, int]()
    with requests.expect(key) as future:
        assert key in requests
        assert requests.set_result(key, 1)
        assert future.result() == 1
    assert not requests


def test_equal_keys_are_one_key() -> None:
    requests = FutureMap[float, str]()
    with requests.expect(1) as future:
        assert requests.set_result(1.0, "one")
        assert future.result() == "one"


def test_an_unhashable_key_is_refused_with_nothing_changed() -> None:
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
def test_thousands_in_flight_cost_no_more_a_request_than_a_few(in_flight: int) -> None:
    requests = FutureMap[Counted, int]()
    lookups: Counter[str] = Counter()
    keys = [Counted(number, lookups) for number in range(in_flight)]
    with contextlib.ExitStack() as blocks:
        for key in keys:
            blocks.enter_context(requests.expect(key))
        for key in reversed(keys):
            assert requests.set_result(key, 1)
    assert not requests
    assert lookups == {"hash": 4 * in_flight}  # to register, to settle, and two to remove only one's own


# ---- the mapping


def test_it_is_a_mapping_of_keys_to_futures_in_the_order_of_registration() -> None:
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


def test_it_is_read_only() -> None:
    requests: Any = FutureMap[str, int]()
    with pytest.raises(TypeError, match="item assignment"):
        requests["a"] = Future[int]()
    with requests.expect("a"), pytest.raises(TypeError, match="item deletion"):
        del requests["a"]


def test_its_repr_tells_of_the_requests_and_the_reader() -> None:
    requests = FutureMap[str, int]()
    assert repr(requests) == "FutureMap(in_flight=0, reader='not begun')"
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


def test_an_answer_settles_the_future_of_its_key_alone() -> None:
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
    assert not future.is_done()
    assert not requests


@pytest.mark.parametrize("settle", SETTLE)
def test_an_answer_to_a_request_that_its_caller_settled_returns_false(
    settle: Callable[[FutureMap[str, int], str], bool],
) -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as future:
        assert future.cancel("no longer wanted")
        assert settle(requests, "a") is False
        assert future.cancelled()


@pytest.mark.parametrize("key", ["a", "unknown"])
@pytest.mark.parametrize("wrong", [CutError, "cut", None])
def test_what_is_no_exception_is_refused_also_where_nobody_waits(wrong: Any, key: str) -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as future:
        with pytest.raises(TypeError, match=r"^a future is given an exception object, not "):
            requests.set_exception(key, wrong)
        assert not future.is_done()


@pytest.mark.parametrize("key", ["a", "unknown"])
def test_what_is_no_outcome_is_refused_also_where_nobody_waits(key: str) -> None:
    requests: FutureMap[str, Any] = FutureMap()
    with requests.expect("a") as future:
        with pytest.raises(TypeError, match=r"^an outcome is an outcome\.Value or an outcome\.Error, not 3; "):
            requests.set_outcome(key, 3)  # type: ignore[arg-type]  # the mistake that is tested
        assert not future.is_done()


def fail(_future: Future[int]) -> None:
    raise CutError


async def test_what_callbacks_raise_reaches_the_reader_and_the_request_is_settled() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as a, requests.expect("b") as b:
        a.add_done_callback(fail)
        b.add_done_callback(fail)
        with pytest.RaisesGroup(CutError):
            requests.set_result("a", 1)
        with pytest.RaisesGroup(CutError):
            requests.set_outcome("b", outcome.Value(2))
        assert (a.result(), b.result()) == (1, 2)


@pytest.mark.parametrize("settle", SETTLE)
async def test_a_request_of_another_run_is_refused_with_nothing_changed(
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
    """Enter the reader's block, let callers wait, and end it in one of its ways; the exception that ended it."""
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


async def test_every_way_in_which_the_reader_ends_fails_the_callers_that_wait(ending: str) -> None:
    requests = FutureMap[str, int]()
    seen: list[TaskFailedException] = []

    async def caller(key: str) -> None:
        with pytest.raises(TaskFailedException) as caught:
            await ask(requests, key)
        seen.append(caught.value)

    async with trio.open_nursery() as nursery:
        for key in ("a", "b", "c"):
            nursery.start_soon(caller, key)
        cause = await end_reading(requests, ending)
    assert len(seen) == 3
    for error in seen:
        assert type(error) is TaskFailedException  # a broken obligation, and no cancellation
        assert type(error.__cause__) is FutureNeverSetException
        assert error.__cause__.__cause__ is cause
        assert not error.args[0].cancelled()
    assert not requests
    assert kinds(cause) == {"return": [], "exception": [CutError], "cancellation": [trio.Cancelled]}[ending]


async def test_every_way_in_which_the_reader_ends_fails_requests_that_nobody_waits_for(ending: str) -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as a, requests.expect("b") as b:
        assert requests.set_result("b", 1)
        cause = await end_reading(requests, ending)
        assert kinds(a.exception()) == [FutureNeverSetException, *kinds(cause)]
        assert causes(a.exception())[1:] == ([] if cause is None else [cause])
        assert str(a.exception()) == "the block that reads the responses ended before the response to this request came"
        assert b.result() == 1
        assert list(requests) == ["a", "b"]  # each is removed by its own caller
    assert not requests


async def test_callers_that_come_after_the_reader_ended_get_the_same_error(ending: str) -> None:
    requests = FutureMap[str, int]()
    cause = await end_reading(requests, ending)
    seen: list[BaseException] = []
    for _ in range(2):
        with pytest.raises(TaskFailedException) as caught, requests.expect("a"):
            raise AssertionError("the block must not be entered")
        assert type(caught.value) is TaskFailedException
        assert kinds(caught.value)[1:] == [FutureNeverSetException, *kinds(cause)]
        assert causes(caught.value)[2:] == ([] if cause is None else [cause])
        assert str(caught.value.__cause__) == "the block that reads the responses ended before this request was made"
        assert kinds(caught.value.args[0].exception()) == kinds(caught.value)[1:]
        seen += causes(caught.value)[:2]
    assert len(set(map(id, seen))) == 4  # nobody shares an exception object but the cause
    assert not requests


def test_a_block_that_was_made_before_the_reader_ended_and_entered_after_is_refused() -> None:
    requests = FutureMap[str, int]()
    block = requests.expect("a")
    with requests:
        pass
    with pytest.raises(TaskFailedException):
        block.__enter__()
    assert not requests


def test_each_request_gets_an_exception_object_of_its_own_and_the_cause_stays_as_it_is() -> None:
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
    with pytest.raises(TaskFailedException), requests.expect("c"):
        pass
    assert cause.__traceback__ is traceback


def test_the_exception_that_ends_the_reader_goes_on() -> None:
    error = CutError()
    with pytest.raises(CutError) as caught, FutureMap[str, int]():
        raise error
    assert caught.value is error


def test_requests_may_be_registered_before_the_reader_begins() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as future, requests as entered:
        assert entered is requests
        assert requests.set_result("a", 1)
        assert future.result() == 1


@pytest.mark.parametrize("ended", [False, True])
def test_the_readers_block_is_entered_only_once(ended: bool) -> None:
    requests = FutureMap[str, int]()
    with contextlib.ExitStack() as reader:
        reader.enter_context(requests)
        if ended:
            reader.close()
        with pytest.raises(
            RuntimeError,
            match=rf"^the reader's block of FutureMap\(in_flight=0, reader='{'ended' if ended else 'reading'}'\) was "
            r"entered already, and a map serves one connection; make a new FutureMap\(\) for the next connection$",
        ):
            requests.__enter__()
        if not ended:
            with requests.expect("a") as future:
                assert requests.set_result("a", 1)  # nothing was changed
                assert future.result() == 1


def fails_with(error: BaseException) -> Callable[[Future[int]], None]:
    def fail_so(_future: Future[int]) -> None:
        raise error

    return fail_so


async def test_where_callbacks_fail_as_the_reader_ends_all_are_settled_and_every_error_is_raised() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as a, requests.expect("b") as b, requests.expect("c") as c:
        a.add_done_callback(fails_with(OurError("a")))
        b.add_done_callback(fails_with(OurError("b1")))
        b.add_done_callback(fails_with(OurError("b2")))
        with (
            pytest.RaisesGroup(
                pytest.RaisesExc(CutError),
                pytest.RaisesGroup(pytest.RaisesExc(OurError, match=r"^a$")),
                pytest.RaisesGroup(
                    pytest.RaisesExc(OurError, match=r"^b1$"), pytest.RaisesExc(OurError, match=r"^b2$")
                ),
                match=r"^callbacks failed as requests were given up",
            ),
            requests,
        ):
            raise CutError
        for future in (a, b, c):
            assert kinds(future.exception()) == [FutureNeverSetException, CutError]


async def test_where_a_callback_fails_as_the_readers_block_returns_its_error_is_raised() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as a, requests.expect("b") as b:
        a.add_done_callback(fails_with(OurError()))
        with pytest.RaisesGroup(pytest.RaisesGroup(OurError)), requests:
            pass
        assert kinds(a.exception()) == kinds(b.exception()) == [FutureNeverSetException]
    with pytest.raises(TaskFailedException), requests.expect("c"):
        pass


async def test_where_a_callback_fails_as_the_reader_is_cancelled_the_cancellation_is_not_lost() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as a:
        a.add_done_callback(fails_with(OurError()))
        with pytest.RaisesGroup(OurError, flatten_subgroups=True), trio.CancelScope() as scope, requests:
            scope.cancel()
            await trio.sleep_forever()
        assert scope.cancelled_caught
        assert kinds(a.exception()) == [FutureNeverSetException, trio.Cancelled]


async def test_what_is_no_exception_only_group_keeps_its_kind() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as a, requests.expect("b") as b:
        a.add_done_callback(fails_with(KeyboardInterrupt()))
        with pytest.raises(BaseExceptionGroup) as caught, requests:
            raise CutError
        assert b.is_done()
    assert not isinstance(caught.value, ExceptionGroup)


async def test_callbacks_find_the_reader_ended_and_may_settle_others() -> None:
    requests = FutureMap[str, int]()
    found: list[object] = []

    def settle_other(future: Future[int]) -> None:
        found.append(requests.set_result("b", 2))
        with pytest.raises(TaskFailedException), requests.expect("c"):
            pass
        blocks.close()  # no entry is left, though the reader's end is at work on them

    with contextlib.ExitStack() as blocks:
        a, b, c = (blocks.enter_context(requests.expect(key)) for key in "abd")
        a.add_done_callback(settle_other)
        with requests:
            pass
        assert not requests
    assert found == [True]
    assert kinds(a.exception()) == kinds(c.exception()) == [FutureNeverSetException]
    assert b.result() == 2


async def test_a_request_of_another_run_does_not_keep_the_end_from_the_others() -> None:
    requests = FutureMap[str, int]()
    raised: list[BaseException] = []

    def end_elsewhere() -> None:
        try:
            with requests:
                pass
        except ExceptionGroup as group:
            raised.append(group)

    with requests.expect("a") as a, requests.expect("b") as b:
        a.add_done_callback(lambda _: None)
        thread = threading.Thread(target=end_elsewhere)
        thread.start()
        thread.join()
        assert not a.is_done()
        assert kinds(b.exception()) == [FutureNeverSetException]
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="belongs to another Trio run")):
        raise raised[0]


async def test_a_caller_cancelled_as_the_reader_ends_sees_its_own_cancellation() -> None:
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


def test_after_the_reader_ended_answers_return_false() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as a:
        with requests:
            pass
        assert [settle(requests, "a") for settle in SETTLE] == [False] * 4
        assert kinds(a.exception()) == [FutureNeverSetException]


# ---- Ctrl-C


class Interrupting:
    """A key during whose lookup, from some lookup on, Ctrl-C is pressed."""

    def __init__(self, lookups: int) -> None:
        self.lookups = lookups

    def __hash__(self) -> int:
        if not self.lookups:
            signal.raise_signal(signal.SIGINT)
        self.lookups -= 1
        return 1


@pytest.mark.parametrize("lookups", [0, 1, 2])  # to register; to remove one's own
def test_ctrl_c_comes_before_or_after_registering_and_removing(lookups: int) -> None:
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


class InterruptedEnd(FutureMap[str, int]):
    """A map during whose reader's end Ctrl-C is pressed."""

    def _never_set(self, when: str) -> FutureNeverSetException:
        signal.raise_signal(signal.SIGINT)
        return super()._never_set(when)


def test_ctrl_c_comes_before_or_after_the_readers_end() -> None:
    requests = InterruptedEnd()
    futures: list[Future[int]] = []

    async def main() -> None:
        with requests.expect("a") as a, requests.expect("b") as b:
            futures.extend((a, b))
            with requests:
                pass
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert [kinds(future.exception()) for future in futures] == [[FutureNeverSetException]] * 2
    assert repr(requests) == "InterruptedEnd(in_flight=0, reader='ended')"


def test_entering_the_readers_block_is_protected_from_ctrl_c() -> None:
    protected: list[bool] = []

    class Watched(FutureMap[str, int]):
        def __repr__(self) -> str:
            protected.append(trio.lowlevel.currently_ki_protected())
            return "watched"

    async def main() -> None:
        requests = Watched()
        with requests, pytest.raises(RuntimeError, match="of watched was entered already"):
            requests.__enter__()

    trio.run(main)
    assert protected == [True]


# ---- references


def raised_elsewhere() -> CutError:
    """An exception with a traceback that holds nothing of ours."""
    try:
        raise CutError
    except CutError as error:
        return error


def end(requests: FutureMap[Any, Any], error: BaseException) -> None:
    """End the reader's block from a frame that is in no traceback."""
    requests.__enter__()
    requests.__exit__(type(error), error, error.__traceback__)


@pytest.mark.usefixtures("no_collector")
def test_a_map_whose_reader_ended_is_freed_at_once() -> None:
    requests = FutureMap[str, int]()
    error = raised_elsewhere()
    with requests.expect("a") as future:
        end(requests, error)
    with contextlib.suppress(TaskFailedException), requests.expect("b"):
        pass
    gone: list[weakref.ref[Any]] = [weakref.ref(requests), weakref.ref(future), weakref.ref(error)]
    del requests, future, error
    assert [ref() for ref in gone] == [None, None, None]


def failure_of(call: Callable[[FutureMap[Any, int]], object], held: list[FutureMap[Any, int]]) -> BaseException:
    """What a call raises. Only frames of the library can hold the map: this one doesn't, and the call has none."""
    try:
        call(held.pop())
    except BaseException as error:
        return error
    raise AssertionError


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    "call",
    [
        methodcaller("set_result", "a", 1),
        methodcaller("set_exception", "a", CutError()),
        methodcaller("set_outcome", "a", outcome.Value(1)),
        methodcaller("set_result", [], 1),
        methodcaller("set_exception", [], CutError()),
        methodcaller("set_outcome", [], outcome.Value(1)),
        methodcaller("set_exception", "unknown", None),
        methodcaller("set_outcome", "unknown", None),
        methodcaller("__enter__"),
    ],
)
async def test_a_map_whose_reader_failed_in_a_call_on_it_is_freed_at_once(
    call: Callable[[FutureMap[Any, int]], object],
) -> None:
    requests = FutureMap[Any, int]()
    requests.__enter__()
    with requests.expect("a") as future:
        future.add_done_callback(fail)
        error = failure_of(call, [requests])
        with contextlib.suppress(ExceptionGroup):
            requests.__exit__(type(error), error, error.__traceback__)
    gone: list[weakref.ref[Any]] = [weakref.ref(requests), weakref.ref(future)]
    del requests, future, error
    assert [ref() for ref in gone] == [None, None]


@pytest.mark.usefixtures("no_collector")
async def test_the_group_that_the_readers_end_raises_is_freed_at_once() -> None:
    requests = FutureMap[str, int]()
    with requests.expect("a") as future:
        future.add_done_callback(fail)
        error = raised_elsewhere()
        group = failure_of(methodcaller("__exit__", CutError, error, error.__traceback__), [requests])
    gone: list[weakref.ref[Any]] = [weakref.ref(requests), weakref.ref(future), weakref.ref(group)]
    del requests, future, error, group
    assert [ref() for ref in gone] == [None, None, None]


@pytest.mark.usefixtures("no_collector")
async def test_a_caller_that_failed_is_freed_at_once() -> None:
    requests = FutureMap[str, int]()
    seen: list[TaskFailedException] = []

    async def caller() -> None:
        try:
            with requests.expect("a") as future:
                await future
        except TaskFailedException as error:
            seen.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller)
        await wait_all_tasks_blocked()
        end(requests, raised_elsewhere())
    gone = weakref.ref(seen.pop())
    assert gone() is None


# ---- against a model

KEYS = st.integers(0, 3)
STEP = st.one_of(
    st.tuples(st.just("call"), KEYS),
    st.tuples(st.just("answer"), KEYS, st.integers(0, 3)),
    st.tuples(st.just("cancel"), KEYS),
    st.tuples(st.just("fail"), KEYS),
    st.tuples(st.just("begin")),
    st.tuples(st.just("end"), st.sampled_from(["return", "exception", "cancellation"])),
    st.tuples(st.just("run")),
)


class Caller:
    """A task that makes one request, and what the model says of it."""

    def __init__(self, key: int) -> None:
        self.key = key
        self.scope = trio.CancelScope()
        self.awake = trio.Event()
        self.fails = False  # by an exception of its own
        self.sees: list[object] = []
        self.must_see: list[object] = []
        self.ends: str | None = None  # what its wait ends by, once the caller runs
        self.answer: object = None

    async def run(self, requests: FutureMap[int, object]) -> None:
        with self.scope:
            try:
                with requests.expect(self.key) as future:
                    future.add_done_callback(lambda _: self.awake.set())
                    await self.awake.wait()
                    if self.fails:
                        raise OurError
                    self.sees.append(future.result())
            except TaskFailedException as error:
                chain = causes(error)[1:]
                self.sees.append(
                    (type(chain[0]), *chain[1:]) if type(chain[0]) is FutureNeverSetException else chain[0]
                )
            except (ValueError, OurError) as error:
                self.sees.append(type(error))
            except trio.Cancelled:
                self.sees.append("cancelled")
                raise


class Model:
    """A `FutureMap`, its callers, and a dictionary of those that are in flight, which must agree at every step."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.requests = FutureMap[int, object]()
        self.nursery = nursery
        self.reader = contextlib.ExitStack()
        self.begun = False
        self.lost: tuple[object, ...] | None = None  # what callers see once the reader has ended
        self.in_flight: dict[int, Caller] = {}
        self.all: list[Caller] = []

    async def step(self, name: str, *arguments: Any) -> None:
        await getattr(self, name)(*arguments)
        assert list(self.requests) == list(self.in_flight)
        for key, caller in self.in_flight.items():
            assert self.requests[key].is_done() is (caller.answer is not None)

    async def run(self) -> None:
        await wait_all_tasks_blocked()
        for key, caller in list(self.in_flight.items()):
            if caller.ends is not None:
                caller.must_see.append(caller.answer if caller.ends == "answer" else caller.ends)
                if caller.ends != "cancelled" and caller.fails:
                    caller.must_see = [OurError]
                del self.in_flight[key]
        for caller in self.all:
            assert caller.sees == caller.must_see

    async def call(self, key: int) -> None:
        await self.run()
        caller = Caller(key)
        self.all.append(caller)
        if self.lost is not None:
            caller.must_see.append(self.lost)
        elif key in self.in_flight:
            caller.must_see.append(ValueError)
        else:
            self.in_flight[key] = caller
        self.nursery.start_soon(caller.run, self.requests)
        await self.run()

    async def answer(self, key: int, kind: int) -> None:
        answer: object = OurError() if kind % 2 else f"answer {len(self.all)}"
        if kind == 0:
            settled = self.requests.set_result(key, answer)
        elif kind == 1:
            assert isinstance(answer, OurError)
            settled = self.requests.set_exception(key, answer)
        else:
            settled = self.requests.set_outcome(
                key, outcome.Error(answer) if isinstance(answer, OurError) else outcome.Value(answer)
            )
        caller = self.in_flight.get(key)
        assert settled is (caller is not None and caller.answer is None)
        if caller is not None and caller.answer is None:
            caller.answer = answer
            caller.ends = caller.ends or "answer"

    async def cancel(self, key: int) -> None:
        if key in self.in_flight:
            self.in_flight[key].scope.cancel()
            self.in_flight[key].ends = self.in_flight[key].ends or "cancelled"

    async def fail(self, key: int) -> None:
        if key in self.in_flight:
            self.in_flight[key].fails = True
            self.in_flight[key].awake.set()
            self.in_flight[key].ends = self.in_flight[key].ends or "answer"

    async def begin(self) -> None:
        if self.begun:
            with pytest.raises(RuntimeError):
                self.reader.enter_context(self.requests)
        else:
            self.reader.enter_context(self.requests)
            self.begun = True

    async def end(self, how: str) -> None:
        if not self.begun or self.lost is not None:
            return
        await self.run()
        error: BaseException | None = None
        with contextlib.suppress(CutError), trio.CancelScope() as scope, self.reader:
            try:
                if how == "exception":
                    raise CutError
                if how == "cancellation":
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
            except BaseException as raised:
                error = raised
                raise
        self.lost = (FutureNeverSetException,) if error is None else (FutureNeverSetException, error)
        for caller in self.in_flight.values():
            caller.answer = caller.answer or self.lost
            caller.ends = caller.ends or "answer"


@pytest.mark.usefixtures("unmeasured")
@settings(max_examples=1000 if SOAK else 50, deadline=None, derandomize=not SOAK, database=None)
@given(st.lists(STEP, max_size=40))
def test_at_random_steps_it_agrees_with_a_model(steps: list[tuple[Any, ...]]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            model = Model(nursery)
            for step in steps:
                await model.step(*step)
            for key in list(model.in_flight):
                await model.cancel(key)
            await model.step("run")
            assert not model.requests

    trio.run(main)
