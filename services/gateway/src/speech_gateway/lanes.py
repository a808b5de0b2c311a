"""Which partition an utterance goes to: live speech does not wait behind another's recordings.

Pure; used by `publisher`. A partition is read in its order, so whatever is stored faster than it is
recognised holds up all behind it, whoever they are. So the last partition of the topic is kept for
what one address sends faster than it is spoken, beyond a first minute. The recognisers read it as
they read the others, but no further ahead.
"""

from __future__ import annotations

from zlib import crc32

from speech_gateway import wav
from speech_gateway.rates import AddressBuckets
from speech_gateway.utterance import Utterance

_AHEAD_SECONDS = 60.0
"""Audio of one address among that of all, beyond what it takes to speak it: a long utterance."""
_AHEAD_PER_SECOND = 1.0
_FEWEST_PARTITIONS = 4
"""Below, the last one would be too much of the topic to keep."""


class Lanes:
    """The partitions of one topic, and what each source has sent faster than speech."""

    def __init__(self) -> None:
        self._ahead = AddressBuckets(_AHEAD_SECONDS, _AHEAD_PER_SECOND)

    def partition(
        self, source: str, key: bytes, utterance: Utterance, *, partitions: int
    ) -> int | None:
        """Return where an utterance goes; None where its key alone decides.

        Args:
            source: whose it is.
            key: of its record.
            utterance: its length, and how long it took from its handshake to its end.
            partitions: how many there are.
        """
        if partitions < _FEWEST_PARTITIONS:
            return None
        last = partitions - 1
        return last if self._is_over(source, utterance) else crc32(key) % last

    def _is_over(self, source: str, utterance: Utterance) -> bool:
        now = utterance.ended_at
        length = wav.duration_ms(len(utterance.wav) - wav.HEADER_BYTES) / 1000
        ahead = length - (now - utterance.handshake_at)
        if ahead <= 0:
            return False
        over = self._ahead.spend(source, 0, now) > 0
        if not over:
            self._ahead.spend(source, ahead, now)
        return over
