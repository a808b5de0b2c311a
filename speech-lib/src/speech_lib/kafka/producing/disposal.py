"""Destroy librdkafka clients on a thread of their own.

`producer` hands over each client that it is done with. Knows no Kafka.

Dropping the last reference to a client joins its threads. One of those may sit in a name look-up
for as long as the resolver likes. No thread that serves others may wait for that.
"""

import queue
import sys
import threading
import time

_LOOK_EVERY_SECONDS = 0.05
_PATIENCE_SECONDS = 60.0
_OUR_REFERENCES = 3
"""The names in `_run` and `_wait_until_last`, and the argument of `getrefcount`."""


class Disposal:
    """Drops the last reference to each client that it is given, one after the other."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[object] = queue.SimpleQueue()
        # Started at once: where the system has run out of threads, it could not be started later.
        threading.Thread(target=self._run, name="kafka-disposal", daemon=True).start()

    def take(self, client: object) -> None:
        """Drop a client as soon as nobody else holds it; returns at once."""
        self._waiting.put(client)

    def close(self) -> None:
        """End the thread once every client taken so far is gone; returns at once."""
        self._waiting.put(None)

    def _run(self) -> None:
        while (client := self._waiting.get()) is not None:
            _wait_until_last(client, time.monotonic() + _PATIENCE_SECONDS)
            del client


def _wait_until_last(client: object, deadline: float) -> None:
    # Another thread may still be inside a call of it, and must not be the one that joins.
    while sys.getrefcount(client) > _OUR_REFERENCES and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_SECONDS)
