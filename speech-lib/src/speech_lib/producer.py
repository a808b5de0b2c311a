"""Send records and know whether the broker has them: with `generation`, all that produces to Kafka.

The gateway and the recogniser each build one `RecordProducer` in their `run` and await `send`.
Below, in `generation`, lies the plain `confluent_kafka.Producer`: its calls do not block, a thread
polls it, and every answer is carried to the sender's event loop by `call_soon_threadsafe`.

An idempotent producer can fail for good (KIP-98: for example out of order sequence numbers after a
broker lost its log). librdkafka then calls no delivery callback any more and refuses every record.
So whatever was pending is failed with `stored="unknown"`, a new producer takes over, and `healthy`
is false meanwhile.

Nor may it time records out, because then it would store others twice (see `delivery`). As soon as
one is overdue, new records go to a new producer, and the old one ends when all that it was given
are answered. What each error means is in `delivery`; whether a record that failed may have left at
all is found out by `transmission`.
"""

import asyncio
import logging
import threading
from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException

from speech_lib.delivery import TIMED_OUT, producer_config, refused
from speech_lib.errors import BrokerUnavailable, DeliveryError, TopicMissing
from speech_lib.generation import Generation
from speech_lib.kafka import KafkaSettings
from speech_lib.pending import Queued
from speech_lib.records import Record, Stored

_REBUILD_SECONDS = 0.5
_log = logging.getLogger(__name__)


def _require_topic(topic: str, error: KafkaError | None) -> None:
    if error is None:
        return
    if refused(error):
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
        self._delivery_timeout = delivery_timeout
        self._generation: Generation | None = self._build()
        self._fading: list[Generation] = []
        self._accepting = True
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-producer", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Whether there is a working librdkafka producer; false while a new one is being built."""
        generation = self._generation
        return generation is not None and generation.trouble.fatal is None

    @property
    def queued(self) -> Queued:
        """How much was handed over and is not answered yet."""
        return sum((one.pending.queued() for one in self._generations()), Queued(0, 0))

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
            raise DeliveryError(stored="no", reason=reason)
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
        return [each for one in self._generations() for each in one.pending.waiting()]

    def _generations(self) -> list[Generation]:
        """Return what takes records, and what is served until it has answered."""
        current = self._generation
        return [*([] if current is None else [current]), *self._fading]

    def _build(self) -> Generation:
        return Generation(self._config, self._delivery_timeout)

    def _run(self) -> None:
        """Serve librdkafka until closed, whatever happens; runs on the thread."""
        while not self._closing.is_set():
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001  # nobody would answer the senders any more
                _log.warning("producer thread goes on after %s", type(error).__name__)
                self._closing.wait(_REBUILD_SECONDS)
        for each in self._fading:
            each.dispose("_DESTROY")
        if self._generation is not None:
            self._retire(self._generation, "_DESTROY")

    def _turn(self) -> None:
        self._serve_fading()
        generation = self._generation
        if generation is None:
            self._generation = self._build()
            _log.warning("producer has been replaced")
            return
        generation.serve()
        if generation.trouble.fatal is not None:
            _log.warning("producer failed for good: %s", generation.trouble.fatal)
            self._retire(generation, generation.trouble.fatal)
            self.on_failure()
        elif generation.give_up_overdue():
            _log.warning("producer is replaced: a record is overdue")
            self._fading.append(generation)
            self._generation = self._build()

    def _serve_fading(self) -> None:
        """Serve those that take no more records, until all that they were given are answered."""
        for each in list(self._fading):
            each.serve(0)
            each.give_up_overdue()
            if each.trouble.fatal is not None or not each.pending.waiting():
                self._fading.remove(each)
                each.dispose(each.trouble.fatal or TIMED_OUT)

    def _retire(self, generation: Generation, reason: str) -> None:
        self._generation = None
        generation.dispose(reason)
