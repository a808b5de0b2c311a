"""Read whole topics from their ends on, in no consumer group: for a service that waits for answers.

The gateway's `results` polls a `TopicTail` on a thread. Every reader of such topics sees every
record, so it looks at keys alone, and hands out only the records that are wanted. Nothing is
committed, kept, or shared with other readers.
"""

import time
from collections.abc import Container, Iterable, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from speech_lib.errors import BrokerUnavailable
from speech_lib.kafka.consuming.config import consumer_config
from speech_lib.kafka.consuming.offset_reader import is_damaged
from speech_lib.kafka.message import place, received
from speech_lib.kafka.records import Partition, ReceivedRecord
from speech_lib.kafka.settings import ClientConfig, KafkaSettings, client_logger

_MOST_AT_ONCE = 500
_LOOK_SECONDS = 5.0
"""How often it looks for new partitions, and whether a broker answers."""
_ASK_SECONDS = 3.0
_GROUP = "none"
"""The client library wants a name. No group is ever joined, and nobody else asks for it."""
_HARMLESS = frozenset(
    {
        KafkaError._PARTITION_EOF,  # noqa: SLF001  # public
        KafkaError.GROUP_AUTHORIZATION_FAILED,  # of a group that is never joined
    }
)
_FETCH: ClientConfig = {
    "enable.partition.eof": True,  # where there is nothing to read, it shows that it may be read
    "fetch.wait.max.ms": 100,
    "fetch.queue.backoff.ms": 50,
    "queued.max.messages.kbytes": 4 * 1024,
    "max.partition.fetch.bytes": 256 * 1024,
}


class TopicTail:
    """Reads all partitions of some topics. One thread uses it; the caller owes one `close`.

    It reads on where it was when a broker comes back. After an error that lasts, build a new one
    with its `positions`, so that no record is missed.

    Args:
        kafka: How to reach the brokers.
        topics: What to read.
        positions: Where to go on; partitions that are not named are read from their ends on.
        client_id: The name that the brokers know this client by.

    Attributes:
        positions: The next offset of each partition.

    Raises:
        BrokerUnavailable: No broker answers, or a topic cannot be read. Later it may.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Sequence[str],
        positions: Mapping[Partition, int],
        *,
        client_id: str,
    ) -> None:
        config = consumer_config(kafka, group_id=_GROUP, client_id=client_id) | _FETCH
        self._topics = topics
        self._client = Consumer(config, logger=client_logger("tail"))
        self.positions = dict(positions)
        try:
            self._begin()
        except BrokerUnavailable:
            self.close()
            raise
        self._look_at = time.monotonic() + _LOOK_SECONDS

    def poll(self, timeout: float, wanted: Container[bytes]) -> list[ReceivedRecord]:
        """Return the next records whose key is wanted, in their order. Blocks.

        Args:
            timeout: Seconds to wait for the first record of any key.
            wanted: The keys. Another thread may change it.

        Raises:
            BrokerUnavailable: The topics cannot be read now.
        """
        if time.monotonic() >= self._look_at:
            self._add_new_partitions()
            self._look_at = time.monotonic() + _LOOK_SECONDS
        first = self._client.poll(timeout)
        if first is None:
            return []
        # Called alone, `consume` would wait for the whole timeout to fill its list.
        messages = (first, *self._client.consume(_MOST_AT_ONCE - 1, 0))
        moved: dict[Partition, int] = {}
        records = [received(each) for each in messages if self._is_wanted(each, wanted, moved)]
        self.positions |= moved  # not earlier: after an error all of them are read again
        return records

    def close(self) -> None:
        """Close the connections. Blocks for a moment."""
        self._client.close()

    def _begin(self) -> None:
        """Assign what is there: where it is known from its position, the rest from its end."""
        there = list(self._partitions())
        for gone in self.positions.keys() - there:  # of a topic that was made anew, with fewer
            del self.positions[gone]
        for partition in there:
            if partition not in self.positions:
                self.positions[partition] = self._end(partition)
        self._client.assign([TopicPartition(*of, offset) for of, offset in self.positions.items()])

    def _add_new_partitions(self) -> None:
        """Read partitions that were added, from their first record: it is younger than this."""
        new = [of for of in self._partitions() if of not in self.positions]
        if new:
            self.positions |= dict.fromkeys(new, 0)
            self._client.incremental_assign([TopicPartition(*of, 0) for of in new])

    def _partitions(self) -> Iterable[Partition]:
        # Each by its name: a list of all would leave out those that may not be read, and be long.
        for topic in self._topics:
            try:
                known = self._client.list_topics(topic, timeout=_ASK_SECONDS).topics[topic]
            except KafkaException as error:
                raise BrokerUnavailable(error.args[0].name()) from None
            if known.error is not None:
                raise BrokerUnavailable(known.error.name())
            yield from ((topic, partition) for partition in known.partitions)

    def _end(self, partition: Partition) -> int:
        # Asked for, and not left to the client library: it would ask only when it fetches, and a
        # record that came before that would be missed.
        try:
            ends = self._client.get_watermark_offsets(TopicPartition(*partition), _ASK_SECONDS)
        except KafkaException as error:
            raise BrokerUnavailable(error.args[0].name()) from None
        if ends is None:
            raise BrokerUnavailable("_TIMED_OUT")
        return ends[1]

    def _is_wanted(
        self, message: Message, wanted: Container[bytes], moved: dict[Partition, int]
    ) -> bool:
        if is_damaged(message):
            self._pass_over(message, moved)
            return False
        if (error := message.error()) is not None:
            if error.code() in _HARMLESS:
                return False
            raise BrokerUnavailable(error.name())
        topic, partition, offset = place(message)
        moved[topic, partition] = offset + 1
        return (message.key() or b"") in wanted

    def _pass_over(self, message: Message, moved: dict[Partition, int]) -> None:
        """Go on at the end of a partition with a batch that nobody can read.

        Readers of single records look for the end of the batch. Here nothing waits for long.
        """
        topic, partition, _ = place(message)
        end = self._end((topic, partition))
        moved[topic, partition] = end
        self._client.seek(TopicPartition(topic, partition, end))
