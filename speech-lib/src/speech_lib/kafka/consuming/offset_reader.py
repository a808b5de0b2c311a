"""Read single offsets, outside of the group: for `consumer` and `isolated_read`.

The member of the group keeps its own position meanwhile. Nothing is committed.
"""

from contextlib import closing, suppress

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from speech_lib.kafka.consuming import damaged_batch
from speech_lib.kafka.settings import ClientConfig, client_logger

DAMAGED = frozenset(
    {
        KafkaError._BAD_COMPRESSION,  # noqa: SLF001  # public
        KafkaError._BAD_MSG,  # noqa: SLF001
        KafkaError._NOT_IMPLEMENTED,  # noqa: SLF001  # a codec that this build does not have
    }
)
"""The client library's errors for a batch that it can never read, always at the same offset."""
_LOOK_UP_SECONDS = 5.0
_NOTHING_AHEAD: ClientConfig = {
    # A broker sends one batch at least (KIP-74), so this is one.
    "max.partition.fetch.bytes": 1,
    "queued.min.messages": 1,
    "fetch.queue.backoff.ms": 1_000,
    "enable.partition.eof": True,
}


class OffsetReader:
    """Reads one offset at a time. The caller owes one `close`.

    Args:
        config: The configuration of the group's member (`consumer_config`).
    """

    def __init__(self, config: ClientConfig) -> None:
        self._client = Consumer({**config, **_NOTHING_AHEAD}, logger=client_logger("offset_reader"))

    def read(self, topic: str, partition: int, offset: int, timeout: float) -> Message | None:
        """Return the record, the error or the end at an offset; None for no answer. Blocks.

        An answer to an earlier call never counts for a later one.

        Args:
            topic: The topic's name.
            partition: Its partition.
            offset: Where to look.
            timeout: Seconds.
        """
        with suppress(KafkaException):
            self._client.assign([TopicPartition(topic, partition, offset)])
            found = self._client.poll(timeout)
            self._client.unassign()
            return found
        return None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def end_of_batch(config: ClientConfig, topic: str, partition: int, first: int, end: int) -> int:
    """Return the first offset after a batch that cannot be read. Blocks.

    Args:
        config: The configuration of the group's member.
        topic: The topic's name.
        partition: Its partition.
        first: The offset of the batch.
        end: The offset at which the partition ends.

    Raises:
        TimeoutError: The broker does not answer.
    """
    with closing(OffsetReader(config)) as reader:

        def is_in_batch(offset: int) -> bool:
            found = reader.read(topic, partition, offset, _LOOK_UP_SECONDS)
            if found is None:
                raise TimeoutError
            return is_damaged(found) and found.offset() == first

        return damaged_batch.find_end(first, end, is_in_batch)


def is_damaged(message: Message) -> bool:
    """Return whether a message reports a batch that cannot be read."""
    error = message.error()
    return error is not None and error.code() in DAMAGED and (message.offset() or 0) >= 0
