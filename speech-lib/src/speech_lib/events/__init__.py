"""The events of the pipeline: `from speech_lib.events import AudioInputEvent`.

Pure. `model` holds the events as values, `schemas` their Avro schemas. `codec` turns events into
bytes and back, and `writer_schema` decides which foreign schemas may be read.
"""

from speech_lib.events.model import (
    BYTES_PER_SECOND,
    CHANNELS,
    SAMPLE_BYTES,
    SAMPLE_RATE_HZ,
    AnyEvent,
    AudioInput,
    AudioInputEvent,
    AvroRecord,
    Event,
    Payload,
    TextRecognized,
    TextRecognizedEvent,
)

__all__ = [
    "BYTES_PER_SECOND",
    "CHANNELS",
    "SAMPLE_BYTES",
    "SAMPLE_RATE_HZ",
    "AnyEvent",
    "AudioInput",
    "AudioInputEvent",
    "AvroRecord",
    "Event",
    "Payload",
    "TextRecognized",
    "TextRecognizedEvent",
]
