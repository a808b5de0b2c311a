"""A consumer that also knows how far behind it is. Built by the recogniser's `__main__`.

Told from what the brokers said with the last records that they sent, which costs no request. Where
nothing is fetched because there is enough to do, that is as old as the last fetch.
"""

from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from speech_lib.kafka.consumer import Partition, RecordConsumer

_ASK_SECONDS = 1.0


class MeasuredConsumer(RecordConsumer):
    """A `RecordConsumer` whose lag can be asked for, by the thread that polls it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - of the base class
        super().__init__(*args, **kwargs)
        self._committed: dict[Partition, int] = {}
        """Of partitions that were not read since they were assigned: where reading begins."""

    def lags(self) -> dict[Partition, int]:
        """Return how many records of each of its partitions it has not read yet.

        Without those of which nothing is known yet. Asks the brokers, for at most a second, about
        partitions that have become this member's and were not read since.
        """
        try:
            return self._lags()
        except KafkaException:  # `poll` tells of what is wrong; this only measures
            return {}

    def _lags(self) -> dict[Partition, int]:
        assigned = self._client.assignment()
        read = {_name(at): at.offset for at in self._client.position(assigned) if at.offset >= 0}
        self._ask([at for at in assigned if _name(at) not in read])
        ends = {
            _name(at): self._client.get_watermark_offsets(at, cached=True)[1] for at in assigned
        }
        begins = self._committed | read
        return {
            of: max(0, end - begins[of]) for of, end in ends.items() if end >= 0 and of in begins
        }

    def _ask(self, unread: list[TopicPartition]) -> None:
        """Find out where reading will begin; an answer counts until the partition is read."""
        self._committed = {
            name: self._committed[name] for at in unread if (name := _name(at)) in self._committed
        }
        unknown = [at for at in unread if _name(at) not in self._committed]
        if not unknown:
            return
        try:
            answers = self._client.committed(unknown, timeout=_ASK_SECONDS)
        except KafkaException:
            return  # the next time will do
        # Where the group has committed nothing, reading begins with the first record.
        self._committed |= {_name(at): max(0, at.offset) for at in answers if at.error is None}


def _name(at: TopicPartition) -> Partition:
    return at.topic, at.partition
