"""Records made to stop the recogniser: each is put aside, and the next utterance has its text.

Whoever may write to the topic, and register a schema, may try these. `tests/test_poison.py` has
those that are merely wrong.
"""

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
from speech_gateway.wav import wrap
from speech_lib.errors import SchemaRefused
from speech_lib.events import AudioInput, AudioInputEvent
from speech_lib.events.codec import encode
from speech_lib.events.schemas import schema_text
from speech_lib.kafka.admin import TopicSpec, ensure_topics
from speech_lib.kafka.consumer import RecordConsumer
from speech_lib.kafka.headers import CORRELATION_ID
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.kafka.registry import SchemaRegistry, subject_of
from speech_lib.testing import foreign
from speech_lib.testing.foreign import ForeignError, ForeignRecord
from speech_tools import stack
from support.operations import page, readiness
from support.ports import free_ports
from support.waiting import until

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(180)]

TEXT_SECONDS = 10.0
"""From the moment at which a hostile record is stored until the next utterance has its text."""
PATIENCE_SECONDS = 50.0
POLLS = 60
MIB = 1024 * 1024
CODECS = ("gzip", "zstd", "lz4", "snappy")
COUNT = 2**40


def zigzag(number: int) -> bytes:
    """Return a number as Avro has it."""
    number, out = number << 1, b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def record(name: str, *kinds: object) -> dict[str, Any]:
    """Return a record type with a field of each kind."""
    fields = [{"name": f"f{number}", "type": kind} for number, kind in enumerate(kinds)]
    return {"type": "record", "name": name, "fields": fields}


def twice(levels: int, leaf: str) -> dict[str, Any]:
    """Return a type that holds the one before twice, and so on."""
    kind: Any = leaf
    for level in range(levels):
        kind = record(f"T{level}", kind, f"T{level - 1}" if level else leaf)
    return kind


@dataclass(frozen=True)
class Kind:
    """One field more than an utterance has, and its bytes.

    Attributes:
        more: Type of the field; or several fields.
        tail: What stands in its place.
        reason: Of the dead letter; empty for what is an utterance all the same.
    """

    more: Any
    tail: bytes
    reason: str = "wrong_event"


KINDS = {
    "an array of nothing": Kind({"type": "array", "items": "null"}, zigzag(COUNT) + b"\0"),
    "an array of empty records": Kind(
        {"type": "array", "items": record("E")}, zigzag(COUNT) + b"\0"
    ),
    "an array of no bytes": Kind(
        {"type": "array", "items": {"type": "fixed", "name": "Z", "size": 0}},
        zigzag(COUNT) + b"\0",
    ),
    "a record within itself, 50,000 deep": Kind(
        record("N", ["null", "N"]), b"\x02" * 50_000 + b"\0"
    ),
    "a record within itself, 1,900,000 deep": Kind(
        record("N", ["null", "N"]), b"\x02" * 1_900_000 + b"\0"
    ),
    "2^26 times nothing": Kind(twice(26, "null"), b""),
    # Beyond those that were found first.
    "a map": Kind({"type": "map", "values": "null"}, zigzag(COUNT) + b"\0"),
    "2^20 numbers": Kind(twice(20, "int"), bytes(1_100_000)),
    "types within types by name, 550 deep": Kind(
        [record(f"C{level}", f"C{level - 1}" if level else "int") for level in range(550)],
        bytes(550),
    ),
    "a schema of 300 kB": Kind(
        {"type": "enum", "name": "E", "symbols": [f"symbol{n}" for n in range(25_000)]}, b"\0"
    ),
    "a decimal of a million digits": Kind(
        {"type": "bytes", "logicalType": "decimal", "precision": 1_000_000},
        zigzag(1_000_000) + b"\x7f" * 1_000_000,
    ),
    "a number that never ends": Kind("long", b"\xff" * 1_900_000, "not_avro"),
    "bytes of a negative length": Kind("bytes", b"\x01", ""),
    "bytes longer than any memory": Kind("bytes", zigzag(2**60), ""),
    "a text that is not UTF-8": Kind("string", zigzag(1_900_000) + b"\xff" * 1_900_000, ""),
    "a branch that is not there": Kind(["null", "int"], zigzag(COUNT), "not_avro"),
}


def extended(kind: Kind) -> str:
    """Return the schema of an utterance with more fields."""
    schema = json.loads(schema_text(AudioInputEvent.event_type))
    # A list of records stands for so many fields; any other list is a union.
    several = isinstance(kind.more, list) and isinstance(kind.more[0], dict)
    for number, more in enumerate(kind.more if several else [kind.more]):
        schema["fields"].append({"name": f"more{number}", "type": more})
    return json.dumps(schema)


def utterance(schema_id: int) -> tuple[str, bytes]:
    """Return the correlation id and the value of an utterance of silence."""
    event = AudioInputEvent.new(
        correlation_id=str(uuid.uuid4()),
        source_service="gateway",
        payload=AudioInput(wrap(bytes(3_200))),
    )
    return event.correlation_id, encode(event, schema_id)


@dataclass(frozen=True)
class Running:
    """A recogniser that runs, and its operations port."""

    ops: int

    def wait_until_ready(self) -> None:
        """Return once what was read is passed over, which a commit says."""
        ready = (200, {"status": "ready"})
        until(lambda: readiness(self.ops), ready.__eq__, seconds=PATIENCE_SECONDS)

    def wait_until_counted(self, reason: str, count: float) -> None:
        """Return once so many are on the page, which is made once a second."""
        until(lambda: self.dead_letters(reason), count.__eq__, seconds=PATIENCE_SECONDS)

    def dead_letters(self, reason: str) -> float:
        """Return how many the recogniser has counted."""
        pattern = rf'^speech_asr_dead_letters_total{{reason="{reason}"}} (\S+)$'
        found = re.search(pattern, page(self.ops, "/metrics")[1], re.MULTILINE)
        assert found
        return float(found[1])


@pytest.fixture(scope="module")
def running(pipeline, topics, logs) -> Iterator[Running]:
    port = free_ports(["port"])["port"]
    settings = {**topics.names, "OPS_PORT": str(port)}
    with stack.recogniser(pipeline, logs, settings) as recogniser:
        yield Running(port)
        assert recogniser.stop() == 0, "the recogniser has ended by itself"


@pytest.fixture(scope="module")
def letters(topics) -> Iterator[RecordConsumer]:
    with topics.reader("TOPIC_DEAD_LETTER") as consumer:
        yield consumer


def next_letter(consumer: RecordConsumer) -> ReceivedRecord:
    for _ in range(POLLS):
        if found := consumer.poll(0.5, max_records=1):
            return found[0]
    raise AssertionError("there is no dead letter")


@pytest.fixture(scope="module")
def texts(topics) -> Iterator[RecordConsumer]:
    with topics.reader("TOPIC_ASR_TEXT") as consumer:
        consumer.poll(5.0)  # it has joined its group
        yield consumer


@pytest.fixture
def heard(pipeline, texts, topics, running) -> Callable[[float], None]:
    """Return what stores an utterance of silence, and takes until when it must have its text."""
    audio_topic = topics.names["TOPIC_AUDIO_INGRESS"]
    schema = schema_text(AudioInputEvent.event_type)
    schema_id = topics.registry.register(subject_of(audio_topic), schema)

    def wait_for_one(deadline: float) -> None:
        correlation_id, value = utterance(schema_id)
        foreign.store(pipeline.bootstrap_servers, audio_topic, ForeignRecord(value))
        while time.monotonic() < deadline:
            if any(each.headers[CORRELATION_ID] == correlation_id for each in texts.poll(0.5)):
                return
        raise AssertionError(f"there is no text {TEXT_SECONDS:g} s after the record before")

    return wait_for_one


def place(letter: ReceivedRecord) -> Mapping[str, str]:
    names = ("dlq_reason", "dlq_offset", "dlq_last_offset", "dlq_omitted")
    return {name: letter.headers[name] for name in names if name in letter.headers}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_schema_makes_costly_is_a_dead_letter(
    pipeline, topics, running, heard, letters, kind
):
    """Or its cost is not paid; the next utterance is recognised, and the recogniser stays ready."""
    with closing(SchemaRegistry(pipeline.registry_url, timeout=30)) as registry:
        try:
            schema_id = registry.register(f"hostile-{uuid.uuid4()}-value", extended(KINDS[kind]))
        except SchemaRefused:
            return  # as good: there is no such record
    value = utterance(schema_id)[1] + KINDS[kind].tail
    audio_topic = topics.names["TOPIC_AUDIO_INGRESS"]
    offset = foreign.store(pipeline.bootstrap_servers, audio_topic, ForeignRecord(value))
    heard(time.monotonic() + TEXT_SECONDS)
    if KINDS[kind].reason:
        letter = next_letter(letters)
        assert letter.value == value
        assert place(letter) == {"dlq_reason": KINDS[kind].reason, "dlq_offset": str(offset)}
    running.wait_until_ready()


def test_a_batch_that_cannot_be_unpacked_is_a_dead_letter(
    pipeline, topics, running, heard, letters
):
    """On a topic whose broker does not unpack: without content, counted, and passed over."""
    before = running.dead_letters("unreadable_batch")
    bomb = ForeignRecord(bytes(105_000_000), compression="zstd")
    audio_topic = topics.names["TOPIC_AUDIO_INGRESS"]
    offset = foreign.store(pipeline.bootstrap_servers, audio_topic, bomb)
    heard(time.monotonic() + TEXT_SECONDS)
    letter = next_letter(letters)
    assert (letter.key, letter.value) == (b"", b"")
    assert place(letter) == {
        "dlq_reason": "unreadable_batch",
        "dlq_offset": str(offset),
        "dlq_omitted": "unreadable",
    }
    running.wait_until_counted("unreadable_batch", before + 1)
    running.wait_until_ready()


@pytest.mark.parametrize(
    ("codec", "megabytes"),
    [
        *[(codec, 3) for codec in CODECS],
        ("zstd", 200),
        *[pytest.param(codec, 50, marks=pytest.mark.full) for codec in CODECS],
        *[pytest.param(codec, 200, marks=pytest.mark.full) for codec in ("gzip", "lz4", "snappy")],
    ],
)
def test_the_broker_refuses_a_record_that_unpacks_to_more_than_a_record_may_be(
    pipeline, topics, make_topic, codec, megabytes
):
    """Whatever packs it, on the topic of utterances as the one-shot makes it."""
    if not pipeline.real:
        pytest.skip("needs Apache Kafka: the embedded broker unpacks nothing")
    topic = make_topic("unpacked")
    ensure_topics(topics.kafka, [TopicSpec(topic, uncompressed=True)])
    with pytest.raises(ForeignError, match=r"^(MSG_SIZE_TOO_LARGE|UNKNOWN)$"):
        foreign.store(
            pipeline.bootstrap_servers,
            topic,
            ForeignRecord(bytes(megabytes * MIB), compression=codec),
        )
