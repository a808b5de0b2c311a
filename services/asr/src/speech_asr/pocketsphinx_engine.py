"""PocketSphinx with the US English model inside its wheel: the engine that needs no model.

Loaded by `worker` in a process of its own; the only module that imports `pocketsphinx`. Decoding
holds the interpreter lock, so decoders side by side need processes, not threads.
"""

import os

from pocketsphinx import Decoder

from speech_asr.engine import Recognition
from speech_asr.silero import SileroDetector

LANGUAGE = "en-US"
"""Of the model inside the wheel."""

_FILLER_MARKS = ("<", "[", "+")
"""How the model's dictionary marks what is no word: `<sil>`, `[NOISE]`, `++UH++`."""


class PocketSphinxEngine:
    """One decoder (some 100 MB) with the model's own settings, behind a detector of speech.

    The decoder makes words of digital silence and of a telephone's tones, and is as sure of them as
    of any. Where somebody speaks it is given every sample.
    """

    def __init__(self) -> None:
        self._detector = SileroDetector()
        # Its log tells paths of models and, at its lowest level, what it hears.
        self._decoder = Decoder(logfn=os.devnull, loglevel="FATAL")

    def transcribe(self, samples: bytes, hint: str | None = None) -> Recognition:  # noqa: ARG002
        """Transcribe one utterance exactly as a new decoder would; see `Engine`."""
        if not self._detector.hears_speech(samples):
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
