"""Samples on their way from where they come from to the gateway, and one utterance of them.

`Incoming` keeps what is not stored yet. A `Stretch` is the utterance that begins at one of its
samples. Where the utterance ends is decided when the gateway's limits are known: at the end of what
comes, or in a pause before it would be too long.
"""

import asyncio

from speech_lib.events import BYTES_PER_SECOND, SAMPLE_BYTES

from speech_tools.protocol.messages import Limits
from speech_tools.stream.cutting import cut

MAX_KEPT_BYTES = 600 * BYTES_PER_SECOND
"""Ten minutes. Beyond that whoever gives samples has to wait."""
LOOK_SECONDS = 10.0
"""The stretch before the limit in which a pause is looked for."""
_LOOK_OF_IDLE_TIME = 0.8
_PATIENCE_OF_IDLE_TIME = 0.9
_SESSION_MARGIN_SECONDS = 3.0
_DRAIN_MARGIN_SECONDS = 1.0


class Incoming:
    """All samples from `begin` on, in bytes since the first one. It belongs to the event loop.

    Attributes:
        begin: the first byte that is kept.
        ended: whether no more come.
    """

    def __init__(self, pcm: bytes = b"", *, ended: bool = False) -> None:
        self._kept = bytearray(pcm)
        self._news = asyncio.Event()
        self.begin = 0
        self.ended = ended

    @property
    def end(self) -> int:
        """Where the next sample will be."""
        return self.begin + len(self._kept)

    def piece(self, begin: int, end: int) -> bytes:
        """Return what lies between two places."""
        return bytes(self._kept[begin - self.begin : max(begin, end) - self.begin])

    def add(self, pcm: bytes) -> bool:
        """Take whole samples, unless too many wait already; tell whether they were taken."""
        if self.ended or len(self._kept) >= MAX_KEPT_BYTES:
            return False
        self._kept += pcm
        self._tell()
        return True

    async def put(self, pcm: bytes) -> bool:
        """Take whole samples once there is room; tell whether more are wanted."""
        while not self.ended and not self.add(pcm):
            await self.changed()
        return not self.ended

    def close(self) -> None:
        """No more come."""
        self.ended = True
        self._tell()

    def forget(self, before: int) -> None:
        """Keep only what comes from a place on: the rest is stored."""
        del self._kept[: before - self.begin]
        self.begin = before
        self._tell()

    async def changed(self) -> None:
        """Wait until something comes, ends, or is forgotten."""
        await self._news.wait()

    async def reaches(self, place: int) -> bool:
        """Wait until there is more than lies before a place; tell whether there is."""
        while self.end <= place and not self.ended:
            await self.changed()
        return self.end > place

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Stretch:
    """The utterance that begins at a place. See `protocol.speech.Speech`.

    What comes live is sent as it comes, but for the seconds in which the cut may lie: they are held
    back until it is decided. That is shorter than the gateway's idle time. Where nothing comes for
    almost that long, the utterance ends.

    Attributes:
        start: its first byte.
        end: the byte behind its last one; nothing while that is not decided.
    """

    def __init__(self, incoming: Incoming, start: int) -> None:
        self._incoming = incoming
        self._most = self._look = 0
        self._patience = 0.0
        self.start = start
        self.end: int | None = None

    def begin(self, limits: Limits, *, paced: bool) -> None:
        """Fit into these limits. What an earlier attempt decided stays, if it does fit."""
        live = not self._incoming.ended
        most, look = limits.max_audio_bytes, LOOK_SECONDS
        if live or paced:  # sending takes as long as it lasts
            seconds = limits.max_session_seconds
            most = min(most, _bytes(max(seconds - _SESSION_MARGIN_SECONDS, 0.75 * seconds)))
        if live:
            look = min(look, _LOOK_OF_IDLE_TIME * limits.idle_timeout_seconds)
        self._patience = _PATIENCE_OF_IDLE_TIME * limits.idle_timeout_seconds
        self._most = max(SAMPLE_BYTES, most // SAMPLE_BYTES * SAMPLE_BYTES)
        self._look = min(_bytes(look), self._most // 2 // SAMPLE_BYTES * SAMPLE_BYTES)
        if self.end is not None and self.end - self.start > self._most:
            self.end = None

    async def chunk(self, at: int, most: int) -> bytes:
        """Return what may be sent; wait for it."""
        asked = asyncio.get_running_loop().time()
        while True:
            begin, until = self.start + at, self._sendable()
            if begin < until or self.end is not None:
                return self._incoming.piece(begin, min(begin + most, until))
            try:
                async with asyncio.timeout_at(asked + self._patience):
                    await self._incoming.changed()
            except TimeoutError:  # the gateway would end it soon, and discard it
                self.end = self._incoming.end

    def first(self, count: int) -> bytes:
        """Return the first `count` bytes."""
        return self._incoming.piece(self.start, self.start + count)

    def end_within(self, seconds: float) -> None:
        """Let live speech end before the gateway does."""
        if self.end is not None or self._incoming.ended:
            return
        have = self._incoming.end - self.start
        more = _bytes(max(0.0, seconds - _DRAIN_MARGIN_SECONDS))
        self._most = min(self._most, have + more)
        self._look = min(self._look, max(0, self._most - have))

    def _sendable(self) -> int:
        """Decide on the end, if it can be; return up to where it may be sent."""
        have = self._incoming.end - self.start
        if self.end is None and self._incoming.ended and have <= self._most:
            self.end = self._incoming.end
        elif self.end is None and have >= self._most:
            looked = self.start + self._most - self._look
            self.end = looked + cut(self._incoming.piece(looked, self.start + self._most))
        if self.end is not None:
            return self.end
        return self.start + min(have, self._most - self._look)


def _bytes(seconds: float) -> int:
    return int(seconds * BYTES_PER_SECOND) // SAMPLE_BYTES * SAMPLE_BYTES
