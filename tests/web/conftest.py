"""The browser's page before a whole pipeline, and a real browser before the page."""

import wave
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from speech_tools import stack
from support import browsing


@pytest.fixture(scope="session")
def packages() -> Path:
    """Return the folder of the client, with what its tests need from npm."""
    return browsing.packages()


@pytest.fixture
def browse() -> Callable[..., browsing.Seen]:
    """Return what lets a browser take steps, and tells what it found."""
    return browsing.browse


Start = Callable[..., AbstractContextManager[stack.Gateway]]


@pytest.fixture
def start(pipeline, topics, logs) -> Start:
    """Return what starts a gateway that sends texts, with further settings."""

    def gateway(**settings: str) -> AbstractContextManager[stack.Gateway]:
        return stack.gateway(pipeline, logs, {**topics.names, "RESULTS": "on", **settings})

    return gateway


@pytest.fixture(scope="module")
def recogniser(pipeline, topics, logs, tiny_en) -> Iterator[None]:
    """Run a recogniser with the default engine."""
    engine = {"ASR_ENGINE": "whisper", "ASR_MODEL": str(tiny_en)}
    with stack.recogniser(pipeline, logs, {**topics.names, **engine}):
        yield


@pytest.fixture
def sound(tmp_path: Path) -> Callable[[bytes], str]:
    """Return what writes PCM as the WAV file that a browser takes for its microphone."""

    def write(pcm: bytes) -> str:
        path = tmp_path / "sound.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(pcm)
        return str(path)

    return write
