"""Which offsets may be committed while recognitions finish out of order.

Pure; used by `pipeline`. A commit says that everything below it is done, so a partition's commit
may only pass a record whose result, and all results before it, are stored. Thread-safe, because
partitions come and go on the thread that polls, while results are stored on the event loop.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from speech_lib.kafka.records import Partition

_LEAST_SHARE = 16
"""Records of one partition, however many partitions there are."""
_HALF = 0.5


@dataclass(slots=True)
class _Progress:
    """One partition: its records in hand in the order of the log, and how far it has got.

    Attributes:
        stored: By offset, whether what came of the record is stored.
        sizes: By offset, its bytes.
        ahead: Bytes of all of these.
        left: How many of them are not stored.
        held: Whether no more is to be read for now.
    """

    stored: dict[int, bool] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    ahead: int = 0
    left: int = 0
    held: bool = False
    next_offset: int | None = None
    """To be committed; nothing if no record was finished since the last commit."""

    def advance(self) -> None:
        """Pass the records at the head that are finished."""
        while self.stored:
            offset, stored = next(iter(self.stored.items()))
            if not stored:
                return
            del self.stored[offset]
            self.ahead -= self.sizes.pop(offset)
            self.next_offset = offset + 1


class OffsetTracker:
    """The records in hand of each partition that is assigned to this consumer.

    Args:
        most_ahead: Bytes of a partition that may be read beyond its first record that is not done.
        most_left: Records that are not done, of all partitions together.
    """

    def __init__(self, most_ahead: int, most_left: int) -> None:
        self._most_ahead = most_ahead
        self._most_left = most_left
        self._lock = threading.Lock()
        self._partitions: dict[Partition, _Progress] = {}

    @property
    def assigned(self) -> frozenset[Partition]:
        """The partitions that are this consumer's."""
        with self._lock:
            return frozenset(self._partitions)

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Take partitions over, without a record in hand."""
        with self._lock:
            self._partitions.update({partition: _Progress() for partition in partitions})

    def forget(self, partitions: Iterable[Partition]) -> None:
        """Give partitions up: what is not committed by now is done again by another consumer."""
        with self._lock:
            for partition in partitions:
                self._partitions.pop(partition, None)

    def held(self) -> frozenset[Partition]:
        """Return the partitions of which no more is to be read for now.

        Those of which much was read ahead; and those that have their share of the records in hand,
        so that a backlog on one leaves room for the others. Each until half of it is done: whoever
        stops reading a partition throws away what was fetched of it, so that is not for every
        record.
        """
        with self._lock:
            share = max(_LEAST_SHARE, self._most_left / max(1, len(self._partitions)))
            for each in self._partitions.values():
                filled = max(each.ahead / self._most_ahead, each.left / share)
                each.held = filled >= (_HALF if each.held else 1)
            return frozenset(of for of, each in self._partitions.items() if each.held)

    def begin(self, partition: Partition, offset: int, size: int) -> bool:
        """Take a record in hand, in the order of the log; false if the partition was given up."""
        with self._lock:
            progress = self._partitions.get(partition)
            if progress is None:
                return False
            progress.stored[offset] = False
            progress.sizes[offset] = size
            progress.ahead += size
            progress.left += 1
            return True

    def finish(self, partition: Partition, offset: int) -> None:
        """Note that what came of a record is stored; of no effect for what was given up."""
        with self._lock:
            progress = self._partitions.get(partition)
            if progress and progress.stored.get(offset) is False:
                progress.stored[offset] = True
                progress.left -= 1
                progress.advance()

    def committable(self) -> dict[Partition, int]:
        """Return the next offset of each partition that got further since its last commit."""
        with self._lock:
            return {
                partition: progress.next_offset
                for partition, progress in self._partitions.items()
                if progress.next_offset is not None
            }

    def committed(self, next_offsets: Mapping[Partition, int]) -> None:
        """Note that the broker has taken a commit."""
        with self._lock:
            for partition, offset in next_offsets.items():
                progress = self._partitions.get(partition)
                if progress and progress.next_offset == offset:
                    progress.next_offset = None
