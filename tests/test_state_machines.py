"""Future, ResultCapture, FutureMap and SingleFlight compared with simple models, in random sequences of calls.

Hypothesis runs each sequence in a thread. That thread calls the steps of the Trio run through `trio.from_thread`, and
the steps of a foreign thread directly.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import hypothesis.strategies as st
import outcome
import pytest
import trio
from _helpers import SOAK, Boom, is_free, leaves
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from triores import (
    Future,
    FutureCancelledException,
    FutureMap,
    FutureNeverSetException,
    FutureSetAgainException,
    ResultBase,
    ResultCapture,
    SingleFlight,
    TaskCancelledException,
    TaskFailedException,
    TaskNotDoneException,
    as_completed,
    wait_all,
    wait_any,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

T = TypeVar("T")
Outcome = Any  # in a model: a value or an exception object, or None while pending

thoroughly = settings(
    max_examples=600 if SOAK else 20,
    stateful_step_count=60 if SOAK else 25,
    deadline=None,
    derandomize=not SOAK,
    database=None,
    report_multiple_bugs=False,
)


logged: list[BaseException] = []  # what callbacks raised


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert record.exc_info
            assert record.exc_info[1] is not None
            logged.append(record.exc_info[1])

    handler = Handler()
    logger = logging.getLogger("triores")
    logger.addHandler(handler)
    logger.propagate = False  # otherwise, pytest would keep all of it
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True
        logged.clear()


class OnTrio(RuleBasedStateMachine):
    """A state machine that can act in a Trio run."""

    nursery: trio.Nursery  # of the run

    def here(self, fn: Callable[..., T], *args: Any) -> T:
        """Call a function in the Trio thread, and let all tasks run as far as they can."""

        async def call() -> T:
            try:
                return fn(*args)
            finally:
                await wait_all_tasks_blocked()

        return trio.from_thread.run(call)


async def play(machine: type[OnTrio]) -> None:
    async with trio.open_nursery() as nursery:
        machine.nursery = nursery
        await trio.to_thread.run_sync(play_here, machine)


def play_here(machine: type[OnTrio]) -> None:
    run_state_machine_as_test(machine, settings=thoroughly)


class Wait:
    """A task that waits."""

    def __init__(self, fn: Callable[[], Awaitable[Any]]) -> None:
        self.fn = fn
        self.scope = trio.CancelScope()
        self.over = False
        self.found: Any = None
        self.must_be_over = False
        self.left = False

    async def run(self) -> None:
        try:
            with self.scope:
                self.found = await self.fn()
        finally:
            self.over = True

    def check(self) -> None:
        assert self.over == self.must_be_over


class WaitForSeveral(Wait):
    """A task that waits for several futures, and what it has to find."""

    def __init__(self, models: list[FutureModel], how: Any) -> None:
        self.models = list(dict.fromkeys(models))  # a result that is given twice counts once
        self.given = models
        self.how = how
        self.order = [model for model in self.models if model.outcome is not None]  # of completion
        self.taken: list[Future[int]] = []
        super().__init__(self.take_all if how is as_completed else partial(how, self.futures()))

    def futures(self) -> list[Future[int]]:
        return [model.future for model in self.given]

    async def take_all(self) -> None:
        async for future in as_completed(self.futures()):
            self.taken.append(future)

    def settled(self, model: FutureModel) -> None:
        self.order += [model] if model in self.models else []

    def check(self) -> None:
        self.must_be_over |= len(self.order) >= (1 if self.how is wait_any else len(self.models))
        super().check()
        if self.left:
            return
        if self.how is as_completed:
            assert self.taken == [model.future for model in self.order]
        elif self.over:
            assert self.found is (self.order[0].future if self.how is wait_any else None)


def check_reads(result: ResultBase[Any], model: Outcome) -> None:
    """Compare everything that can be read. This runs after each step, so it also shows that reading changes nothing."""
    assert result.is_done() == result.done() == (model is not None)
    cancelled = isinstance(model, (FutureCancelledException, trio.Cancelled))
    assert result.cancelled() == cancelled
    if model is None:
        for read in (result.result, result.unwrap, result.exception, lambda: result.outcome):
            with pytest.raises(TaskNotDoneException) as not_done:
                read()
            assert not_done.value.args == (result,)
    elif isinstance(model, BaseException):
        with pytest.raises(TaskFailedException) as failed:
            result.result()
        assert type(failed.value) is (TaskCancelledException if cancelled else TaskFailedException)
        assert failed.value.args == (result,)
        assert failed.value.__cause__ is model
        assert result.exception() is model
        assert result.outcome == outcome.Error(model)
        with pytest.raises(BaseException) as unwrapped:
            result.unwrap()
        if cancelled:
            assert type(unwrapped.value) is TaskCancelledException
        else:
            assert unwrapped.value is model
    else:
        assert result.result() == result.unwrap() == model
        assert result.exception() is None
        assert result.outcome == outcome.Value(model)
    assert repr(result).startswith(type(result).__name__)


class Callback:
    """A callback that records its call, and then does something or raises."""

    def __init__(self, model: FutureModel, log: list[Callback], does: str, other: FutureModel) -> None:
        self.model = model
        self.log = log
        self.does = does
        self.other = other

    def __call__(self, future: Future[int]) -> None:
        assert future is self.model.future
        assert future.is_done()
        self.log.append(self)
        if self.does == "raise":
            raise Boom
        if self.does == "settle" and not self.other.future.is_done():
            self.other.future.set_result(7)
        if self.does == "register":
            self.other.future.add_done_callback(self.note)
            self.other.ever_registered.append(self.note)
        if self.does == "remove":
            for callback in self.model.ever_registered:
                future.remove_done_callback(callback)

    def note(self, _future: Future[int]) -> None:
        self.log.append(self)


class FutureModel:
    """A future, and the state that it has to be in."""

    def __init__(self) -> None:
        self.future = Future[int]()
        self.outcome: Outcome = None
        self.callbacks: list[Callable[[Future[int]], object]] = []
        self.ever_registered: list[Callable[[Future[int]], object]] = []
        self.waits: list[Wait] = []

    def is_free(self) -> bool:
        return not self.callbacks and not any(not wait.must_be_over for wait in self.waits)

    def done(self, outcome: Outcome) -> None:
        self.outcome = outcome
        for wait in self.waits:
            if isinstance(wait, WaitForSeveral):
                wait.settled(self)
            else:
                wait.must_be_over = True

    def settle(self, outcome: Outcome, log: list[Callback]) -> int:
        """Settle the model, record the calls of its callbacks, and return how many of them raise."""
        self.done(outcome)
        return call_all(self.due(), log)

    def due(self) -> list[tuple[FutureModel, Callable[[Future[int]], object]]]:
        """Return the callbacks that have to be called now."""
        due: list[tuple[FutureModel, Callable[[Future[int]], object]]] = [
            (self, callback) for callback in self.callbacks
        ]
        self.callbacks.clear()
        return due


def call_all(due: list[tuple[FutureModel, Callable[[Future[int]], object]]], log: list[Callback]) -> int:
    """Record the calls of callbacks, each followed by those that it causes, and return how many raise."""
    raised = 0
    while due:
        model, callback = due.pop(0)
        if not isinstance(callback, Callback):
            log.append(callback.__self__)  # type: ignore[attr-defined] # a bound method of a Callback
            continue
        log.append(callback)
        raised += callback.does == "raise"
        if callback.does == "settle" and callback.other.outcome is None:
            callback.other.done(7)
            due[:0] = callback.other.due()
        if callback.does == "register":
            callback.other.callbacks.append(callback.note)
            if callback.other.outcome is not None:
                due[:0] = callback.other.due()
        if callback.does == "remove":
            due = [(other, each) for other, each in due if other is not model]
    return raised


class FutureMachine(OnTrio):
    futures = Bundle("futures")
    callbacks = Bundle("callbacks")
    waits = Bundle("waits")
    actions = st.sampled_from(["nothing", "raise", "settle", "register", "remove"])

    ways = st.sampled_from(["result", "exception", "value", "error", "must set", "cancel"])

    def __init__(self) -> None:
        super().__init__()
        self.models: list[FutureModel] = []
        self.all_waits: list[Wait] = []
        self.called: list[Callback] = []
        self.must_be_called: list[Callback] = []
        self.must_be_logged = 0
        logged.clear()

    @initialize(target=futures)
    def begin_with_some(self) -> MultipleResults[FutureModel]:
        return multiple(*[self.made() for _ in range(4)])

    @rule(target=futures)
    def make(self) -> FutureModel:
        return self.made()

    def made(self) -> FutureModel:
        self.models.append(self.here(FutureModel))
        return self.models[-1]

    # ---- settling

    @rule(
        target=callbacks,
        do=st.lists(st.tuples(actions, st.integers(0, 2)), max_size=4),
        waited_for=st.booleans(),
        how=ways,
        again=ways,
    )
    def settle_new_ones(
        self, do: list[tuple[str, int]], waited_for: bool, how: str, again: str
    ) -> MultipleResults[Callback]:
        """Settle three futures. The first has callbacks, and is settled twice; tasks may be waiting for all three."""
        models = [self.made() for _ in range(3)]
        added = [self.add_callback(models[0], does, models[other]) for does, other in do]
        if waited_for:
            for wait in (wait_all, wait_any, as_completed):
                self.wait_for_several([*models, models[0]], wait)
        for model in models:
            self.settle_in_a_foreign_thread(model)
        self.settle(models[0], how)
        for model in models:
            self.settle(model, again)
        return multiple(*added)

    @rule(model=futures, how=ways)
    def settle(self, model: FutureModel, how: str) -> None:
        future, error = model.future, Boom()
        calls: dict[str, Callable[[], object]] = {
            "result": partial(future.set_result, 1),
            "exception": partial(future.set_exception, error),
            "value": partial(future.set_outcome, outcome.Value(1)),
            "error": partial(future.set_outcome, outcome.Error(error)),
            "must set": partial(must_set, future, error),
            "cancel": partial(future.cancel, how),
        }
        was_done = model.outcome is not None
        if not was_done:
            end = 1 if how in {"result", "value"} else FutureCancelledException() if how == "cancel" else error
            self.must_be_logged += model.settle(end, self.must_be_called)
        try:
            settled = self.here(calls[how])
        except FutureSetAgainException as again:
            assert was_done
            assert again.args == (future,)
            assert how != "cancel"
        except Boom as itself:
            assert itself is error
            assert how == "must set"
        else:
            assert how != "must set"
            assert settled == ((not was_done) if how == "cancel" else None)
        if how == "cancel" and not was_done:
            cancelled = model.outcome = future.exception()
            assert isinstance(cancelled, FutureCancelledException)
            assert cancelled.reason == how

    @rule(model=futures)
    def end_an_obligation(self, model: FutureModel) -> None:
        if model.outcome is None and not model.callbacks:
            model.settle(Boom(), self.must_be_called)
            self.here(must_set, model.future, None)
            model.outcome = model.future.exception()
            assert type(model.outcome) is FutureNeverSetException

    @rule(model=futures)
    def settle_in_a_foreign_thread(self, model: FutureModel) -> None:
        with pytest.raises(RuntimeError if model.outcome is None else FutureSetAgainException):
            model.future.set_result(5)

    # ---- callbacks

    @rule(target=callbacks, model=futures, do=st.lists(st.tuples(actions, futures), max_size=4))
    def add_callbacks(self, model: FutureModel, do: list[tuple[str, FutureModel]]) -> MultipleResults[Callback]:
        return multiple(*[self.add_callback(model, does, other) for does, other in do])

    def add_callback(self, model: FutureModel, does: str, other: FutureModel) -> Callback:
        callback = Callback(model, self.called, does, other)
        model.callbacks.append(callback)
        if model.outcome is not None:  # it is called at once
            self.must_be_logged += call_all(model.due(), self.must_be_called)
        model.ever_registered.append(callback)
        self.here(model.future.add_done_callback, callback)
        return callback

    @rule(callback=callbacks)
    def remove_callback(self, callback: Callback) -> None:
        registered = callback.model.callbacks
        count = self.here(callback.model.future.remove_done_callback, callback)
        assert count == registered.count(callback)
        registered[:] = [other for other in registered if other != callback]

    @rule(callback=callbacks)
    def add_and_remove_callback_in_a_foreign_thread(self, callback: Callback) -> None:
        model = callback.model
        if model.outcome is None:
            with pytest.raises(RuntimeError):
                model.future.add_done_callback(callback)
            with pytest.raises(RuntimeError):
                model.future.remove_done_callback(callback)

    # ---- waiting

    def begin(self, wait: Wait, models: list[FutureModel]) -> Wait:
        self.all_waits.append(wait)
        for model in {id(model): model for model in models}.values():
            model.waits.append(wait)
        self.here(self.nursery.start_soon, wait.run)
        return wait

    @rule(target=waits, model=futures)
    def wait_for_one(self, model: FutureModel) -> Wait:
        wait = Wait(model.future.wait_done)
        wait.must_be_over = model.outcome is not None
        return self.begin(wait, [model])

    @rule(
        target=waits,
        models=st.lists(futures, min_size=1, max_size=6),
        how=st.sampled_from([wait_all, wait_any, as_completed]),
    )
    def wait_for_several(self, models: list[FutureModel], how: Any) -> Wait:
        return self.begin(WaitForSeveral(models, how), models)

    @rule(model=futures, how=st.sampled_from([wait_all, wait_any]))
    def wait_in_another_run(self, model: FutureModel, how: Any) -> None:
        async def wait() -> None:
            with trio.fail_after(1):
                await how([model.future])

        if model.outcome is not None:
            trio.run(wait, clock=MockClock(autojump_threshold=0))
        else:
            with pytest.raises(RuntimeError):
                trio.run(wait, clock=MockClock(autojump_threshold=0))

    @rule(wait=waits)
    def leave(self, wait: Wait) -> None:
        wait.must_be_over = wait.left = True
        self.here(wait.scope.cancel)

    @invariant()
    def agree(self) -> None:
        assert self.called == self.must_be_called
        assert [type(error) for error in logged] == [Boom] * self.must_be_logged
        for wait in self.all_waits:
            wait.check()
        for model in self.models:
            check_reads(model.future, model.outcome)
            assert is_free(model.future) == (model.outcome is not None or model.is_free())

    def teardown(self) -> None:
        for wait in self.all_waits:
            self.here(wait.scope.cancel)


async def test_futures_agree_with_their_model() -> None:
    await play(FutureMachine)


def must_set(future: Future[int], error: Exception | None) -> None:
    with future.must_set():
        if error is not None:
            raise error


# ---- captures


class CaptureModel:
    """A capture, the task that runs it, and how both have to end."""

    def __init__(self, suppress: bool, scope: trio.CancelScope | None, raising: int) -> None:
        self.suppress = suppress
        self.begun = 0
        self.send, self.receive = trio.open_memory_channel[Any](1)
        self.capture = ResultCapture(self.routine, suppress_exception=suppress, cancel_scope=scope)
        self.scope = trio.CancelScope()  # around the nursery
        self.raised: list[BaseException] = []  # by the nursery
        self.ended = False
        self.raising = raising  # how many of its callbacks raise
        self.settles = Future[int]()  # a future that another callback settles
        self.running = False
        self.outcome: Outcome = None
        self.must_raise: list[type[BaseException]] = []

    async def routine(self) -> int:
        self.begun += 1
        answer = await self.receive.receive()
        if isinstance(answer, BaseException):
            raise answer
        return int(answer)

    async def run(self) -> None:
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.capture.run)
        except BaseException as group:
            self.raised += leaves(group)
        finally:
            self.ended = True

    def register(self) -> None:
        for _ in range(self.raising):
            self.capture.add_done_callback(self.fail)
        self.capture.add_done_callback(self.settle)

    def fail(self, _capture: ResultCapture[int]) -> None:
        raise Boom

    def settle(self, capture: ResultCapture[int]) -> None:
        assert capture.is_done()
        self.settles.set_result(3)

    def end(self, outcome: Outcome, *, raises: bool) -> None:
        self.outcome = outcome
        self.must_raise = [type(outcome)] * raises


class CaptureMachine(OnTrio):
    captures = Bundle("captures")  # those that aren't running yet
    running = Bundle("running")
    ended = Bundle("ended")
    kinds = st.tuples(st.booleans(), st.booleans(), st.integers(0, 2))

    def __init__(self) -> None:
        super().__init__()
        self.models: list[CaptureModel] = []
        self.waits: list[tuple[CaptureModel, Wait]] = []

    @initialize(target=running, made=st.lists(kinds, min_size=5, max_size=5))
    def begin_with_some(self, made: list[tuple[bool, bool, int]]) -> MultipleResults[CaptureModel]:
        return multiple(*[self.start(self.make(*kind)) for kind in made])

    @rule(target=captures, kind=kinds)
    def make_one(self, kind: tuple[bool, bool, int]) -> CaptureModel:
        return self.make(*kind)

    def make(self, suppress: bool, scoped: bool, raising: int) -> CaptureModel:
        model = self.here(CaptureModel, suppress, trio.CancelScope() if scoped else None, raising)
        self.here(model.register)
        self.models.append(model)
        return model

    @rule(target=running, model=consumes(captures))
    def start_one(self, model: CaptureModel) -> CaptureModel:
        return self.start(model)

    def start(self, model: CaptureModel) -> CaptureModel:
        model.running = True
        self.here(self.nursery.start_soon, model.run)
        return model

    @rule(model=running)
    def run_again(self, model: CaptureModel) -> None:
        async def run() -> None:
            with trio.fail_after(1):
                await model.capture.run()

        with pytest.raises(FutureSetAgainException):
            trio.from_thread.run(run)

    @rule(model=captures | running)
    def run_in_another_run(self, model: CaptureModel) -> None:
        with pytest.raises((FutureSetAgainException, RuntimeError)):
            trio.run(model.capture.run)

    @rule(target=ended, model=consumes(running), value=st.integers(1, 9))
    def return_value(self, model: CaptureModel, value: int) -> CaptureModel:
        model.end(value, raises=False)
        self.here(model.send.send_nowait, value)
        return model

    @rule(target=ended, model=consumes(running), error=st.sampled_from([Boom, KeyError]))
    def fail(self, model: CaptureModel, error: type[Exception]) -> CaptureModel:
        made = error()
        model.end(made, raises=not model.suppress)
        self.here(model.send.send_nowait, made)
        return model

    @rule(target=ended, model=consumes(running))
    def cancel(self, model: CaptureModel) -> CaptureModel:
        """Cancel only the capture if it has its own scope, and otherwise the nursery around it."""
        self.here((model.capture.cancel_scope or model.scope).cancel)
        model.end(model.capture.exception(), raises=False)
        assert isinstance(model.outcome, trio.Cancelled)
        return model

    @rule(model=ended)
    def run_once_more(self, model: CaptureModel) -> None:
        self.run_again(model)
        self.run_in_another_run(model)

    @rule(model=captures | running | ended)
    def wait_for_it(self, model: CaptureModel) -> None:
        wait = Wait(model.capture.wait_done)
        self.waits.append((model, wait))
        self.here(self.nursery.start_soon, wait.run)

    @rule(model=running)
    def leave(self, model: CaptureModel) -> None:
        for waited_for, wait in self.waits:
            if waited_for is model:
                wait.must_be_over = True
                self.here(wait.scope.cancel)

    @invariant()
    def agree(self) -> None:
        for model in self.models:
            done = model.outcome is not None
            check_reads(model.capture, model.outcome)
            assert model.begun == model.running
            assert model.ended == done
            assert sorted(map(str, map(type, model.raised))) == sorted(map(str, model.must_raise))
            assert model.settles.is_done() == done
            assert is_free(model.capture) == done
        for model, wait in self.waits:
            wait.must_be_over |= model.outcome is not None
            wait.check()

    def teardown(self) -> None:
        for model in self.models:
            self.here(model.scope.cancel)
            with suppress(RuntimeError):
                self.here(model.capture.remove_done_callback, model.settle)
        for _, wait in self.waits:
            self.here(wait.scope.cancel)


async def test_captures_agree_with_their_model() -> None:
    await play(CaptureMachine)


# ---- requests in flight


class LostError(Exception):
    """What the requests of some maps get when the reader has ended; its argument is the cause."""


class Request:
    """A task that makes one request and leaves when it may, and how it has to end."""

    def __init__(self, requests: FutureMap[int, int], key: int, given: list[Future[int]]) -> None:
        self.requests = requests
        self.key = key
        self.given = given  # the future to register, if there is one
        self.future: Future[int] | None = None
        self.scope = trio.CancelScope()
        self.may_leave = trio.Event()
        self.raised: Exception | None = None
        self.over = False
        self.must_be_over = False
        self.outcome: Outcome = None
        self.must_raise: Outcome = None  # on entering the block

    async def run(self) -> None:
        try:
            with self.scope, self.requests.expect(self.key, *self.given) as future:
                self.future = future
                await future.wait_done()
                await self.may_leave.wait()
        except Exception as error:
            self.raised = error
        self.over = True

    def check(self) -> None:
        assert self.over == self.must_be_over
        check_end(self.raised, self.must_raise)
        if self.future is not None:
            check_end(self.future.exception() or self.future.result() if self.future.is_done() else None, self.outcome)


def check_end(end: object, model: Outcome) -> None:
    """Compare how something ended with the model: an object, or the type of an exception, or that and its cause."""
    if isinstance(model, tuple):
        assert isinstance(end, BaseException)
        assert (type(end), *(end.args if isinstance(end, LostError) else (end.__cause__,))) == model
    elif isinstance(model, type):
        assert type(end) is model
    else:
        assert end is model


class FutureMapMachine(OnTrio):
    keys = st.integers(0, 1)
    endings = st.sampled_from(["return", "exception", "cancellation"])

    @initialize(own_error=st.booleans(), began=st.booleans())
    def begin_with_one(self, own_error: bool, began: bool) -> None:
        self.lost: type[Exception] = LostError if own_error else FutureNeverSetException
        self.requests: FutureMap[int, int] = FutureMap(lost=LostError if own_error else None)
        self.table: dict[int, Request] = {}
        self.all: list[Request] = []
        self.reader = "not started"
        self.reader_scope = trio.CancelScope()
        self.ends: list[Exception] = []  # what the reader has to raise
        self.may_end = trio.Event()
        self.cause: BaseException | None = None
        if began:
            self.begin()

    async def read(self) -> None:
        with suppress(Boom), self.reader_scope, self.requests:
            try:
                await self.may_end.wait()
                for error in self.ends:
                    raise error
            except BaseException as cause:
                self.cause = cause
                raise

    @rule()
    def begin(self) -> None:
        if self.reader == "not started":
            self.reader = "reading"
            self.here(self.nursery.start_soon, self.read)
        else:
            with pytest.raises(RuntimeError):
                self.here(self.requests.__enter__)

    @rule()
    def begin_in_a_foreign_thread(self) -> None:
        with pytest.raises(RuntimeError):
            self.requests.__enter__()

    @rule(how=endings)
    def end(self, how: str) -> None:
        if self.reader != "reading":
            return
        self.reader = "ended"
        if how == "exception":
            self.ends.append(Boom())
        self.here(self.reader_scope.cancel if how == "cancellation" else self.may_end.set)
        for request in self.table.values():
            request.outcome = request.outcome or (self.lost, self.cause)

    @rule(key=keys, own=st.booleans(), answered=st.booleans())
    def make_request(self, key: int, own: bool, answered: bool) -> None:
        request = Request(self.requests, key, [self.here(Future[int])] if own else [])
        self.all.append(request)
        before = self.table.get(key)
        if self.reader == "ended":
            request.must_raise = (self.lost, self.cause)
            request.must_be_over = True
        elif before is not None and before.outcome is None:
            request.must_raise = ValueError
            request.must_be_over = True
        else:
            self.table.pop(key, None)
            self.table[key] = request
        self.here(self.nursery.start_soon, request.run)
        if answered:
            self.answer(key, 0)

    @rule(key=keys)
    def make_request_in_a_foreign_thread(self, key: int) -> None:
        if self.reader == "reading":
            with pytest.raises(RuntimeError):
                self.requests.expect(key).__enter__()

    @rule(key=keys, kind=st.integers(0, 3))
    def answer(self, key: int, kind: int) -> None:
        error = Boom()
        settle = [
            partial(self.requests.set_result, key, 1),
            partial(self.requests.set_exception, key, error),
            partial(self.requests.set_outcome, key, outcome.Value(1)),
            partial(self.requests.set_outcome, key, outcome.Error(error)),
        ][kind]
        request = self.table.get(key)
        waiting = request is not None and request.outcome is None
        if request is not None and waiting:
            request.outcome = error if kind % 2 else 1
        assert self.here(settle) == waiting

    @rule(number=st.integers(0, 9))
    def leave(self, number: int) -> None:
        """Make one request leave: on its own if it has its answer, otherwise by being cancelled."""
        here = [request for request in self.all if not request.must_be_over]
        if not here:
            return
        request = here[number % len(here)]
        request.must_be_over = True
        if request.outcome is None:
            request.outcome = (FutureNeverSetException, None)
            self.here(request.scope.cancel)
        else:
            self.here(request.may_leave.set)
        if self.table.get(request.key) is request:
            del self.table[request.key]

    @invariant()
    def agree(self) -> None:
        for request in self.all:
            request.check()
        assert dict(self.requests) == {key: request.future for key, request in self.table.items()}
        assert list(self.requests) == list(self.table)
        assert self.requests.closed == (self.reader == "ended")
        assert repr(self.requests) == f"FutureMap(in_flight={len(self.table)}, reader={self.reader!r})"

    def teardown(self) -> None:
        for request in self.all:
            self.here(request.scope.cancel)
        self.here(self.reader_scope.cancel)
        assert not self.requests


async def test_future_maps_agree_with_their_model() -> None:
    await play(FutureMapMachine)


# ---- shared work


class Flight:
    """A shared call that ends on command, and what the model knows about it."""

    def __init__(self, key: int) -> None:
        self.key = key
        self.may_end = trio.Event()
        self.may_clean_up = trio.Event()
        self.error: Exception | None = None
        self.callers: list[FlightCaller] = []
        self.state = "running"

    async def __call__(self) -> Flight:
        assert self.state == "running"
        try:
            await self.may_end.wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self.may_clean_up.wait()
            self.state = "ended"
            if self.error is not None:
                raise self.error from None
            raise
        self.state = "ended"
        if self.error is not None:
            raise self.error
        return self


class FlightCaller:
    """A task that makes a call, what it saw, and what it has to see."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.sees: list[object] = []
        self.must_see: list[object] = []
        self.leaving = False

    async def run(self, flights: SingleFlight[int, Flight], key: int, fn: Callable[[], Awaitable[Flight]]) -> None:
        with self.scope:
            try:
                self.sees.append(await flights.run(key, fn))
            except TaskCancelledException:
                self.sees.append("the block has ended")
            except RuntimeError:
                self.sees.append("refused")
            except Boom as error:
                self.sees.append(error)
            except trio.Cancelled:
                self.sees.append("cancelled")
                raise


async def unwanted() -> Flight:
    raise AssertionError("this call should have joined a flight")


class SingleFlightMachine(OnTrio):
    acts = st.one_of(
        st.tuples(st.just("leave"), st.integers(0, 9)), st.tuples(st.just("end"), st.integers(0, 9), st.booleans())
    )

    @initialize(is_open=st.booleans())
    def begin_with_one(self, is_open: bool) -> None:
        self.flights: SingleFlight[int, Flight] = SingleFlight()
        self.table: dict[int, Flight] = {}  # those that can be joined
        self.all: list[Flight] = []
        self.callers: list[FlightCaller] = []
        self.may_close = trio.Event()
        self.ends: list[Exception] = []  # what the block has to raise
        self.block = "closed"
        if is_open:
            self.open()

    async def host(self) -> None:
        try:
            async with self.flights:
                await self.may_close.wait()
                for error in self.ends:
                    raise error
        except Boom as error:
            assert self.ends == [error]
        self.block = "closed"

    @rule()
    def open(self) -> None:
        if self.block == "closed":
            self.may_close = trio.Event()
            self.ends.clear()
            self.block = "open"
            self.here(self.nursery.start_soon, self.host)
        else:
            with pytest.raises(RuntimeError):
                trio.from_thread.run(self.flights.__aenter__)

    @rule(fails=st.booleans())
    def close(self, fails: bool) -> None:
        if self.block != "open":
            return
        self.block = "closing"  # until the cancelled tasks have cleaned up
        if fails:
            self.ends.append(Boom())
        flights = list(self.table.values())
        self.table.clear()
        for flight in flights:
            flight.state = "cancelled"
        self.here(self.may_close.set)

    @rule(key=st.integers(0, 1), in_cancelled_scope=st.booleans())
    def call(self, key: int, in_cancelled_scope: bool) -> None:
        caller = FlightCaller()
        self.callers.append(caller)
        flight = self.table.get(key)
        new = flight is None
        if in_cancelled_scope or self.block != "open":
            caller.must_see.append("refused" if self.block != "open" else "cancelled")
            flight = flight or Flight(key)
        else:
            if flight is None:
                flight = self.table[key] = Flight(key)
                self.all.append(flight)
            flight.callers.append(caller)
        if in_cancelled_scope:
            self.here(caller.scope.cancel)
        self.here(self.nursery.start_soon, caller.run, self.flights, key, flight if new else unwanted)

    @rule(acts=st.lists(acts, min_size=1, max_size=4))
    def act(self, acts: list[tuple[Any, ...]]) -> None:
        """Make callers leave and flights end in one tick."""
        self.here(self.do, acts)

    def do(self, acts: list[tuple[Any, ...]]) -> None:
        for name, *arguments in acts:
            getattr(self, f"do_{name}")(*arguments)
        for key, flight in list(self.table.items()):
            for caller in [caller for caller in flight.callers if caller.leaving]:
                flight.callers.remove(caller)
                caller.must_see.append("cancelled")
            ending = flight.may_end.is_set()
            if ending:
                for caller in flight.callers:
                    caller.must_see.append(flight if flight.error is None else flight.error)
            elif not flight.callers:
                flight.state = "cancelled"
            if ending or not flight.callers:
                del self.table[key]

    def do_leave(self, number: int) -> None:
        waiting = [caller for flight in self.table.values() for caller in flight.callers]
        if waiting:
            caller = waiting[number % len(waiting)]
            caller.leaving = True
            caller.scope.cancel()

    def do_end(self, number: int, fails: bool) -> None:
        running = [flight for flight in self.table.values() if not flight.may_end.is_set()]
        if running:
            flight = running[number % len(running)]
            flight.error = Boom() if fails else None
            flight.may_end.set()

    @rule(number=st.integers(0, 9), fails=st.booleans())
    def clean_up(self, number: int, fails: bool) -> None:
        cancelled = [flight for flight in self.all if flight.state == "cancelled"]
        if cancelled:
            flight = cancelled[number % len(cancelled)]
            flight.error = Boom() if fails else None
            for caller in flight.callers:  # those that were still waiting when the block ended
                caller.must_see.append(flight.error or "the block has ended")
            self.here(flight.may_clean_up.set)

    @rule()
    def call_in_another_run(self) -> None:
        async def call() -> None:
            with pytest.raises(RuntimeError):
                await self.flights.run(0, unwanted)

        trio.run(call)

    @invariant()
    def agree(self) -> None:
        assert repr(self.flights) == f"SingleFlight(in_flight={len(self.table)})"
        assert [caller.sees for caller in self.callers] == [caller.must_see for caller in self.callers]
        cleaning_up = any(flight.state == "cancelled" for flight in self.all)
        assert self.block != "closing" or cleaning_up

    def teardown(self) -> None:
        self.here(self.end)
        assert self.block == "closed"

    def end(self) -> None:
        for flight in self.all:
            flight.may_clean_up.set()
        self.may_close.set()


async def test_single_flights_agree_with_their_model() -> None:
    await play(SingleFlightMachine)
