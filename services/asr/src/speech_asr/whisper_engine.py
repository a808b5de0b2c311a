"""Whisper by faster-whisper: the optional engine (`pip install speech-asr[whisper]`).

Loaded by `worker` in a process of its own; the only module that imports `faster_whisper`, and only
when asked for. Nothing is ever downloaded: the model is a directory, or a name that is in the local
cache already.
"""

from typing import TYPE_CHECKING, Any

from speech_asr.engine import Recognition
from speech_asr.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

_FULL_SCALE = 32_768.0


class WhisperEngine:
    """One Whisper model on the CPU: 8-bit weights, one thread, as each core has its own process."""

    def __init__(self, model: str) -> None:
        self._model = _load(model)

    def transcribe(self, samples: bytes) -> Recognition:
        """Transcribe one utterance; see `Engine`."""
        import numpy as np  # noqa: PLC0415  # comes with the extra

        waveform = np.frombuffer(samples, dtype="<i2").astype(np.float32) / _FULL_SCALE
        if not waveform.size:
            return Recognition("", "und", 0.0)
        segments, info = self._model.transcribe(
            waveform,
            vad_filter=True,
            word_timestamps=True,  # without them there is no probability of a word
            condition_on_previous_text=False,
        )
        return _recognition(segments, info.language)


def _load(model: str) -> Any:  # noqa: ANN401  # the package has no types
    try:
        from faster_whisper import WhisperModel  # noqa: PLC0415  # an optional extra
    except ImportError:
        raise EngineUnavailable(
            "ASR_ENGINE: whisper needs the package faster-whisper (the extra `whisper`)"
        ) from None
    try:
        return WhisperModel(
            model, device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True
        )
    except Exception:  # noqa: BLE001  # whatever the libraries underneath raise, a path in its text
        raise EngineUnavailable(
            "ASR_MODEL: expected a Whisper model for faster-whisper, a directory or a name that is"
            " in the local cache"
        ) from None


def _recognition(segments: "Iterable[Any]", language: str) -> Recognition:
    words = [word for segment in segments for word in segment.words or ()]
    text = " ".join("".join(word.word for word in words).split())
    if not text:
        return Recognition("", language, 0.0)
    confidence = sum(word.probability for word in words) / len(words)
    return Recognition(text, language, min(max(confidence, 0.0), 1.0))
