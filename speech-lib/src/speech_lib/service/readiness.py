"""Keep a service's readiness true to its broker: wait for it at the start, then watch it.

`run` of each service uses it. The reports end up in `health`, and so in `/readyz`.
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
"""A broker that comes back is noticed well within the 5 s that clients are told to wait."""

_NOT_YET = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"})


async def wait_for_topic(
    producer: RecordProducer, topic: str, *, log: FilteringBoundLogger, stop: asyncio.Event
) -> None:
    """Return once a broker answers and has the topic.

    Args:
        producer: Asks the broker.
        topic: The topic's name.
        log: Gets a line now and then while it waits.
        stop: Ends the wait at once.

    Raises:
        TopicMissing: This client may not use the topic. Waiting does not help.
        Stopped: `stop` was set first.
    """
    await wait_for(
        "broker",
        partial(_check, producer, topic),
        retry_on=BrokerUnavailable,
        log=log,
        stop=stop,
    )


def _check(producer: RecordProducer, topic: str) -> None:
    """Ask for a topic; `BrokerUnavailable` where it does not exist yet, so that it is awaited."""
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

    It asks a broker every two seconds. A producer that fails for good is reported at once, and
    again once a broker has answered the new one.

    Args:
        producer: Asks the broker. Its `on_failure` is set.
        topic: The topic's name.
        report: Called on the event loop.
        log: Gets a line for each change.
    """
    watch = _Watch(report, log)
    producer.on_failure = partial(_soon, asyncio.get_running_loop(), watch.fail)
    while True:
        await watch.pause()
        watch.tell(await _last_error(producer, topic))


def _soon(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    """Call something on the loop, from another thread."""
    loop.call_soon_threadsafe(what)


class _Watch:
    """Reports each answer, and logs the changes."""

    def __init__(self, report: Report, log: FilteringBoundLogger) -> None:
        self._report = report
        self._log = log
        self._reason = ""
        self._failed = asyncio.Event()

    def tell(self, reason: str) -> None:
        """Report a reason, or `""` for none; log it if it is a change."""
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


async def _last_error(producer: RecordProducer, topic: str) -> str:
    """Return the name of the broker's or producer's error, `""` where there is none."""
    try:
        await asyncio.to_thread(producer.check, topic, _CHECK_SECONDS)
    except (BrokerUnavailable, TopicMissing) as error:
        return error.reason
    return "" if producer.healthy else "_FATAL"
