"""One librdkafka producer, who waits for its answers, and what it last complained of.

`producer` builds one, and another in its place when the first has failed for good or holds a record
that is overdue. All but `produce` is called on its thread.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from weakref import WeakKeyDictionary

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from speech_lib.delivery import delivery_error, nowhere, overdue, refused
from speech_lib.errors import Certainty, DeliveryError
from speech_lib.kafka import ClientConfig, client_logger
from speech_lib.pending import Outcome, Pending
from speech_lib.records import Record, Stored
from speech_lib.transmission import Transmissions

_POLL_SECONDS = 0.2

DeliveryCallback = Callable[[KafkaError | None, Message], None]


class _Reports:
    """Answers senders as librdkafka's delivery reports say.

    It knows no librdkafka producer: reports that never come would keep that one alive for good.
    """

    def __init__(self) -> None:
        self.pending = Pending()
        self.transmissions = Transmissions()

    def callback(self, future: asyncio.Future[Stored], mark: str) -> DeliveryCallback:
        """Return what is to be called with the report for a record about to be handed over."""
        return partial(self._take, future, mark)

    def _take(
        self, future: asyncio.Future[Stored], mark: str, error: KafkaError | None, message: Message
    ) -> None:
        """Answer at once, or as soon as it is known whether the record may have left."""
        if error is None:
            self.pending.settle(future, _receipt(message))
        elif refused(error):
            self._fail(future, error, "unknown")
        else:
            self.transmissions.judge(mark, time.monotonic(), partial(self._fail, future, error))

    def _fail(self, future: asyncio.Future[Stored], error: KafkaError, stored: Certainty) -> None:
        self.pending.settle(future, delivery_error(error, stored))


class Generation:
    """One librdkafka producer, who waits for it, and what it last complained of."""

    def __init__(self, config: ClientConfig, delivery_timeout: float) -> None:
        self._delivery_timeout = delivery_timeout
        self._marks: WeakKeyDictionary[asyncio.Future[Stored], str] = WeakKeyDictionary()
        self.reports = _Reports()
        self.pending = self.reports.pending
        self.trouble = Trouble()
        callbacks = {"error_cb": self.trouble.note, "stats_cb": self.reports.transmissions.note}
        self.client = Producer({**config, **callbacks}, logger=client_logger("producer"))

    def produce(self, record: Record) -> asyncio.Future[Stored]:
        """Hand a record over; the future is answered by `serve` on the thread."""
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        # Known before it is handed over, so that no fatal error in between can miss it.
        mark = self._marks[future] = self.reports.transmissions.mark()
        size = len(record.key) + len(record.value)
        if not self.pending.add(future, time.monotonic() + self._delivery_timeout, size):
            raise DeliveryError(stored="no", reason="_DESTROY")
        try:
            self.client.produce(
                record.topic,
                key=record.key,
                value=record.value,
                headers=[(name, text.encode()) for name, text in record.headers.items()],
                on_delivery=self.reports.callback(future, mark),
            )
        except BufferError:
            self.pending.forget(future)
            raise DeliveryError(stored="no", reason="_QUEUE_FULL") from None
        except KafkaException as refusal:
            self.pending.forget(future)
            self.trouble.note(refusal.args[0])
            raise delivery_error(refusal.args[0], "no") from None
        return future

    def serve(self, seconds: float = _POLL_SECONDS) -> None:
        """Call back whoever has an answer; wait a little for one."""
        try:
            self.client.poll(seconds)
        except KafkaException as error:  # so it ends when the producer has failed for good
            self.trouble.note(error.args[0])
        self.reports.transmissions.expire(time.monotonic())

    def give_up_overdue(self) -> bool:
        """See to those who have waited for too long; tell whether there are such."""
        now = time.monotonic()
        late = self.pending.take_overdue(now)
        for future in late:
            self.reports.transmissions.judge(
                self._marks[future], now, partial(self._give_up, future)
            )
        return bool(late)

    def _give_up(self, future: asyncio.Future[Stored], stored: Certainty) -> None:
        if stored == "unknown":
            self.pending.settle(future, overdue())
            return
        # Nothing has been sent since, so nothing of those behind it: now nothing will be any more,
        # and the reports about that are judged like any other.
        try:
            _purge(self.client)
        except KafkaException:
            self.pending.settle(future, overdue())

    def dispose(self, reason: str) -> None:
        """Give up: fail who still waits."""
        self.pending.settle_all(DeliveryError(stored="unknown", reason=reason))
        with suppress(KafkaException):
            _purge(self.client)


def _purge(client: Producer) -> None:
    """Drop what waits, without waiting for librdkafka's threads to have done so.

    The binding has its flag the wrong way round (confluent-kafka 2.16, `Producer_purge`): without
    it the call holds up the whole process for as long as a broker's thread looks up a name.

    Raises:
        KafkaException: if it cannot.
    """
    client.purge(blocking=True)


class Trouble:
    """What librdkafka reported apart from any record; `fatal` where it will never work again."""

    def __init__(self) -> None:
        self.fatal: str | None = None
        self.last: str | None = None

    def note(self, error: KafkaError) -> None:
        """Take note of an error."""
        self.last = error.name()
        if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001
            self.fatal = self.fatal or error.name()


def _receipt(message: Message) -> Outcome:
    """Return where a record is."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    if topic is None or partition is None or offset is None or offset < 0:
        return nowhere()
    return Stored(topic, partition, offset)
