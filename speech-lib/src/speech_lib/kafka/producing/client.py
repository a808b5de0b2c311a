"""One librdkafka producer, the senders that wait for its reports, and its last error.

`producer` builds one, and another when this one has failed for good or holds an overdue record.
`produce` is called by the sender; everything else runs on the producer's thread.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from speech_lib.errors import BrokerUnavailable, Certainty, DeliveryError
from speech_lib.kafka.producing.delivery import (
    delivery_error,
    overdue,
    refused,
    stored_nowhere,
    tried_once,
    was_purged,
)
from speech_lib.kafka.producing.disposal import Disposal
from speech_lib.kafka.producing.pending import Outcome, Pending
from speech_lib.kafka.producing.requeue import PurgedRecord
from speech_lib.kafka.producing.transmission import Transmissions
from speech_lib.kafka.records import Record, Stored
from speech_lib.kafka.settings import ClientConfig, client_logger

_POLL_SECONDS = 0.2
_BY_KEY = -1
"""librdkafka's RD_KAFKA_PARTITION_UA: the key decides on the partition."""

DeliveryCallback = Callable[[KafkaError | None, Message], None]
RequeueRecord = Callable[[PurgedRecord], None]


@dataclass(frozen=True, slots=True, eq=False)
class _HandedOver:
    """What is kept of a record while librdkafka has it. Key and value come with the report."""

    future: asyncio.Future[Stored]
    deadline: float
    snapshot: str
    headers: Mapping[str, str]
    partition: int | None
    may_retry: bool

    def purged(self, message: Message) -> PurgedRecord:
        """Return the record of a report, as it was handed over."""
        key, value = _bytes(message.key()), _bytes(message.value())
        record = Record(str(message.topic()), key, value, self.headers, self.partition)
        return PurgedRecord(record, self.future, self.deadline, self.may_retry)


class _DeliveryReports:
    """Answers the senders by librdkafka's delivery reports.

    It holds no librdkafka producer: reports that never come would keep that one alive for good.
    """

    def __init__(self, requeue: RequeueRecord) -> None:
        self.pending = Pending()
        self.transmissions = Transmissions()
        self.has_stored = False
        self._requeue = requeue

    def callback(self, handed: _HandedOver) -> DeliveryCallback:
        """Return the delivery callback for a record that is about to be handed over."""
        return partial(self._take, handed)

    def _take(self, handed: _HandedOver, error: KafkaError | None, message: Message) -> None:
        """Answer at once, or as soon as it is known whether the record may have left."""
        if error is None:
            self.has_stored = True
            self.pending.settle(handed.future, _receipt(message))
        elif refused(error) and tried_once(message.latency()):
            self.pending.settle(handed.future, delivery_error(error, "no"))
        else:
            now = time.monotonic()
            early = was_purged(error) and now < handed.deadline
            purged = handed.purged(message) if early else None
            answer = partial(self._fail, handed, error, purged)
            self.transmissions.ask(handed.snapshot, now, answer)

    def _fail(
        self,
        handed: _HandedOver,
        error: KafkaError,
        purged: PurgedRecord | None,
        stored: Certainty,
    ) -> None:
        if purged is not None and stored == "no":
            self._requeue(purged)
            self.pending.forget(handed.future)
        else:
            self.pending.settle(handed.future, delivery_error(error, stored))


class ClientErrors:
    """What librdkafka reported apart from any record (its `error_cb`).

    Attributes:
        fatal: The name of the error after which the client never works again; None before that.
        last: The name of the latest error, if any.
    """

    def __init__(self) -> None:
        self.fatal: str | None = None
        self.last: str | None = None

    def note(self, error: KafkaError) -> None:
        """Take an error."""
        self.last = error.name()
        if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001
            self.fatal = self.fatal or error.name()


class ProducerClient:
    """One librdkafka producer and the senders that wait for it.

    Args:
        config: librdkafka's.
        requeue: Takes each record that was purged before its deadline, and never left.
        disposal: Takes the librdkafka producer in the end.

    Attributes:
        errors: What librdkafka reported.
        pending: The senders.
        built_at: Seconds of the monotonic clock.
    """

    def __init__(self, config: ClientConfig, requeue: RequeueRecord, disposal: Disposal) -> None:
        self._disposal = disposal
        self._snapshots: WeakKeyDictionary[asyncio.Future[Stored], str] = WeakKeyDictionary()
        self._reports = _DeliveryReports(requeue)
        self.pending = self._reports.pending
        self.errors = ClientErrors()
        self.built_at = time.monotonic()
        callbacks = {"error_cb": self.errors.note, "stats_cb": self._reports.transmissions.update}
        self._producer: Producer | None = Producer(
            {**config, **callbacks}, logger=client_logger("producer")
        )

    @property
    def usable(self) -> bool:
        """Whether it takes records: it has not failed for good, and is not disposed of."""
        return self._producer is not None and self.errors.fatal is None

    @property
    def connected(self) -> bool:
        """Whether a broker is connected, by the latest statistics."""
        return self._reports.transmissions.connected()

    @property
    def has_stored(self) -> bool:
        """Whether it has stored a record."""
        return self._reports.has_stored

    def produce(
        self, record: Record, future: asyncio.Future[Stored], deadline: float, *, may_retry: bool
    ) -> None:
        """Hand a record over; `serve` answers the future.

        Args:
            record: What to store.
            future: The sender's.
            deadline: Seconds of the monotonic clock.
            may_retry: Whether another client may take the record, should this one purge it.

        Raises:
            DeliveryError: The record was not taken. The future stays as it is.
        """
        # Kept before the hand-over, so that no failure in between can miss it.
        snapshot = self._snapshots[future] = self._reports.transmissions.snapshot()
        producer = self._producer
        if producer is None or not self.pending.add(future, deadline, record.size):
            raise DeliveryError(stored="no", reason="_DESTROY")
        handed = _HandedOver(
            future, deadline, snapshot, record.headers, record.partition, may_retry
        )
        try:
            producer.produce(
                record.topic,
                key=record.key,
                value=record.value,
                headers=[(name, text.encode()) for name, text in record.headers.items()],
                partition=_BY_KEY if record.partition is None else record.partition,
                on_delivery=self._reports.callback(handed),
            )
        except BufferError:
            self.pending.forget(future)
            raise DeliveryError(stored="no", reason="_QUEUE_FULL") from None
        except KafkaException as refusal:
            self.pending.forget(future)
            self.errors.note(refusal.args[0])
            raise delivery_error(refusal.args[0], "no") from None

    def describe(self, topic: str, timeout: float) -> tuple[KafkaError | None, int]:
        """Ask a broker about a topic; return its error and how many partitions it has. Blocks.

        The error is None where the topic is there.

        Args:
            topic: The topic's name.
            timeout: Seconds.

        Raises:
            BrokerUnavailable: No broker answered in time.
        """
        producer = self._producer
        if producer is None:
            raise BrokerUnavailable("_FATAL")
        self.errors.last = None
        try:
            metadata = producer.list_topics(topic, timeout=timeout)
        except KafkaException as error:
            raise BrokerUnavailable(self.errors.last or error.args[0].name()) from None
        found = metadata.topics[topic]
        return found.error, len(found.partitions)

    def serve(self, seconds: float = _POLL_SECONDS) -> None:
        """Serve the reports that have come, and wait at most `seconds` for the first one."""
        producer = self._producer
        if producer is None:
            return
        try:
            producer.poll(seconds)
        except KafkaException as error:  # so it ends when the producer has failed for good
            self.errors.note(error.args[0])
        self._reports.transmissions.expire(time.monotonic())

    def give_up_overdue(self) -> bool:
        """Give up each record whose deadline has passed; return whether there was one."""
        now = time.monotonic()
        late = self.pending.take_overdue(now)
        for future in late:
            answer = partial(self._give_up, future)
            self._reports.transmissions.ask(self._snapshots[future], now, answer)
        return bool(late)

    def _give_up(self, future: asyncio.Future[Stored], stored: Certainty) -> None:
        """Answer an overdue record, or make sure that it is never sent.

        With `no`, no message has left since this one was queued. The whole queue is purged, and the
        reports about it are served as usual. Records in flight keep their own deadlines.
        """
        if stored == "unknown" or self._producer is None:
            self.pending.settle(future, overdue())
            return
        try:
            _purge(self._producer, in_flight=False)
        except KafkaException:
            self.pending.settle(future, overdue())

    def dispose(self, reason: str) -> None:
        """Fail every sender with `reason`, and let the librdkafka producer go."""
        self.pending.settle_all(DeliveryError(stored="unknown", reason=reason))
        producer, self._producer = self._producer, None
        if producer is None:
            return
        with suppress(KafkaException):
            _purge(producer, in_flight=True)
        self._disposal.take(producer)


def _purge(producer: Producer, *, in_flight: bool) -> None:
    """Drop the queue without waiting for librdkafka's threads.

    The binding has its flag the wrong way round (confluent-kafka 2.16, `Producer_purge`): with
    `blocking=False` it holds up the whole process while a broker's thread looks up a name.

    Raises:
        KafkaException: It cannot.
    """
    producer.purge(in_flight=in_flight, blocking=True)


def _bytes(part: str | bytes | None) -> bytes:
    """Return a key or value as it was handed over; the binding's type allows more."""
    return part.encode() if isinstance(part, str) else part or b""


def _receipt(message: Message) -> Outcome:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    if topic is None or partition is None or offset is None or offset < 0:
        return stored_nowhere()
    return Stored(topic, partition, offset)
