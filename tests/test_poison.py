"""Records that no gateway has written: each is put aside with its reason, and speech goes on.

Whoever may write to the topic of the gateways may write anything. The kinds of wrong events are
tried on the recogniser by itself (`services/asr/tests/test_service.py`); here a live pipeline meets
records that are hard to carry.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from pipeline_tools import audio, client, stack
from speech_lib.consumer import RecordConsumer
from speech_lib.kafka import MAX_RECORD_BYTES
from speech_lib.records import ReceivedRecord

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(120)]

GO_FORWARD = Path(__file__).parent.parent / "samples" / "go-forward-ten-meters.raw"
SAID = "go forward ten meters"
DELIVERY_SECONDS = 20.0
POLLS = 60
OVERHEAD = 96
"""What a batch of one record takes besides its content, with too little to spare for a reason."""

SMALL = {
    "no value": {"value": None},
    "a key that is no text": {"value": b"none", "key": b"\xff\x00"},
    "headers that are no text": {
        "value": b"none",
        "headers": [("correlation_id", b"\xff"), ("x", None), ("x", b"2")],
    },
}
LARGE = {
    "as large as the broker takes": {"value": b"x" * (MAX_RECORD_BYTES - OVERHEAD)},
    "compressed, and larger than that": {"value": b"x" * (5 * MAX_RECORD_BYTES)},
    "headers as large as the broker takes": {
        "value": b"none",
        "headers": [("x", b"x" * (MAX_RECORD_BYTES - OVERHEAD))],
    },
}
"""There is no room left to say why they are dead letters."""


@pytest.fixture(scope="module")
def url(pipeline, topics, logs) -> Iterator[str]:
    with (
        stack.gateway(pipeline, logs, topics.names) as gateway,
        stack.recogniser(pipeline, logs, topics.names),
    ):
        yield gateway.url


@pytest.fixture(scope="module")
def letters(topics) -> Iterator[RecordConsumer]:
    """Read the dead letters, one after the other."""
    with topics.reader("TOPIC_DEAD_LETTER") as consumer:
        yield consumer


def put(pipeline, topic: str, record: dict) -> int:
    """Write a record as somebody else would, and return its offset."""
    producer = Producer(
        {
            "bootstrap.servers": pipeline.bootstrap_servers,
            "message.max.bytes": 10 * MAX_RECORD_BYTES,  # of its own; the broker has its limit
            "compression.type": "gzip"
            if len(record["value"] or b"") > MAX_RECORD_BYTES
            else "none",
        }
    )
    answers = []
    producer.produce(topic, **record, on_delivery=lambda *answer: answers.append(answer))
    assert producer.flush(DELIVERY_SECONDS) == 0
    ((error, message),) = answers
    assert error is None, error
    return message.offset()


def next_letter(letters: RecordConsumer) -> ReceivedRecord:
    """Return the next dead letter."""
    for _ in range(POLLS):
        for letter in letters.poll(0.5, max_records=1):
            return letter
    raise AssertionError("there is no dead letter")


def speak(url: str) -> dict:
    """Speak an utterance and return its receipt."""
    outcome = asyncio.run(client.stream(url, audio.load(GO_FORWARD).pcm, paced=False))
    assert outcome.final["status"] == "accepted", outcome.final
    return outcome.final


def reason_and_place(offset: int) -> dict[str, str]:
    return {"dlq_reason": "not_avro", "dlq_partition": "0", "dlq_offset": str(offset)}


@pytest.mark.parametrize("kind", SMALL)
def test_a_record_that_nobody_can_read_is_put_aside_and_speech_goes_on(
    pipeline, topics, url, letters, kind
):
    """The record as it came, with why and where it lay; the utterance behind it is heard."""
    record = SMALL[kind]
    offset = put(pipeline, topics.names["TOPIC_AUDIO_INGRESS"], record)
    receipt = speak(url)
    assert (receipt["partition"], receipt["offset"]) == (0, offset + 1)
    assert topics.text(receipt["correlation_id"]).payload.text == SAID
    letter = next_letter(letters)
    assert (letter.key, letter.value) == (record.get("key") or b"", record["value"] or b"")
    assert letter.headers.items() >= reason_and_place(offset).items()


@pytest.mark.parametrize("kind", LARGE)
def test_a_record_too_large_to_be_put_aside_leaves_word_of_itself_and_speech_goes_on(
    pipeline, topics, url, letters, kind
):
    """Its content stays where it lay, which the dead letter says; the partition is not stopped."""
    if not pipeline.real:
        pytest.skip("needs Apache Kafka: the embedded broker knows no limit on a record")
    offset = put(pipeline, topics.names["TOPIC_AUDIO_INGRESS"], LARGE[kind])
    receipt = speak(url)
    assert (receipt["partition"], receipt["offset"]) == (0, offset + 1)
    assert topics.text(receipt["correlation_id"]).payload.text == SAID
    letter = next_letter(letters)
    assert (letter.key, len(letter.value), letter.headers) == (
        b"",
        0,
        reason_and_place(offset) | {"dlq_omitted": "too_large"},
    )
