"""Listen to this machine's microphone.

Whatever the rate of the device, samples are resampled to 16 kHz here, with a low-pass filter.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import soxr
from speech_lib.events import SAMPLE_RATE_HZ

from speech_tools.microphone import microphone
from speech_tools.protocol.audio import AudioError
from speech_tools.stream.incoming import Incoming
from speech_tools.stream.screen import TOOL
from speech_tools.stream.sources import Source
from speech_tools.terminal import complain

BLOCKS_A_SECOND = 10


def of_microphone() -> Source:
    """Return the default microphone.

    Raises:
        AudioError: There is none, or what reads it is not installed.
    """
    device = microphone()
    name, rate_hz = str(device["name"]), int(device["default_samplerate"])
    return Source(
        f"microphone {name}, {rate_hz} Hz", None, lambda incoming: _listening(rate_hz, incoming)
    )


@contextmanager
def _listening(rate_hz: int, incoming: Incoming) -> Iterator[None]:
    sounddevice = import_module("sounddevice")
    loop = asyncio.get_running_loop()
    resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="int16")

    def take(pcm: bytes) -> None:
        if not incoming.ended and pcm and not incoming.add(pcm):
            complain(TOOL, "too much is not stored yet, so it stopped listening")
            incoming.close()

    def heard(block: Any, _frames: int, _time: object, status: Any) -> None:  # noqa: ANN401
        """Run on a thread of PortAudio."""
        pcm = resampler.resample_chunk(np.frombuffer(block, np.int16)).astype("<i2").tobytes()
        loop.call_soon_threadsafe(take, pcm)
        if status.input_overflow:
            loop.call_soon_threadsafe(complain, TOOL, "the system has lost some sound")

    try:
        with sounddevice.RawInputStream(
            samplerate=rate_hz,
            blocksize=rate_hz // BLOCKS_A_SECOND,
            channels=1,
            dtype="int16",
            callback=heard,
        ):
            yield
    except sounddevice.PortAudioError as error:
        raise AudioError(f"--mic: the microphone cannot be used: {error}") from None
