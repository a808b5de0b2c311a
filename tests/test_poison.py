"""Records that no gateway has written: each is put aside with its reason, and speech goes on.

Whoever may write to the topic of the gateways may write anything. The kinds of wrong events are
tried on the recogniser by itself (`services/asr/tests/test_service.py`); here a live pipeline meets
records that are hard to carry.
"""

import asyncio
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from speech_gateway.wav import wrap
from speech_lib.events import AudioInput, AudioInputEvent, TextRecognizedEvent
from speech_lib.events.codec import encode
from speech_lib.events.schemas import schema_text
from speech_lib.kafka.consumer import RecordConsumer
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.kafka.registry import EventDeserializer, subject_of
from speech_lib.kafka.settings import MAX_RECORD_BYTES
from speech_lib.testing import foreign
from speech_lib.testing.foreign import ForeignRecord
from speech_tools import stack
from speech_tools.protocol import audio, client

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(120)]

GO_FORWARD = Path(__file__).parent.parent / "samples" / "go-forward-ten-meters.raw"
SAID = "go forward ten meters"
POLLS = 120
TEXT_SECONDS = 10.0
"""From the moment at which a hostile record is stored until the next utterance has its text."""
ADMIN_SECONDS = 20.0
OVERHEAD = 96
"""What a batch of one record takes besides its content, with too little to spare for a reason."""
YEAR_2100_MS = 4_102_444_800_000
UNREADABLE = "unreadable_headers"
SILENCE = wrap(bytes(3_200))


@dataclass(frozen=True)
class Kind:
    """What somebody else writes, and what its dead letter says.

    Attributes:
        record: As it is written; without a value of its own, that of an utterance.
        reason: Why it is a dead letter; empty for one that is an utterance all the same.
        headers: What the dead letter keeps of the record's own.
        schema_id: Put in the place of the utterance's.
        audio: Of the utterance.
    """

    record: ForeignRecord
    reason: str = "not_avro"
    headers: Mapping[str, str] = field(default_factory=dict)
    schema_id: int | None = None
    audio: bytes = SILENCE


NONE = ForeignRecord(b"none")
GOOD = ForeignRecord(b"")
MANY = [(b"h%d" % number, b"%d" % number) for number in range(900)]
MANY_TEXTS = {name.decode(): value.decode() for name, value in MANY}
HUGE = b"x" * 500_000

KINDS = {
    "no value": Kind(ForeignRecord(None)),
    "nothing at all": Kind(ForeignRecord(None, None)),
    "no key": Kind(replace(NONE, key=None)),
    "an empty key": Kind(replace(NONE, key=b"")),
    "a key that is no text": Kind(replace(NONE, key=b"\xff\x00")),
    "a huge key": Kind(replace(NONE, key=HUGE)),
    "header values that are no text": Kind(
        replace(NONE, headers=[(b"correlation_id", b"\xff"), (b"x", None), (b"x", b"2")]),
        headers={"correlation_id": "\ufffd", "x": "2"},
    ),
    "huge header values": Kind(
        replace(NONE, headers=[(b"correlation_id", HUGE), (b"traceparent", HUGE)]),
        headers={"correlation_id": HUGE.decode(), "traceparent": HUGE.decode()},
    ),
    "header names that are not UTF-8": Kind(
        replace(GOOD, headers=[(b"correlation_id", b"c"), (b"\xff\xfe", b"x")]), UNREADABLE
    ),
    "a header name cut inside a character": Kind(
        replace(GOOD, headers=[("ü".encode()[:1], b"x")]), UNREADABLE
    ),
    "header names as our own, and one not UTF-8": Kind(
        replace(NONE, headers=[(b"dlq_reason", b"x"), (b"\xc3", None)]), UNREADABLE
    ),
    "an empty header name": Kind(
        replace(NONE, headers=[(b"", b"x"), (b"", b"y")]), headers={"": "y"}
    ),
    "900 headers": Kind(replace(NONE, headers=MANY), headers=MANY_TEXTS),
    "a time of 1970": Kind(replace(NONE, timestamp_ms=1)),
    "a time of 2100": Kind(replace(NONE, timestamp_ms=YEAR_2100_MS)),
    "an unknown schema id": Kind(GOOD, "unknown_schema", schema_id=2_000_000_000),
    "schema id 0": Kind(GOOD, "unknown_schema", schema_id=0),
    "the largest schema id": Kind(GOOD, "unknown_schema", schema_id=2**32 - 1),
    "a negative schema id": Kind(GOOD, "unknown_schema", schema_id=2**31),
    "the magic byte alone": Kind(ForeignRecord(b"\0")),
    "no body": Kind(ForeignRecord(b"\0\0\0\0\0"), "unknown_schema"),
    "a data chunk that has none of the samples": Kind(
        GOOD, "not_wav", audio=SILENCE[:40] + bytes(4) + SILENCE[44:]
    ),
    "12 bits a sample": Kind(
        GOOD, "unsupported_format", audio=SILENCE[:34] + b"\x0c" + SILENCE[35:]
    ),
    "an utterance of 1970": Kind(replace(GOOD, timestamp_ms=1), ""),
    "an utterance of 2100": Kind(replace(GOOD, timestamp_ms=YEAR_2100_MS), ""),
    "an utterance without a key": Kind(replace(GOOD, key=None), ""),
    "an utterance with 900 headers": Kind(replace(GOOD, headers=MANY), ""),
    "an utterance with headers that are not the gateway's": Kind(
        replace(GOOD, headers=[(b"traceparent", b"\xff" * 1_000), (b"ended_by", None)]), ""
    ),
}
LARGE = {
    "as large as the broker takes": ForeignRecord(b"x" * (MAX_RECORD_BYTES - OVERHEAD)),
    "compressed, and larger than that": ForeignRecord(
        b"x" * (5 * MAX_RECORD_BYTES), compression="gzip"
    ),
    "headers as large as the broker takes": ForeignRecord(
        b"none", headers=[(b"x", b"x" * (MAX_RECORD_BYTES - OVERHEAD))]
    ),
    "a key as large as the broker takes": ForeignRecord(
        b"none", key=b"x" * (MAX_RECORD_BYTES - OVERHEAD)
    ),
}
"""There is no room left to say why they are dead letters."""


@pytest.fixture(scope="module", autouse=True)
def any_time(pipeline, topics) -> None:
    """Have the broker take records of any time, as older ones do: 2100 is refused otherwise."""
    if pipeline.real:
        entry = ConfigEntry(
            "message.timestamp.after.max.ms",
            str(2**63 - 1),
            incremental_operation=AlterConfigOpType.SET,
        )
        admin = AdminClient({"bootstrap.servers": pipeline.bootstrap_servers})
        for name in set(topics.names.values()):
            resource = ConfigResource("TOPIC", name, incremental_configs=[entry])
            (answer,) = admin.incremental_alter_configs([resource]).values()
            answer.result(ADMIN_SECONDS)


@pytest.fixture(scope="module")
def url(pipeline, topics, logs) -> Iterator[str]:
    with (
        stack.gateway(pipeline, logs, topics.names) as gateway,
        stack.recogniser(pipeline, logs, topics.names) as recogniser,
    ):
        yield gateway.url
        assert recogniser.stop() == 0, "the recogniser has ended by itself"


@pytest.fixture(scope="module")
def letters(topics) -> Iterator[RecordConsumer]:
    """Read the dead letters, one after the other."""
    with topics.reader("TOPIC_DEAD_LETTER") as consumer:
        yield consumer


def read(consumer: RecordConsumer, count: int) -> list[ReceivedRecord]:
    """Return the next records of a topic."""
    found: list[ReceivedRecord] = []
    for _ in range(POLLS):
        found += consumer.poll(0.5, max_records=count - len(found))
        if len(found) == count:
            return found
    raise AssertionError(f"{len(found)} of {count} records")


def speak(url: str) -> dict:
    """Speak an utterance and return its receipt."""
    outcome = asyncio.run(client.stream(url, audio.load(GO_FORWARD).pcm, paced=False))
    assert outcome.final["status"] == "accepted", outcome.final
    return outcome.final


def utterance(schema_id: int, audio: bytes = SILENCE) -> tuple[str, bytes]:
    """Return the correlation id and the value of an utterance."""
    event = AudioInputEvent.new(
        correlation_id=str(uuid.uuid4()),
        source_service="gateway",
        payload=AudioInput(audio),
    )
    return event.correlation_id, encode(event, schema_id)


def reason_and_place(reason: str, offset: int) -> dict[str, str]:
    return {"dlq_reason": reason, "dlq_partition": "0", "dlq_offset": str(offset)}


def test_records_that_nobody_can_read_are_put_aside_and_speech_goes_on(
    pipeline, topics, url, letters
):
    """Each as it came, with why and where it lay; the utterance behind each is heard."""
    topic = topics.names["TOPIC_AUDIO_INGRESS"]
    schema_id = topics.registry.register(subject_of(topic), schema_text(AudioInputEvent.event_type))
    expected, heard, due = {}, set(), {}
    for kind in KINDS.values():
        correlation_id, value = utterance(schema_id, kind.audio)
        if kind.schema_id is not None:
            value = value[:1] + kind.schema_id.to_bytes(4, "big") + value[5:]
        written = kind.record if kind.record.value != b"" else replace(kind.record, value=value)
        offset = foreign.store(pipeline.bootstrap_servers, topic, written)
        if kind.reason:
            told = {**kind.headers, **reason_and_place(kind.reason, offset)}
            expected[offset] = (written.key or b"", written.value or b"", told)
        else:
            heard.add(correlation_id)
        correlation_id, value = utterance(schema_id)
        due[correlation_id] = time.time() + TEXT_SECONDS
        foreign.store(pipeline.bootstrap_servers, topic, ForeignRecord(value))
        heard.add(correlation_id)
    receipt = speak(url)
    assert topics.text(receipt["correlation_id"]).payload.text == SAID
    found = {int(each.headers["dlq_offset"]): each for each in read(letters, len(expected))}
    kept = {at: (each.key, each.value, dict(each.headers)) for at, each in found.items()}
    assert kept == expected
    said_at = texts(topics, len(heard) + 1)
    assert said_at.keys() == heard | {receipt["correlation_id"]}
    assert [each for each, by in due.items() if said_at[each] > by] == []


def texts(topics, count: int) -> dict[str, float]:
    """Return when each text was made, by correlation id; there are so many and no more."""
    decoder = EventDeserializer(topics.registry, TextRecognizedEvent)
    with topics.reader("TOPIC_ASR_TEXT") as consumer:
        return {
            decoder.decode(each.value).correlation_id: each.timestamp_ms / 1000
            for each in read(consumer, count)
        }


@pytest.mark.parametrize("kind", LARGE)
def test_a_record_too_large_to_be_put_aside_leaves_word_of_itself_and_speech_goes_on(
    pipeline, topics, url, letters, kind
):
    """Its content stays where it lay, which the dead letter says; the partition is not stopped."""
    if not pipeline.real:
        pytest.skip("needs Apache Kafka: the embedded broker knows no limit on a record")
    topic = topics.names["TOPIC_AUDIO_INGRESS"]
    offset = foreign.store(pipeline.bootstrap_servers, topic, LARGE[kind])
    due = time.time() + TEXT_SECONDS
    receipt = speak(url)
    assert (receipt["partition"], receipt["offset"]) == (0, offset + 1)
    assert topics.text(receipt["correlation_id"]).payload.text == SAID
    said = topics.find("TOPIC_ASR_TEXT", receipt["correlation_id"])
    assert said.timestamp_ms / 1000 <= due
    (letter,) = read(letters, 1)
    assert (letter.key, len(letter.value), letter.headers) == (
        b"",
        0,
        reason_and_place("not_avro", offset) | {"dlq_omitted": "too_large"},
    )
