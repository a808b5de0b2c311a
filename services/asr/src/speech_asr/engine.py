"""What the service asks of a speech recogniser, free of any technology.

Each adapter (`pocketsphinx_engine`, `whisper_engine`) is one `Engine`; `worker` loads one in each
worker process by its `EngineChoice`, which travels there by pickle.
"""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from speech_lib.events import SAMPLE_BYTES, SAMPLE_RATE_HZ

EngineName = Literal["pocketsphinx", "whisper"]


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Which engine to load.

    Attributes:
        name: The technology.
        model: Its model, where the engine has none of its own.
    """

    name: EngineName
    model: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Recognition:
    """What an engine heard in one utterance.

    Attributes:
        text: The words between single spaces, empty where nothing was said.
        language: BCP 47 tag of the language in which it listened.
        confidence: 0 to 1, the mean of the words' posteriors; 0 for empty text.
    """

    text: str = field(repr=False)
    language: str
    confidence: float


class Engine(Protocol):
    """A loaded recogniser: one utterance at a time, each without a trace of the one before."""

    def transcribe(self, samples: bytes) -> Recognition:
        """Transcribe one whole utterance.

        Args:
            samples: whole samples, PCM16 little-endian, 16 kHz, mono; may be empty.

        Raises:
            Exception: any kind; the engine is not to be used again.
        """
        ...


def duration_s(samples: bytes) -> float:
    """Return how long the samples last, in seconds."""
    return len(samples) / (SAMPLE_RATE_HZ * SAMPLE_BYTES)
