"""Send records and know whether the broker has them: with `generation`, all that produces to Kafka.

The gateway and the recogniser each build one `RecordProducer` in their `run` and await `send`, or
what `hand_over` returns.
Below, in `generation`, lies the plain `confluent_kafka.Producer`: its calls do not block, a thread
polls it, and every answer is carried to the sender's event loop by `call_soon_threadsafe`.

An idempotent producer can fail for good (KIP-98: for example out of order sequence numbers after a
broker lost its log). librdkafka then calls no delivery callback any more and refuses every record.
So whatever was pending is failed with `stored="unknown"`, a new producer takes over (`rebuild` says
when), and `healthy` is false meanwhile.

Nor may it time records out, because then it would store others twice (see `delivery`). As soon as
one is overdue, new records go to a new producer, and the old one ends when all that it was given
are answered. What each error means is in `delivery`; whether a record that failed may have left at
all is found out by `transmission`; what was purged along with an overdue record and has time left
waits in `requeue`.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from speech_lib.errors import BrokerUnavailable, DeliveryError, TopicMissing
from speech_lib.kafka.delivery import TIMED_OUT, overdue, producer_config, refused
from speech_lib.kafka.disposal import Disposal
from speech_lib.kafka.generation import Generation
from speech_lib.kafka.pending import Pending, Queued
from speech_lib.kafka.rebuild import Rebuild
from speech_lib.kafka.records import Record, Stored
from speech_lib.kafka.requeue import Requeue, TakenBack
from speech_lib.kafka.settings import KafkaSettings

__all__ = ["ANSWER_SECONDS", "Queued", "RecordProducer"]

ANSWER_SECONDS = 2.0
"""What an answer may take beyond the delivery timeout."""

_TURN_SECONDS = 0.2
_AFTER_AN_ERROR_SECONDS = 0.5
_END_SECONDS = 1.0
"""What the thread may take for its end; it is left behind after that."""

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
        self._queue_bytes = queue_bytes
        self._disposal = Disposal()
        self._requeue = Requeue()
        self._rebuild = Rebuild()
        self._generation: Generation | None = self._build()
        self._retiring: list[Generation] = []
        self._accepting = True
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-producer", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Whether there is a working librdkafka producer; false while a new one is being built.

        And where several have failed in a row, until the new one has lasted for a moment.
        """
        generation = self._generation
        if generation is None or not generation.usable:
            return False
        return self._rebuild.trusts(generation.built_at, time.monotonic())

    @property
    def queued(self) -> Queued:
        """How much was handed over and is not answered yet."""
        return sum((each.queued() for each in self._pending()), Queued(0, 0))

    async def send(self, record: Record) -> Stored:
        """Store a record and return where it is: `hand_over`, awaited.

        Raises:
            DeliveryError: The broker did not confirm the record; see its attributes.
        """
        answer = self.hand_over(record)
        del record
        return await answer

    def hand_over(self, record: Record) -> Coroutine[Any, Any, Stored]:
        """Hand a record over now; the awaitable returns where it is stored, and holds no bytes.

        Never blocks the loop. Answers within `delivery_timeout` and two seconds. librdkafka keeps a
        copy. When cancelled, the record may still be stored.

        Raises:
            DeliveryError: when awaited: the broker did not confirm the record; see its attributes.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Stored] = loop.create_future()
        latest = loop.time() + self._delivery_timeout + ANSWER_SECONDS
        try:
            self._produce(record, answer)
        except DeliveryError as refusal:
            return _refusal(refusal)
        return self._answer(answer, latest)

    async def _answer(self, answer: asyncio.Future[Stored], latest: float) -> Stored:
        """Wait for the thread's answer, but for its own sake not longer than was promised."""
        try:
            async with asyncio.timeout_at(latest):
                # Shielded, so that `close` waits for a record whose sender has gone.
                return await asyncio.shield(answer)
        except TimeoutError:
            for each in self._pending():
                each.forget(answer)
            raise overdue() from None

    def _produce(self, record: Record, answer: asyncio.Future[Stored]) -> None:
        generation = self._generation
        if generation is None or not self._accepting:
            raise DeliveryError(stored="no", reason="_FATAL" if self._accepting else "_DESTROY")
        if self._requeue and self.queued.bytes + len(record.value) > self._queue_bytes:
            raise DeliveryError(stored="no", reason="_QUEUE_FULL")
        deadline = time.monotonic() + self._delivery_timeout
        generation.produce(record, answer, deadline, again=True)

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
        client = None if generation is None else generation.client
        if generation is None or client is None:
            raise BrokerUnavailable("_FATAL")
        generation.trouble.last = None
        try:
            metadata = client.list_topics(topic, timeout=timeout)
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
        await asyncio.to_thread(self._thread.join, _END_SECONDS)
        for each in self._pending():
            each.settle_all(DeliveryError(stored="unknown", reason="_DESTROY"))
        self._disposal.close()

    def _waiting(self) -> list[asyncio.Future[Stored]]:
        return [future for each in self._pending() for future in each.waiting()]

    def _pending(self) -> list[Pending]:
        """Return who waits: for what takes records, for what is served to its end, for neither."""
        current = self._generation
        generations = [*([] if current is None else [current]), *self._retiring]
        return [*(each.pending for each in generations), self._requeue.pending]

    def _build(self) -> Generation:
        return Generation(self._config, self._requeue.add, self._disposal)

    def _run(self) -> None:
        """Serve librdkafka until closed, whatever happens; runs on the thread."""
        while not self._closing.is_set():
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001  # nobody would answer the senders any more
                _log.warning("producer thread goes on after %s", type(error).__name__)
                self._closing.wait(_AFTER_AN_ERROR_SECONDS)
        self._requeue.close("_DESTROY")
        for each in self._retiring:
            each.dispose("_DESTROY")
        if self._generation is not None:
            self._retire(self._generation, "_DESTROY")

    def _turn(self) -> None:
        self._serve_retiring()
        generation = self._generation
        if generation is None:
            self._build_when_due()
            return
        generation.serve()
        self._serve_requeue(generation)
        now = time.monotonic()
        if generation.trouble.fatal is not None:
            self._retire(generation, generation.trouble.fatal)
            self._rebuild.failed(generation.trouble.fatal, now)
            self.on_failure()
            return
        if generation.reports.stored:
            self._rebuild.stored()
        if generation.give_up_overdue():
            _log.warning("producer is replaced: a record is overdue")
            # The new one first, so that meanwhile nobody is refused who need not be.
            self._generation = self._build_or_wait()
            self._retiring.append(generation)

    def _build_when_due(self) -> None:
        self._requeue.expire()
        if self._rebuild.due(time.monotonic()):
            self._generation = self._build_or_wait()
        else:
            self._closing.wait(_TURN_SECONDS)

    def _build_or_wait(self) -> Generation | None:
        """Build a new one; without the threads or files for it, it is tried again later."""
        try:
            return self._build()
        except Exception as error:  # noqa: BLE001  # whatever is missing may be there later
            self._rebuild.failed(type(error).__name__, time.monotonic())
            self.on_failure()
            return None

    def _serve_retiring(self) -> None:
        """Serve those that take no more records, until all that they were given are answered."""
        for each in list(self._retiring):
            each.serve(0)
            each.give_up_overdue()
            if each.trouble.fatal is not None or not each.pending.waiting():
                self._retiring.remove(each)
                each.dispose(each.trouble.fatal or TIMED_OUT)

    def _serve_requeue(self, generation: Generation) -> None:
        """Hand over again what was taken back, as soon as a broker is connected."""

        def take(taken: TakenBack) -> bool:
            try:
                generation.produce(taken.record, taken.future, taken.deadline, again=False)
            except DeliveryError:
                return False
            return True

        self._requeue.expire()
        if self._requeue and generation.reports.transmissions.connected():
            self._requeue.hand_over(take)

    def _retire(self, generation: Generation, reason: str) -> None:
        self._generation = None
        generation.dispose(reason)


async def _refusal(error: DeliveryError) -> Stored:
    raise error
