"""Readers that are deployed go on reading: schemas and headers as they were first published.

`released/` holds the schemas as others have them. A file there never changes.
"""

import json
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import fastavro
import pytest
from speech_lib.events import (
    AudioInput,
    AudioInputEvent,
    TextRecognized,
    TextRecognizedEvent,
    codec,
)
from speech_lib.events.schemas import schema_text
from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord

RELEASED = Path(__file__).parent / "released"
IDS = ("5f0c9a1e-4f1d-4a7e-9a53-0d3c8a3f6b11", "9b2d6d0c-7c0e-4d8e-8f5e-3b7c2d1a0f42")
NOW = datetime(2026, 1, 19, 12, 0, 0, 123_000, UTC)
AUDIO = AudioInputEvent(*IDS, NOW, "gateway", AudioInput(b"RIFF", language_hint="en"))
TEXT = TextRecognizedEvent(*IDS, NOW, "asr", TextRecognized("go forward", "en-US", 0.5))
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
COMMON = {
    "correlation_id": IDS[1],
    "traceparent": TRACEPARENT,
}


def released(name: str) -> dict:
    return json.loads((RELEASED / f"{name}.avsc").read_text())


@pytest.mark.parametrize("event", [AUDIO, TEXT], ids=lambda event: event.event_type)
def test_a_reader_of_the_first_release_reads_what_is_written_now(event):
    """By Avro's own resolution, without our code: every field has its value."""
    name = event.event_type
    schema_id, body = codec.split(codec.encode(event, 7))
    stream = BytesIO(body)
    ours = fastavro.parse_schema(json.loads(schema_text(name)))
    record = fastavro.schemaless_reader(stream, ours, fastavro.parse_schema(released(name)))
    assert (schema_id, stream.read()) == (7, b"")
    assert type(event).from_record(record) == event


@pytest.mark.parametrize("name", ["AudioInputEvent", "TextRecognizedEvent"])
def test_the_schemas_are_those_of_the_first_release(name):
    """What came later travels in headers, so no reader needs a new schema."""
    assert json.loads(schema_text(name)) == released(name)


def test_an_utterance_that_is_named_has_all_headers_of_one_that_is_not():
    """`client_ref` is one header more; the others are what they were."""
    times = {"handshake_ms": 1, "first_audio_ms": 2, "ended_ms": 3}
    told = headers.for_audio_ingress(
        AUDIO,
        traceparent=TRACEPARENT,
        ended_by="done",
        source="",
        client_ref="note-17",
        **times,
    )
    assert told == {
        **COMMON,
        "event_type": "AudioInputEvent",
        "ended_by": "done",
        "source": "",
        "client_ref": "note-17",
        **{name: str(at_ms) for name, at_ms in times.items()},
    }


def test_a_text_that_tells_its_place_has_all_headers_of_one_that_does_not():
    """The place and the name are headers more; the others are what they were."""
    utterance = ReceivedRecord("t", 3, 42, b"k", b"v", {"client_ref": "note-17"}, -1)
    times = {"fetched_ms": 1, "recognised_ms": 2}
    told = headers.for_asr_text(
        TEXT, traceparent=TRACEPARENT, input_event_id=IDS[0], utterance=utterance, **times
    )
    before = headers.for_asr_text(TEXT, traceparent=TRACEPARENT, input_event_id=IDS[0], **times)
    assert before == {
        **COMMON,
        "event_type": "TextRecognizedEvent",
        "input_event_id": IDS[0],
        **{name: str(at_ms) for name, at_ms in times.items()},
    }
    assert before.items() <= told.items()
