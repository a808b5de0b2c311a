"""The events of the pipeline: `from speech_lib.events import AudioInputEvent`.

Pure. `model` has the events as values, `schemas` their Avro schemas, `codec` their bytes, and
`writer_schema` what of a foreign schema may be read.
"""

from speech_lib.events.model import (
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
