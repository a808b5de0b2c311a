"""Wait for what a service depends on before it is ready, with back-off and few log lines.

`run` of each service waits so for the broker, the topics and the schemas.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from structlog.typing import FilteringBoundLogger
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    wait_exponential,
    wait_random,
)

T = TypeVar("T")

_FIRST_WAIT_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 2.0
_JITTER_SECONDS = 0.1
_LOG_EVERY_SECONDS = 2.0


class Stopped(Exception):
    """The wait was given up, because the service stops."""


async def wait_for(
    what: str,
    attempt: Callable[[], T],
    *,
    retry_on: type[Exception] | tuple[type[Exception], ...],
    log: FilteringBoundLogger,
    stop: asyncio.Event,
) -> T:
    """Call `attempt` in a thread until it returns, and return its value.

    Args:
        what: The name of what it waits for, for the log.
        attempt: Blocks for a bounded time. Its thread is left behind when the wait is given up.
        retry_on: The errors that are tried again; others are raised.
        log: Gets one line an attempt, at most every 2 s, with nothing but the kind of the error.
        stop: Ends the wait at once.

    Raises:
        Stopped: `stop` was set before the attempt succeeded.
    """
    if stop.is_set():
        raise Stopped(what)
    return await unless_stopped(what, _retry(attempt, retry_on, _Report(what, log)), stop)


async def unless_stopped(what: str, waiting: Coroutine[Any, Any, T], stop: asyncio.Event) -> T:
    """Wait for a coroutine, and return its value.

    Args:
        what: What it waits for, for the error.
        waiting: Is cancelled where the wait is given up.
        stop: Ends the wait at once.

    Raises:
        Stopped: `stop` was set first.
    """
    trying = asyncio.ensure_future(waiting)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({trying, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if trying.done():
            return trying.result()
        raise Stopped(what)
    finally:
        trying.cancel()
        stopping.cancel()
        await asyncio.gather(trying, stopping, return_exceptions=True)


async def _retry(
    attempt: Callable[[], T],
    retry_on: type[Exception] | tuple[type[Exception], ...],
    report: "_Report",
) -> T:
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(retry_on),
        wait=wait_exponential(_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS)
        + wait_random(0, _JITTER_SECONDS),
        before_sleep=report,
        reraise=True,
    )
    return await retrying(asyncio.to_thread, attempt)


class _Report:
    """Logs failed attempts, at most every `_LOG_EVERY_SECONDS`."""

    def __init__(
        self, what: str, log: FilteringBoundLogger, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what = what
        self._log = log
        self._clock = clock
        self._next = float("-inf")

    def __call__(self, state: RetryCallState) -> None:
        now = self._clock()
        error = state.outcome.exception() if state.outcome else None
        if now < self._next or error is None:
            return
        self._next = now + _LOG_EVERY_SECONDS
        self._log.warning(
            "waiting",
            what=self._what,
            attempt=state.attempt_number,
            error=type(error).__name__,
            reason=getattr(error, "reason", None),
        )
