"""Keep a service's readiness true to its broker: wait for it at the start, watch it from then on.

Used by `run` of each service; what is reported ends up in `health` and so in `/readyz`.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from structlog.typing import FilteringBoundLogger

from speech_lib.errors import BrokerUnavailable, TopicMissing
from speech_lib.kafka.producer import RecordProducer
from speech_lib.service.startup import wait_for

Report = Callable[[bool, str], None]
"""Takes whether the condition holds, and the reason if not."""

_CHECK_SECONDS = 3.0
_EVERY_SECONDS = 2.0
_EVERY_SECONDS_WHILE_AWAY = 0.5
"""A broker that has come back is noticed in well under the 5 s that clients are told to expect."""

_NOT_YET = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"})


async def wait_for_topic(
    producer: RecordProducer, topic: str, *, log: FilteringBoundLogger, stop: asyncio.Event
) -> None:
    """Return when a broker answers and has the topic.

    Raises:
        TopicMissing: The topic may not be used; waiting does not help.
        Stopped: `stop` was set before.
    """
    await wait_for(
        "broker",
        partial(_check, producer, topic),
        retry_on=BrokerUnavailable,
        log=log,
        stop=stop,
    )


def _check(producer: RecordProducer, topic: str) -> None:
    """Ask for a topic; one that is not there yet is waited for, one that is forbidden is not."""
    try:
        producer.check(topic, _CHECK_SECONDS)
    except TopicMissing as missing:
        if missing.reason in _NOT_YET:
            raise BrokerUnavailable(missing.reason) from None
        raise


async def watch_broker(
    producer: RecordProducer, topic: str, report: Report, *, log: FilteringBoundLogger
) -> None:
    """Report whether records can be stored, until cancelled; log each change.

    A broker is asked every other second. A producer that fails for good is reported at once, and
    is back when a broker has answered the new one.
    """
    watch = _Watch(report, log)
    producer.on_failure = partial(_soon, asyncio.get_running_loop(), watch.fail)
    while True:
        await watch.pause()
        watch.tell(await _trouble(producer, topic))


def _soon(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    """Do something on the loop; called on another thread."""
    loop.call_soon_threadsafe(what)


class _Watch:
    """What was last reported."""

    def __init__(self, report: Report, log: FilteringBoundLogger) -> None:
        self._report = report
        self._log = log
        self._reason = ""
        self._failed = asyncio.Event()

    def tell(self, reason: str) -> None:
        """Report a reason, or none; log it where it is news."""
        before, self._reason = self._reason, reason
        self._report(not reason, reason)
        if reason and not before:
            self._log.warning("broker_lost", reason=reason)
        elif before and not reason:
            self._log.info("broker_back")

    def fail(self) -> None:
        """Report that the producer has failed for good."""
        self._failed.set()
        self.tell("_FATAL")

    async def pause(self) -> None:
        """Wait until it is time to ask again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(
                _EVERY_SECONDS_WHILE_AWAY if self._reason else _EVERY_SECONDS
            ):
                await self._failed.wait()
        self._failed.clear()


async def _trouble(producer: RecordProducer, topic: str) -> str:
    """Return what is wrong with the broker, nothing if it answers."""
    try:
        await asyncio.to_thread(producer.check, topic, _CHECK_SECONDS)
    except (BrokerUnavailable, TopicMissing) as error:
        return error.reason
    return "" if producer.healthy else "_FATAL"
