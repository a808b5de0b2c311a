"""Records that were purged from a librdkafka producer before their time, and surely never left it.

`producer` keeps one `Requeue` and calls it on its thread. It touches no network.

An overdue record may be called not stored only when nothing will send it any more. librdkafka can
drop all that waits in a producer, but not one record. The other records keep their own deadlines:
they wait here until a broker is connected, and go to the next producer. Each is requeued once. More
often would mean a new producer each time one of them is overdue.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from speech_lib.errors import DeliveryError
from speech_lib.kafka.producing.delivery import TIMED_OUT
from speech_lib.kafka.producing.pending import Pending
from speech_lib.kafka.records import Record, Stored


@dataclass(frozen=True, slots=True)
class PurgedRecord:
    """A record that waits for another try.

    Attributes:
        record: What to store.
        future: The sender's.
        deadline: Seconds of the monotonic clock.
        may_retry: Whether it may be handed over once more.
    """

    record: Record
    future: asyncio.Future[Stored]
    deadline: float
    may_retry: bool


class Requeue:
    """The records that wait outside of any librdkafka producer; used on one thread."""

    def __init__(self) -> None:
        self.pending = Pending()
        self._waiting: list[PurgedRecord] = []

    def add(self, purged: PurgedRecord) -> None:
        """Keep a record until it is handed over again, or its deadline passes."""
        if self.pending.add(purged.future, purged.deadline, purged.record.size):
            self._waiting.append(purged)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def hand_over(self, take: Callable[[PurgedRecord], bool]) -> None:
        """Offer each record that may be retried to `take`, which answers for what it takes."""
        for purged in [each for each in self._waiting if each.may_retry]:
            if take(purged):
                self._waiting.remove(purged)
                self.pending.forget(purged.future)

    def expire(self) -> None:
        """Answer the overdue: no producer has them, so they are surely not stored."""
        late = set(self.pending.take_overdue(time.monotonic()))
        self._waiting = [each for each in self._waiting if each.future not in late]
        for future in late:
            self.pending.settle(future, DeliveryError(stored="no", reason=TIMED_OUT))

    def close(self, reason: str) -> None:
        """Answer every sender with `reason`, and keep nothing."""
        self._waiting.clear()
        self.pending.settle_all(DeliveryError(stored="no", reason=reason))
