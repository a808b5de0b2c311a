"""The spans of one utterance's way through the recogniser.

`handler` begins a `Trace` for each record, and tells it what it does. Where no spans are wanted,
only the ids are made, because the text's record carries them on.
"""

import time
from dataclasses import dataclass, field

from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord, Record
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

CLIENT_ID = "speech-asr"


@dataclass(frozen=True, slots=True)
class Traces:
    """Begins the traces of records.

    Attributes:
        sink: Where spans go.
        group_id: The consumer group that reads the records.
    """

    sink: SpanSink = field(default_factory=NoSpans)
    group_id: str = ""

    def begin(self, record: ReceivedRecord) -> "Trace":
        """Go on with the trace that a record tells, or begin one."""
        parent = TraceContext.parse(record.headers.get(headers.TRACEPARENT))
        context = parent.child() if parent else TraceContext.begin()
        return Trace(
            self.sink,
            Processing(record, CLIENT_ID, self.group_id, context, parent, time.time_ns()),
        )


@dataclass(frozen=True, slots=True)
class Trace:
    """What is done about one record.

    Attributes:
        sink: Where spans go.
        processing: The whole of it.
    """

    sink: SpanSink
    processing: Processing

    @property
    def fetched_ms(self) -> int:
        """When the record was read, in milliseconds since the epoch."""
        return self.processing.start_ns // 1_000_000

    def child(self) -> TraceContext:
        """Return the ids of a part of it."""
        return self.processing.context.child()

    def recognised(self, start_ns: int, engine_seconds: float, audio_seconds: float) -> None:
        """Record that the engine has heard the utterance, the wait for a worker included."""
        if not self.sink.wants(self.processing.context):
            return
        self.sink.record(
            Span(
                name="recognise",
                kind=SpanKind.INTERNAL,
                context=self.child(),
                parent=self.processing.context,
                start_ns=start_ns,
                end_ns=time.time_ns(),
                attributes={
                    "speech.engine.seconds": engine_seconds,
                    "speech.audio.seconds": audio_seconds,
                },
            )
        )

    def sending(
        self, record: Record, context: TraceContext, link: TraceContext | None = None
    ) -> Sending:
        """Return the span of storing a result, as a context manager."""
        message, parent = Message.of(record), self.processing.context
        return Sending(self.sink, time.time_ns, message, CLIENT_ID, context, parent, link)

    def end(self, error: str | None = None) -> None:
        """Record the whole; `error` is why there is no text."""
        if self.sink.wants(self.processing.context):
            self.sink.record(self.processing.span(time.time_ns(), error))
