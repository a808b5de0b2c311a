"""Whose utterance is next: fair queueing by seconds of audio, over the sources of utterances.

Pure; used by `pool`. A source that sends more than its share waits behind its own utterances, not
in front of those of others. This is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996):
of all sources that wait, the one comes next whose service so far is least. A source that was idle
begins at the virtual time, so that it has no credit for the past.
"""

from collections import deque
from collections.abc import Container, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


@dataclass(slots=True)
class _Source(Generic[T]):
    """What one source waits for, in order of arrival, and the virtual time of its next service."""

    next_at: float
    waiting: deque[tuple[T, float]] = field(default_factory=deque)


class FairQueue(Generic[T]):
    """Items that wait, each of a source and with a cost.

    Args:
        most_sources: How many sources can wait at once. The virtual time passes by the cost of what
            is served, divided by this, at the least. So it never stands still, however many new
            sources come: an old one is not starved, and what an idle one has had is forgotten.
    """

    def __init__(self, most_sources: int) -> None:
        self._most_sources = most_sources
        self._sources: dict[str, _Source[T]] = {}
        self._now = 0.0

    def __len__(self) -> int:
        """Return how many items wait."""
        return sum(len(each.waiting) for each in self._sources.values())

    @property
    def remembered(self) -> int:
        """How many sources are known: those that wait, and those that had more than their share."""
        return len(self._sources)

    def put(self, source: str, cost: float, item: T) -> None:
        """Add an item, behind those of its source.

        Args:
            source: Whose it is.
            cost: What serving it takes, over 0, in any one unit.
            item: What waits.
        """
        known = self._sources.setdefault(source, _Source(self._now))
        if not known.waiting:
            known.next_at = max(known.next_at, self._now)
        known.waiting.append((item, cost))

    def take(self, passing: Container[str] = ()) -> T | None:
        """Remove and return the item that is next; None where there is none.

        Of sources that were served alike the one that is known for longer comes first.

        Args:
            passing: Sources that are passed over this time.
        """
        waiting = [
            each for name, each in self._sources.items() if each.waiting and name not in passing
        ]
        if not waiting:
            return None
        chosen = min(waiting, key=lambda each: each.next_at)
        item, cost = chosen.waiting.popleft()
        self._now = max(self._now, chosen.next_at) + cost / self._most_sources
        chosen.next_at += cost
        self._forget()
        return item

    def discard(self, item: T) -> bool:
        """Remove an item that need not be served any more; false where it does not wait."""
        for source in self._sources.values():
            for each in source.waiting:
                if each[0] == item:
                    source.waiting.remove(each)
                    return True
        return False

    def _forget(self) -> None:
        """Forget the sources that a new one would be like."""
        gone = [
            name
            for name, each in self._sources.items()
            if not each.waiting and each.next_at <= self._now
        ]
        for name in gone:
            del self._sources[name]
