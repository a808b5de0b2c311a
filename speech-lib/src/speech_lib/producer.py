"""Send records and know whether the broker has them: the one place that produces to Kafka.

The gateway and the recogniser each build one `RecordProducer` in their `run` and await `send`.
Below lies the plain `confluent_kafka.Producer`: its calls do not block, a thread polls it, and
every answer is carried to the sender's event loop by `call_soon_threadsafe`.

An idempotent producer can fail for good (KIP-98: for example out of order sequence numbers after a
broker lost its log). librdkafka then calls no delivery callback any more and refuses every record.
So whatever was pending is failed with `stored="unknown"`, a new producer takes over, and `healthy`
is false meanwhile. What each error means is in `delivery`; whether a record that failed may have
left at all is found out by `transmission`.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from speech_lib.delivery import REFUSED_FOR_GOOD, delivery_error, nowhere, producer_config
from speech_lib.errors import BrokerUnavailable, Certainty, DeliveryError, TopicMissing
from speech_lib.kafka import ClientConfig, KafkaSettings, client_logger
from speech_lib.pending import Outcome, Pending
from speech_lib.records import Record, Stored
from speech_lib.transmission import Transmissions

_POLL_SECONDS = 0.2
_REBUILD_SECONDS = 0.5
_log = logging.getLogger(__name__)

DeliveryCallback = Callable[[KafkaError | None, Message], None]


class _Reports:
    """Answers senders as librdkafka's delivery reports say.

    It knows no librdkafka producer: reports that never come would keep that one alive for good.
    """

    def __init__(self) -> None:
        self.pending = Pending()
        self.transmissions = Transmissions()

    def callback(self, future: asyncio.Future[Stored]) -> DeliveryCallback:
        """Return what is to be called with the report for a record about to be handed over."""
        return partial(self._take, future, self.transmissions.mark())

    def _take(
        self, future: asyncio.Future[Stored], mark: str, error: KafkaError | None, message: Message
    ) -> None:
        """Answer at once, or as soon as it is known whether the record may have left."""
        if error is None:
            self.pending.settle(future, _receipt(message))
        elif error.code() in REFUSED_FOR_GOOD:
            self._fail(future, error, "unknown")
        else:
            self.transmissions.judge(mark, time.monotonic(), partial(self._fail, future, error))

    def _fail(self, future: asyncio.Future[Stored], error: KafkaError, stored: Certainty) -> None:
        self.pending.settle(future, delivery_error(error, stored))


class _Generation:
    """One librdkafka producer, who waits for it, and what it last complained of."""

    def __init__(self, config: ClientConfig) -> None:
        self.reports = _Reports()
        self.pending = self.reports.pending
        self.trouble = _Trouble()
        callbacks = {"error_cb": self.trouble.note, "stats_cb": self.reports.transmissions.note}
        self.client = Producer({**config, **callbacks}, logger=client_logger("producer"))

    def produce(self, record: Record) -> asyncio.Future[Stored]:
        """Hand a record over; the future is answered by `serve` on the thread."""
        future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
        # Known before it is handed over, so that no fatal error in between can miss it.
        self.pending.add(future)
        try:
            self.client.produce(
                record.topic,
                key=record.key,
                value=record.value,
                headers=[(name, text.encode()) for name, text in record.headers.items()],
                on_delivery=self.reports.callback(future),
            )
        except BufferError:
            self.pending.forget(future)
            raise DeliveryError(stored="no", permanent=False, reason="_QUEUE_FULL") from None
        except KafkaException as refusal:
            self.pending.forget(future)
            self.trouble.note(refusal.args[0])
            raise delivery_error(refusal.args[0], "no") from None
        return future

    def serve(self) -> None:
        """Call back whoever has an answer; wait a little for one."""
        try:
            self.client.poll(_POLL_SECONDS)
        except KafkaException as error:  # so it ends when the producer has failed for good
            self.trouble.note(error.args[0])
        self.reports.transmissions.expire(time.monotonic())

    def dispose(self, reason: str) -> None:
        """Give up: fail who still waits."""
        self.pending.settle_all(DeliveryError(stored="unknown", permanent=False, reason=reason))
        with suppress(KafkaException):
            self.client.purge(blocking=False)


class _Trouble:
    """What librdkafka reported apart from any record."""

    def __init__(self) -> None:
        self.fatal: str | None = None
        self.last: str | None = None

    def note(self, error: KafkaError) -> None:
        self.last = error.name()
        if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001
            self.fatal = self.fatal or error.name()


def _receipt(message: Message) -> Outcome:
    """Return where a record is."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    if topic is None or partition is None or offset is None or offset < 0:
        return nowhere()
    return Stored(topic, partition, offset)


def _require_topic(topic: str, error: KafkaError | None) -> None:
    if error is None:
        return
    if error.code() in REFUSED_FOR_GOOD:
        raise TopicMissing(topic, error.name())
    raise BrokerUnavailable(error.name())


def _nobody_asked() -> None:
    pass


class RecordProducer:
    """Stores records, one answer for each, from one event loop.

    Args:
        kafka: How to reach the brokers.
        client_id: The name that the brokers know this client by.
        delivery_timeout: Seconds until a record that is not confirmed is given up.
        queue_bytes: What waiting records may take in memory; beyond it `send` fails at once.

    It starts a thread; the caller owes one `close`.

    Attributes:
        on_failure: Called on that thread when librdkafka's producer has failed for good.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        *,
        client_id: str,
        delivery_timeout: float,
        queue_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        self._config = producer_config(
            kafka, client_id=client_id, delivery_timeout=delivery_timeout, queue_bytes=queue_bytes
        )
        self.on_failure: Callable[[], None] = _nobody_asked
        self._generation: _Generation | None = _Generation(self._config)
        self._accepting = True
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-producer", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Whether there is a working librdkafka producer; false while a new one is being built."""
        generation = self._generation
        return generation is not None and generation.trouble.fatal is None

    async def send(self, record: Record) -> Stored:
        """Store a record and return where it is.

        Never blocks the loop. Answers within `delivery_timeout` and two seconds. librdkafka keeps a
        copy: drop the record before awaiting. When cancelled, the record may still be stored.

        Raises:
            DeliveryError: The broker did not confirm the record; see its attributes.
        """
        answer = self._hand_over(record)
        del record
        # Shielded, so that `close` waits for a record whose sender has gone.
        return await asyncio.shield(answer)

    def _hand_over(self, record: Record) -> asyncio.Future[Stored]:
        generation = self._generation
        if generation is None or not self._accepting:
            reason = "_FATAL" if self._accepting else "_DESTROY"
            raise DeliveryError(stored="no", permanent=False, reason=reason)
        return generation.produce(record)

    def check(self, topic: str, timeout: float) -> None:
        """Ask a broker about a topic, and so connect before the first record. Blocks.

        Args:
            topic: What will be written to.
            timeout: Seconds.

        Raises:
            BrokerUnavailable: No broker answered in time.
            TopicMissing: The topic does not exist or may not be seen.
        """
        generation = self._generation
        if generation is None:
            raise BrokerUnavailable("_FATAL")
        generation.trouble.last = None
        try:
            metadata = generation.client.list_topics(topic, timeout=timeout)
        except KafkaException as error:
            raise BrokerUnavailable(generation.trouble.last or error.args[0].name()) from None
        _require_topic(topic, metadata.topics[topic].error)

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109  # it bounds a part of the work
        """Wait for what is pending, at most `timeout` seconds, then stop. Call it once or more.

        What is not confirmed by then fails with `stored="unknown"`; a later `send` fails at once.
        """
        self._accepting = False
        if waiting := self._waiting():
            await asyncio.wait(waiting, timeout=timeout)
        self._closing.set()
        await asyncio.to_thread(self._thread.join)

    def _waiting(self) -> list[asyncio.Future[Stored]]:
        generation = self._generation
        return generation.pending.waiting() if generation is not None else []

    def _run(self) -> None:
        """Serve librdkafka until closed, whatever happens; runs on the thread."""
        while not self._closing.is_set():
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001  # nobody would answer the senders any more
                _log.warning("producer thread goes on after %s", type(error).__name__)
                self._closing.wait(_REBUILD_SECONDS)
        if self._generation is not None:
            self._retire(self._generation, "_DESTROY")

    def _turn(self) -> None:
        generation = self._generation
        if generation is None:
            self._generation = _Generation(self._config)
            _log.warning("producer has been replaced")
            return
        generation.serve()
        if generation.trouble.fatal is not None:
            _log.warning("producer failed for good: %s", generation.trouble.fatal)
            self._retire(generation, generation.trouble.fatal)
            self.on_failure()

    def _retire(self, generation: _Generation, reason: str) -> None:
        self._generation = None
        generation.dispose(reason)
