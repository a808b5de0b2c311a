"""What sherpa-onnx can load: the engine for other models (`pip install speech-asr[sherpa]`).

Loaded by `worker` in a process of its own; the only module that imports `sherpa_onnx`, an extra. A
file that is not what it should be may end the process: `pool` says what to look at.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from speech_lib.events import SAMPLE_RATE_HZ

from speech_asr.engine import UNKNOWN_LANGUAGE, ModelFamily, Recognition
from speech_asr.errors import EngineUnavailable
from speech_asr.model_files import one_of

_FULL_SCALE = 32_768.0


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a family's directory looks.

    Attributes:
        make: What of `sherpa_onnx.OfflineRecognizer` loads it.
        files: For each of its arguments the start of the file's name.
        options: Further arguments.
        language: The arguments that take a language.
    """

    make: str
    files: Mapping[str, str]
    options: Mapping[str, Any] | None = None
    language: tuple[str, ...] = ()


_MODEL = {"model": "*model"}
_TRANSDUCER = {"encoder": "*encoder", "decoder": "*decoder", "joiner": "*joiner"}
_TWO_PARTS = {"encoder": "*encoder", "decoder": "*decoder"}

_LAYOUTS: Mapping[ModelFamily, _Layout] = {
    "transducer": _Layout("from_transducer", _TRANSDUCER),
    "nemo_transducer": _Layout("from_transducer", _TRANSDUCER, {"model_type": "nemo_transducer"}),
    "whisper": _Layout("from_whisper", _TWO_PARTS, language=("language",)),
    "moonshine": _Layout("from_moonshine_v2", _TWO_PARTS),
    "sense_voice": _Layout("from_sense_voice", _MODEL, {"use_itn": True}, ("language",)),
    "paraformer": _Layout("from_paraformer", {"paraformer": "*model"}),
    "canary": _Layout("from_nemo_canary", _TWO_PARTS, language=("src_lang", "tgt_lang")),
    "zipformer_ctc": _Layout("from_zipformer_ctc", _MODEL),
    "nemo_ctc": _Layout("from_nemo_ctc", _MODEL),
    "wenet_ctc": _Layout("from_wenet_ctc", _MODEL),
}
_ENDINGS = (".int8.onnx", "*.int8.onnx", ".ort", "*.ort", ".onnx", "*.onnx")
"""Of a model's files, the 8-bit ones first."""


class SherpaListener:
    """One model on the CPU, one thread, as each core has its own process.

    Args:
        directory: Where its files are.
        family: What kind of model it is.
        language: BCP 47 tag of the language to listen in, for the models that take one; what is
            told with the text, for all.

    Raises:
        EngineUnavailable: The package or a file is missing, or cannot be read.
    """

    longest_seconds = 24.0
    """Moonshine loses itself in more; memory grows with length."""

    def __init__(self, directory: Path, family: ModelFamily, language: str | None) -> None:
        self._recognizer = _load(directory, family, language)
        self._told = language
        self.language = language or UNKNOWN_LANGUAGE

    def hear(self, samples: bytes, hint: str | None = None) -> Recognition:  # noqa: ARG002
        """Transcribe one piece; see `Listener`. Its language is chosen when it is loaded."""
        stream = self._recognizer.create_stream()
        waveform = np.frombuffer(samples, dtype="<i2").astype(np.float32) / _FULL_SCALE
        stream.accept_waveform(SAMPLE_RATE_HZ, waveform)
        self._recognizer.decode_stream(stream)
        result = stream.result
        # SenseVoice marks a language as it does a token: <|en|>.
        language = self._told or result.lang.strip("<|>") or UNKNOWN_LANGUAGE
        return Recognition(" ".join(result.text.split()), language, _confidence(result))


def _load(directory: Path, family: ModelFamily, language: str | None) -> Any:  # noqa: ANN401
    try:
        import sherpa_onnx  # noqa: PLC0415  # an optional extra
    except ImportError:
        raise EngineUnavailable(
            "ASR_ENGINE: sherpa needs the package sherpa-onnx (the extra `sherpa`)"
        ) from None
    layout = _LAYOUTS[family]
    what = f"a model of ASR_MODEL_FAMILY={family}"
    files = {"tokens": one_of(directory, ("tokens.txt", "*tokens.txt"), what)}
    for argument, start in layout.files.items():
        files[argument] = one_of(directory, [start + ending for ending in _ENDINGS], what)
    code = language.split("-")[0].lower() if language else None
    spoken = dict.fromkeys(layout.language, code) if code else {}
    paths = {argument: str(path) for argument, path in files.items()}
    try:
        make = getattr(sherpa_onnx.OfflineRecognizer, layout.make)
        return make(**paths, **(layout.options or {}), **spoken, num_threads=1)
    except Exception:  # noqa: BLE001  # whatever is raised, a path in its text
        raise EngineUnavailable(f"ASR_MODEL: expected {what}; its files cannot be read") from None


def _confidence(result: Any) -> float:  # noqa: ANN401
    """Return the mean probability of the tokens; 0 for a model that tells none."""
    logarithms = result.ys_log_probs
    if not logarithms:
        return 0.0
    return sum(map(math.exp, logarithms)) / len(logarithms)
