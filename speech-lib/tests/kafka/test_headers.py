"""The headers of each topic, whole."""

import time
from datetime import UTC, datetime

import pytest
from speech_lib.events import AudioInput, AudioInputEvent, TextRecognized, TextRecognizedEvent
from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord

EVENT_ID = "5f0c9a1e-4f1d-4a7e-9a53-0d3c8a3f6b11"
CORRELATION_ID = "9b2d6d0c-7c0e-4d8e-8f5e-3b7c2d1a0f42"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOW = datetime(2026, 1, 19, tzinfo=UTC)


def test_headers_of_an_utterance():
    """An utterance tells its id, trace, kind, ending and times."""
    event = AudioInputEvent(EVENT_ID, CORRELATION_ID, NOW, "gateway", AudioInput(b"RIFF"))
    built = headers.for_audio_ingress(
        event,
        traceparent=TRACEPARENT,
        ended_by="done",
        handshake_ms=1,
        first_audio_ms=22,
        ended_ms=333,
        source="0123456789abcdef",
    )
    assert built == {
        "correlation_id": CORRELATION_ID,
        "traceparent": TRACEPARENT,
        "event_type": "AudioInputEvent",
        "ended_by": "done",
        "handshake_ms": "1",
        "first_audio_ms": "22",
        "ended_ms": "333",
        "source": "0123456789abcdef",
    }


@pytest.mark.parametrize(
    "source",
    [
        "",
        "0123456789abcde",
        "0123456789abcdef0",
        "0123456789ABCDEF",
        "0123456789abcdeé",
        "0" * 10**6,
    ],
)
def test_what_no_gateway_says_of_a_source_counts_as_one(source):
    """As does nothing at all, so nobody makes up what fills memory."""
    told = {"source": source} if source else {}
    assert headers.source_of(ReceivedRecord("t", 0, 0, b"", b"", told, -1)) == ""


def test_a_source_is_what_the_gateway_says():
    """Sixteen hexadecimal digits."""
    told = {"source": "0123456789abcdef"}
    assert headers.source_of(ReceivedRecord("t", 0, 0, b"", b"", told, -1)) == told["source"]


def test_headers_of_a_text():
    """A text tells its id, trace, kind, the utterance it came from, and times."""
    payload = TextRecognized("go", "en-US", 1.0)
    event = TextRecognizedEvent(EVENT_ID, CORRELATION_ID, NOW, "asr", payload)
    built = headers.for_asr_text(
        event, traceparent=TRACEPARENT, input_event_id="an id", fetched_ms=1, recognised_ms=22
    )
    assert built == {
        "correlation_id": CORRELATION_ID,
        "traceparent": TRACEPARENT,
        "event_type": "TextRecognizedEvent",
        "input_event_id": "an id",
        "fetched_ms": "1",
        "recognised_ms": "22",
    }


def test_a_text_tells_where_its_utterance_lies_and_what_the_client_calls_it():
    """So whoever reads it finds the audio with one fetch, and counts what was said twice once."""
    payload = TextRecognized("go", "en-US", 1.0)
    event = TextRecognizedEvent(EVENT_ID, CORRELATION_ID, NOW, "asr", payload)
    record = ReceivedRecord("t", 3, 42, b"k", b"v", {"client_ref": "note-17"}, -1)
    built = headers.for_asr_text(
        event,
        traceparent=TRACEPARENT,
        input_event_id="an id",
        fetched_ms=1,
        recognised_ms=22,
        utterance=record,
    )
    told = {"input_partition": "3", "input_offset": "42", "client_ref": "note-17"}
    assert told.items() <= built.items()


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "é", "a\n", "\ufffd"])
def test_a_name_that_no_client_may_have_is_none(name: str):
    """Foreign writers put in what they like; it goes no further."""
    assert (
        headers.client_ref_of(ReceivedRecord("t", 0, 0, b"", b"", {"client_ref": name}, -1)) is None
    )


def test_headers_of_a_dead_letter():
    """A dead letter keeps what it had and tells why it is one and where it lay."""
    record = ReceivedRecord("t", 3, 42, b"k", b"v", {"correlation_id": CORRELATION_ID}, -1)
    assert headers.for_dead_letter(record, reason="not_avro") == {
        "correlation_id": CORRELATION_ID,
        "dlq_reason": "not_avro",
        "dlq_partition": "3",
        "dlq_offset": "42",
    }


def test_headers_of_a_dead_letter_without_its_content():
    """It says that something was left out, and keeps nothing that may be large."""
    record = ReceivedRecord("t", 3, 42, b"k", b"v", {"correlation_id": CORRELATION_ID}, -1)
    assert headers.for_empty_dead_letter(record, reason="not_avro") == {
        "dlq_reason": "not_avro",
        "dlq_partition": "3",
        "dlq_offset": "42",
        "dlq_omitted": "too_large",
    }


def test_now_is_in_milliseconds():
    """The clock of the headers is the system's, in whole milliseconds."""
    before = int(time.time() * 1000)
    assert before <= headers.now_ms() <= int(time.time() * 1000) + 1
