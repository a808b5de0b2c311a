"""What one utterance says: samples that are all there, or that come while it is sent.

`client` sends whatever has this form. It asks for the next chunk once it may send one.
"""

from typing import Protocol

from speech_lib.events import BYTES_PER_SECOND

from speech_tools.protocol.errors import TooLong
from speech_tools.protocol.messages import Limits


class Speech(Protocol):
    """The samples of one utterance: PCM16 little-endian, 16 kHz, mono."""

    def begin(self, limits: Limits, *, paced: bool) -> None:
        """Take the limits of a greeting, before each attempt.

        Args:
            limits: what the gateway takes.
            paced: whether it is sent at the pace of speech.

        Raises:
            TooLong: it cannot be said within them.
        """

    async def chunk(self, at: int, most: int) -> bytes:
        """Return up to `most` bytes from `at` on. Wait for them; empty where no more come."""

    def first(self, count: int) -> bytes:
        """Return the first `count` bytes."""

    def end_within(self, seconds: float) -> None:
        """Be told that the gateway is stopping, and takes audio for so long."""


class Whole:
    """An utterance that is all there, and is sent in one piece."""

    def __init__(self, pcm: bytes) -> None:
        self._pcm = pcm

    def begin(self, limits: Limits, *, paced: bool) -> None:
        """Refuse what is longer than the gateway takes."""
        longest, seconds = limits.max_audio_bytes, len(self._pcm) / BYTES_PER_SECOND
        if len(self._pcm) > longest:
            raise TooLong(
                f"the recording lasts {seconds:.1f} s ({len(self._pcm)} bytes), "
                f"the gateway takes {longest / BYTES_PER_SECOND:.1f} s ({longest} bytes)"
            )
        if paced and seconds >= limits.max_session_seconds:
            raise TooLong(
                f"the recording lasts {seconds:.1f} s and a session "
                f"{limits.max_session_seconds:g} s: it cannot be sent at the pace of speech"
            )

    async def chunk(self, at: int, most: int) -> bytes:
        """Return it at once."""
        return self._pcm[at : at + most]

    def first(self, count: int) -> bytes:
        """Return the first `count` bytes."""
        return self._pcm[:count]

    def end_within(self, seconds: float) -> None:
        """Do nothing: whoever sends it makes haste."""
