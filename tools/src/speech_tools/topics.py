"""The topics of a pipeline, for every command that reads them. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics that an utterance may be on."""

    audio: str
    text: str
    dead_letter: str


OWN = Topics("speech.audio.ingress", "speech.asr.text", "speech.audio.ingress.dlq")
"""Of a pipeline that a command starts itself: the services' defaults."""
