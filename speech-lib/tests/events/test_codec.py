"""The wire format, byte by byte, and schemas that grow."""

import json
from datetime import UTC, datetime
from io import BytesIO

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st
from speech_lib.errors import EventError, NotAvro, WrongSchema
from speech_lib.events import (
    AudioInput,
    AudioInputEvent,
    TextRecognized,
    TextRecognizedEvent,
    codec,
)
from speech_lib.events.schemas import schema_text

EVENT_ID = "5f0c9a1e-4f1d-4a7e-9a53-0d3c8a3f6b11"
CORRELATION_ID = "9b2d6d0c-7c0e-4d8e-8f5e-3b7c2d1a0f42"
NOW = datetime(2026, 1, 19, 12, 0, 0, 123_000, UTC)
AUDIO = AudioInputEvent(
    EVENT_ID, CORRELATION_ID, NOW, "gateway", AudioInput(b"RIFF", language_hint="en")
)
TEXT = TextRecognizedEvent(
    EVENT_ID, CORRELATION_ID, NOW, "asr", TextRecognized("go forward", "en-US", 0.5)
)
OURS = schema_text("AudioInputEvent")


def written_with(schema, record, schema_id=7):
    """Return a record's value as a writer with that schema would write it."""
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), record)
    return b"\0" + schema_id.to_bytes(4, "big") + out.getvalue()


def test_bytes_of_a_text():
    """Magic byte, id, then Avro: lengths and the timestamp as zigzag varints, a float in four."""
    event_type = b"TextRecognizedEvent"
    assert codec.encode(TEXT, 0x01020304) == b"".join(
        [
            b"\x00\x01\x02\x03\x04",
            bytes([36 * 2]) + EVENT_ID.encode(),
            bytes([len(event_type) * 2]) + event_type,
            bytes([36 * 2]) + CORRELATION_ID.encode(),
            bytes.fromhex("f6b982e2fa66"),
            b"\x06asr",
            b"\x14go forward",
            b"\x0aen-US",
            b"\x00\x00\x00\x3f",
        ]
    )


@pytest.mark.parametrize("event", [AUDIO, TEXT])
def test_an_event_survives_the_round_trip(event):
    """What is encoded is decoded as the same event."""
    value = codec.encode(event, 7)
    assert codec.split(value)[0] == 7
    assert codec.decode(type(event), value, schema_text(event.event_type)) == event


@given(
    st.binary(max_size=4096),
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_any_audio_survives_the_round_trip(audio, hint):
    """Audio of any content is bit for bit what it was."""
    event = AudioInputEvent(
        EVENT_ID, CORRELATION_ID, NOW, "gateway", AudioInput(audio, language_hint=hint)
    )
    assert codec.decode(AudioInputEvent, codec.encode(event, 1), OURS) == event


@given(st.text(st.characters(exclude_categories=["Cs"])), st.floats(0, 1))
def test_any_text_survives_the_round_trip(text, confidence):
    """Text of any script and any confidence are what they were."""
    event = TextRecognizedEvent(
        EVENT_ID, CORRELATION_ID, NOW, "asr", TextRecognized(text, "en-US", confidence)
    )
    schema = schema_text("TextRecognizedEvent")
    assert codec.decode(TextRecognizedEvent, codec.encode(event, 1), schema) == event


def test_an_older_writer_may_lack_what_has_a_default():
    """A record from before the language hint is read with none (BACKWARD)."""
    older = json.loads(OURS)
    payload = older["fields"][5]["type"]
    payload["fields"] = [each for each in payload["fields"] if each["name"] == "audio_bytes"]
    record = AUDIO.to_record()
    value = written_with(older, record | {"payload": {"audio_bytes": b"RIFF"}})
    read = codec.decode(AudioInputEvent, value, json.dumps(older))
    assert read == AudioInputEvent(EVENT_ID, CORRELATION_ID, NOW, "gateway", AudioInput(b"RIFF"))


def test_a_newer_writer_may_have_more():
    """A field that we do not know is skipped."""
    newer = json.loads(OURS)
    newer["fields"].insert(0, {"name": "region", "type": "string"})
    value = written_with(newer, AUDIO.to_record() | {"region": "north"})
    assert codec.decode(AudioInputEvent, value, json.dumps(newer)) == AUDIO


def test_a_writer_of_another_event_is_refused():
    """A text on the topic of the utterances is told as such."""
    with pytest.raises(WrongSchema, match="the value was not written as AudioInputEvent"):
        codec.decode(AudioInputEvent, codec.encode(TEXT, 7), schema_text("TextRecognizedEvent"))


@pytest.mark.parametrize(
    "schema",
    ["", "{", "[]", '"string"', '{"type": "record"}', '{"type": "nothing"}', "null", "7"],
)
def test_a_writer_schema_that_is_no_record_is_refused(schema):
    """Whatever the registry gives, the error says that the schema is wrong."""
    with pytest.raises(WrongSchema):
        codec.decode(AudioInputEvent, codec.encode(AUDIO, 7), schema)


def test_a_writer_that_cannot_be_read_as_ours_is_refused():
    """A record of our name that lacks what we need is another schema."""
    stranger = {
        "type": "record",
        "name": "ai.speech.shared.events.AudioInputEvent",
        "fields": [{"name": "other", "type": "string"}],
    }
    with pytest.raises(WrongSchema, match="the writer's schema cannot be read as ours"):
        codec.decode(AudioInputEvent, written_with(stranger, {"other": "x"}), json.dumps(stranger))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"", "shorter than the header"),
        (b"\0\0\0\0", "shorter than the header"),
        (b'{"audio": 1}', "does not begin with the magic byte"),
        (b"\1\0\0\0\1rest", "does not begin with the magic byte"),
    ],
)
def test_what_is_not_in_the_wire_format_is_refused(value, message):
    """The header is checked before anybody is asked for a schema."""
    with pytest.raises(NotAvro, match=message):
        codec.split(value)


def test_a_truncated_record_is_refused():
    """A record cut anywhere is not Avro."""
    value = codec.encode(AUDIO, 7)
    for length in range(5, len(value)):
        with pytest.raises(NotAvro, match="not a whole record"):
            codec.decode(AudioInputEvent, value[:length], OURS)


def test_bytes_after_the_record_are_refused():
    """A record with something behind it is not what was written."""
    with pytest.raises(NotAvro, match="goes on after the end"):
        codec.decode(AudioInputEvent, codec.encode(AUDIO, 7) + b"\0", OURS)


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(body):
    """No bytes raise anything but an error of the event."""
    with pytest.raises(EventError):
        codec.decode(AudioInputEvent, b"\0\0\0\0\7" + body, OURS)


def test_a_wrong_value_is_refused():
    """Avro that is whole may still be no event."""
    record = TEXT.to_record()
    wrong = record | {"payload": record["payload"] | {"confidence": 2.0}}
    schema = schema_text("TextRecognizedEvent")
    with pytest.raises(EventError, match="confidence must be a number from 0 to 1"):
        codec.decode(TextRecognizedEvent, written_with(json.loads(schema), wrong), schema)
