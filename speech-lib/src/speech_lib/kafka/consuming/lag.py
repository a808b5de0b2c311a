"""How many records a member of a group has not read yet: for `consumer`, on its polling thread.

It uses what the brokers said with the last records that they sent, which costs no request. Where
nothing is fetched because there is enough to do, that is as old as the last fetch.
"""

from confluent_kafka import Consumer, KafkaException, TopicPartition

from speech_lib.kafka.records import Partition

_ASK_SECONDS = 1.0


class Lag:
    """The lag of one member.

    Args:
        client: The member's librdkafka consumer.
    """

    def __init__(self, client: Consumer) -> None:
        self._client = client
        self._committed: dict[Partition, int] = {}
        """The committed offset of each assigned partition that is not read yet."""

    def by_partition(self) -> dict[Partition, int]:
        """Return the number of unread records of each assigned partition, where it is known.

        Asks the brokers, for at most a second, about partitions that are new and not read yet.
        """
        try:
            return self._by_partition()
        except KafkaException:  # `poll` reports what is wrong; this only measures
            return {}

    def _by_partition(self) -> dict[Partition, int]:
        assigned = self._client.assignment()
        read = {_pair(at): at.offset for at in self._client.position(assigned) if at.offset >= 0}
        self._ask([at for at in assigned if _pair(at) not in read])
        ends = {
            _pair(at): self._client.get_watermark_offsets(at, cached=True)[1] for at in assigned
        }
        begins = self._committed | read
        return {
            of: max(0, end - begins[of]) for of, end in ends.items() if end >= 0 and of in begins
        }

    def _ask(self, unread: list[TopicPartition]) -> None:
        """Find out where reading will begin. An answer counts until the partition is read."""
        self._committed = {
            pair: self._committed[pair] for at in unread if (pair := _pair(at)) in self._committed
        }
        unknown = [at for at in unread if _pair(at) not in self._committed]
        if not unknown:
            return
        try:
            answers = self._client.committed(unknown, timeout=_ASK_SECONDS)
        except KafkaException:
            return  # the next call asks again
        # Where the group has committed nothing, reading begins with the first record.
        self._committed |= {_pair(at): max(0, at.offset) for at in answers if at.error is None}


def _pair(at: TopicPartition) -> Partition:
    return at.topic, at.partition
