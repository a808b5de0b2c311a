"""Let go of librdkafka clients on a thread of its own.

The last reference to a client joins its threads, and one of those may sit in a look-up of a name
for as long as the resolver keeps it. No thread that serves others may wait for that.

Used by `producer`. Knows no Kafka.
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
    """Takes the last reference to each client that is done with; one after the other."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[object] = queue.SimpleQueue()
        # From the beginning: where threads have run out, none could be started when it is needed.
        threading.Thread(target=self._run, name="kafka-disposal", daemon=True).start()

    def take(self, client: object) -> None:
        """Let go of a client as soon as nobody else holds it; returns at once."""
        self._waiting.put(client)

    def close(self) -> None:
        """End the thread once everything taken so far is gone; returns at once."""
        self._waiting.put(None)

    def _run(self) -> None:
        while (client := self._waiting.get()) is not None:
            _wait_until_last(client, time.monotonic() + _PATIENCE_SECONDS)
            del client


def _wait_until_last(client: object, deadline: float) -> None:
    # Another thread may still be inside a call of it, and must not be the one that joins.
    while sys.getrefcount(client) > _OUR_REFERENCES and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_SECONDS)
