"""One librdkafka producer, the futures that wait for its answers, and its last error.

`producer` builds one, and another in its place when the first has failed for good or holds a record
that is overdue. All but `produce` is called on its thread.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from speech_lib.errors import Certainty, DeliveryError
from speech_lib.kafka.delivery import (
    delivery_error,
    nowhere,
    overdue,
    refused,
    tried_once,
    was_purged,
)
from speech_lib.kafka.disposal import Disposal
from speech_lib.kafka.pending import Outcome, Pending
from speech_lib.kafka.records import Record, Stored
from speech_lib.kafka.requeue import TakenBack
from speech_lib.kafka.settings import ClientConfig, client_logger
from speech_lib.kafka.transmission import Transmissions

_POLL_SECONDS = 0.2

DeliveryCallback = Callable[[KafkaError | None, Message], None]


@dataclass(frozen=True, slots=True, eq=False)
class _HandOver:
    """What is kept of a record while librdkafka has it; key and value come with the report."""

    future: asyncio.Future[Stored]
    deadline: float
    mark: str
    headers: Mapping[str, str]
    again: bool

    def taken_back(self, message: Message) -> TakenBack:
        """Return the record of a report, as it was handed over."""
        key, value = message.key(), message.value()
        record = Record(str(message.topic()), _whole(key), _whole(value), self.headers)
        return TakenBack(record, self.future, self.deadline, self.again)


class _Reports:
    """Answers senders as librdkafka's delivery reports say.

    It knows no librdkafka producer: reports that never come would keep that one alive for good.
    """

    def __init__(self, take_back: Callable[[TakenBack], None]) -> None:
        self.pending = Pending()
        self.transmissions = Transmissions()
        self.stored = False
        self._take_back = take_back

    def callback(self, handed: _HandOver) -> DeliveryCallback:
        """Return what is to be called with the report for a record about to be handed over."""
        return partial(self._take, handed)

    def _take(self, handed: _HandOver, error: KafkaError | None, message: Message) -> None:
        """Answer at once, or as soon as it is known whether the record may have left."""
        if error is None:
            self.stored = True
            self.pending.settle(handed.future, _receipt(message))
        elif refused(error) and tried_once(message.latency()):
            self.pending.settle(handed.future, delivery_error(error, "no"))
        else:
            now = time.monotonic()
            early = was_purged(error) and now < handed.deadline
            taken = handed.taken_back(message) if early else None
            verdict = partial(self._fail, handed, error, taken)
            self.transmissions.judge(handed.mark, now, verdict)

    def _fail(
        self, handed: _HandOver, error: KafkaError, taken: TakenBack | None, stored: Certainty
    ) -> None:
        if taken is not None and stored == "no":
            self._take_back(taken)
            self.pending.forget(handed.future)
        else:
            self.pending.settle(handed.future, delivery_error(error, stored))


class Generation:
    """One librdkafka producer, the futures that wait for it, and its last error.

    Args:
        config: librdkafka's.
        take_back: Takes what was purged before its time was up, and never left.
        disposal: Takes the librdkafka producer in the end.
    """

    def __init__(
        self, config: ClientConfig, take_back: Callable[[TakenBack], None], disposal: Disposal
    ) -> None:
        self._disposal = disposal
        self._marks: WeakKeyDictionary[asyncio.Future[Stored], str] = WeakKeyDictionary()
        self.reports = _Reports(take_back)
        self.pending = self.reports.pending
        self.trouble = Trouble()
        self.built_at = time.monotonic()
        callbacks = {"error_cb": self.trouble.note, "stats_cb": self.reports.transmissions.note}
        self.client: Producer | None = Producer(
            {**config, **callbacks}, logger=client_logger("producer")
        )

    @property
    def usable(self) -> bool:
        """Whether a record can be handed over: it has not failed for good, and is not disposed."""
        return self.client is not None and self.trouble.fatal is None

    def produce(
        self, record: Record, future: asyncio.Future[Stored], deadline: float, *, again: bool
    ) -> None:
        """Hand a record over; the future is answered by `serve` on the thread.

        Args:
            record: What to store.
            future: Who waits.
            deadline: Until when, by the monotonic clock.
            again: Whether it may be handed over once more, should it be purged.

        Raises:
            DeliveryError: it was not taken; the future stays as it is.
        """
        # Known before it is handed over, so that no fatal error in between can miss it.
        mark = self._marks[future] = self.reports.transmissions.mark()
        size = len(record.key) + len(record.value)
        client = self.client
        if client is None or not self.pending.add(future, deadline, size):
            raise DeliveryError(stored="no", reason="_DESTROY")
        handed = _HandOver(future, deadline, mark, record.headers, again)
        try:
            client.produce(
                record.topic,
                key=record.key,
                value=record.value,
                headers=[(name, text.encode()) for name, text in record.headers.items()],
                on_delivery=self.reports.callback(handed),
            )
        except BufferError:
            self.pending.forget(future)
            raise DeliveryError(stored="no", reason="_QUEUE_FULL") from None
        except KafkaException as refusal:
            self.pending.forget(future)
            self.trouble.note(refusal.args[0])
            raise delivery_error(refusal.args[0], "no") from None

    def serve(self, seconds: float = _POLL_SECONDS) -> None:
        """Call back whoever has an answer; wait a little for one."""
        client = self.client
        if client is None:
            return
        try:
            client.poll(seconds)
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
        """Answer an overdue record, or make sure that it is never sent.

        No message has left since this one was queued. Purge the queue: the reports about it are
        judged as usual. What is on its way to a broker meanwhile keeps its own time.
        """
        if stored == "unknown" or self.client is None:
            self.pending.settle(future, overdue())
            return
        try:
            _purge(self.client, in_flight=False)
        except KafkaException:
            self.pending.settle(future, overdue())

    def dispose(self, reason: str) -> None:
        """Give up: fail who still waits."""
        self.pending.settle_all(DeliveryError(stored="unknown", reason=reason))
        client, self.client = self.client, None
        if client is None:
            return
        with suppress(KafkaException):
            _purge(client, in_flight=True)
        self._disposal.take(client)


def _purge(client: Producer, *, in_flight: bool) -> None:
    """Drop what waits, without waiting for librdkafka's threads to have done so.

    The binding has its flag the wrong way round (confluent-kafka 2.16, `Producer_purge`): without
    it the call holds up the whole process for as long as a broker's thread looks up a name.

    Raises:
        KafkaException: if it cannot.
    """
    client.purge(in_flight=in_flight, blocking=True)


def _whole(part: str | bytes | None) -> bytes:
    """Return a key or value as it was handed over; the binding's type allows more."""
    return part.encode() if isinstance(part, str) else part or b""


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
