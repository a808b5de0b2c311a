"""Fixtures of the recogniser's tests: the recordings of `samples/`, and events made of samples."""

import io
import uuid
import wave
from pathlib import Path

import pytest
from speech_lib.events import AudioInput, AudioInputEvent

SAMPLES = Path(__file__).parents[3] / "samples"


@pytest.fixture(scope="session")
def meters():
    """Return the samples of "go forward ten meters", 2.8 s."""
    return (SAMPLES / "go-forward-ten-meters.raw").read_bytes()


@pytest.fixture(scope="session")
def dashwood():
    """Return the samples of a sentence of "Sense and Sensibility", 7.1 s."""
    with wave.open(str(SAMPLES / "sense-and-sensibility-0870.wav")) as file:
        return file.readframes(file.getnframes())


@pytest.fixture(scope="session")
def wav_file():
    """Return `wav_file(pcm, rate=…, channels=…, width=…)`, which makes a whole file of samples."""

    def make(pcm, *, rate=16_000, channels=1, width=2):
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setnchannels(channels)
            writer.setsampwidth(width)
            writer.setframerate(rate)
            writer.writeframes(pcm)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def audio_event():
    """Return `audio_event(audio_bytes)`, which makes an event as the gateway does."""

    def make(audio_bytes, **audio):
        return AudioInputEvent.new(
            correlation_id=str(uuid.uuid4()),
            source_service="gateway",
            payload=AudioInput(audio_bytes, **audio),
        )

    return make
