"""The senders that wait for an answer: futures of their event loops, answered from another thread.

`client` and `requeue` each keep one `Pending`. It knows no Kafka and no network.
"""

import asyncio
import math
import threading
from contextlib import suppress
from dataclasses import dataclass, replace

from speech_lib.errors import DeliveryError
from speech_lib.kafka.records import Queued, Stored

Outcome = Stored | DeliveryError


@dataclass(frozen=True, slots=True)
class _Wait:
    deadline: float
    size: int


class Pending:
    """Records that were handed over and are not answered yet. Thread-safe.

    Deadlines are seconds of the monotonic clock.
    """

    def __init__(self) -> None:
        self._waits: dict[asyncio.Future[Stored], _Wait] = {}
        self._closed = False
        self._lock = threading.Lock()

    def add(self, future: asyncio.Future[Stored], deadline: float, size: int) -> bool:
        """Add a sender of `size` bytes that waits until `deadline`; return False once closed."""
        with self._lock:
            if not self._closed:
                self._waits[future] = _Wait(deadline, size)
            return not self._closed

    def forget(self, future: asyncio.Future[Stored]) -> bool:
        """Remove a sender; return whether it was still waiting."""
        with self._lock:
            return self._waits.pop(future, None) is not None

    def settle(self, future: asyncio.Future[Stored], outcome: Outcome) -> None:
        """Answer one sender on its own event loop, unless it has been answered."""
        if not self.forget(future):
            return
        with suppress(RuntimeError):  # the sender's loop is closed: nobody waits any more
            future.get_loop().call_soon_threadsafe(_resolve, future, outcome)

    def settle_all(self, outcome: DeliveryError) -> None:
        """Give every sender the same answer, and close: `add` takes no more."""
        with self._lock:
            self._closed = True
        for future in self.waiting():
            self.settle(future, outcome)

    def waiting(self) -> list[asyncio.Future[Stored]]:
        """Return the futures that are not answered yet."""
        with self._lock:
            return list(self._waits)

    def queued(self) -> Queued:
        """Return how much is not answered yet."""
        with self._lock:
            return Queued(len(self._waits), sum(wait.size for wait in self._waits.values()))

    def take_overdue(self, now: float) -> list[asyncio.Future[Stored]]:
        """Return the senders whose deadline has passed, each once. They still wait."""
        with self._lock:
            late = {future: wait for future, wait in self._waits.items() if wait.deadline <= now}
            self._waits |= {f: replace(wait, deadline=math.inf) for f, wait in late.items()}
        return list(late)


def _resolve(future: asyncio.Future[Stored], outcome: Outcome) -> None:
    if future.done():  # the sender was cancelled
        return
    if isinstance(outcome, DeliveryError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
