"""Waiting for what is not there yet."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
import structlog
from speech_lib.errors import BrokerUnavailable, RegistryUnavailable, SchemaRefused
from speech_lib.service.startup import Stopped, _Report, wait_for
from structlog.testing import CapturingLogger
from tenacity import Future, RetryCallState


def wait(attempt: Callable[[], object], log: CapturingLogger | None = None) -> object:
    """Wait for an attempt that fails for want of the registry or the broker."""

    async def scenario() -> object:
        return await wait_for(
            "schema",
            attempt,
            retry_on=(RegistryUnavailable, BrokerUnavailable),
            log=log or CapturingLogger(),
            stop=asyncio.Event(),
        )

    return asyncio.run(scenario())


def failing(times: int, error: Exception) -> Callable[[], str]:
    """Return an attempt that fails so many times and then returns "there"."""
    left = iter([error] * times)

    def attempt() -> str:
        if (this := next(left, None)) is not None:
            raise this
        return "there"

    return attempt


def test_what_is_there_is_returned_without_a_line() -> None:
    """The first attempt is made at once, and success is for the service to log."""
    log = CapturingLogger()
    assert wait(failing(0, BrokerUnavailable("x")), log) == "there"
    assert log.calls == []


def test_failed_attempts_are_repeated_with_one_line() -> None:
    """Two attempts within two seconds make one line: the kind of the error, and no text of it."""
    log = CapturingLogger()
    assert wait(failing(2, BrokerUnavailable("_TRANSPORT")), log) == "there"
    assert [(call.method_name, call.args, call.kwargs) for call in log.calls] == [
        (
            "warning",
            ("waiting",),
            {
                "what": "schema",
                "attempt": 1,
                "error": "BrokerUnavailable",
                "reason": "_TRANSPORT",
            },
        )
    ]


def test_error_that_waiting_does_not_change_is_raised() -> None:
    """A refusal ends the wait at the first attempt."""
    attempts = []

    def attempt() -> None:
        attempts.append(1)
        raise SchemaRefused("no")

    with pytest.raises(SchemaRefused, match="no"):
        wait(attempt)
    assert len(attempts) == 1


def test_stop_ends_the_wait_although_an_attempt_is_blocking() -> None:
    """The caller goes on at once; the thread ends by itself later."""
    entered, release = threading.Event(), threading.Event()

    def attempt() -> None:
        entered.set()
        release.wait(10)

    async def scenario() -> bool:
        stop = asyncio.Event()
        waiting = asyncio.ensure_future(
            wait_for("x", attempt, retry_on=(), log=CapturingLogger(), stop=stop)
        )
        await asyncio.to_thread(entered.wait, 10)
        stop.set()
        with pytest.raises(Stopped):
            await asyncio.wait_for(waiting, 5)
        still_blocked = not release.is_set()
        release.set()
        return still_blocked

    assert asyncio.run(scenario())


def test_stop_ends_the_back_off() -> None:
    """A service that is told to stop while it waits for the next attempt stops then."""

    async def scenario() -> float:
        stop = asyncio.Event()
        log = structlog.wrap_logger(CapturingLogger(), processors=[lambda *_: stop.set() or ""])
        attempt = failing(1000, BrokerUnavailable("x"))
        started = time.monotonic()
        with pytest.raises(Stopped):
            await wait_for("x", attempt, retry_on=BrokerUnavailable, log=log, stop=stop)
        return time.monotonic() - started

    assert asyncio.run(scenario()) < 0.2


def test_stopped_before_it_began_makes_no_attempt() -> None:
    """Nothing is begun that nobody waits for."""

    async def scenario() -> None:
        stop = asyncio.Event()
        stop.set()
        with pytest.raises(Stopped):
            await wait_for(
                "x",
                lambda: pytest.fail("attempted"),
                retry_on=(),
                log=CapturingLogger(),
                stop=stop,
            )

    asyncio.run(scenario())


def test_at_most_one_line_in_two_seconds() -> None:
    """Attempts at 0, 1, 1.9, 2, 3 and 4.5 seconds: three lines."""
    times = iter([0.0, 1.0, 1.9, 2.0, 3.0, 4.5])
    log = CapturingLogger()
    report = _Report("x", log, clock=lambda: next(times))
    for attempt in range(1, 7):
        state = RetryCallState(None, None, (), {})
        state.attempt_number = attempt
        state.outcome = Future.construct(attempt, RegistryUnavailable("r"), has_exception=True)
        report(state)
    assert [call.kwargs["attempt"] for call in log.calls] == [1, 4, 6]
