"""From a record of `speech.audio.ingress` to the samples of an utterance, or to why there are none.

Used by `handler`. Blocks only where the deserializer has to ask the registry.
"""

from dataclasses import dataclass, field
from typing import Protocol

from speech_lib.errors import EventError, NotAvro, SchemaNotFound
from speech_lib.events import AudioInputEvent

from speech_asr import wav
from speech_asr.errors import Reason, Unprocessable


class Decoder(Protocol):
    """What turns a record's value into an event (`speech_lib.kafka.registry.EventDeserializer`)."""

    def decode(self, value: bytes) -> AudioInputEvent:
        """Return the event, or raise one of the errors that the library names."""
        ...


@dataclass(frozen=True, slots=True)
class Utterance:
    """What there is to recognise.

    Attributes:
        event_id: Of the event that brought it.
        correlation_id: What its text will be found by.
        samples: PCM16 little-endian, 16 kHz, mono; may be empty.
        language_hint: BCP 47 tag of the language that the client claims, of any content.
    """

    event_id: str
    correlation_id: str
    samples: bytes = field(repr=False)
    language_hint: str | None = None


def read(decoder: Decoder, value: bytes) -> Utterance:
    """Return the utterance in a record's value.

    Raises:
        Unprocessable: The record will never be one.
        RegistryUnavailable: Its schema cannot be had now.
        SchemaRefused: The registry does not let us read it, which says nothing of the record.
    """
    event = _event(decoder, value)
    samples = wav.samples_of(event.payload)
    return Utterance(event.event_id, event.correlation_id, samples, event.payload.language_hint)


def _event(decoder: Decoder, value: bytes) -> AudioInputEvent:
    try:
        return decoder.decode(value)
    except NotAvro:
        raise Unprocessable(Reason.NOT_AVRO) from None
    except SchemaNotFound:
        raise Unprocessable(Reason.UNKNOWN_SCHEMA) from None
    except EventError:
        raise Unprocessable(Reason.WRONG_EVENT) from None
