"""Wrap PCM16 samples as a WAV file in memory. Used by the session; pure."""

from __future__ import annotations

import io
import wave

from speech_lib.events import BYTES_PER_SECOND, CHANNELS, SAMPLE_BYTES, SAMPLE_RATE_HZ

__all__ = [
    "BYTES_PER_SECOND",
    "CHANNELS",
    "CONTAINER_HEAD_BYTES",
    "HEADER_BYTES",
    "SAMPLE_BYTES",
    "SAMPLE_RATE_HZ",
    "duration_ms",
    "is_container",
    "wrap",
]

HEADER_BYTES = 44
"""Length of the header that `wave` writes: RIFF, a 16-byte fmt chunk, the data chunk's head."""
CONTAINER_HEAD_BYTES = 12
"""How much of an utterance shows whether it is a container."""


def wrap(pcm: bytes | bytearray) -> bytes:
    """Return `pcm` as a whole WAV file of `HEADER_BYTES` more bytes.

    Args:
        pcm: Whole samples, PCM16 little-endian, 16 kHz, mono.
    """
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(CHANNELS)
        writer.setsampwidth(SAMPLE_BYTES)
        writer.setframerate(SAMPLE_RATE_HZ)
        writer.writeframes(pcm)
    return file.getvalue()


def duration_ms(pcm_bytes: int) -> int:
    """Return how long `pcm_bytes` bytes of whole samples last, in milliseconds, rounded."""
    return round(pcm_bytes * 1000 / (SAMPLE_RATE_HZ * SAMPLE_BYTES))


def is_container(head: bytes | bytearray) -> bool:
    """Tell whether an utterance begins like a container, so that it is not headerless PCM16.

    Knows RIFF/WAVE, Ogg, FLAC, EBML (WebM, Matroska) and ID3 with a version that exists. Judges
    fewer than `CONTAINER_HEAD_BYTES` by what is there.
    """
    if head[:4] == b"RIFF":
        return head[8:12] == b"WAVE"
    if head[:3] == b"ID3":  # ID3v2: major version 2 to 4, and a revision that is never 0xFF
        return len(head) >= 5 and 2 <= head[3] <= 4 and head[4] != 0xFF  # noqa: PLR2004
    return bytes(head[:4]) in {b"OggS", b"fLaC", b"\x1a\x45\xdf\xa3"}
