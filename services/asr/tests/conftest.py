"""Fixtures of the recogniser's tests: the recordings of `samples/`, and what is built of them."""

import wave
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[3] / "samples"


@pytest.fixture(scope="session")
def meters() -> bytes:
    """Return the samples of "go forward ten meters", 2.8 s."""
    return (SAMPLES / "go-forward-ten-meters.raw").read_bytes()


@pytest.fixture(scope="session")
def dashwood() -> bytes:
    """Return the samples of a sentence of "Sense and Sensibility", 7.1 s."""
    with wave.open(str(SAMPLES / "sense-and-sensibility-0870.wav")) as file:
        return file.readframes(file.getnframes())
