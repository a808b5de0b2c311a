"""What can go wrong with an utterance or an engine: one base, few kinds.

Pure. `wav`, `intake`, `pool` and `outbox` raise `Unprocessable`, whose reason is what the
dead-letter topic tells; the engines and their worker processes raise the other two.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a record went to the dead-letter topic: the header `dlq_reason`, a label of metrics."""

    UNREADABLE_HEADERS = "unreadable_headers"
    """The name of a header is not UTF-8, so none of the headers can be read."""
    UNREADABLE_BATCH = "unreadable_batch"
    """The client library cannot read the batch that the record is in: it is badly compressed, far
    too large once unpacked, or damaged."""
    NOT_AVRO = "not_avro"
    """The value is not in the Confluent wire format, or its body is not what its schema says."""
    UNKNOWN_SCHEMA = "unknown_schema"
    """The registry does not know the schema that the value names."""
    WRONG_EVENT = "wrong_event"
    """A good record of another event, or one whose members are not an utterance's."""
    NOT_WAV = "not_wav"
    """The audio is not a whole WAV file."""
    UNSUPPORTED_FORMAT = "unsupported_format"
    """The audio is not 16 kHz mono PCM16."""
    RECOGNISER_FAILED = "recogniser_failed"
    """The recogniser failed or was killed on this utterance, twice."""
    RESULT_REFUSED = "result_refused"
    """The broker will never take the text of this utterance."""
    INTERNAL_ERROR = "internal_error"
    """A defect of this service; the log has a line about it."""


class AsrError(Exception):
    """Base of the package's own errors."""


class Unprocessable(AsrError):
    """A record that would fail however often it is tried; its place is the dead-letter topic."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class EngineUnavailable(AsrError):
    """The engine cannot be loaded; the text is one line for whoever started the service."""


class EngineFailed(AsrError):
    """The engine could not transcribe these samples and is not to be used again."""
