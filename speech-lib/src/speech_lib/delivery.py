"""What a producer is told, and what its errors mean: the rules of delivery in one place.

Read by `producer`, which does the rest. Touches no network.
"""

from confluent_kafka import KafkaError

from speech_lib.errors import Certainty, DeliveryError
from speech_lib.kafka import ClientConfig, KafkaSettings

REFUSED_FOR_GOOD = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.POLICY_VIOLATION,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        KafkaError.UNSUPPORTED_COMPRESSION_TYPE,
        KafkaError.INVALID_REQUIRED_ACKS,
        KafkaError.TOPIC_EXCEPTION,  # not a valid name
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001  # underscored, and part of the public interface
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    }
)
"""What a broker, or the library before it, refuses whole and would refuse again."""


def delivery_error(error: KafkaError, *, handed_over: bool) -> DeliveryError:
    """Say what a Kafka error means for a record.

    Args:
        error: From the delivery report, or raised by `produce`.
        handed_over: Whether the library had taken the record. If not, it is certainly not stored;
            if so, only a refusal says that much: after a timeout or a broken connection the broker
            may have it.
    """
    permanent = error.code() in REFUSED_FOR_GOOD
    stored: Certainty = "unknown" if handed_over and not permanent else "no"
    return DeliveryError(stored=stored, permanent=permanent, reason=error.name())


def producer_config(
    kafka: KafkaSettings, *, client_id: str, delivery_timeout: float, queue_bytes: int
) -> ClientConfig:
    """Return librdkafka's configuration for a producer that knows what is stored."""
    delivery_ms = round(delivery_timeout * 1000)
    return {
        **kafka.client_config(),
        "client.id": client_id,
        "enable.idempotence": True,  # brings acks=all and keeps retries from storing twice
        "acks": "all",
        "linger.ms": 0,
        # An utterance is one record: batching would only delay the answer.
        "delivery.timeout.ms": delivery_ms,
        # A silent leader is given up early enough to try the next one within the time.
        "request.timeout.ms": max(1_000, delivery_ms // 3),
        "socket.timeout.ms": max(1_000, delivery_ms // 3),
        "retry.backoff.ms": 100,
        "retry.backoff.max.ms": 1_000,
        "queue.buffering.max.kbytes": queue_bytes // 1024,
        # A topic that does not exist is told as such, and not as a timeout.
        "topic.metadata.propagation.max.ms": min(3_000, delivery_ms // 2),
        "topic.metadata.refresh.interval.ms": 10_000,
    }
