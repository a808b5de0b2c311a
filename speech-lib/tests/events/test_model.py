"""Events check themselves when built and survive the way through a record."""

import uuid
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speech_lib.errors import EventError
from speech_lib.events import AudioInput, AudioInputEvent, TextRecognized, TextRecognizedEvent

EVENT_ID = "5f0c9a1e-4f1d-4a7e-9a53-0d3c8a3f6b11"
CORRELATION_ID = "9b2d6d0c-7c0e-4d8e-8f5e-3b7c2d1a0f42"
NOW = datetime(2026, 1, 19, 12, 0, 0, 123_000, UTC)
AUDIO = AudioInputEvent(
    EVENT_ID, CORRELATION_ID, NOW, "gateway", AudioInput(b"RIFF", language_hint="en")
)
TEXT = TextRecognizedEvent(
    EVENT_ID, CORRELATION_ID, NOW, "asr", TextRecognized("go forward", "en-US", 0.5)
)


def test_record_of_an_utterance():
    """An utterance becomes the record that its schema describes."""
    assert AUDIO.to_record() == {
        "event_id": EVENT_ID,
        "event_type": "AudioInputEvent",
        "correlation_id": CORRELATION_ID,
        "timestamp": NOW,
        "source_service": "gateway",
        "payload": {
            "audio_bytes": b"RIFF",
            "audio_format": "wav",
            "sample_rate_hz": 16_000,
            "language_hint": "en",
        },
    }


def test_record_of_a_text():
    """A text becomes the record that its schema describes."""
    assert TEXT.to_record() == {
        "event_id": EVENT_ID,
        "event_type": "TextRecognizedEvent",
        "correlation_id": CORRELATION_ID,
        "timestamp": NOW,
        "source_service": "asr",
        "payload": {"text": "go forward", "language": "en-US", "confidence": 0.5},
    }


texts = st.text(st.characters(exclude_categories=["Cs"]))
envelopes = {
    "event_id": st.uuids(version=4).map(str),
    "correlation_id": st.uuids(version=4).map(str),
    "timestamp": st.datetimes(timezones=st.just(UTC)),
    "source_service": texts.filter(bool),
}
audio_events = st.builds(
    AudioInputEvent,
    **envelopes,
    payload=st.builds(
        AudioInput,
        audio_bytes=st.binary(),
        audio_format=texts.filter(bool),
        sample_rate_hz=st.integers(1, 2**31 - 1),
        language_hint=st.none() | texts.filter(bool),
    ),
)
text_events = st.builds(
    TextRecognizedEvent,
    **envelopes,
    payload=st.builds(
        TextRecognized,
        text=texts,
        language=texts.filter(bool),
        confidence=st.floats(0, 1),
    ),
)


@given(audio_events | text_events)
def test_an_event_survives_the_round_trip(event):
    """Any event, turned into a record and back, equals itself."""
    assert type(event).from_record(event.to_record()) == event


def test_a_new_event_is_of_now_and_has_its_own_id():
    """Two events made alike differ in their ids; both carry the correlation id."""
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    first, second = (
        AudioInputEvent.new(
            correlation_id=CORRELATION_ID, source_service="gateway", payload=AUDIO.payload
        )
        for _ in range(2)
    )
    assert first == AudioInputEvent(
        first.event_id, CORRELATION_ID, first.timestamp, "gateway", AUDIO.payload
    )
    assert first.event_id != second.event_id
    assert uuid.UUID(first.event_id).version == 4
    assert before <= first.timestamp <= datetime.now(UTC)


def test_time_is_kept_in_whole_milliseconds_of_utc():
    """What the schema cannot hold is taken off when the event is built."""
    there = datetime(2026, 1, 19, 14, 0, 0, 123_999, timezone(timedelta(hours=2)))
    assert replace(TEXT, timestamp=there).timestamp.isoformat() == NOW.isoformat()


def test_confidence_has_the_precision_of_the_schema():
    """A confidence is kept as the 32-bit float that a reader will see."""
    assert replace(TEXT.payload, confidence=0.1).confidence == 0.10000000149011612


def test_events_cannot_be_changed():
    """An event is a value."""
    with pytest.raises(FrozenInstanceError):
        AUDIO.event_id = CORRELATION_ID


@pytest.mark.parametrize("secret", ["RIFF", "go forward"])
def test_neither_audio_nor_text_is_shown(secret):
    """A log line or a traceback that shows an event holds nothing of what was said."""
    assert secret not in repr(AUDIO) + repr(TEXT)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("event_id", "", "event_id must be a non-empty string"),
        ("event_id", "1", "event_id must be a UUID4 in its canonical form"),
        ("event_id", EVENT_ID.upper(), "event_id must be a UUID4 in its canonical form"),
        ("event_id", str(uuid.UUID(int=1)), "event_id must be a UUID4 in its canonical form"),
        ("correlation_id", None, "correlation_id must be a non-empty string"),
        ("correlation_id", f"{{{CORRELATION_ID}}}", "correlation_id must be a UUID4 in its"),
        ("timestamp", NOW.replace(tzinfo=None), "timestamp must be a datetime with a time zone"),
        ("timestamp", 1_768_824_000_123, "timestamp must be a datetime with a time zone"),
        (
            "timestamp",
            datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
            "timestamp must lie in the years 1 to 9999",
        ),
        ("source_service", "", "source_service must be a non-empty string"),
        ("source_service", "\ud800", "source_service must be text that UTF-8 can hold"),
    ],
)
def test_a_wrong_envelope_is_refused(attribute, value, message):
    """Each member of the envelope is checked, and the error names it."""
    with pytest.raises(EventError, match=message):
        replace(TEXT, **{attribute: value})


@pytest.mark.parametrize(
    ("payload", "attribute", "value", "message"),
    [
        (AUDIO.payload, "audio_bytes", "RIFF", "audio_bytes must be bytes"),
        (AUDIO.payload, "audio_bytes", bytearray(b"RIFF"), "audio_bytes must be bytes"),
        (AUDIO.payload, "audio_format", "", "audio_format must be a non-empty string"),
        (AUDIO.payload, "sample_rate_hz", 0, "sample_rate_hz must be an integer from 1"),
        (AUDIO.payload, "sample_rate_hz", 2**31, "sample_rate_hz must be an integer from 1"),
        (AUDIO.payload, "sample_rate_hz", 16_000.0, "sample_rate_hz must be an integer from 1"),
        (AUDIO.payload, "sample_rate_hz", True, "sample_rate_hz must be an integer from 1"),
        (AUDIO.payload, "language_hint", "", "language_hint must be a non-empty string"),
        (TEXT.payload, "text", None, "text must be a string"),
        (TEXT.payload, "text", "\udfff", "text must be text that UTF-8 can hold"),
        (TEXT.payload, "language", "", "language must be a non-empty string"),
        (TEXT.payload, "confidence", -0.1, "confidence must be a number from 0 to 1"),
        (TEXT.payload, "confidence", 1.1, "confidence must be a number from 0 to 1"),
        (TEXT.payload, "confidence", float("nan"), "confidence must be a number from 0 to 1"),
        (TEXT.payload, "confidence", True, "confidence must be a number from 0 to 1"),
        (TEXT.payload, "confidence", "1", "confidence must be a number from 0 to 1"),
    ],
)
def test_a_wrong_payload_is_refused(payload, attribute, value, message):
    """Each member of a payload is checked, and the error names it."""
    with pytest.raises(EventError, match=message):
        replace(payload, **{attribute: value})


def test_empty_text_is_an_event():
    """Where nothing was said there is nothing to read, and that is a result."""
    assert replace(TEXT.payload, text="", confidence=0).to_record() == {
        "text": "",
        "language": "en-US",
        "confidence": 0.0,
    }


@pytest.mark.parametrize("event", [AUDIO, TEXT])
def test_a_record_that_lacks_a_member_is_refused(event):
    """Each member is required, and the error names the one that is not there."""
    record = event.to_record()
    for name in record:
        with pytest.raises(EventError, match=f"the record has no {name}"):
            type(event).from_record({key: record[key] for key in record if key != name})
    payload = record["payload"]
    for name in payload:
        lacking = {key: payload[key] for key in payload if key != name}
        with pytest.raises(EventError, match=f"the record has no {name}"):
            type(event).from_record(record | {"payload": lacking})


def test_a_record_of_another_event_is_refused():
    """The name of the event is part of it."""
    with pytest.raises(EventError, match="event_type must be TextRecognizedEvent"):
        TextRecognizedEvent.from_record(AUDIO.to_record())


def test_a_payload_that_is_no_record_is_refused():
    """A member of the wrong shape is an error of the event, not a crash."""
    with pytest.raises(EventError, match="the record has no text"):
        TextRecognizedEvent.from_record(TEXT.to_record() | {"payload": None})
