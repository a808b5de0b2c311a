"""How a consumer's librdkafka is configured: for `consumer`, and for tools that read topics.

Touches no network.
"""

from speech_lib.kafka.settings import MAX_RECORD_BYTES, ClientConfig, KafkaSettings

READ_LITTLE_AHEAD: ClientConfig = {
    # Others may get the partitions. A larger record is fetched all the same (KIP-74).
    "max.partition.fetch.bytes": 256 * 1024,
    "fetch.max.bytes": MAX_RECORD_BYTES,
    "queued.max.messages.kbytes": 2 * 1024,
    # So small a queue is empty long before the default of a second is over.
    "fetch.queue.backoff.ms": 50,
    # Where there is nothing to read, the end of a partition shows that it may be read.
    "enable.partition.eof": True,
}
"""What a member of a group adds to `consumer_config`."""


def consumer_config(kafka: KafkaSettings, *, group_id: str, client_id: str) -> ClientConfig:
    """Return librdkafka's configuration for a consumer whose caller commits.

    Args:
        kafka: How to reach the brokers.
        group_id: The consumer group.
        client_id: The name that the brokers know this client by.
    """
    return {
        **kafka.client_config(),
        "client.id": client_id,
        "group.id": group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        # When a member comes or goes, the others keep their partitions, and the work on them.
        "partition.assignment.strategy": "cooperative-sticky",
        # After this the partitions of a member that was killed go to others.
        "session.timeout.ms": 10_000,
        # A member learns from a heartbeat that others have come or gone.
        "heartbeat.interval.ms": 2_000,
        # A recogniser may take long for what it has. Heartbeats show that it lives.
        "max.poll.interval.ms": 600_000,
        # What is fetched ahead stays within a few of the largest records.
        "max.partition.fetch.bytes": MAX_RECORD_BYTES,
        "fetch.max.bytes": 4 * MAX_RECORD_BYTES,
        "queued.max.messages.kbytes": 4 * MAX_RECORD_BYTES // 1024,
        "fetch.error.backoff.ms": 200,
        "socket.timeout.ms": 10_000,
        # The operator makes the topics. A new one is seen soon.
        "allow.auto.create.topics": False,
        "topic.metadata.refresh.interval.ms": 5_000,
    }
