"""Send records, and know for each whether the broker has it.

The gateway and the recogniser each build one `RecordProducer` in their `run`, and await `send` or
what `hand_over` returns. All other code that produces lies in `speech_lib.kafka.producing`.

`producing.client` holds the plain `confluent_kafka.Producer`, whose calls do not block. A thread
polls it and carries each answer to the sender's event loop by `call_soon_threadsafe`. The thread
builds a new client in two cases:

* An idempotent producer can fail for good (KIP-98), for example with out-of-order sequence numbers
  after a broker lost its log. librdkafka then calls no delivery callback and refuses every record.
  The pending records fail with `stored="unknown"`. `rebuild` says when the next client is built.
* A record is overdue. librdkafka must not time it out, or it would store others twice
  (`delivery`). New records go to a new client. The old one retires: it ends once each of its
  records is answered. Records purged along with the overdue one wait in `requeue`.

`transmission` finds out whether a record that failed may have left.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from confluent_kafka import KafkaError

from speech_lib.errors import BrokerUnavailable, DeliveryError, TopicMissing
from speech_lib.kafka.producing.client import ProducerClient
from speech_lib.kafka.producing.delivery import TIMED_OUT, overdue, producer_config, refused
from speech_lib.kafka.producing.disposal import Disposal
from speech_lib.kafka.producing.pending import Pending
from speech_lib.kafka.producing.rebuild import RebuildBackoff
from speech_lib.kafka.producing.requeue import PurgedRecord, Requeue
from speech_lib.kafka.records import Queued, Record, Stored
from speech_lib.kafka.settings import KafkaSettings

__all__ = ["ANSWER_SECONDS", "Queued", "RecordProducer"]

ANSWER_SECONDS = 2.0
"""An answer comes at most so long after the delivery timeout."""

_TURN_SECONDS = 0.2
_AFTER_AN_ERROR_SECONDS = 0.5
_END_SECONDS = 1.0
"""The thread gets so long to end; after that `close` leaves it behind."""

_log = logging.getLogger(__name__)


class RecordProducer:
    """Stores records for senders on one event loop, with one answer for each record.

    It starts a thread. The caller owes one `close`.

    Args:
        kafka: How to reach the brokers.
        client_id: The name that the brokers know this client by.
        delivery_timeout: Seconds until a record that is not confirmed is given up.
        queue_bytes: The memory for records that wait. Beyond it `send` fails at once.

    Attributes:
        on_failure: Called on the thread when the client has failed for good.
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
        self.on_failure: Callable[[], None] = _ignore
        self._delivery_timeout = delivery_timeout
        self._queue_bytes = queue_bytes
        self._partitions: dict[str, int] = {}
        self._disposal = Disposal()
        self._requeue = Requeue()
        self._backoff = RebuildBackoff()
        self._client: ProducerClient | None = self._build()
        self._retiring: list[ProducerClient] = []
        self._accepting = True
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-producer", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Whether there is a working client.

        False while a new one is built. After several failures in a row it stays false until the new
        one has lasted for a moment.
        """
        client = self._client
        if client is None or not client.usable:
            return False
        return self._backoff.trusts(client.built_at, time.monotonic())

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

        It never blocks the loop, and answers within `delivery_timeout` and two seconds. librdkafka
        keeps a copy of the record. When cancelled, the record may still be stored.

        Raises:
            DeliveryError: When awaited: the broker did not confirm the record; see its attributes.
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
        """Wait for the thread's answer, but not longer than promised."""
        try:
            async with asyncio.timeout_at(latest):
                # Shielded, so that `close` waits for a record whose sender has gone.
                return await asyncio.shield(answer)
        except TimeoutError:
            for each in self._pending():
                each.forget(answer)
            raise overdue() from None

    def _produce(self, record: Record, answer: asyncio.Future[Stored]) -> None:
        client = self._client
        if client is None or not self._accepting:
            raise DeliveryError(stored="no", reason="_FATAL" if self._accepting else "_DESTROY")
        if self._requeue and self.queued.bytes + len(record.value) > self._queue_bytes:
            raise DeliveryError(stored="no", reason="_QUEUE_FULL")
        deadline = time.monotonic() + self._delivery_timeout
        client.produce(record, answer, deadline, may_retry=True)

    def check(self, topic: str, timeout: float) -> None:
        """Ask a broker about a topic, and so connect before the first record. Blocks.

        Args:
            topic: The topic that records will go to.
            timeout: Seconds.

        Raises:
            BrokerUnavailable: No broker answered in time.
            TopicMissing: The topic does not exist, or is hidden from this client.
        """
        client = self._client
        if client is None:
            raise BrokerUnavailable("_FATAL")
        error, self._partitions[topic] = client.describe(topic, timeout)
        _require_topic(topic, error)

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic had at its last `check`; 0 without one."""
        return self._partitions.get(topic, 0)

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109  # it bounds a part of the work
        """Wait at most `timeout` seconds for what is pending, then stop. May be repeated.

        What is not confirmed by then fails with `stored="unknown"`. A later `send` fails at once.
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
        """Return all that wait: for the client, for those that retire, for the next client."""
        current = self._client
        clients = [*([] if current is None else [current]), *self._retiring]
        return [*(each.pending for each in clients), self._requeue.pending]

    def _build(self) -> ProducerClient:
        return ProducerClient(self._config, self._requeue.add, self._disposal)

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
        if self._client is not None:
            self._drop(self._client, "_DESTROY")

    def _turn(self) -> None:
        self._serve_retiring()
        client = self._client
        if client is None:
            self._build_when_due()
            return
        client.serve()
        self._serve_requeue(client)
        if client.errors.fatal is not None:
            self._drop(client, client.errors.fatal)
            self._fail(client.errors.fatal)
            return
        if client.has_stored:
            self._backoff.stored()
        if client.give_up_overdue():
            _log.warning("producer is replaced: a record is overdue")
            # The new one is built first, so that no record is refused meanwhile.
            self._client = self._build_or_wait()
            self._retiring.append(client)

    def _build_when_due(self) -> None:
        self._requeue.expire()
        if self._backoff.due(time.monotonic()):
            self._client = self._build_or_wait()
        else:
            self._closing.wait(_TURN_SECONDS)

    def _build_or_wait(self) -> ProducerClient | None:
        """Build a client; return None where threads or files for it are missing."""
        try:
            return self._build()
        except Exception as error:  # noqa: BLE001  # whatever is missing may be there later
            self._fail(type(error).__name__)
            return None

    def _serve_retiring(self) -> None:
        """Serve the clients that take no more records, until each record is answered."""
        for each in list(self._retiring):
            each.serve(0)
            each.give_up_overdue()
            if each.errors.fatal is not None or not each.pending.waiting():
                self._retiring.remove(each)
                each.dispose(each.errors.fatal or TIMED_OUT)

    def _serve_requeue(self, client: ProducerClient) -> None:
        """Hand the requeued records over as soon as a broker is connected."""

        def take(purged: PurgedRecord) -> bool:
            try:
                client.produce(purged.record, purged.future, purged.deadline, may_retry=False)
            except DeliveryError:
                return False
            return True

        self._requeue.expire()
        if self._requeue and client.connected:
            self._requeue.hand_over(take)

    def _drop(self, client: ProducerClient, reason: str) -> None:
        self._client = None
        client.dispose(reason)

    def _fail(self, reason: str) -> None:
        self._backoff.failed(reason, time.monotonic())
        self.on_failure()


async def _refusal(error: DeliveryError) -> Stored:
    raise error


def _require_topic(topic: str, error: KafkaError | None) -> None:
    if error is None:
        return
    if refused(error):
        raise TopicMissing(topic, error.name())
    raise BrokerUnavailable(error.name())


def _ignore() -> None:
    """Do nothing about a failure."""
