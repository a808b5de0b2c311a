"""Records that were taken back from a librdkafka producer, and surely never left it.

An overdue record may only be called not stored when nothing will send it any more. librdkafka can
be told so for all that waits in a producer, not for one record. The others get their own time all
the same: they wait here until a broker is connected, and are handed over to the next producer. Each
is handed over again once. More often would mean a new producer each time one of them is overdue.

Used by `producer`, on its thread. Touches no network.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from speech_lib.errors import DeliveryError
from speech_lib.kafka.delivery import TIMED_OUT
from speech_lib.kafka.pending import Pending
from speech_lib.kafka.records import Record, Stored


@dataclass(frozen=True, slots=True)
class TakenBack:
    """A record, who waits for it, and until when.

    Attributes:
        again: Whether it may be handed over once more.
    """

    record: Record
    future: asyncio.Future[Stored]
    deadline: float
    again: bool


class Requeue:
    """What waits outside of any librdkafka producer; `add` and `serve` on one thread."""

    def __init__(self) -> None:
        self.pending = Pending()
        self._waiting: list[TakenBack] = []

    def add(self, taken: TakenBack) -> None:
        """Keep a record until it is handed over again, or its time is up."""
        size = len(taken.record.key) + len(taken.record.value)
        if self.pending.add(taken.future, taken.deadline, size):
            self._waiting.append(taken)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def hand_over(self, take: Callable[[TakenBack], bool]) -> None:
        """Offer each record that has a try left; what is taken is somebody else's to answer."""
        for taken in [each for each in self._waiting if each.again]:
            if take(taken):
                self._waiting.remove(taken)
                self.pending.forget(taken.future)

    def expire(self) -> None:
        """Answer those whose time is up: they are with no producer, so surely not stored."""
        late = set(self.pending.take_overdue(time.monotonic()))
        self._waiting = [each for each in self._waiting if each.future not in late]
        for future in late:
            self.pending.settle(future, DeliveryError(stored="no", reason=TIMED_OUT))

    def close(self, reason: str) -> None:
        """Answer everybody, and keep nothing."""
        self._waiting.clear()
        self.pending.settle_all(DeliveryError(stored="no", reason=reason))
