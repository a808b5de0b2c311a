"""Take the samples out of an utterance's WAV file, or say why they cannot be had.

Pure; used by `intake`. Not by the standard library's `wave`, which passes over what does not fit,
and in later versions of Python takes more formats.
"""

import re
import struct

from speech_lib.events import CHANNELS, SAMPLE_BYTES, SAMPLE_RATE_HZ, AudioInput

from speech_asr.errors import Reason, Unprocessable

MAX_CHUNKS = 64
"""An editor writes a dozen; 1.5 MB have room for 190,000, which take tenths of a second to read."""
_UNKNOWN_SIZE = 0xFFFFFFFF
_PCM = 1
_FORMAT = struct.pack(
    "<HHIIHH",
    _PCM,
    CHANNELS,
    SAMPLE_RATE_HZ,
    SAMPLE_RATE_HZ * CHANNELS * SAMPLE_BYTES,
    CHANNELS * SAMPLE_BYTES,
    SAMPLE_BYTES * 8,
)
_NAME = re.compile(rb"[ -~]{4}")


def samples_of(audio: AudioInput) -> bytes:
    """Return the samples: PCM16 little-endian, 16 kHz, mono; empty for an empty data chunk.

    Raises:
        Unprocessable: `not_wav` if the file is not one format and one data chunk, among others that
            fill it to the byte; `unsupported_format` if it, or what the event says of it, is
            anything but 16 kHz mono PCM16.
    """
    if audio.audio_format.lower() != "wav" or audio.sample_rate_hz != SAMPLE_RATE_HZ:
        raise Unprocessable(Reason.UNSUPPORTED_FORMAT)
    chunks = _chunks(audio.audio_bytes)
    # A second file has a chunk of its own where the size of the first is unknown.
    if [name for name, _ in chunks if name in {b"fmt ", b"data", b"RIFF"}] != [b"fmt ", b"data"]:
        raise Unprocessable(Reason.NOT_WAV)
    found = dict(chunks)
    if not found[b"fmt "].startswith(_FORMAT):
        raise Unprocessable(Reason.UNSUPPORTED_FORMAT)
    samples = found[b"data"]
    # Some readers take an empty data chunk to mean all that is behind it.
    if len(samples) % SAMPLE_BYTES or not (samples or chunks[-1][0] == b"data"):
        raise Unprocessable(Reason.NOT_WAV)
    return samples


def _chunks(file: bytes) -> list[tuple[bytes, bytes]]:
    """Return the name and the content of each chunk, if they and their padding are the file."""
    chunks: list[tuple[bytes, bytes]] = []
    at = 12
    while at < len(file) and len(chunks) < MAX_CHUNKS:
        size = _uint32(file, at + 4)
        chunks.append((file[at : at + 4], file[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2
    if (
        file[:4] + file[8:12] != b"RIFFWAVE"
        or _uint32(file, 4) not in {len(file) - 8, _UNKNOWN_SIZE}
        or at != len(file)
        or not all(_NAME.fullmatch(name) for name, _ in chunks)
    ):
        raise Unprocessable(Reason.NOT_WAV)
    return chunks


def _uint32(file: bytes, at: int) -> int:
    return int.from_bytes(file[at : at + 4], "little")
