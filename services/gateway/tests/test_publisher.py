"""An utterance becomes a record, and what the producer says becomes what the client is told."""

import asyncio
from dataclasses import replace

import pytest
from speech_gateway.errors import Failure, NotStored
from speech_gateway.publisher import Publisher
from speech_gateway.utterance import Context, Receipt, Utterance
from speech_lib.errors import DeliveryError, RegistryUnavailable
from speech_lib.events import AudioInput, AudioInputEvent, codec
from speech_lib.events.schemas import schema_text
from speech_lib.kafka.producer import RecordProducer
from speech_lib.kafka.registry import EventSerializer
from speech_lib.kafka.settings import KafkaSettings
from speech_lib.telemetry.context import TraceContext
from speech_lib.testing.fakes import FakeBroker, FakeProducer, FakeRegistry
from speech_lib.testing.mock_cluster import MockCluster
from speech_lib.testing.spans import KeptSpans

pytestmark = pytest.mark.anyio

TOPIC = "speech.audio.ingress"
CORRELATION_ID = "0b6f9a52-64a5-4c39-9a7c-6b9c3f6f0f7e"
TRACE = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1)
SOURCE = "0123456789abcdef"
CONTEXT = Context(CORRELATION_ID, TRACE, "de-DE", epoch=1_700_000_000.0, source=SOURCE)
UTTERANCE = Utterance(
    wav=b"RIFF....", ended_by="done", handshake_at=1.0, first_audio_at=1.5, ended_at=2.25
)


def make(*, ready: bool = True) -> tuple[Publisher, FakeProducer, FakeBroker]:
    broker = FakeBroker()
    producer = FakeProducer(broker)
    serializer = EventSerializer(FakeRegistry(), TOPIC, AudioInputEvent, auto_register=True)
    if ready:
        serializer.warm_up()
    return Publisher(producer, serializer, TOPIC, KeptSpans()), producer, broker


async def test_an_utterance_is_stored_as_an_event():
    """Key, headers and event say what the session knows; the receipt says where it is."""
    publisher, _, broker = make()
    receipt = await publisher.publish(CONTEXT, UTTERANCE)
    (record,) = broker.records(TOPIC)
    event = codec.decode(AudioInputEvent, record.value, schema_text(AudioInputEvent.event_type))
    assert receipt == Receipt(event.event_id, TOPIC, 0, 0)
    assert (event.correlation_id, event.source_service) == (CORRELATION_ID, "gateway")
    assert event.payload == AudioInput(b"RIFF....", "wav", 16_000, "de-DE")
    assert record.key == CORRELATION_ID.encode()
    sending = TraceContext.parse(record.headers["traceparent"])
    assert (sending.trace_id, sending.flags) == (TRACE.trace_id, TRACE.flags)
    assert record.headers == {
        "correlation_id": CORRELATION_ID,
        "traceparent": sending.header(),
        "event_type": "AudioInputEvent",
        "ended_by": "done",
        "handshake_ms": "1700000001000",
        "first_audio_ms": "1700000001500",
        "ended_ms": "1700000002250",
        "source": SOURCE,
    }


async def test_the_record_carries_the_span_of_its_sending():
    """Below the session's span; told when the broker has answered, with what is in the record."""
    publisher, _, broker = make()
    await publisher.publish(CONTEXT, UTTERANCE)
    (record,) = broker.records(TOPIC)
    (span,) = publisher.spans.spans
    assert (span.name, span.parent, span.error) == (f"send {TOPIC}", TRACE, None)
    assert span.context.header() == record.headers["traceparent"]
    assert span.attributes["messaging.message.conversation_id"] == CORRELATION_ID
    assert span.attributes["messaging.message.body.size"] == len(record.value)
    assert span.start_ns <= span.end_ns


@pytest.mark.parametrize(
    ("stored", "refused", "failure"),
    [
        ("no", "record", Failure.REJECTED_BY_BROKER),
        ("no", "topic", Failure.REJECTED_BY_BROKER),
        ("no", None, Failure.BROKER_UNAVAILABLE),
        ("unknown", None, Failure.BROKER_UNAVAILABLE),
    ],
)
async def test_a_delivery_that_failed_is_told_as_it_is(stored, refused, failure):
    """Refused for good or not decides on the code; what is known of the record is passed on."""
    publisher, producer, broker = make()
    producer.errors.append(DeliveryError(stored=stored, refused=refused, reason="WHY"))
    with pytest.raises(NotStored) as caught:
        await publisher.publish(CONTEXT, UTTERANCE)
    told = caught.value
    assert (told.failure, told.stored, told.reason) == (failure, stored, "WHY")
    assert [span.error for span in publisher.spans.spans] == ["WHY"]
    assert broker.records(TOPIC) == ()


async def test_an_utterance_is_sent_once_whatever_comes_of_it():
    """Trying again is librdkafka's: after a failure nothing is sent a second time."""
    publisher, producer, broker = make()
    producer.errors.append(DeliveryError(stored="unknown", reason="WHY"))
    with pytest.raises(NotStored):
        await publisher.publish(CONTEXT, UTTERANCE)
    await publisher.publish(CONTEXT, UTTERANCE)
    assert len(broker.records(TOPIC)) == 1


async def test_without_the_schema_nothing_is_sent():
    """Nobody is admitted before it is known; if somebody were, nothing would be stored."""
    publisher, _, broker = make(ready=False)
    with pytest.raises(RegistryUnavailable):
        publisher.publish(CONTEXT, UTTERANCE)
    assert broker.records(TOPIC) == ()


async def test_an_utterance_is_handed_over_when_it_is_published():
    """Not when the answer is awaited: who is interrupted in between loses nothing."""
    with MockCluster() as cluster:
        cluster.create_topic(TOPIC)
        kafka = KafkaSettings(bootstrap_servers=cluster.bootstrap_servers)
        producer = RecordProducer(kafka, client_id="test", delivery_timeout=5.0)
        serializer = EventSerializer(FakeRegistry(), TOPIC, AudioInputEvent, auto_register=True)
        serializer.warm_up()
        answer = Publisher(producer, serializer, TOPIC).publish(CONTEXT, UTTERANCE)
        assert producer.queued.records == 1
        receipt = await answer
        assert (receipt.topic, receipt.partition, receipt.offset) == (TOPIC, 0, 0)
        await producer.close(1.0)


async def test_recordings_of_one_address_go_to_the_last_partition():
    """As soon as the producer knows how many there are; what others send goes elsewhere."""
    with MockCluster() as cluster:
        cluster.create_topic(TOPIC, 6)
        kafka = KafkaSettings(bootstrap_servers=cluster.bootstrap_servers)
        producer = RecordProducer(kafka, client_id="test", delivery_timeout=5.0)
        serializer = EventSerializer(FakeRegistry(), TOPIC, AudioInputEvent, auto_register=True)
        serializer.warm_up()
        publisher = Publisher(producer, serializer, TOPIC)
        recording = replace(UTTERANCE, wav=bytes(40 * 32_000), handshake_at=UTTERANCE.ended_at)
        another = replace(CONTEXT, source="fedcba9876543210")
        assert producer.partitions(TOPIC) == 0
        await asyncio.to_thread(producer.check, TOPIC, 5.0)
        stored = [
            (await publisher.publish(context, recording)).partition
            for context in [*[CONTEXT] * 4, another]
        ]
        await producer.close(1.0)
    assert [each == 5 for each in stored] == [False, False, True, True, False]
