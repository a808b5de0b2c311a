"""The events of the pipeline: frozen values, valid once built, so that nobody checks them again.

The gateway makes `AudioInputEvent`s, and the recogniser turns each into a `TextRecognizedEvent`.
`codec` writes and reads them. Pure: no schema, no Kafka.

An event equals itself after a round trip through Avro. What Avro cannot hold is dropped when the
event is built: the timestamp has whole milliseconds in UTC, the confidence the precision of a
32-bit float.
"""

import struct
import uuid
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from speech_lib.errors import EventError

AvroRecord = dict[str, Any]

SAMPLE_RATE_HZ = 16_000
SAMPLE_BYTES = 2
"""PCM16, little-endian."""
CHANNELS = 1
BYTES_PER_SECOND = SAMPLE_RATE_HZ * SAMPLE_BYTES * CHANNELS
"""The pace of speech."""

_MAX_INT = 2**31 - 1


def _text(name: str, value: object, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or empty):
        raise EventError(f"{name} must be a {'string' if empty else 'non-empty string'}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise EventError(f"{name} must be text that UTF-8 can hold") from None
    return value


def _uuid4(name: str, value: object) -> str:
    text = _text(name, value)
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        parsed = None
    if parsed is None or parsed.version != 4 or str(parsed) != text:  # noqa: PLR2004
        raise EventError(f"{name} must be a UUID4 in its canonical form")
    return text


def _milliseconds(value: object) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise EventError("timestamp must be a datetime with a time zone")
    try:
        in_utc = value.astimezone(UTC)
    except OverflowError:
        raise EventError("timestamp must lie in the years 1 to 9999") from None
    return in_utc.replace(microsecond=in_utc.microsecond // 1000 * 1000)


def _float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def _member(record: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401  # checked where it is used
    try:
        return record[name]
    except (KeyError, TypeError):
        raise EventError(f"the record has no {name}") from None


class Payload(Protocol):
    """The content of an event."""

    def to_record(self) -> AvroRecord:
        """Return the payload as its schema names it."""
        ...


@dataclass(frozen=True, slots=True)
class AudioInput:
    """One utterance as it was spoken.

    Attributes:
        audio_bytes: A whole file in `audio_format`.
        audio_format: Always `wav` so far.
        sample_rate_hz: Samples a second.
        language_hint: The BCP 47 tag that the client gave, if any.
    """

    audio_bytes: bytes = field(repr=False)
    audio_format: str = "wav"
    sample_rate_hz: int = SAMPLE_RATE_HZ
    language_hint: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.audio_bytes, bytes):
            raise EventError("audio_bytes must be bytes")
        _text("audio_format", self.audio_format)
        rate = self.sample_rate_hz
        if type(rate) is not int or not 0 < rate <= _MAX_INT:
            raise EventError(f"sample_rate_hz must be an integer from 1 to {_MAX_INT}")
        if self.language_hint is not None:
            _text("language_hint", self.language_hint)

    def to_record(self) -> AvroRecord:
        """Return the payload as the schema names it."""
        return {
            "audio_bytes": self.audio_bytes,
            "audio_format": self.audio_format,
            "sample_rate_hz": self.sample_rate_hz,
            "language_hint": self.language_hint,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Build the payload from a record of the schema."""
        return cls(
            audio_bytes=_member(record, "audio_bytes"),
            audio_format=_member(record, "audio_format"),
            sample_rate_hz=_member(record, "sample_rate_hz"),
            language_hint=_member(record, "language_hint"),
        )


@dataclass(frozen=True, slots=True)
class TextRecognized:
    """What a recogniser heard in one utterance.

    Attributes:
        text: The words, empty where nothing was said.
        language: The BCP 47 tag of the model's language.
        confidence: 0 to 1, the mean of the words' posteriors; 0 for empty text.
    """

    text: str = field(repr=False)
    language: str
    confidence: float

    def __post_init__(self) -> None:
        _text("text", self.text, empty=True)
        _text("language", self.language)
        confidence = self.confidence
        is_number = isinstance(confidence, (int, float)) and not isinstance(confidence, bool)
        if not is_number or not 0 <= confidence <= 1:  # NaN compares false as well
            raise EventError("confidence must be a number from 0 to 1")
        object.__setattr__(self, "confidence", _float32(confidence))

    def to_record(self) -> AvroRecord:
        """Return the payload as the schema names it."""
        return {"text": self.text, "language": self.language, "confidence": self.confidence}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Build the payload from a record of the schema."""
        return cls(
            text=_member(record, "text"),
            language=_member(record, "language"),
            confidence=_member(record, "confidence"),
        )


PayloadT = TypeVar("PayloadT", bound=Payload)


@dataclass(frozen=True, slots=True)
class Event(Generic[PayloadT]):
    """The envelope that all events share.

    Attributes:
        event_type: The name of the event's schema.
        event_id: A UUID4, new for each event.
        correlation_id: A UUID4 that follows an utterance from the handshake to its text.
        timestamp: The time at which the event was made.
        source_service: The service that made it: `gateway` or `asr`.
        payload: The content.
    """

    event_type: ClassVar[str]

    event_id: str
    correlation_id: str
    timestamp: datetime
    source_service: str
    payload: PayloadT

    def __post_init__(self) -> None:
        _uuid4("event_id", self.event_id)
        _uuid4("correlation_id", self.correlation_id)
        object.__setattr__(self, "timestamp", _milliseconds(self.timestamp))
        _text("source_service", self.source_service)

    @classmethod
    @abstractmethod
    def _payload(cls, record: Mapping[str, Any]) -> PayloadT:
        """Build the payload of this kind of event."""

    @classmethod
    def new(cls, *, correlation_id: str, source_service: str, payload: PayloadT) -> Self:
        """Make an event with a new id and the present time.

        Raises:
            EventError: A value does not fit its attribute.
        """
        return cls(str(uuid.uuid4()), correlation_id, datetime.now(UTC), source_service, payload)

    def to_record(self) -> AvroRecord:
        """Return the event as its schema names it."""
        return {
            "event_id": self.event_id,
            "event_type": self.event_type,
            "correlation_id": self.correlation_id,
            "timestamp": self.timestamp,
            "source_service": self.source_service,
            "payload": self.payload.to_record(),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Build the event from a record of its schema.

        Raises:
            EventError: The record is another kind of event, lacks a member or holds a wrong value.
        """
        if _member(record, "event_type") != cls.event_type:
            raise EventError(f"event_type must be {cls.event_type}")
        return cls(
            event_id=_member(record, "event_id"),
            correlation_id=_member(record, "correlation_id"),
            timestamp=_member(record, "timestamp"),
            source_service=_member(record, "source_service"),
            payload=cls._payload(_member(record, "payload")),
        )


@dataclass(frozen=True, slots=True)
class AudioInputEvent(Event[AudioInput]):
    """An utterance has been spoken."""

    event_type: ClassVar[str] = "AudioInputEvent"

    @classmethod
    def _payload(cls, record: Mapping[str, Any]) -> AudioInput:
        return AudioInput.from_record(record)


@dataclass(frozen=True, slots=True)
class TextRecognizedEvent(Event[TextRecognized]):
    """An utterance has been recognised."""

    event_type: ClassVar[str] = "TextRecognizedEvent"

    @classmethod
    def _payload(cls, record: Mapping[str, Any]) -> TextRecognized:
        return TextRecognized.from_record(record)


AnyEvent = Event[Any]
"""An event of any kind."""
