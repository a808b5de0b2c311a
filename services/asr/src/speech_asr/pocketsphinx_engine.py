"""PocketSphinx with the US English model inside its wheel: the default engine.

Loaded by `worker` in a process of its own; the only module that imports `pocketsphinx`. Decoding
holds the interpreter lock, so decoders side by side need processes, not threads.
"""

import os
from collections.abc import Iterator

from pocketsphinx import Decoder, Vad
from speech_lib.events import SAMPLE_RATE_HZ

from speech_asr.engine import Recognition

LANGUAGE = "en-US"
"""Of the model inside the wheel."""

FRAME_SECONDS = 0.03
FRAME_BYTES = 960
"""One frame of the voice-activity detector; the decoder hears nothing in less either."""

_FILLER_MARKS = ("<", "[", "+")
"""How the model's dictionary marks what is no word: `<sil>`, `[NOISE]`, `++UH++`."""


class PocketSphinxEngine:
    """One decoder (some 100 MB) with the model's own settings."""

    def __init__(self) -> None:
        # Its log tells paths of models and, at its lowest level, what it hears.
        self._decoder = Decoder(logfn=os.devnull, loglevel="FATAL")

    def transcribe(self, samples: bytes) -> Recognition:
        """Transcribe one utterance exactly as a new decoder would; see `Engine`."""
        if not has_speech(samples):
            return Recognition("", LANGUAGE, 0.0)
        # Takes 0.1 ms and drops all that adapts: the noise estimate and the cepstral mean of the
        # last utterance would otherwise change what is heard in this one.
        self._decoder.reinit_feat()
        self._decoder.start_utt()
        self._decoder.process_raw(samples, full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        text = hypothesis.hypstr if hypothesis else ""
        return Recognition(text, LANGUAGE, self._confidence() if text else 0.0)

    def _confidence(self) -> float:
        """Return the mean of the words' posteriors."""
        posteriors = [
            # The integer logarithms behind a posterior may round it a little above 1.
            min(segment.prob, 1.0)
            for segment in self._decoder.seg()
            if not segment.word.startswith(_FILLER_MARKS)
        ]
        return sum(posteriors) / len(posteriors) if posteriors else 0.0


def has_speech(samples: bytes) -> bool:
    """Tell whether the voice-activity detector hears speech in any frame.

    The detector is the one of the engine's package in its most generous mode, and a single frame
    is enough: a short, quiet word is never lost. What is let through in vain (its first frames of
    a steady noise, say) costs only time, because the decoder makes no words of it; it does make
    words of digital silence, which is what this is for.
    """
    detector = Vad(mode=Vad.LOOSE, sample_rate=SAMPLE_RATE_HZ, frame_length=FRAME_SECONDS)
    return any(detector.is_speech(frame) for frame in _frames(samples))


def _frames(samples: bytes) -> Iterator[bytes]:
    """Cut samples into frames, the last one filled up; none if there is not one whole frame."""
    if len(samples) < FRAME_BYTES:
        return
    for start in range(0, len(samples), FRAME_BYTES):
        yield samples[start : start + FRAME_BYTES].ljust(FRAME_BYTES, b"\0")
