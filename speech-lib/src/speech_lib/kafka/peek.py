"""Look at what lies at an offset, beside the group: for `consumer` and for `apart`.

The member of the group reads on where it is meanwhile, and what was asked before never answers for
what is asked now. Nothing is committed.
"""

from contextlib import suppress

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from speech_lib.kafka import damage
from speech_lib.kafka.settings import ClientConfig, client_logger

DAMAGED = frozenset(
    {
        KafkaError._BAD_COMPRESSION,  # noqa: SLF001  # public
        KafkaError._BAD_MSG,  # noqa: SLF001
        KafkaError._NOT_IMPLEMENTED,  # noqa: SLF001  # a codec that this build does not have
    }
)
"""What the client library says of a batch that it cannot read, for ever and at the same place."""
_LOOK_SECONDS = 5.0
_NOTHING_AHEAD: ClientConfig = {
    # A broker sends one batch at least (KIP-74), so this is one.
    "max.partition.fetch.bytes": 1,
    "queued.min.messages": 1,
    "fetch.queue.backoff.ms": 1_000,
    "enable.partition.eof": True,
}


class Peek:
    """Looks at one offset at a time; the caller owes one `close`.

    Args:
        config: Of the member of the group (`consumer_config`).
    """

    def __init__(self, config: ClientConfig) -> None:
        self._client = Consumer({**config, **_NOTHING_AHEAD}, logger=client_logger("peek"))

    def at(self, topic: str, partition: int, offset: int, timeout: float) -> Message | None:
        """Return what is told of an offset: a record, an error or the end; None for no answer."""
        with suppress(KafkaException):
            self._client.assign([TopicPartition(topic, partition, offset)])
            found = self._client.poll(timeout)
            self._client.unassign()
            return found
        return None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def end_of_damage(config: ClientConfig, topic: str, partition: int, first: int, end: int) -> int:
    """Return the first offset behind a batch that cannot be read; see `damage.end_of`. Blocks.

    Raises:
        TimeoutError: The broker does not tell.
    """
    peek = Peek(config)

    def is_in_batch(offset: int) -> bool:
        found = peek.at(topic, partition, offset, _LOOK_SECONDS)
        if found is None:
            raise TimeoutError
        return is_damaged(found) and found.offset() == first

    try:
        return damage.end_of(first, end, is_in_batch)
    finally:
        peek.close()


def is_damaged(message: Message) -> bool:
    """Tell the report of a batch that cannot be read."""
    error = message.error()
    return error is not None and error.code() in DAMAGED and (message.offset() or 0) >= 0
