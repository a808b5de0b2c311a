"""What the service asks of a speech recogniser, free of any technology.

`pocketsphinx_engine` is one `Engine`. `whisper_engine` and `sherpa_engine` are each one `Listener`,
which `neural` makes an `Engine` of. `worker` loads one engine in each worker process by its
`EngineChoice`, which travels there by pickle.
"""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from speech_lib.events import SAMPLE_BYTES, SAMPLE_RATE_HZ

EngineName = Literal["whisper", "sherpa", "pocketsphinx"]

ModelFamily = Literal[
    "transducer",
    "nemo_transducer",
    "whisper",
    "moonshine",
    "sense_voice",
    "paraformer",
    "canary",
    "zipformer_ctc",
    "nemo_ctc",
    "wenet_ctc",
]
"""The kinds of models that sherpa-onnx loads and that no file tells apart."""

UNKNOWN_LANGUAGE = "und"
"""BCP 47 for a language that nobody knows (ISO 639-2)."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Which engine to load.

    Attributes:
        name: The technology.
        model: Its model, where the engine has none of its own: a directory, or a name.
        folders: Where a name is looked for, in this order.
        family: What kind of model it is, for sherpa.
        language: BCP 47 tag of the language to listen in; the model's own, or detected, if none.
    """

    name: EngineName
    model: str = field(default="", repr=False)
    folders: tuple[str, ...] = field(default=(), repr=False)
    family: ModelFamily | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Recognition:
    """What an engine heard in one utterance.

    Attributes:
        text: The words between single spaces, empty where nothing was said.
        language: BCP 47 tag of the language in which it listened.
        confidence: 0 to 1, the mean of the words' posteriors or of what the engine knows instead;
            0 for empty text, and where it knows nothing.
    """

    text: str = field(repr=False)
    language: str
    confidence: float


class Engine(Protocol):
    """A loaded recogniser: one utterance at a time, each without a trace of the one before."""

    def transcribe(self, samples: bytes, hint: str | None = None) -> Recognition:
        """Transcribe one whole utterance.

        Args:
            samples: whole samples, PCM16 little-endian, 16 kHz, mono; may be empty.
            hint: BCP 47 tag of the language that the speaker claims, of any content. It counts only
                where the engine would have to find the language out, and knows this one.

        Raises:
            Exception: any kind; the engine is not to be used again.
        """
        ...


class Listener(Protocol):
    """A loaded model that makes words of whatever it is given, so that it must be given speech."""

    language: str
    """BCP 47 tag of the language in which it listens; `und` where it finds out by hearing."""

    longest_seconds: float
    """More than this it cannot hold at once."""

    def hear(self, samples: bytes, hint: str | None = None) -> Recognition:
        """Transcribe one piece of an utterance, of at most `longest_seconds`; see `Engine`."""
        ...


def duration_s(samples: bytes) -> float:
    """Return how long the samples last, in seconds."""
    return len(samples) / (SAMPLE_RATE_HZ * SAMPLE_BYTES)
