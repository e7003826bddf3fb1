"""The pytest plugin: each rule, each runner, the marker, and what it costs. Each test runs a small test suite."""

from __future__ import annotations

import logging
import signal
import textwrap
import tracemalloc
from typing import Any, Protocol

import pytest

from triores import ResultCapture, debug
from triores._result import ResultBase

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.leaves_results  # the small suites do so in this process, which may run under the plugin itself

HEAD = """import concurrent.futures, contextlib, copy, gc, unittest, weakref
from functools import partial

import pytest
import trio
import trio.testing
from triores import *

kept = []  # for as long as the suite runs


async def fail():
    raise ValueError("bad page")


async def suppressed_failure():
    async with trio.open_nursery() as nursery:
        return ResultCapture.start_soon(nursery, fail, suppress_exception=True)


@pytest.fixture
def box():
    return []
"""
INI = """
[pytest]
addopts = --disable-plugin-autoload --strict-markers -p {}
filterwarnings = error
"""
TRIO = "pytest_trio.plugin\ntrio_mode = true"
ANYIO = "anyio.pytest_plugin"


class RunSuite(Protocol):
    def __call__(self, source: str, *args: str, runner: str = TRIO, **outcomes: int) -> str: ...


@pytest.fixture
def run_suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> RunSuite:
    """Run tests under the plugin, check their outcomes, and return the report."""
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # coverage's hooks may warn in worker processes

    def run_suite(source: str, *args: str, runner: str = TRIO, **outcomes: int) -> str:
        pytester.makeini(INI.format(runner))
        pytester.makepyfile(test_it=HEAD + textwrap.dedent(source))
        # Without the summary, which repeats the whole text of a failure if the variable CI is set.
        ran = pytester.runpytest_inprocess("-p", "triores.pytest_plugin", "-rN", *args)
        ran.assert_outcomes(**outcomes)
        return ran.stdout.str()

    return run_suite


# ---- pending results


def test_a_pending_result_that_something_still_refers_to_fails_the_test(run_suite: RunSuite) -> None:
    report = run_suite(
        """
        async def test_it():
            kept.append(Future())  # the first
            kept.append(ResultCapture(fail))
        """,
        passed=1,
        errors=1,
    )
    line = HEAD.count("\n") + 3
    assert "results left behind: 2\n" in report
    assert "Future(is_done=False) is pending, and something still refers to it\n" in report
    assert f"test_it.py:{line}, in test_it\n" in report
    assert "ResultCapture(routine=fail, args=(), is_done=False) is pending, and" in report
    assert f"test_it.py:{line + 1}, in test_it\n" in report
    assert "mark the test with '@pytest.mark.leaves_results'" in report


def test_a_pending_result_that_nothing_refers_to_is_allowed(run_suite: RunSuite) -> None:
    run_suite(
        """
        async def test_freed_at_once():
            Future()


        async def test_freed_by_a_garbage_collection():
            future = Future()
            future.add_done_callback(lambda _: future)
        """,
        passed=2,
    )


def test_a_result_that_is_settled_or_read_later_in_the_test_is_allowed(run_suite: RunSuite) -> None:
    run_suite(
        """
        async def test_it():
            kept.append(Future())
            kept.append(await suppressed_failure())
            kept[0].set_exception(OSError())  # a future suppresses nothing
            kept[1].exception()
        """,
        passed=1,
    )


def test_results_that_triores_makes_for_the_test_count_too(run_suite: RunSuite) -> None:
    report = run_suite(
        """
        async def make():
            kept.append(Future())


        async def test_inside_a_call():
            await gather(make)


        async def test_wrapped():
            kept.append(wrap_future(concurrent.futures.Future()))


        async def test_expected():
            expecting = FutureMap().expect("a")
            kept.append(expecting.__enter__())
            kept.append(expecting)


        async def test_with_a_type():
            kept.append(Future[int]())
        """,
        passed=4,
        errors=4,
    )
    for name in ("make", "test_wrapped", "test_expected", "test_with_a_type"):
        assert f", in {name}\n" in report


def test_the_report_counts_waiters_and_callbacks(run_suite: RunSuite) -> None:
    report = run_suite(
        """
        async def test_it():
            kept.append(Future())
            kept.append(as_completed(kept))
            kept[0].add_done_callback(print)
            kept[0].add_done_callback(print)
        """,
        passed=1,
        errors=1,
    )
    assert "waits: 1, callbacks: 2\n" in report


def test_the_report_names_the_waiting_tasks_if_they_are_still_running(
    run_suite: RunSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debug, "_PATIENCE", 0)  # the run gets no turn, so it can't answer
    report = run_suite(
        """
        pytestmark = pytest.mark.anyio


        @pytest.fixture(scope="module")
        def anyio_backend():
            return "trio"


        @pytest.fixture(scope="module")
        async def server(anyio_backend):
            async with trio.open_nursery() as nursery:
                yield nursery
                nursery.cancel_scope.cancel()


        async def test_it(server):
            server.start_soon(Future().wait_done, name="the task that hangs")
            await trio.testing.wait_all_tasks_blocked()


        async def test_another(server):
            pass
        """,
        runner=ANYIO,
        passed=2,
        errors=1,
    )
    assert "    waits: 1, callbacks: 0\n        task the task that hangs\n" in report


def test_with_tracemalloc_the_report_shows_the_calls_that_made_the_result(
    run_suite: RunSuite, request: pytest.FixtureRequest
) -> None:
    tracemalloc.start(5)
    request.addfinalizer(tracemalloc.stop)
    report = run_suite(
        """
        def make():
            kept.append(Future())


        async def test_it():
            make()
        """,
        passed=1,
        errors=1,
    )
    assert "in make\n" in report
    assert "        make()\n" in report


def test_a_long_list_is_shortened(run_suite: RunSuite) -> None:
    report = run_suite("def test_it(): kept.extend(Future() for _ in range(1000))", passed=1, errors=1)
    assert "results left behind: 1000\n" in report
    assert report.count("is pending") == 10
    assert "\nand 990 more\n" in report


# ---- suppressed failures


def test_a_suppressed_failure_that_nobody_reads_fails_the_test_even_if_the_result_is_gone(run_suite: RunSuite) -> None:
    report = run_suite(
        """
        async def test_it():
            await suppressed_failure()


        async def test_one_type():
            async with trio.open_nursery() as nursery:
                ResultCapture.start_soon(nursery, fail, suppress_exception=(OSError, ValueError))
        """,
        passed=2,
        errors=2,
    )
    text = "exception=ValueError('bad page')) failed; the exception was suppressed and never read\n"
    assert report.count(text) == 2
    assert "in suppressed_failure\n" in report


def test_a_failure_that_reaches_the_nursery_is_allowed(run_suite: RunSuite) -> None:
    run_suite(
        """
        async def test_it():
            with pytest.RaisesGroup(ValueError):
                async with trio.open_nursery() as nursery:
                    ResultCapture.start_soon(nursery, fail)
            with pytest.RaisesGroup(ValueError):
                async with trio.open_nursery() as nursery:
                    ResultCapture.start_soon(nursery, fail, suppress_exception=OSError)
        """,
        passed=1,
    )


def test_each_way_to_read_a_failure_counts(run_suite: RunSuite) -> None:
    run_suite(
        """
        async def awaited(capture):
            await capture


        async def outcome(capture):
            capture.outcome


        async def called_back(capture):
            capture.add_done_callback(ResultBase.exception)


        reads = [ResultBase.result, ResultBase.unwrap, ResultBase.exception, copy.copy]


        @pytest.mark.parametrize("read", [*reads, awaited, outcome, called_back])
        async def test_it(read):
            capture = await suppressed_failure()
            with contextlib.suppress(ValueError, TaskFailedException):
                awaiting = read(capture)
                if read not in reads:
                    await awaiting
        """,
        passed=7,
    )


def test_a_failure_that_is_read_in_a_callback_counts_as_read(run_suite: RunSuite) -> None:
    run_suite(
        """
        async def test_it():
            async with trio.open_nursery() as nursery:
                capture = ResultCapture.start_soon(nursery, fail, suppress_exception=True)
                capture.add_done_callback(ResultBase.exception)
        """,
        passed=1,
    )


def test_looking_at_a_result_does_not_count_as_reading_its_failure(run_suite: RunSuite) -> None:
    run_suite(
        """
        @pytest.mark.parametrize("look", [ResultBase.is_done, ResultBase.cancelled, repr, "{:#}".format])
        async def test_it(look):
            look(await suppressed_failure())


        async def test_to_wait():
            capture = await suppressed_failure()
            await capture.wait_done()
            await wait_all([capture])
        """,
        passed=5,
        errors=5,
    )


def test_reading_too_early_does_not_count_as_reading_the_failure(run_suite: RunSuite) -> None:
    run_suite(
        """
        async def test_it():
            async with trio.open_nursery() as nursery:
                capture = ResultCapture.start_soon(nursery, fail, suppress_exception=True)
                with pytest.raises(TaskNotDoneException):
                    capture.exception()
        """,
        passed=1,
        errors=1,
    )


# ---- what doesn't count


def test_results_that_triores_makes_for_itself_do_not_count(run_suite: RunSuite) -> None:
    run_suite(
        """
        async def item_fails(item):
            await trio.lowlevel.checkpoint()
            raise ValueError


        async def succeed():
            await trio.lowlevel.checkpoint()


        async def test_fan_out():
            await gather_outcomes(fail, fail)
            await first_success(fail, succeed)


        async def test_maps():
            async with open_amap(item_fails, range(3), limit=None, suppress_exception=True) as results:
                async for result in results:
                    kept.append(result)


        async def test_an_abandoned_flight():
            async with SingleFlight() as flights:
                with trio.move_on_after(0):
                    await flights.run("key", fail)


        async def test_from_a_thread():
            async with trio.open_nursery() as nursery:
                token = trio.lowlevel.current_trio_token()
                start = partial(start_from_thread, nursery, succeed, trio_token=token)
                kept.append(await trio.to_thread.run_sync(start))
        """,
        passed=4,
    )


def test_results_made_by_fixtures_do_not_count(run_suite: RunSuite) -> None:
    run_suite(
        """
        @pytest.fixture
        def future():
            kept.append(Future())
            yield kept[-1]
            kept.append(Future())


        def test_it(future):
            pass
        """,
        passed=1,
    )


def test_fixtures_may_settle_read_and_drop_results_of_the_test(run_suite: RunSuite) -> None:
    run_suite(
        """
        @pytest.fixture
        def settled(box):
            yield box
            kept.extend(box)
            box[0].set_result(None)
            box[1].exception()


        def test_settled_by_the_teardown(settled):
            async def main():
                settled.append(Future())
                settled.append(await suppressed_failure())

            trio.run(main)


        def test_held_by_a_fixture_alone(box):
            box.append(Future())
        """,
        passed=2,
    )


def test_results_in_log_records_of_the_test_do_not_count(run_suite: RunSuite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # the outer test suite keeps log records
    run_suite(
        """
        import logging


        def test_it():
            logging.getLogger().warning("%s", Future())
        """,
        passed=1,
    )


def test_nothing_is_reported_for_a_test_that_did_not_pass(run_suite: RunSuite) -> None:
    report = run_suite(
        """
        def test_fails():
            kept.append(Future())
            assert False


        @pytest.mark.xfail
        def test_fails_as_expected():
            kept.append(Future())
            assert False


        def test_skips():
            kept.append(Future())
            pytest.skip()


        def test_fails_in_a_subtest(subtests):
            kept.append(Future())
            with subtests.test():
                assert False


        @pytest.fixture
        def broken():
            yield
            assert False


        def test_whose_teardown_fails(broken):
            kept.append(Future())


        @pytest.fixture
        def broken_at_once():
            assert False


        def test_whose_setup_fails(broken_at_once):
            pass
        """,
        failed=3,
        xfailed=1,
        skipped=1,
        passed=1,
        errors=2,
    )
    assert "left behind" not in report


def test_each_attempt_at_a_test_is_checked_separately(pytester: pytest.Pytester, run_suite: RunSuite) -> None:
    pytester.makeconftest(
        """
        from _pytest.runner import runtestprotocol

        def pytest_runtest_protocol(item):
            runtestprotocol(item, log=False)
            for report in runtestprotocol(item, log=False):
                item.ihook.pytest_runtest_logreport(report=report)
            return True
        """
    )
    run_suite(
        """
        def test_it():
            if not kept:
                kept.append(Future())
        """,
        passed=1,
    )


# ---- the marker


def test_the_marker_turns_the_check_off(run_suite: RunSuite) -> None:
    run_suite(
        """
        @pytest.mark.leaves_results
        async def test_marked():
            kept.append(Future())
            await suppressed_failure()


        @pytest.mark.leaves_results
        class TestMarked:
            def test_it(self):
                kept.append(Future())


        def test_not_marked():
            kept.append(Future())
        """,
        passed=3,
        errors=1,
    )


def test_the_marker_is_documented(pytester: pytest.Pytester) -> None:
    listed = pytester.runpytest_inprocess("--disable-plugin-autoload", "-p", "triores.pytest_plugin", "--markers")
    assert "@pytest.mark.leaves_results: the test may leave" in listed.stdout.str()


# ---- runners


ASYNC = """
async def test_leaves_nothing():
    future = Future()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(future.wait_done)
        future.set_result(None)
    (await suppressed_failure()).exception()


async def test_leaves_a_future():
    kept.append(Future())


async def test_leaves_a_failure():
    await suppressed_failure()
"""


def test_the_plugin_works_with_pytest_trio_and_its_fixtures(run_suite: RunSuite) -> None:
    run_suite(
        ASYNC
        + """

@pytest.fixture
async def server(nursery):
    future = Future()
    ResultCapture.start_soon(nursery, future.wait_done, suppress_exception=True)
    yield future
    future.set_result(None)


async def test_with_a_fixture(server):
    kept.append(server)
""",
        passed=4,
        errors=2,
    )


def test_the_plugin_works_with_anyios_plugin(run_suite: RunSuite) -> None:
    run_suite(
        """
        pytestmark = pytest.mark.anyio


        @pytest.fixture(scope="module")
        def anyio_backend():
            return "trio"


        @pytest.fixture(scope="module")
        async def waiting(anyio_backend):
            waiting = Future()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waiting.wait_done)
                yield waiting
                waiting.set_result(None)


        async def test_with_a_fixture(waiting):
            pass
        """
        + textwrap.indent(ASYNC, " " * 8),
        runner=ANYIO,
        passed=4,
        errors=2,
    )


def test_the_plugin_works_with_tests_that_call_trio_run(run_suite: RunSuite) -> None:
    run_suite(
        ASYNC.replace("async def test_", "async def ")
        + """

@pytest.mark.parametrize("main", [leaves_nothing, leaves_a_future, leaves_a_failure])
def test_it(main):
    trio.run(main)


class TestCase(unittest.TestCase):
    def test_it(self):
        trio.run(leaves_nothing)

    def test_left(self):
        self.future = Future()
        kept.append(self)
""",
        passed=5,
        errors=3,
    )


def test_the_plugin_works_in_worker_processes_of_xdist(run_suite: RunSuite) -> None:
    report = run_suite(ASYNC, "-p", "xdist.plugin", "-n", "1", passed=3, errors=2)
    assert "Future(is_done=False) is pending" in report


# ---- time limits


HANGS = """
import signal

import pytest_timeout
import trio.testing


async def wait_for(future):
    await future


async def hang(end):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for, Future())
        await trio.testing.wait_all_tasks_blocked()
        await end()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="Windows has no SIGALRM")
def test_if_a_test_times_out_its_report_contains_the_dump(run_suite: RunSuite) -> None:
    report = run_suite(
        HANGS
        + """

async def test_it():
    async def ring():
        signal.raise_signal(signal.SIGALRM)

    await hang(ring)
""",
        *("-p", "pytest_timeout", "--timeout=600"),
        failed=1,
    )
    assert "Timeout (>600.0s) from pytest-timeout" in report
    assert "wait_for" in report.partition("- Captured triores.debug call -")[2]


def test_if_a_timeout_ends_the_process_the_dump_is_printed(pytester: pytest.Pytester) -> None:
    pytester.makeini(INI.format(TRIO))
    pytester.makepyfile(
        test_it=HEAD
        + HANGS
        + """

async def test_it(request):
    settings = pytest_timeout._get_item_settings(request.node)
    await hang(partial(trio.to_thread.run_sync, pytest_timeout.timeout_timer, request.node, settings))
"""
    )
    ran = pytester.runpytest_subprocess("-p", "triores.pytest_plugin", "-p", "pytest_timeout")
    assert ran.ret == 1
    assert "wait_for" in ran.stdout.str().partition("Stack of MainThread")[2]


# ---- what it costs


def test_the_plugin_keeps_no_results_alive(run_suite: RunSuite) -> None:
    run_suite(
        """
        class Error(Exception):
            pass


        async def raise_it():
            raise Error


        async def test_it():
            gc.disable()
            try:
                future = Future()
                future.add_done_callback(lambda result: None)
                with contextlib.suppress(TaskNotDoneException):
                    future.result()
                async with trio.open_nursery() as nursery:
                    captures = [
                        ResultCapture.start_soon(nursery, raise_it, suppress_exception=True) for _ in range(2)
                    ]
                captures[0].exception()
                with contextlib.suppress(Error):
                    captures[1].unwrap()
                refs = [weakref.ref(obj) for obj in (future, *captures, *map(ResultBase.exception, captures))]
                del future, captures
                assert [ref() for ref in refs] == [None] * 5
            finally:
                gc.enable()
        """,
        passed=1,
    )


def test_the_plugin_runs_the_garbage_collector_only_if_a_pending_result_is_alive(run_suite: RunSuite) -> None:
    run_suite(
        """
        @pytest.fixture(scope="module")
        def collections():
            with pytest.MonkeyPatch.context() as patch:
                collections = []
                collect = gc.collect
                patch.setattr(gc, "collect", lambda: collections.append(collect()))
                yield collections


        async def test_done_and_freed(collections):
            Future()
            kept.append(Future())
            kept[0].set_result(None)
            (await suppressed_failure()).exception()


        def test_a_cycle(collections):
            assert not collections
            future = Future()
            cycle = [future]
            cycle.append(cycle)


        def test_collected_once(collections):
            assert len(collections) == 1
        """,
        passed=3,
    )


def replaced() -> list[object]:
    base: Any = ResultBase
    capture: Any = ResultCapture
    return [base.__init__, base._done, capture._settle_failure]


def test_however_a_suite_ends_all_patched_methods_are_restored(pytester: pytest.Pytester, run_suite: RunSuite) -> None:
    before = replaced()
    run_suite(
        """
        import triores


        def test_it():
            assert ResultBase.__init__.__globals__["__name__"] == "triores.pytest_plugin"


        @pytest.mark.leaves_results
        def test_marked():
            assert ResultBase.__init__.__globals__["__name__"] == "triores._result"


        def test_that_ends_the_suite():
            pytest.exit("enough")
        """,
        passed=2,
    )
    assert replaced() == before
