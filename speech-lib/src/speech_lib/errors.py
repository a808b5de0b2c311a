"""Every error that this package raises: one base, few kinds, each saying whose fault it is.

The adapters in `kafka` turn the exceptions of their libraries into these, so that a service never
catches one of a Kafka or HTTP client. The texts name kinds and Kafka error codes only: no address,
no secret, no content of a record.
"""

from typing import Literal

Certainty = Literal["no", "unknown"]

Refused = Literal["record", "topic"]
"""What is refused: this one record, or whatever this client does with the topic."""


class SpeechLibError(Exception):
    """Base of all errors of this package."""


class ConfigError(SpeechLibError):
    """The environment is wrong. The text is the one line for the person who started the program."""


class EventError(SpeechLibError):
    """A value is not a valid event: a defect of its writer."""


class NotAvro(EventError):
    """The bytes are not a whole record in the Confluent wire format."""


class WrongSchema(EventError):
    """The bytes were written with a schema that cannot be read as the expected event."""


class RegistryUnavailable(SpeechLibError):
    """The schema registry could not be reached, or failed. A later try may succeed."""


class SchemaRefused(SpeechLibError):
    """The registry refuses to take or look up the schema, however often it is asked."""


class SchemaNotFound(SpeechLibError):
    """The registry does not know the subject, the schema or the id."""


class BrokerUnavailable(SpeechLibError):
    """The broker could not be reached, or did not do what was asked. A later try may succeed.

    Attributes:
        reason: The name of the Kafka error, for example `_TRANSPORT`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the broker is not available: {reason}")
        self.reason = reason


class TopicMissing(SpeechLibError):
    """The broker can be reached, but the topic does not exist or is hidden from this client.

    Attributes:
        topic: The topic that was asked for.
        reason: The name of the Kafka error, `TOPIC_AUTHORIZATION_FAILED` where it is hidden.
    """

    def __init__(self, topic: str, reason: str = "UNKNOWN_TOPIC_OR_PART") -> None:
        super().__init__(f"topic {topic} cannot be used: {reason}")
        self.topic = topic
        self.reason = reason


class DeliveryError(SpeechLibError):
    """A record was not confirmed by the broker.

    Attributes:
        stored: `no` where the record is certainly not in the log, `unknown` where it may be.
        reason: The name of the Kafka error, for example `MSG_SIZE_TOO_LARGE`.
        refused: `record` where this record would be refused again. `topic` where every record
            would be, until the topic or this client's rights change. None where it may pass.
    """

    def __init__(self, *, stored: Certainty, reason: str, refused: Refused | None = None) -> None:
        super().__init__(f"the record was not confirmed (stored: {stored}): {reason}")
        self.stored: Certainty = stored
        self.reason = reason
        self.refused: Refused | None = refused
