"""Whisper by faster-whisper: the default engine.

Loaded by `worker` in a process of its own; the only module that imports `faster_whisper`. Nothing
is ever downloaded: the model is a directory.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper import WhisperModel

from speech_asr.engine import UNKNOWN_LANGUAGE, Recognition, duration_s
from speech_asr.errors import EngineUnavailable
from speech_asr.loops import is_loop
from speech_asr.model_files import one_of

_WHAT = "a Whisper model for faster-whisper"
_FILES = ("config.json", "model.bin", "tokenizer.json")
_FULL_SCALE = 32_768.0
_ENGLISH = "en"
_FRAMES_A_SECOND = 100
_SHORTEST_WINDOW = 10 * _FRAMES_A_SECOND
_FILLED_UP = 2 * _FRAMES_A_SECOND


class _Encoder(WhisperModel):  # type: ignore[misc]  # the package has no types
    """A Whisper model that encodes as much as was said, not always half a minute.

    The encoder takes most of the time. Where the window ends with the speech, words are lost, so
    what is said is filled up, by 2 s and at least to 10 s. With 7 s short commands are lost
    (`tests/words`).

    Attributes:
        whole: Encode half a minute all the same, as the model has learnt it.
    """

    whole = False
    _last: tuple[Any, Any] | None = None

    def encode(self, features: Any) -> Any:  # noqa: ANN401
        """Return the encoder's output for features that are filled up with zeros to 30 s.

        The same features come twice where the language has to be found out first.
        """
        features = features if self.whole else window(features)
        if self._last is None or not np.array_equal(self._last[0], features):
            self._last = features, super().encode(features)
        return self._last[1]


def window(features: Any) -> Any:  # noqa: ANN401
    """Return the features that are encoded, of 30 s of which those behind the speech are 0."""
    said = int(np.flatnonzero(features.any(axis=0)).max(initial=-1)) + 1
    return np.ascontiguousarray(features[:, : max(said + _FILLED_UP, _SHORTEST_WINDOW)])


class WhisperListener:
    """One Whisper model on the CPU: 8-bit weights, one thread, as each core has its own process.

    Args:
        directory: Where its files are.
        language: BCP 47 tag of the language to listen in; detected if none.

    Raises:
        EngineUnavailable: Something is missing, or the model does not know the language.
    """

    longest_seconds = 29.0
    """What Whisper hears at once is 30 s (arXiv 2212.04356, section 2.2)."""

    def __init__(self, directory: Path, language: str | None) -> None:
        for name in _FILES:
            one_of(directory, (name,), _WHAT)
        self._model = _load(directory)
        self._code = self._known(language)
        if language and self._code is None:
            raise EngineUnavailable("ASR_LANGUAGE: expected a language that the model knows")
        if self._model.supported_languages == [_ENGLISH]:
            self._code, language = _ENGLISH, language or _ENGLISH
        self._told = language
        self.language = language or UNKNOWN_LANGUAGE

    def hear(self, samples: bytes, hint: str | None = None) -> Recognition:
        """Transcribe one piece; see `Listener`."""
        waveform = np.frombuffer(samples, dtype="<i2").astype(np.float32) / _FULL_SCALE
        code = self._code or self._known(hint)
        heard, language = self._segments(waveform, code, whole=False)
        if is_lost(heard, duration_s(samples)):
            heard, language = self._segments(waveform, code, whole=True)
        return Recognition(_text(heard), self._told or language, _confidence(heard))

    def _segments(self, waveform: Any, code: str | None, *, whole: bool) -> tuple[list[Any], str]:  # noqa: ANN401
        """Return the segments of a text, and its language."""
        self._model.whole = whole
        segments, info = self._model.transcribe(
            waveform,
            language=code,
            # A beam and the times of words cost more and heard no word better. The times of
            # segments stay: without them whole sentences of a long piece are left out.
            beam_size=1,
            # Anything above 0 is drawn at random: the same audio would not be the same text.
            temperature=0.0,
            condition_on_previous_text=False,
        )
        return list(segments), info.language

    def _known(self, language: str | None) -> str | None:
        """Return the model's code of a language; None where it does not know it."""
        code = language.split("-")[0].lower() if language else None
        return code if code in self._model.supported_languages else None


def _load(directory: Path) -> Any:  # noqa: ANN401  # the package has no types
    try:
        return _Encoder(
            str(directory), device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True
        )
    except Exception:  # noqa: BLE001  # whatever the libraries underneath raise, a path in its text
        raise EngineUnavailable(f"ASR_MODEL: expected {_WHAT}; its files cannot be read") from None


def is_lost(segments: list[Any], seconds: float) -> bool:
    """Tell whether the model has lost itself: it says something again and again, or too late."""
    return is_loop(_text(segments), seconds) or any(each.start >= seconds for each in segments)


def _text(segments: list[Any]) -> str:
    return " ".join("".join(each.text for each in segments).split())


def _confidence(segments: list[Any]) -> float:
    """Return the mean probability of the tokens, from the mean of their logarithms in a segment."""
    tokens = sum(len(each.tokens) for each in segments)
    if not tokens:
        return 0.0
    return sum(math.exp(each.avg_logprob) * len(each.tokens) for each in segments) / tokens
