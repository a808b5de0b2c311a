"""Who waits for an answer about a record: futures of the senders, answered from another thread.

Used by `generation` and `requeue`. Touches no network.
"""

import asyncio
import math
import threading
from contextlib import suppress
from dataclasses import dataclass, replace

from speech_lib.errors import DeliveryError
from speech_lib.kafka.records import Stored

Outcome = Stored | DeliveryError


@dataclass(frozen=True, slots=True)
class Queued:
    """How much waits for an answer.

    Attributes:
        records: How many.
        bytes: The length of their keys and values.
    """

    records: int
    bytes: int

    def __add__(self, other: "Queued") -> "Queued":
        return Queued(self.records + other.records, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class _Wait:
    deadline: float
    size: int


class Pending:
    """The records handed to one librdkafka producer and not yet answered; thread-safe."""

    def __init__(self) -> None:
        self._waits: dict[asyncio.Future[Stored], _Wait] = {}
        self._over = False
        self._lock = threading.Lock()

    def add(self, future: asyncio.Future[Stored], deadline: float, size: int) -> bool:
        """Have a sender of `size` bytes wait until `deadline`; tell whether it still can."""
        with self._lock:
            if not self._over:
                self._waits[future] = _Wait(deadline, size)
            return not self._over

    def forget(self, future: asyncio.Future[Stored]) -> bool:
        """Tell whether a sender was still waiting; it is not from now on."""
        with self._lock:
            return self._waits.pop(future, None) is not None

    def settle(self, future: asyncio.Future[Stored], outcome: Outcome) -> None:
        """Answer one sender on its own loop, unless it has been answered."""
        if not self.forget(future):
            return
        with suppress(RuntimeError):  # the sender's loop is closed: nobody waits any more
            future.get_loop().call_soon_threadsafe(_resolve, future, outcome)

    def settle_all(self, outcome: DeliveryError) -> None:
        """Answer every sender alike, and take no more."""
        with self._lock:
            self._over = True
        for future in self.waiting():
            self.settle(future, outcome)

    def waiting(self) -> list[asyncio.Future[Stored]]:
        """Return what is not answered yet."""
        with self._lock:
            return list(self._waits)

    def queued(self) -> Queued:
        """Return how much is not answered yet."""
        with self._lock:
            return Queued(len(self._waits), sum(wait.size for wait in self._waits.values()))

    def take_overdue(self, now: float) -> list[asyncio.Future[Stored]]:
        """Return who has waited for too long, each once; they still wait."""
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
