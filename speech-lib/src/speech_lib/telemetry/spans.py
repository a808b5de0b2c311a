"""What a span of a trace is, and the spans of sending and processing a record.

The services describe spans here and give them to a `SpanSink`: `NoSpans` where nothing is exported,
else `otlp`. Pure: ids come from `context`, and times are noted by the caller.

Names and attributes are those of OpenTelemetry's semantic conventions, in the version of
`CONVENTIONS`: https://opentelemetry.io/docs/specs/semconv/messaging/kafka/. Our own attributes
begin with `speech.`. No span holds audio, words, or the addresses of clients and brokers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Protocol, Self

from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord, Record, Stored
from speech_lib.telemetry.context import TraceContext

CONVENTIONS = "https://opentelemetry.io/schemas/1.44.0"
"""The schema that the attributes follow; it is exported with them."""

CORRELATION_ID = "speech.correlation_id"
ERROR_TYPE = "error.type"
_OTHER = "_OTHER"
"""The conventions' name for an error that has none."""
_MAX_KEY_CHARACTERS = 64

Attributes = Mapping[str, str | int | float]


class SpanKind(Enum):
    """Which side of which exchange a span is. The names are OpenTelemetry's."""

    SERVER = auto()
    PRODUCER = auto()
    CONSUMER = auto()
    INTERNAL = auto()


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of work that has ended.

    Attributes:
        name: One of few values, because traces are grouped by it.
        kind: See `SpanKind`.
        context: Its own ids.
        parent: The span that it is a part of; None for the first of a trace.
        start_ns: Nanoseconds since the epoch.
        end_ns: Nanoseconds since the epoch.
        attributes: See the module.
        link: The span that made the record that this one is about.
        error: A short code for why the work failed; None where it did not.
    """

    name: str
    kind: SpanKind
    context: TraceContext
    parent: TraceContext | None
    start_ns: int
    end_ns: int
    attributes: Attributes = field(default_factory=dict)
    link: TraceContext | None = None
    error: str | None = None


class SpanSink(Protocol):
    """Takes spans. Its methods return at once and never raise."""

    def wants(self, context: TraceContext) -> bool:
        """Return whether a span of this trace is worth describing."""
        ...

    def record(self, span: Span) -> None:
        """Take a span that `wants` has agreed to."""
        ...

    async def close(self) -> None:
        """Pass on what is left, in bounded time."""
        ...


class NoSpans:
    """The sink of a service that exports nothing."""

    def wants(self, context: TraceContext) -> bool:  # noqa: ARG002 - as every sink
        """Return False."""
        return False

    def record(self, span: Span) -> None:
        """Drop a span."""

    async def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Message:
    """A record without its content, so that a span keeps no audio in memory.

    Attributes:
        topic: The record's topic.
        key: The record's key as text; empty where it is no short text, as in foreign records.
        body_bytes: The length of its value.
        correlation_id: Its utterance's; empty where its headers name none.
    """

    topic: str
    key: str
    body_bytes: int
    correlation_id: str

    @classmethod
    def of(cls, record: Record | ReceivedRecord) -> Self:
        """Describe a record."""
        return cls(
            record.topic,
            _readable(record.key),
            len(record.value),
            record.headers.get(headers.CORRELATION_ID, ""),
        )

    def attributes(self, operation: str, client_id: str) -> dict[str, str | int | float]:
        """Return the attributes of a client's operation on the record."""
        texts = {
            "messaging.kafka.message.key": self.key,
            "messaging.message.conversation_id": self.correlation_id,
        }
        return {
            "messaging.system": "kafka",
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.client.id": client_id,
            "messaging.destination.name": self.topic,
            "messaging.message.body.size": self.body_bytes,
            **{name: text for name, text in texts.items() if text},
        }


@dataclass(slots=True)
class Sending:
    """The span of sending a record: a context manager around the wait for the broker's answer.

    Set `stored` within. An error that leaves it ends the span with the error's `reason`, a short
    code, or with `_OTHER`. Where the sink does not want the span, nothing is described.

    Attributes:
        sink: Takes the span.
        clock: Returns nanoseconds since the epoch.
        message: The record, without its content.
        client_id: The name that the brokers know the sender by.
        context: The span's ids.
        parent: The work that the record is sent for.
        link: The span that made the record, where that is another one than this.
        stored: The broker's answer.
    """

    sink: SpanSink
    clock: Callable[[], int]
    message: Message
    client_id: str
    context: TraceContext
    parent: TraceContext
    link: TraceContext | None = None
    stored: Stored | None = None
    _start_ns: int = 0

    def __enter__(self) -> Self:
        if self.sink.wants(self.context):
            self._start_ns = self.clock()
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        cancelled = error is not None and not isinstance(error, Exception)
        if not cancelled and self.sink.wants(self.context):
            self.sink.record(self._span(error))

    def _span(self, error: BaseException | None) -> Span:
        attributes = self.message.attributes("send", self.client_id)
        if self.stored is not None:
            attributes |= _place(self.stored.partition, self.stored.offset)
        return Span(
            name=f"send {self.message.topic}",
            kind=SpanKind.PRODUCER,
            context=self.context,
            parent=self.parent,
            start_ns=self._start_ns,
            end_ns=self.clock(),
            attributes=attributes,
            link=self.link,
            error=None if error is None else str(getattr(error, "reason", _OTHER)),
        )


@dataclass(frozen=True, slots=True)
class Processing:
    """The work on a record, from reading it until its result is stored.

    Attributes:
        record: The record that was read.
        client_id: The name that the brokers know the reader by.
        group_id: The consumer group.
        context: The span's ids.
        parent: The span that made the record, where its headers name one. It is linked too.
        start_ns: When it was read, in nanoseconds since the epoch.
    """

    record: ReceivedRecord
    client_id: str
    group_id: str
    context: TraceContext
    parent: TraceContext | None
    start_ns: int

    def span(self, end_ns: int, error: str | None) -> Span:
        """Describe the whole work; `error` is a short code where it led to no result."""
        record = self.record
        return Span(
            name=f"process {record.topic}",
            kind=SpanKind.CONSUMER,
            context=self.context,
            parent=self.parent,
            start_ns=self.start_ns,
            end_ns=end_ns,
            attributes={
                **Message.of(record).attributes("process", self.client_id),
                **_place(record.partition, record.offset),
                "messaging.consumer.group.name": self.group_id,
            },
            link=self.parent,
            error=error,
        )


def _place(partition: int, offset: int) -> dict[str, str | int | float]:
    return {"messaging.destination.partition.id": str(partition), "messaging.kafka.offset": offset}


def _readable(key: bytes) -> str:
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() and len(text) <= _MAX_KEY_CHARACTERS else ""
