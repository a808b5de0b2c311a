"""Marks in the group's commits that tell whether a partition's last reader crashed: for `consumer`.

A record that kills its reader would kill every reader after it, and a container keeps no files to
count that in. So a member marks a partition as being read, by the metadata of its commits, and
removes the mark when it gives the partition up. A mark that is still there means that the last
reader had no time to remove it. The next records are then read by a process that may be killed
(`isolated_read`).
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition
from structlog.typing import FilteringBoundLogger

from speech_lib.kafka.consuming.isolated_read import Position, TrialDecode, read_isolated
from speech_lib.kafka.records import Partition, ReceivedRecord
from speech_lib.kafka.settings import ClientConfig

READING = "reading"
"""The mark: the commit's member still has the partition."""
_ASK_SECONDS = 5.0
_log: FilteringBoundLogger = structlog.get_logger(__name__)


class CrashMarks:
    """The partitions of one member, with their committed offsets.

    Where the brokers do not answer, the care is lost, but never a record.

    Args:
        client: The member's librdkafka consumer.
        config: Its configuration.
        trial_decode: See `isolated_read`.
    """

    def __init__(self, client: Consumer, config: ClientConfig, trial_decode: TrialDecode) -> None:
        self._client = client
        self._config = config
        self._trial_decode = trial_decode
        self._offsets: dict[Partition, int] = {}

    def assigned(self, partitions: Sequence[TopicPartition]) -> list[ReceivedRecord]:
        """Mark new partitions; return the records that were read in isolation. Blocks.

        Only partitions that bear another reader's mark are read so.
        """
        with suppress(KafkaException):
            places = self._client.committed(list(partitions), timeout=_ASK_SECONDS)
            found = [self._with_offset(place) for place in places]
            marked = {(at.topic, at.partition): at.offset for at in found}
            self._offsets |= marked
            with suppress(KafkaException):
                self._commit(marked, READING)
            return [record for at in found if self._is_left(at) for record in self._read(at)]
        return []

    def committed(self, next_offsets: Mapping[Partition, int]) -> None:
        """Note the offsets that a commit has stored."""
        self._offsets |= {of: at for of, at in next_offsets.items() if of in self._offsets}

    def revoked(self, partitions: Iterable[Partition]) -> None:
        """Remove the marks; has no effect on partitions that are another member's already."""
        gone = {of: self._offsets.pop(of) for of in partitions if of in self._offsets}
        with suppress(KafkaException):
            self._commit(gone, "")

    def _with_offset(self, place: TopicPartition) -> TopicPartition:
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
        _log.warning("isolated_read", partition=at.partition, offset=at.offset)
        position = Position(at.topic, at.partition, at.offset)
        return read_isolated(self._config, position, self._trial_decode)

    def _commit(self, offsets: Mapping[Partition, int], mark: str) -> None:
        if offsets:
            places = [TopicPartition(*of, at, mark) for of, at in offsets.items()]
            self._client.commit(offsets=places, asynchronous=False)
