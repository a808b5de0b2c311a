"""What a span of a trace is, and the spans of sending and processing a record.

Pure: a span is described after the fact, from ids that `tracing` made and times that were noted,
and given to a `SpanSink`. So no library stands in the way of an utterance: where nothing is
exported (`NoSpans`), nothing is even described; `otlp` is the sink that exports.

Names and attributes are those of OpenTelemetry's semantic conventions, in the version of
`CONVENTIONS`: https://opentelemetry.io/docs/specs/semconv/messaging/kafka/. Attributes of our own
begin with `speech.`. Never audio, words, or the addresses of clients and brokers.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol, Self

from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord, Record, Stored
from speech_lib.telemetry.context import TraceContext

CONVENTIONS = "https://opentelemetry.io/schemas/1.44.0"
"""The schema that the attributes follow, told to whoever receives them."""

CORRELATION_ID = "speech.correlation_id"
ERROR_TYPE = "error.type"
_OTHER = "_OTHER"
"""What the conventions call an error that has no name."""
_MAX_KEY_CHARACTERS = 64

Attributes = Mapping[str, str | int | float]


class SpanKind(Enum):
    """Which side of which exchange a span is; named as in OpenTelemetry."""

    SERVER = auto()
    PRODUCER = auto()
    CONSUMER = auto()
    INTERNAL = auto()


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of work that has ended.

    Attributes:
        name: Of few different values, as traces are grouped by it.
        kind: See `SpanKind`.
        context: Its own ids.
        parent: The span that it is a part of; none for the first of a trace.
        start_ns: Nanoseconds since the epoch.
        end_ns: Likewise.
        attributes: See the module.
        link: The span that made the record that this one is about.
        error: Why it failed, a short code; none where it did not.
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
    """What takes spans; its methods return at once and never raise."""

    def wants(self, context: TraceContext) -> bool:
        """Tell whether a span of this trace is worth describing."""
        ...

    def record(self, span: Span) -> None:
        """Take a span that `wants` has said yes to."""
        ...

    async def close(self) -> None:
        """Pass on what is left, in bounded time."""
        ...


class NoSpans:
    """Takes nothing: what a service has that is not told where to export to."""

    def wants(self, context: TraceContext) -> bool:  # noqa: ARG002 - as every sink
        """Tell that no span is."""
        return False

    def record(self, span: Span) -> None:
        """Drop a span."""

    async def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is told of a record: not what it holds, so that this keeps no audio alive.

    Attributes:
        topic: Where it is or goes.
        key: As text; empty where it is none, as in records that are not ours.
        body_bytes: The length of its value.
        correlation_id: Of its utterance; empty where it tells none.
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
        """Return the attributes of a client that does something with the record."""
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


@dataclass(frozen=True, slots=True)
class Sending:
    """A record on its way to the broker.

    Attributes:
        message: What is sent.
        client_id: Who sends it, as the brokers know it.
        context: The ids of the span.
        parent: What it is sent for.
        link: The span that made the record, where that is another one than this.
    """

    message: Message
    client_id: str
    context: TraceContext
    parent: TraceContext
    link: TraceContext | None = None

    def span(self, start_ns: int, end_ns: int, came_of: Stored | str) -> Span:
        """Describe the whole of it; `came_of` is a code where it is not known to be stored."""
        attributes = self.message.attributes("send", self.client_id)
        if isinstance(came_of, Stored):
            attributes |= _place(came_of.partition, came_of.offset)
        return Span(
            name=f"send {self.message.topic}",
            kind=SpanKind.PRODUCER,
            context=self.context,
            parent=self.parent,
            start_ns=start_ns,
            end_ns=end_ns,
            attributes=attributes,
            link=self.link,
            error=came_of if isinstance(came_of, str) else None,
        )


async def traced(
    delivery: Awaitable[Stored], sending: Sending, sink: SpanSink, clock: Callable[[], int]
) -> Stored:
    """Await a delivery and record its span; holds nothing of the record meanwhile.

    Args:
        delivery: Its errors have a `reason`, a short code.
        sending: What is told of it.
        sink: Where the span goes.
        clock: Returns nanoseconds since the epoch.

    Raises:
        Exception: whatever the delivery does.
    """
    if not sink.wants(sending.context):
        return await delivery
    start_ns = clock()
    try:
        stored = await delivery
    except Exception as error:
        reason = str(getattr(error, "reason", _OTHER))
        sink.record(sending.span(start_ns, clock(), reason))
        raise
    sink.record(sending.span(start_ns, clock(), stored))
    return stored


@dataclass(frozen=True, slots=True)
class Processing:
    """A record that is worked on, from reading it until what came of it is stored.

    Attributes:
        record: What was read.
        client_id: Who read it, as the brokers know it.
        group_id: The consumer group.
        context: The ids of the span.
        parent: The span that made the record, where its headers tell; it is linked to as well.
        start_ns: When it was read, in nanoseconds since the epoch.
    """

    record: ReceivedRecord
    client_id: str
    group_id: str
    context: TraceContext
    parent: TraceContext | None
    start_ns: int

    def span(self, end_ns: int, error: str | None) -> Span:
        """Describe the whole of it; `error` is a short code where the record led to no result."""
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
