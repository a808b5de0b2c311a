"""Which offsets may be committed while recognitions finish out of order.

Pure; used by `pipeline`. A commit says that everything below it is done, so a partition's commit
may only pass a record whose result, and all results before it, are stored. Thread-safe, because
partitions come and go on the thread that polls, while results are stored on the event loop.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from speech_lib.kafka.records import Partition


@dataclass(slots=True)
class _Progress:
    """One partition: its records in hand in the order of the log, and how far it has got."""

    stored: dict[int, bool] = field(default_factory=dict)
    next_offset: int | None = None
    """To be committed; nothing if no record was finished since the last commit."""

    def advance(self) -> None:
        """Pass the records at the head that are finished."""
        while self.stored:
            offset, stored = next(iter(self.stored.items()))
            if not stored:
                return
            del self.stored[offset]
            self.next_offset = offset + 1


class OffsetTracker:
    """The records in hand of each partition that is assigned to this consumer."""

    def __init__(self) -> None:
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

    def begin(self, partition: Partition, offset: int) -> bool:
        """Take a record in hand, in the order of the log; false if the partition was given up."""
        with self._lock:
            progress = self._partitions.get(partition)
            if progress is None:
                return False
            progress.stored[offset] = False
            return True

    def finish(self, partition: Partition, offset: int) -> None:
        """Note that what came of a record is stored; of no effect for what was given up."""
        with self._lock:
            progress = self._partitions.get(partition)
            if progress and offset in progress.stored:
                progress.stored[offset] = True
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
