"""Whisper by faster-whisper: the default engine.

Loaded by `worker` in a process of its own; the only module that imports `faster_whisper`. Nothing
is ever downloaded: the model is a directory.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper import WhisperModel

from speech_asr.engine import UNKNOWN_LANGUAGE, Recognition
from speech_asr.errors import EngineUnavailable
from speech_asr.model_files import one_of

_WHAT = "a Whisper model for faster-whisper"
_FILES = ("config.json", "model.bin", "tokenizer.json")
_FULL_SCALE = 32_768.0
_ENGLISH = "en"


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
        known = self._model.supported_languages
        code = language.split("-")[0].lower() if language else None
        if code is not None and code not in known:
            raise EngineUnavailable("ASR_LANGUAGE: expected a language that the model knows")
        if known == [_ENGLISH]:
            code, language = _ENGLISH, language or _ENGLISH
        self._code = code
        self._told = language
        self.language = language or UNKNOWN_LANGUAGE

    def hear(self, samples: bytes) -> Recognition:
        """Transcribe one piece; see `Listener`."""
        segments, info = self._model.transcribe(
            np.frombuffer(samples, dtype="<i2").astype(np.float32) / _FULL_SCALE,
            language=self._code,
            # A beam and the times of words cost more and heard no word better. The times of
            # segments stay: without them whole sentences of a long piece are left out.
            beam_size=1,
            # Anything above 0 is drawn at random: the same audio would not be the same text.
            temperature=0.0,
            condition_on_previous_text=False,
        )
        heard = list(segments)
        text = " ".join("".join(each.text for each in heard).split())
        return Recognition(text, self._told or info.language, _confidence(heard))


def _load(directory: Path) -> Any:  # noqa: ANN401  # the package has no types
    try:
        return WhisperModel(
            str(directory), device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True
        )
    except Exception:  # noqa: BLE001  # whatever the libraries underneath raise, a path in its text
        raise EngineUnavailable(f"ASR_MODEL: expected {_WHAT}; its files cannot be read") from None


def _confidence(segments: list[Any]) -> float:
    """Return the mean probability of the tokens, from the mean of their logarithms in a segment."""
    tokens = sum(len(each.tokens) for each in segments)
    if not tokens:
        return 0.0
    return sum(math.exp(each.avg_logprob) * len(each.tokens) for each in segments) / tokens
