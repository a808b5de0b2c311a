"""Who waits for an answer about a record: futures of the senders, answered from another thread.

Used by `producer`. Touches no network.
"""

import asyncio
import threading
from contextlib import suppress

from speech_lib.errors import DeliveryError
from speech_lib.records import Stored

Outcome = Stored | DeliveryError


class Pending:
    """The records handed to one librdkafka producer and not yet answered; thread-safe."""

    def __init__(self) -> None:
        self._futures: set[asyncio.Future[Stored]] = set()
        self._lock = threading.Lock()

    def add(self, future: asyncio.Future[Stored]) -> None:
        """Have a sender wait."""
        with self._lock:
            self._futures.add(future)

    def forget(self, future: asyncio.Future[Stored]) -> bool:
        """Tell whether a sender was still waiting; it is not from now on."""
        with self._lock:
            waited = future in self._futures
            self._futures.discard(future)
        return waited

    def settle(self, future: asyncio.Future[Stored], outcome: Outcome) -> None:
        """Answer one sender on its own loop, unless it has been answered."""
        if not self.forget(future):
            return
        with suppress(RuntimeError):  # the sender's loop is closed: nobody waits any more
            future.get_loop().call_soon_threadsafe(_resolve, future, outcome)

    def settle_all(self, outcome: DeliveryError) -> None:
        """Answer every sender alike."""
        for future in self.waiting():
            self.settle(future, outcome)

    def waiting(self) -> list[asyncio.Future[Stored]]:
        """Return what is not answered yet."""
        with self._lock:
            return list(self._futures)


def _resolve(future: asyncio.Future[Stored], outcome: Outcome) -> None:
    if future.done():  # the sender was cancelled
        return
    if isinstance(outcome, DeliveryError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
