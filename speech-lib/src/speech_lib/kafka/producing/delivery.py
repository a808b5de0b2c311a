"""The rules of delivery: what each report about a record means, and how librdkafka is configured.

Read by `producer` and `client`, which do the work. Touches no network.

| what happened to a record | `stored` | `refused` | answered |
| --- | --- | --- | --- |
| the broker has it, and says where | | | a `Stored`, at once |
| refused for itself (`REFUSED_RECORD`) at its only try | no | record | at once |
| refused for its topic (`REFUSED_TOPIC`) at its only try | no | topic | at once |
| refused after a try that may have been stored (`tried_once`) | unknown | as above | within 1 s |
| not taken: the queue is full, the producer is being replaced or closed | no | | at once |
| failed, mostly timed out, and surely never sent (`transmission`) | no | | in time |
| failed in any other way, also one that nobody foresaw | unknown | | in time |
| pending while the producer failed for good or was closed | unknown | | at once |
| stored by an earlier try, the broker does not say where (`stored_nowhere`) | unknown | | at once |

librdkafka retries what passes (a leader that moves, too few replicas, a broken connection), in
order and without duplicates, until `producer` gives the record up. Nothing else resends a record
that may have left. "In time" means: not before the delivery timeout, and at most two seconds after
it. The statistics that `transmission` needs take half a second, or one where nothing was sent.

A refusal is about the try that was refused. An earlier try may have been stored, and its answer
lost. So a refusal is `no` only where there was no earlier try: it came sooner than librdkafka
retries, or the record never left. Where the broker takes that long to refuse the first try, the
refusal is `unknown` too.
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
"""A broker, or the library before it, refuses this one record and would refuse it again."""

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
"""Every record of the topic is refused, until somebody changes the topic, rights or settings."""

TIMED_OUT = "_MSG_TIMED_OUT"
_PURGED = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})
"""The errors of records that `client` has purged because one is overdue."""

_RETRY_MS = 300
TRIED_ONCE_SECONDS = 0.2
"""A report within this time is about the first try. librdkafka waits `retry.backoff.ms` before the
second, less a fifth at most (CONFIGURATION.md)."""


def was_purged(error: KafkaError) -> bool:
    """Return whether a record failed because `client` purged the queue that it waited in."""
    return error.code() == KafkaError._PURGE_QUEUE


def tried_once(latency: float | None) -> bool:
    """Return whether a record was surely sent once at most.

    Args:
        latency: Seconds from the hand-over to the report; None where librdkafka does not say.
    """
    return latency is not None and 0 <= latency < TRIED_ONCE_SECONDS


def refused(error: KafkaError) -> Refused | None:
    """Return what an error refuses for good; None where the same record may pass later."""
    if error.code() in REFUSED_RECORD:
        return "record"
    return "topic" if error.code() in REFUSED_TOPIC else None


def delivery_error(error: KafkaError, stored: Certainty) -> DeliveryError:
    """Return the error for a sender.

    Args:
        error: From the delivery report, or raised by `produce`.
        stored: `no` where the record never left, or was refused at its only try. The Kafka error
            alone does not tell.
    """
    reason = TIMED_OUT if error.code() in _PURGED else error.name()
    return DeliveryError(stored=stored, reason=reason, refused=refused(error))


def overdue() -> DeliveryError:
    """Return the error for a record that may have been sent, and was not confirmed in time."""
    return DeliveryError(stored="unknown", reason=TIMED_OUT)


def stored_nowhere() -> DeliveryError:
    """Return the error for a record that is reported as stored, without an offset.

    The broker has answered DUPLICATE_SEQUENCE_NUMBER: it has the record from an earlier try, and no
    longer knows the offset. Nobody can be given a receipt for that.
    """
    return DeliveryError(stored="unknown", reason="DUPLICATE_SEQUENCE_NUMBER")


def producer_config(
    kafka: KafkaSettings, *, client_id: str, delivery_timeout: float, queue_bytes: int
) -> ClientConfig:
    """Return librdkafka's configuration for a producer that knows what is stored.

    Args:
        kafka: How to reach the brokers.
        client_id: The name that the brokers know this client by.
        delivery_timeout: Seconds.
        queue_bytes: The memory for records that wait.
    """
    delivery_ms = round(delivery_timeout * 1000)
    return {
        **kafka.client_config(),
        "client.id": client_id,
        "enable.idempotence": True,  # brings acks=all and keeps retries from storing twice
        "acks": "all",
        "linger.ms": 0,
        # Never. After a timeout librdkafka bumps the producer epoch. Brokers then cannot recognise
        # its retries, of any partition, as duplicates: they store them twice
        # (confluentinc/librdkafka#4953). So `producer` keeps the deadlines, with a new client.
        "delivery.timeout.ms": 0,
        # With several requests in flight, those behind one that fails bump the epoch likewise.
        "max.in.flight.requests.per.connection": 1,
        # A silent leader is given up early enough to try the next one within the timeout.
        "request.timeout.ms": max(1_000, delivery_ms // 3),
        "socket.timeout.ms": max(1_000, delivery_ms // 3),
        "retry.backoff.ms": _RETRY_MS,  # `tried_once` relies on it
        "retry.backoff.max.ms": 1_000,
        "queue.buffering.max.kbytes": queue_bytes // 1024,
        # A topic that does not exist is reported as such, and not as a timeout.
        "topic.metadata.propagation.max.ms": min(3_000, delivery_ms // 2),
        "topic.metadata.refresh.interval.ms": 10_000,
        # `transmission` reads them.
        "statistics.interval.ms": 250,
    }
