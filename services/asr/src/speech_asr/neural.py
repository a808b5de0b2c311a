"""An engine out of a model that makes words of everything: it is given speech alone, in pieces.

Used by `worker`. The detector decides what is speech; where it hears none, the model is not asked.
"""

from collections.abc import Iterator
from typing import Protocol

from speech_lib.events import SAMPLE_BYTES, SAMPLE_RATE_HZ

from speech_asr.engine import UNKNOWN_LANGUAGE, Listener, Recognition, duration_s
from speech_asr.loops import is_loop
from speech_asr.speech_parts import FRAME_BYTES, pieces

_SHORTEST_HALF_SECONDS = 3.0


class Detector(Protocol):
    """What hears where speech is (`speech_asr.silero.SileroDetector`)."""

    def probabilities(self, samples: bytes) -> list[float]:
        """Return how likely there is speech in each frame of `FRAME_BYTES`."""
        ...


class NeuralEngine:
    """A listener behind a detector of speech; an `Engine`."""

    def __init__(self, listener: Listener, detector: Detector) -> None:
        self._listener = listener
        self._detector = detector

    def transcribe(self, samples: bytes, hint: str | None = None) -> Recognition:
        """Transcribe what is spoken in one utterance; see `Engine`."""
        if len(samples) < FRAME_BYTES:
            return Recognition("", self._listener.language, 0.0)
        probabilities = self._detector.probabilities(samples)
        spoken = pieces(samples, probabilities, self._listener.longest_seconds)
        return self._together([part for piece in spoken for part in self._hear(piece, hint)])

    def _hear(self, piece: bytes, hint: str | None) -> Iterator[Recognition]:
        """Yield what is heard in a piece; if the model loops in it, what is heard in its halves."""
        heard = self._listener.hear(piece, hint)
        if not is_loop(heard.text, duration_s(piece)):
            yield heard
            return
        half = len(piece) // SAMPLE_BYTES // 2 * SAMPLE_BYTES
        if half >= _SHORTEST_HALF_SECONDS * SAMPLE_RATE_HZ * SAMPLE_BYTES:
            yield from self._hear(piece[:half], hint)
            yield from self._hear(piece[half:], hint)

    def _together(self, parts: list[Recognition]) -> Recognition:
        """Return one text; each part counts for the confidence by its length."""
        said = [each for each in parts if each.text]
        text = " ".join(each.text for each in said)
        if not text:
            return Recognition("", self._listener.language, 0.0)
        length = sum(len(each.text) for each in said)
        confidence = sum(each.confidence * len(each.text) for each in said) / length
        longest = max(said, key=lambda each: len(each.text))
        known = longest.language or UNKNOWN_LANGUAGE
        return Recognition(text, known, min(max(confidence, 0.0), 1.0))
