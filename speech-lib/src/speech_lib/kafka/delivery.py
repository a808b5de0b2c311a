"""What a producer is told, and what its errors mean: the rules of delivery in one place.

| what came of a record | `stored` | `refused` | told |
| --- | --- | --- | --- |
| the broker has it, and says where | | | a `Stored`, at once |
| refused whole (`REFUSED_RECORD`) at its only try, by broker or library | no | record | at once |
| refused like all of its topic (`REFUSED_TOPIC`) at its only try | no | topic | at once |
| refused after a try that may have been stored (`tried_once`) | unknown | as above | within 1 s |
| not taken: the queue is full, the producer is being replaced or closed | no | | at once |
| failed, mostly timed out, and surely never sent (`transmission`) | no | | in time |
| failed in any other way, also one that nobody foresaw | unknown | | in time |
| waiting while the producer failed for good or was closed | unknown | | at once |
| stored by an earlier try, the broker does not say where (`nowhere`) | unknown | | at once |

What passes (a leader that moves, too few replicas, a broken connection) is tried again by
librdkafka until `producer` gives it up, in order and without duplicates; nobody else sends a record
again that may have left. "In time" is within the delivery timeout and two seconds, and not before
the timeout: the statistics that `transmission` waits for take half a second, where nothing was sent
twice that.

A refusal is about the try that was refused. An earlier try of the same record may have been stored
and its answer lost. So a refusal is `no` only where there was no earlier try: where it came sooner
than librdkafka tries again, or where the record never left. It is `unknown` also where a broker
took that long to refuse the first try.

Read by `producer`, which does the rest. Touches no network.
"""

from confluent_kafka import KafkaError

from speech_lib.errors import Certainty, DeliveryError, Refused
from speech_lib.kafka.settings import ClientConfig, KafkaSettings

# A name with an underscore is the library's own error, and part of its public interface.
# ruff: noqa: SLF001
REFUSED_RECORD = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.POLICY_VIOLATION,
    }
)
"""Why a broker, or the library before it, refuses one record whole and would refuse it again."""

REFUSED_TOPIC = frozenset(
    {
        KafkaError.TOPIC_EXCEPTION,  # not a valid name
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,  # made anew, with fewer partitions
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.INVALID_REQUIRED_ACKS,
        KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT,
        KafkaError.UNSUPPORTED_COMPRESSION_TYPE,
    }
)
"""Why every record of a topic is refused, until somebody changes the topic, rights or settings."""

TIMED_OUT = "_MSG_TIMED_OUT"
_GIVEN_UP = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})
"""How librdkafka calls what `producer` gives up because it is overdue."""


_RETRY_MS = 300
TRIED_ONCE_SECONDS = 0.2
"""An answer within this time is about the first try: librdkafka waits for `retry.backoff.ms` before
the second, less a fifth at most (CONFIGURATION.md)."""


def was_purged(error: KafkaError) -> bool:
    """Tell whether a record failed because `generation` purged the queue that it waited in."""
    return error.code() == KafkaError._PURGE_QUEUE


def tried_once(latency: float | None) -> bool:
    """Tell whether a record was surely sent once at most, by the seconds to its report."""
    return latency is not None and 0 <= latency < TRIED_ONCE_SECONDS


def refused(error: KafkaError) -> Refused | None:
    """Say what is refused for good by an error; None where the same record may pass later."""
    if error.code() in REFUSED_RECORD:
        return "record"
    return "topic" if error.code() in REFUSED_TOPIC else None


def delivery_error(error: KafkaError, stored: Certainty) -> DeliveryError:
    """Say what a Kafka error means for a record.

    Args:
        error: From the delivery report, or raised by `produce`.
        stored: What is known of the record apart from the error: `no` where it never left, or was
            refused at its only try. Even a refusal says nothing about the tries before it.
    """
    reason = TIMED_OUT if error.code() in _GIVEN_UP else error.name()
    return DeliveryError(stored=stored, reason=reason, refused=refused(error))


def overdue() -> DeliveryError:
    """Say what it means that a record may have been sent, and was not confirmed in time."""
    return DeliveryError(stored="unknown", reason=TIMED_OUT)


def nowhere() -> DeliveryError:
    """Say what it means that a record is reported as stored, but not at which offset.

    The broker has answered DUPLICATE_SEQUENCE_NUMBER: it has the record from an earlier try, too
    long ago to remember the offset. Nobody can be given a receipt for that.
    """
    return DeliveryError(stored="unknown", reason="DUPLICATE_SEQUENCE_NUMBER")


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
        # Never: librdkafka, where it times a record out, goes on under a new epoch, and brokers do
        # not know again what it then sends once more, of any partition: it is stored twice
        # (confluentinc/librdkafka#4953). So `producer` keeps the time, and takes a new one instead.
        "delivery.timeout.ms": 0,
        # Of several requests under way, those behind one that fails bring a new epoch likewise.
        "max.in.flight.requests.per.connection": 1,
        # A silent leader is given up early enough to try the next one within the time.
        "request.timeout.ms": max(1_000, delivery_ms // 3),
        "socket.timeout.ms": max(1_000, delivery_ms // 3),
        "retry.backoff.ms": _RETRY_MS,  # `tried_once` counts on it
        "retry.backoff.max.ms": 1_000,
        "queue.buffering.max.kbytes": queue_bytes // 1024,
        # A topic that does not exist is told as such, and not as a timeout.
        "topic.metadata.propagation.max.ms": min(3_000, delivery_ms // 2),
        "topic.metadata.refresh.interval.ms": 10_000,
        # `transmission` lives on them.
        "statistics.interval.ms": 250,
    }
