"""When a client may send the next chunk of an utterance, and how large. Used by `client`."""

import asyncio
import contextlib
import time

from speech_lib.events import BYTES_PER_SECOND, SAMPLE_BYTES

from speech_tools.protocol.messages import Limits

PACED_CHUNK_SECONDS = 0.05


class Pace:
    """When the next chunk may go: as a microphone would give it, and within the limits."""

    def __init__(self, limits: Limits) -> None:
        self._largest = limits.max_chunk_bytes
        self._rate = limits.max_messages_per_second
        seconds = max(PACED_CHUNK_SECONDS, 1 / self._rate)
        whole = int(seconds * BYTES_PER_SECOND) // SAMPLE_BYTES * SAMPLE_BYTES
        self._paced_bytes = min(max(whole, SAMPLE_BYTES), self._largest)
        self._started = time.monotonic()
        self._spoken = 0
        self._messages = 0

    def chunk_bytes(self, *, hurry: bool) -> int:
        """Return how large the next chunk is."""
        return self._largest if hurry else self._paced_bytes

    async def wait(self, size: int, hurry: asyncio.Event) -> None:
        """Wait until a chunk of this size may be sent. In a hurry it need not be "spoken" first."""
        # A bucket of `rate` messages, refilled at that rate; never more than it holds.
        permitted = self._started + (self._messages - self._rate + 1) / self._rate
        self._messages += 1
        self._spoken += size
        if not hurry.is_set():
            spoken = self._started + self._spoken / BYTES_PER_SECOND
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, spoken - time.monotonic())):
                    await hurry.wait()
        await asyncio.sleep(max(0.0, permitted - time.monotonic()))
