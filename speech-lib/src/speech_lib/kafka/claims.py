"""Notice that a partition's last reader was killed, and read on with care: for `consumer`.

A record that kills its reader would kill every reader after it, and containers keep no files to
count that in. So a member says in the group's own commits, by their metadata, that it reads a
partition, and takes that back when it gives the partition up. Where it is still said, the last
reader had no time to: what lies there is read by a process that may be killed (`apart`).
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition
from structlog.typing import FilteringBoundLogger

from speech_lib.kafka.apart import Stretch, Try, read_apart
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.kafka.settings import ClientConfig

READING = "reading"
"""Metadata of a commit whose member still has the partition."""
_ASK_SECONDS = 5.0
_log: FilteringBoundLogger = structlog.get_logger(__name__)
_Partition = tuple[str, int]


class Claims:
    """The partitions of one member, and the offsets that it has committed for them.

    Args:
        client: Of the member.
        config: Of the same.
        try_on: See `apart.read_apart`.

    What the brokers do not answer is left out: the care is lost then, never a record.
    """

    def __init__(self, client: Consumer, config: ClientConfig, try_on: Try) -> None:
        self._client = client
        self._config = config
        self._try = try_on
        self._offsets: dict[_Partition, int] = {}

    def take(self, partitions: Sequence[TopicPartition]) -> list[ReceivedRecord]:
        """Claim partitions; return what was read apart of those that were not given back."""
        with suppress(KafkaException):
            places = self._client.committed(list(partitions), timeout=_ASK_SECONDS)
            found = [self._known(place) for place in places]
            claimed = {(at.topic, at.partition): at.offset for at in found}
            self._offsets |= claimed
            with suppress(KafkaException):
                self._say(claimed, READING)
            return [record for at in found if self._is_left(at) for record in self._read(at)]
        return []

    def committed(self, next_offsets: Mapping[_Partition, int]) -> None:
        """Note what a commit has stored."""
        self._offsets |= {of: at for of, at in next_offsets.items() if of in self._offsets}

    def give_back(self, partitions: Iterable[_Partition]) -> None:
        """Take back that this member reads these; of no effect where they are another's already."""
        gone = {of: self._offsets.pop(of) for of in partitions if of in self._offsets}
        with suppress(KafkaException):
            self._say(gone, "")

    def _known(self, place: TopicPartition) -> TopicPartition:
        """Return where reading begins: at the oldest record where nothing was committed."""
        if place.offset >= 0:
            return place
        oldest, _ = self._client.get_watermark_offsets(place, timeout=_ASK_SECONDS)
        return TopicPartition(place.topic, place.partition, oldest)

    def _is_left(self, at: TopicPartition) -> bool:
        if at.metadata != READING:
            return False
        _, end = self._client.get_watermark_offsets(at, timeout=_ASK_SECONDS)
        return at.offset < end

    def _read(self, at: TopicPartition) -> list[ReceivedRecord]:
        _log.warning("reads_apart", partition=at.partition, offset=at.offset)
        stretch = Stretch(at.topic, at.partition, at.offset)
        return read_apart(self._config, stretch, self._try)

    def _say(self, offsets: Mapping[_Partition, int], mark: str) -> None:
        if offsets:
            places = [TopicPartition(*of, at, mark) for of, at in offsets.items()]
            self._client.commit(offsets=places, asynchronous=False)
