"""The producer's promise: one true answer for each record, in time, whatever the broker does."""

import asyncio
import itertools
import logging
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError
from speech_lib.errors import BrokerUnavailable, DeliveryError, TopicMissing
from speech_lib.kafka.producer import RecordProducer
from speech_lib.kafka.records import Queued, Record, Stored
from speech_lib.kafka.settings import MAX_RECORD_BYTES, KafkaSettings
from speech_lib.testing.mock_cluster import MockCluster

PRODUCE = 0
"""The protocol's number of the request that stores records."""
INIT_PRODUCER_ID = 22
RECORD = Record("t", b"key", b"value", {"name": "text"})
STATISTICS_SECONDS = 1.5
"""After so long the producer's statistics have told of whatever was sent before."""


@pytest.fixture
def silent_broker() -> Iterator[str]:
    """Accept connections (the kernel does) and never answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def new_producer(servers: str, delivery_timeout: float = 5.0, **options) -> RecordProducer:
    kafka = KafkaSettings(bootstrap_servers=servers)
    return RecordProducer(kafka, client_id="test", delivery_timeout=delivery_timeout, **options)


@asynccontextmanager
async def running(producer: RecordProducer) -> AsyncIterator[RecordProducer]:
    try:
        yield producer
    finally:
        await producer.close(0)


def numbered(number: int) -> Record:
    return Record("t", b"key%d" % number, b"value", {"name": "text"})


def in_log(cluster: MockCluster, count: int) -> list[tuple]:
    """Return key, value and headers of the first records of the topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": cluster.bootstrap_servers,
            "group.id": "test",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe(["t"])
    try:
        messages = consumer.consume(count, timeout=20.0)
    finally:
        consumer.close()
    return [(each.key(), each.value(), each.headers()) for each in messages]


def native_threads() -> int:
    """Return how many threads this process has, librdkafka's included."""
    return len(list(Path("/proc/self/task").iterdir()))


def facts(error: DeliveryError) -> tuple[str, str | None, str]:
    """Return what a caller decides by."""
    return error.stored, error.refused, error.reason


async def until(condition, seconds: float = 5.0) -> None:
    """Wait until a condition set by another thread holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # a thread sets it, and knows no event
            await asyncio.sleep(0.01)


def test_a_record_is_stored(cluster):
    """The answer tells where; the next one lies behind it."""

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers)) as producer:
            return [await producer.send(RECORD) for _ in range(3)]

    assert asyncio.run(scenario()) == [Stored("t", 0, offset) for offset in range(3)]


def test_a_record_over_the_limit_is_refused_at_once(cluster):
    """Too large for the agreed size is too large for good."""

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers)) as producer:
            with pytest.raises(DeliveryError) as caught:
                await producer.send(Record("t", b"key", bytes(MAX_RECORD_BYTES)))
            return caught.value

    assert facts(asyncio.run(scenario())) == ("no", "record", "MSG_SIZE_TOO_LARGE")


def test_a_record_that_the_broker_refuses_is_told_and_forgotten(cluster):
    """One record is refused for good; the next one is stored."""

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers)) as producer:
            await producer.send(RECORD)
            cluster.push_request_errors(PRODUCE, KafkaError.MSG_SIZE_TOO_LARGE)
            with pytest.raises(DeliveryError) as caught:
                await producer.send(RECORD)
            return caught.value, await producer.send(RECORD)

    error, stored = asyncio.run(scenario())
    assert (facts(error), stored) == (("no", "record", "MSG_SIZE_TOO_LARGE"), Stored("t", 0, 1))


def test_a_topic_that_may_not_be_written_is_refused(cluster):
    """Nothing is stored without permission, and asking again does not help."""

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers)) as producer:
            await producer.send(RECORD)
            cluster.push_request_errors(PRODUCE, KafkaError.TOPIC_AUTHORIZATION_FAILED)
            with pytest.raises(DeliveryError) as caught:
                await producer.send(RECORD)
            return caught.value

    assert facts(asyncio.run(scenario())) == ("no", "topic", "TOPIC_AUTHORIZATION_FAILED")


def test_an_error_that_passes_is_retried(cluster):
    """A leader that has moved and a broken connection are not the sender's business."""
    cluster.push_request_errors(PRODUCE, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError._TRANSPORT)

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers)) as producer:
            return await producer.send(RECORD)

    assert asyncio.run(scenario()) == Stored("t", 0, 0)


@pytest.mark.pipeline
@pytest.mark.parametrize("refusal", ["MSG_SIZE_TOO_LARGE", "TOPIC_AUTHORIZATION_FAILED"])
@pytest.mark.parametrize(
    "first",
    ["REQUEST_TIMED_OUT", "NOT_ENOUGH_REPLICAS_AFTER_APPEND", "NOT_LEADER_FOR_PARTITION"],
)
def test_a_refusal_after_another_try_says_nothing_of_that_one(cluster, first, refusal):
    """The first try may have been stored; that the second was refused changes nothing about it."""

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers)) as producer:
            await producer.send(RECORD)
            cluster.push_request_errors(
                PRODUCE, getattr(KafkaError, first), getattr(KafkaError, refusal)
            )
            with pytest.raises(DeliveryError) as caught:
                await producer.send(RECORD)
            return caught.value

    error = asyncio.run(scenario())
    assert error.refused is not None
    assert (error.stored, error.reason) == ("unknown", refusal)


@pytest.mark.pipeline
def test_a_refusal_after_a_broken_connection_says_nothing_of_the_try_before(cluster):
    """Nobody can tell whether the broker stored what it was sent before the connection broke."""

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers)) as producer:
            await producer.send(RECORD)
            await asyncio.sleep(STATISTICS_SECONDS)
            cluster.push_request_errors(
                PRODUCE, KafkaError._TRANSPORT, KafkaError.MSG_SIZE_TOO_LARGE
            )
            with pytest.raises(DeliveryError) as caught:
                await producer.send(RECORD)
            return caught.value

    assert facts(asyncio.run(scenario())) == ("unknown", "record", "MSG_SIZE_TOO_LARGE")


@pytest.mark.pipeline
def test_a_refusal_of_one_try_is_certain_among_many(cluster):
    """Other records that leave at the same time put no doubt on a record that is refused."""

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers)) as producer:
            await producer.send(RECORD)
            cluster.push_request_errors(PRODUCE, *[KafkaError.MSG_SIZE_TOO_LARGE] * 20)
            before = time.monotonic()
            sends = [producer.send(RECORD) for _ in range(20)]
            errors = await asyncio.gather(*sends, return_exceptions=True)
            return errors, time.monotonic() - before

    errors, took = asyncio.run(scenario())
    refused = [error for error in errors if isinstance(error, DeliveryError)]
    assert {facts(error) for error in refused} == {("no", "record", "MSG_SIZE_TOO_LARGE")}
    assert took < 1.0


@pytest.mark.pipeline
def test_an_unknown_topic_is_refused_in_time(cluster):
    """A topic that is not there is told as such, and not as a timeout."""
    cluster.set_topic_error("missing")

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers, 4.0)) as producer:
            with pytest.raises(DeliveryError) as caught:
                await producer.send(Record("missing", b"key", b"value"))
            return caught.value

    assert facts(asyncio.run(scenario())) == ("no", "topic", "UNKNOWN_TOPIC_OR_PART")


def test_a_full_queue_refuses_at_once(cluster):
    """What waits for a broker is bounded; beyond it nothing is taken, and it may be tried again."""
    cluster.set_broker_down()
    large = Record("t", b"key", bytes(900_000))

    async def scenario():
        producer = new_producer(cluster.bootstrap_servers, queue_bytes=2 * 1024 * 1024)
        async with running(producer):
            waiting = [asyncio.ensure_future(producer.send(large)) for _ in range(2)]
            await asyncio.sleep(0)
            before = time.monotonic()
            with pytest.raises(DeliveryError) as caught:
                await producer.send(large)
            took = time.monotonic() - before
        return caught.value, took, await asyncio.gather(*waiting, return_exceptions=True)

    error, took, others = asyncio.run(scenario())
    assert facts(error) == ("no", None, "_QUEUE_FULL")
    assert took < 0.2
    assert [facts(other) for other in others] == [("unknown", None, "_DESTROY")] * 2


def test_what_waits_for_the_broker_is_counted(cluster):
    """Records and their bytes, until each is answered."""

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers)) as producer:
            await producer.send(RECORD)
            assert producer.queued == Queued(0, 0)
            cluster.set_broker_down()
            sending = [asyncio.ensure_future(producer.send(RECORD)) for _ in range(2)]
            await until(lambda: producer.queued == Queued(2, 2 * len(b"keyvalue")))
            cluster.set_broker_up()
            await asyncio.gather(*sending)
            assert producer.queued == Queued(0, 0)

    asyncio.run(scenario())


def test_the_queue_is_bounded_by_default(cluster):
    """Nobody who asks for nothing gets librdkafka's gigabyte."""
    cluster.set_broker_down()
    large = Record("t", b"key", bytes(2_000_000))

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers)) as producer:
            sends = [asyncio.ensure_future(producer.send(large)) for _ in range(20)]
            await asyncio.sleep(0)
            taken = sum(not send.done() for send in sends)
        await asyncio.gather(*sends, return_exceptions=True)
        return taken

    assert asyncio.run(scenario()) == 32 * 1024 * 1024 // 2_000_000


@pytest.mark.pipeline
@pytest.mark.parametrize(("state", "stored"), [("down", "no"), ("silent", "unknown")])
def test_a_broker_that_does_not_answer_is_told_in_time(cluster, state, stored):
    """The answer comes within the timeout and two seconds; what was never sent is not stored."""

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers, 1.5)) as producer:
            await producer.send(RECORD)
            await asyncio.sleep(STATISTICS_SECONDS)
            if state == "down":
                cluster.set_broker_down()
            else:
                cluster.set_rtt(60_000)
            before = time.monotonic()
            with pytest.raises(DeliveryError) as caught:
                await producer.send(RECORD)
            return caught.value, time.monotonic() - before

    error, took = asyncio.run(scenario())
    assert facts(error) == (stored, None, "_MSG_TIMED_OUT")
    assert 1.4 < took < 3.5


@pytest.mark.pipeline
def test_a_record_that_waits_beside_one_that_was_sent_is_in_doubt(cluster):
    """What was sent is never called not stored, although the other one never left.

    The other one is told apart only if statistics came in between.
    """

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers, 1.5)) as producer:
            await producer.send(RECORD)
            cluster.set_rtt(60_000)
            sends = [asyncio.ensure_future(producer.send(RECORD))]
            await asyncio.sleep(0)
            cluster.set_broker_down()
            sends.append(asyncio.ensure_future(producer.send(RECORD)))
            return await asyncio.gather(*sends, return_exceptions=True)

    sent, waited = asyncio.run(scenario())
    assert facts(sent) == ("unknown", None, "_MSG_TIMED_OUT")
    assert facts(waited) in [(stored, None, "_MSG_TIMED_OUT") for stored in ("unknown", "no")]


@pytest.mark.pipeline
def test_a_record_whose_every_try_fails_is_in_doubt(cluster):
    """Too few replicas, again and again: each try was sent, and one may have been stored."""
    cluster.push_request_errors(PRODUCE, *[KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND] * 100)

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers, 1.5)) as producer:
            with pytest.raises(DeliveryError) as caught:
                await producer.send(RECORD)
            return caught.value

    assert facts(asyncio.run(scenario())) == ("unknown", None, "_MSG_TIMED_OUT")


def test_a_record_that_the_broker_has_forgotten_where_is_answered(cluster):
    """Stored by an earlier try, at an unknown offset: no receipt can be given, but an answer."""
    cluster.push_request_errors(PRODUCE, KafkaError.DUPLICATE_SEQUENCE_NUMBER)

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers)) as producer:
            async with asyncio.timeout(5):
                with pytest.raises(DeliveryError) as caught:
                    await producer.send(RECORD)
            return caught.value, await producer.send(RECORD)

    error, stored = asyncio.run(scenario())
    assert facts(error) == ("unknown", None, "DUPLICATE_SEQUENCE_NUMBER")
    assert stored == Stored("t", 0, 0)


@pytest.mark.pipeline
@pytest.mark.timeout(20)
def test_a_broker_that_was_always_silent_holds_nothing(silent_broker):
    """Neither `check`, nor `send`, nor `close` waits longer than it says."""

    async def scenario():
        producer = new_producer(silent_broker, 1.5)
        times = [time.monotonic()]
        with pytest.raises(BrokerUnavailable):
            await asyncio.to_thread(producer.check, "t", 0.5)
        times.append(time.monotonic())
        with pytest.raises(DeliveryError) as caught:
            await producer.send(RECORD)
        times.append(time.monotonic())
        await producer.close(1.0)
        times.append(time.monotonic())
        took = [after - before for before, after in itertools.pairwise(times)]
        return caught.value, took

    error, (check, send, close) = asyncio.run(scenario())
    assert facts(error) == ("no", None, "_MSG_TIMED_OUT")
    assert check < 1.0
    assert send < 3.5
    assert close < 2.0


@pytest.mark.pipeline
def test_a_broker_that_comes_back_is_seen_soon(cluster):
    """However long it was away, it is tried at least once a second."""

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers, 20.0)) as producer:
            await producer.send(RECORD)
            cluster.set_broker_down()
            waiting = asyncio.ensure_future(producer.send(RECORD))
            await asyncio.sleep(2)  # long enough for the back-off to reach its most
            cluster.set_broker_up()
            before = time.monotonic()
            return await waiting, time.monotonic() - before

    stored, took = asyncio.run(scenario())
    assert stored.topic == "t"
    assert took < 5.0


def test_a_fatal_error_fails_what_is_pending_and_is_survived(cluster):
    """Who waits is told within two seconds that nobody knows; the next record is stored."""

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers)) as producer:
            first = await producer.send(RECORD)
            cluster.set_rtt(300)
            cluster.push_request_errors(PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
            before = time.monotonic()
            sends = (producer.send(RECORD) for _ in range(3))
            errors = await asyncio.gather(*sends, return_exceptions=True)
            took = time.monotonic() - before
            cluster.set_rtt(0)
            await until(lambda: producer.healthy)
            return first, errors, took, await producer.send(RECORD)

    first, errors, took, last = asyncio.run(scenario())
    assert [facts(error)[:2] for error in errors] == [("unknown", None)] * 3
    assert took < 2.0
    assert last.offset > first.offset


def test_a_producer_that_failed_is_gone_when_it_is_replaced(cluster):
    """However often that happens, no threads of the old ones are left, whatever was pending."""

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers)) as producer:
            await producer.send(RECORD)
            before = native_threads()
            for _ in range(3):
                cluster.set_rtt(300)
                cluster.push_request_errors(PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
                sends = (producer.send(RECORD) for _ in range(3))
                await asyncio.gather(*sends, return_exceptions=True)
                cluster.set_rtt(0)
                await until(lambda: producer.healthy)
                await producer.send(RECORD)
            await until(lambda: native_threads() <= before)

    asyncio.run(scenario())


def test_a_producer_is_not_healthy_while_it_is_replaced(cluster):
    """Between a fatal error and the new producer nothing is taken, and `healthy` says so."""
    may_turn = threading.Event()
    may_turn.set()

    class Held(RecordProducer):
        def _turn(self):
            if self._client is None:
                may_turn.wait(10)
            super()._turn()

    async def scenario():
        kafka = KafkaSettings(bootstrap_servers=cluster.bootstrap_servers)
        async with running(Held(kafka, client_id="test", delivery_timeout=5)) as producer:
            await producer.send(RECORD)
            seen = [producer.healthy]
            may_turn.clear()
            cluster.push_request_errors(PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
            with pytest.raises(DeliveryError):
                await producer.send(RECORD)
            seen.append(producer.healthy)
            with pytest.raises(DeliveryError) as caught:
                await producer.send(RECORD)
            with pytest.raises(BrokerUnavailable):
                producer.check("t", 1.0)
            may_turn.set()
            await until(lambda: producer.healthy)
            return seen, caught.value

    seen, error = asyncio.run(scenario())
    assert seen == [True, False]
    assert facts(error) == ("no", None, "_FATAL")


class Scarce(RecordProducer):
    """A producer on a machine where building a librdkafka producer fails, while `short` is set."""

    short = False
    built = 0

    def _build(self):
        if self.short:
            raise OSError(24, "Too many open files")
        self.built += 1
        return super()._build()


def scarce_producer(cluster: MockCluster, delivery_timeout: float) -> Scarce:
    kafka = KafkaSettings(bootstrap_servers=cluster.bootstrap_servers)
    return Scarce(kafka, client_id="test", delivery_timeout=delivery_timeout)


@pytest.mark.pipeline
def test_a_producer_that_cannot_be_built_is_not_healthy_and_heals(cluster, caplog):
    """An overdue record brings a new producer; while there is none, it is known, and not for ever.

    What is sent meanwhile is refused at once, and one line tells of it.
    """

    async def scenario():
        async with running(scarce_producer(cluster, 1.0)) as producer:
            await producer.send(RECORD)
            producer.short = True
            cluster.set_broker_down()
            with pytest.raises(DeliveryError):
                await producer.send(RECORD)
            cluster.set_broker_up()
            await until(lambda: not producer.healthy)
            with pytest.raises(DeliveryError) as caught:
                await producer.send(RECORD)
            with pytest.raises(BrokerUnavailable):
                producer.check("t", 1.0)
            producer.short = False
            await until(lambda: producer.healthy, 10.0)
            return caught.value, await producer.send(RECORD)

    error, stored = asyncio.run(scenario())
    assert (facts(error), stored) == (("no", None, "_FATAL"), Stored("t", 0, 1))
    failures = [line for line in caplog.messages if line.startswith("producer failed")]
    assert failures == ["producer failed for good: OSError"]


@pytest.mark.pipeline
def test_a_failure_that_lasts_is_tried_again_ever_more_rarely(cluster, caplog):
    """A right that is missing fails each new producer: few are built, and one line tells of it."""
    cluster.push_request_errors(INIT_PRODUCER_ID, *[KafkaError.CLUSTER_AUTHORIZATION_FAILED] * 1000)

    async def scenario():
        async with running(scarce_producer(cluster, 5.0)) as producer:
            await until(lambda: producer.built == 4, 30.0)  # after pauses of 0, 0.5 and 1 s
            began = time.monotonic()
            await until(lambda: producer.built == 5, 30.0)
            paused, healthy = time.monotonic() - began, producer.healthy
            cluster.clear_request_errors(INIT_PRODUCER_ID)
            await until(lambda: producer.healthy, 30.0)
            return paused, healthy, await producer.send(RECORD)

    paused, healthy, stored = asyncio.run(scenario())
    assert paused > 2.0
    assert not healthy
    assert stored == Stored("t", 0, 0)
    assert [line for line in caplog.messages if line.startswith("producer failed")] == [
        "producer failed for good: CLUSTER_AUTHORIZATION_FAILED"
    ]


@pytest.mark.pipeline
def test_each_record_has_its_own_time(cluster):
    """One that is overdue ends no other: they are stored by the next producer, once each."""

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers, 6.0)) as producer:
            await producer.send(RECORD)
            await asyncio.sleep(STATISTICS_SECONDS)
            cluster.set_broker_down()
            first = asyncio.ensure_future(producer.send(RECORD))
            await asyncio.sleep(5.0)
            others = [asyncio.ensure_future(producer.send(numbered(n))) for n in range(3)]
            with pytest.raises(DeliveryError) as caught:
                await first
            waiting = producer.queued
            cluster.set_broker_up()
            return caught.value, waiting, await asyncio.gather(*others)

    error, waiting, stored = asyncio.run(scenario())
    assert facts(error) == ("no", None, "_MSG_TIMED_OUT")
    assert waiting == Queued(3, 3 * len(b"key0" + b"value"))
    assert stored == [Stored("t", 0, offset) for offset in (1, 2, 3)]
    assert in_log(cluster, 4)[1:] == [
        (b"key%d" % n, b"value", [("name", b"text")]) for n in (0, 1, 2)
    ]


@pytest.mark.pipeline
def test_a_record_that_was_taken_back_is_answered_at_its_own_time(cluster):
    """Where no broker comes back, nobody is answered early, and what never left is not stored."""

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers, 3.0)) as producer:
            await producer.send(RECORD)
            await asyncio.sleep(STATISTICS_SECONDS)
            cluster.set_broker_down()

            async def send(after: float) -> tuple[DeliveryError, float]:
                await asyncio.sleep(after)
                began = time.monotonic()
                with pytest.raises(DeliveryError) as caught:
                    await producer.send(RECORD)
                return caught.value, time.monotonic() - began

            return await asyncio.gather(*(send(after) for after in (0.0, 1.0, 2.0)))

    answers = asyncio.run(scenario())
    assert [facts(error) for error, _ in answers] == [("no", None, "_MSG_TIMED_OUT")] * 3
    assert [3.0 <= took < 5.0 for _, took in answers] == [True] * 3


def test_a_record_is_handed_over_at_once(cluster):
    """Not when its answer is awaited; and what is awaited keeps none of its bytes."""

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers)) as producer:
            record = Record("t", b"key", b"v" * 1000)
            references = sys.getrefcount(record), sys.getrefcount(record.value)
            answer = producer.hand_over(record)
            assert producer.queued == Queued(1, 1003)
            assert (sys.getrefcount(record), sys.getrefcount(record.value)) == references
            return await answer

    assert asyncio.run(scenario()) == Stored("t", 0, 0)


@pytest.mark.pipeline
def test_an_answer_is_bounded_though_the_thread_is_held_up(cluster):
    """Whatever the thread waits for, a sender is answered in time, and `close` ends in its own."""
    may_turn = threading.Event()

    class Held(RecordProducer):
        def _turn(self):
            may_turn.wait(60)
            super()._turn()

    async def scenario():
        kafka = KafkaSettings(bootstrap_servers=cluster.bootstrap_servers)
        producer = Held(kafka, client_id="test", delivery_timeout=1.0)
        times = [time.monotonic()]
        with pytest.raises(DeliveryError) as caught:
            await producer.send(RECORD)
        times.append(time.monotonic())
        waiting = producer.queued
        late = asyncio.ensure_future(producer.hand_over(RECORD))
        await producer.close(0.5)
        times.append(time.monotonic())
        may_turn.set()
        took = [after - before for before, after in itertools.pairwise(times)]
        return [caught.value, *await asyncio.gather(late, return_exceptions=True)], waiting, took

    errors, waiting, (send, close) = asyncio.run(scenario())
    assert [facts(error) for error in errors] == [
        ("unknown", None, "_MSG_TIMED_OUT"),
        ("unknown", None, "_DESTROY"),
    ]
    assert waiting == Queued(0, 0)
    assert 3.0 <= send < 4.0
    assert close < 3.0


def test_the_thread_goes_on_after_an_error(cluster, caplog):
    """Whatever fails in a turn of the thread, the next turn comes; the log names the kind only."""

    class Stumbling(RecordProducer):
        stumbles = 2

        def _turn(self):
            if self.stumbles:
                self.stumbles -= 1
                raise ValueError("at 10.0.0.1:9092")
            super()._turn()

    async def scenario():
        kafka = KafkaSettings(bootstrap_servers=cluster.bootstrap_servers)
        async with running(Stumbling(kafka, client_id="test", delivery_timeout=5)) as producer:
            return await producer.send(RECORD)

    assert asyncio.run(scenario()) == Stored("t", 0, 0)
    assert [record.getMessage() for record in caplog.records if "goes on" in record.message] == [
        "producer thread goes on after ValueError"
    ] * 2


def test_a_sender_whose_loop_has_gone_disturbs_nobody(cluster):
    """An answer for a closed loop is dropped; another loop's sender gets its own."""

    async def leave(producer):
        task = asyncio.ensure_future(producer.send(RECORD))
        await asyncio.sleep(0)
        task.cancel()

    async def scenario(producer):
        async with running(producer):
            return await producer.send(RECORD)

    producer = new_producer(cluster.bootstrap_servers)
    asyncio.run(leave(producer))
    assert asyncio.run(scenario(producer)) == Stored("t", 0, 1)


def test_close_waits_for_a_record_whose_sender_was_cancelled(cluster):
    """A client that goes away does not take its utterance along."""

    async def scenario():
        producer = new_producer(cluster.bootstrap_servers)
        sender = asyncio.ensure_future(producer.send(RECORD))
        await asyncio.sleep(0)
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
        await producer.close(5.0)
        async with running(new_producer(cluster.bootstrap_servers)) as other:
            return sender.cancelled(), await other.send(RECORD)

    assert asyncio.run(scenario()) == (True, Stored("t", 0, 1))


def test_a_closed_producer_takes_nothing(cluster):
    """After `close`, which may be repeated, a record is refused at once."""

    async def scenario():
        producer = new_producer(cluster.bootstrap_servers)
        await producer.close(1.0)
        await producer.close(1.0)
        with pytest.raises(DeliveryError) as caught:
            await producer.send(RECORD)
        return caught.value, producer.healthy

    error, healthy = asyncio.run(scenario())
    assert (facts(error), healthy) == (("no", None, "_DESTROY"), False)


@pytest.mark.pipeline
def test_a_send_does_not_block_the_loop(cluster):
    """While records wait for a slow broker the loop turns."""
    cluster.set_rtt(100)

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers)) as producer:
            large = Record("t", b"key", bytes(1_500_000))
            sends = [asyncio.ensure_future(producer.send(large)) for _ in range(5)]
            longest, last = 0.0, time.monotonic()
            while not all(send.done() for send in sends):
                await asyncio.sleep(0.005)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
            return longest

    assert asyncio.run(scenario()) < 0.2


def test_check_tells_what_is_wrong(cluster):
    """A topic that may be written, one that is not there, one that is hidden, and no broker."""
    cluster.set_topic_error("missing")
    cluster.set_topic_error("hidden", KafkaError.TOPIC_AUTHORIZATION_FAILED)

    async def scenario():
        async with running(new_producer(cluster.bootstrap_servers)) as producer:
            producer.check("t", 5.0)
            with pytest.raises(TopicMissing) as missing:
                producer.check("missing", 5.0)
            with pytest.raises(TopicMissing) as hidden:
                producer.check("hidden", 5.0)
            cluster.set_broker_down()
            with pytest.raises(BrokerUnavailable) as down:
                producer.check("t", 0.5)
            return missing.value.reason, hidden.value.reason, str(down.value)

    missing, hidden, down = asyncio.run(scenario())
    assert (missing, hidden) == ("UNKNOWN_TOPIC_OR_PART", "TOPIC_AUTHORIZATION_FAILED")
    assert down.startswith("the broker is not available: _")


@pytest.mark.pipeline
def test_no_address_is_logged(cluster, caplog, monkeypatch):
    """What librdkafka complains of is in the log, without where the broker is."""
    caplog.set_level(logging.DEBUG)
    # Without memory of what other tests have made it say shortly before.
    monkeypatch.setattr(logging.getLogger("speech_lib.librdkafka.producer"), "filters", [])
    servers = cluster.bootstrap_servers
    cluster.set_broker_down()

    async def scenario():
        async with running(new_producer(servers, 1.0)) as producer:
            with pytest.raises(DeliveryError):
                await producer.send(RECORD)

    asyncio.run(scenario())
    lines = [record for record in caplog.records if record.name == "speech_lib.librdkafka.producer"]
    assert any("Connection refused" in line.getMessage() for line in lines)
    assert not any(part in caplog.text for part in servers.split(":"))


@pytest.mark.pipeline
def test_a_real_broker_knows_no_such_topic(pipeline):
    """Nothing makes a topic by itself: it is missing for `check`, and refused for `send`."""
    if not pipeline.real:
        pytest.skip("needs Apache Kafka: set KAFKA_BOOTSTRAP_SERVERS and SCHEMA_REGISTRY_URL")

    async def scenario():
        async with running(new_producer(pipeline.bootstrap_servers, 8.0)) as producer:
            with pytest.raises(TopicMissing):
                producer.check("no-such-topic", 10.0)
            with pytest.raises(DeliveryError) as caught:
                await producer.send(Record("no-such-topic", b"key", b"value"))
            return caught.value

    stored, refused, reason = facts(asyncio.run(scenario()))
    assert (stored, refused) == ("no", "topic")
    assert reason in {"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"}
