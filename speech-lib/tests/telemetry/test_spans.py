"""Spans of sending and processing: what they tell, and that they hold no record."""

import asyncio
import itertools

import pytest
from speech_lib.errors import DeliveryError
from speech_lib.kafka.records import ReceivedRecord, Record, Stored
from speech_lib.telemetry.context import TraceContext
from speech_lib.telemetry.spans import (
    Message,
    NoSpans,
    Processing,
    Sending,
    Span,
    SpanKind,
    SpanSink,
)
from speech_lib.testing.spans import KeptSpans

PARENT = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1)
CONTEXT = TraceContext(PARENT.trace_id, "00f067aa0ba902b7", 1)
RECORD = Record("audio", b"cid", bytes(1000), {"correlation_id": "cid", "traceparent": "x"})
ABOUT = {
    "messaging.system": "kafka",
    "messaging.client.id": "client",
    "messaging.destination.name": "audio",
    "messaging.message.body.size": 1000,
    "messaging.kafka.message.key": "cid",
    "messaging.message.conversation_id": "cid",
}


def send(outcome: Stored | BaseException, sink: SpanSink) -> None:
    """Send the record, of which this comes."""
    clock = itertools.count(100, 5)
    message = Message.of(RECORD)
    with Sending(sink, lambda: next(clock), message, "client", CONTEXT, PARENT) as sending:
        if isinstance(outcome, BaseException):
            raise outcome
        sending.stored = outcome


def test_a_delivery_is_told_with_its_place():
    """From the hand-over to the broker's answer."""
    sink = KeptSpans()
    send(Stored("audio", 3, 7), sink)
    place = {"messaging.destination.partition.id": "3", "messaging.kafka.offset": 7}
    operation = {"messaging.operation.name": "send", "messaging.operation.type": "send"}
    assert sink.spans == [
        Span(
            name="send audio",
            kind=SpanKind.PRODUCER,
            context=CONTEXT,
            parent=PARENT,
            start_ns=100,
            end_ns=105,
            attributes={**ABOUT, **operation, **place},
        )
    ]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DeliveryError(stored="no", reason="_MSG_TIMED_OUT"), "_MSG_TIMED_OUT"),
        (ZeroDivisionError("my card number"), "_OTHER"),
    ],
)
def test_a_delivery_that_failed_is_told_by_its_code(error, code):
    """Never by its text; the caller gets the error as it is."""
    sink = KeptSpans()
    with pytest.raises(type(error)):
        send(error, sink)
    (span,) = sink.spans
    assert span.error == code
    assert "messaging.kafka.offset" not in span.attributes


def test_a_span_that_nobody_wants_is_not_described():
    """The clock is not even asked."""
    with Sending(NoSpans(), pytest.fail, Message.of(RECORD), "client", CONTEXT, PARENT) as sending:
        sending.stored = Stored("audio", 0, 0)


def test_a_delivery_that_nobody_waited_for_is_not_told():
    """How it ended is not known."""
    sink = KeptSpans()
    with pytest.raises(asyncio.CancelledError):
        send(asyncio.CancelledError(), sink)
    assert sink.spans == []


def test_processing_is_told_with_who_made_the_record():
    """As its parent, and as a link, which stays where a trace is cut into one for each service."""
    record = ReceivedRecord("audio", 2, 9, b"cid", bytes(1000), RECORD.headers, 0)
    span = Processing(record, "client", "group", CONTEXT, PARENT, start_ns=1).span(2, "not_wav")
    assert span == Span(
        name="process audio",
        kind=SpanKind.CONSUMER,
        context=CONTEXT,
        parent=PARENT,
        start_ns=1,
        end_ns=2,
        attributes={
            **ABOUT,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.partition.id": "2",
            "messaging.kafka.offset": 9,
            "messaging.consumer.group.name": "group",
        },
        link=PARENT,
        error="not_wav",
    )


@pytest.mark.parametrize("key", [b"", b"\xff\x00", b"a\nb", bytes([65]) * 65])
def test_a_key_that_is_no_short_text_is_not_told(key):
    """Whoever may write to the topic may write anything."""
    assert Message.of(Record("t", key, b"")) == Message("t", "", 0, "")
