"""Read a recording as what the gateway takes: PCM16 little-endian, 16 kHz, mono.

Used by every command that speaks to a gateway. Whatever libsndfile reads is converted where it has
to be. What already has the right form passes bit for bit.
"""

import codecs
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from speech_lib.events import BYTES_PER_SECOND, SAMPLE_BYTES, SAMPLE_RATE_HZ

MAX_FILE_BYTES = 256 * 1024 * 1024
"""A file is read whole. A larger one is a mistake: an utterance lasts under a minute."""

_HEADERLESS_SUFFIXES = frozenset({".raw", ".pcm"})
_AUDIO_SUFFIXES = frozenset(f".{name.lower()}" for name in soundfile.available_formats()) | {
    ".m4a",
    ".opus",
    ".webm",
}
_CONTAINER_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"OggS", b"fLaC", b"ID3", b"caff")
_OTHER_MAGIC = (
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"%PDF",
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"\x7fELF",
)
_HEAD_BYTES = 4096
_CHECKOUT = Path(__file__).parents[4]
SAMPLES = (_CHECKOUT if (_CHECKOUT / "samples").is_dir() else Path()) / "samples"
"""Recorded speech to try with: in a checkout, or where the image of the tools is run."""


class AudioError(Exception):
    """A file cannot be sent. The text is the one line for the user."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Samples ready to be sent.

    Attributes:
        pcm: PCM16 little-endian, 16 kHz, mono.
        origin: what the file held, for people.
    """

    pcm: bytes
    origin: str

    @property
    def seconds(self) -> float:
        """The duration."""
        return len(self.pcm) / BYTES_PER_SECOND


def load(path: Path) -> Recording:
    """Read the recording in `path`.

    A file without a known header counts as PCM16, 16 kHz, mono, unless it is plainly something
    else.

    Raises:
        AudioError: if there is none in it.
    """
    data = _read(path)
    if path.suffix.lower() not in _HEADERLESS_SUFFIXES or data.startswith(_CONTAINER_MAGIC):
        try:
            return _decode(data)
        except soundfile.LibsndfileError:
            if path.suffix.lower() in _AUDIO_SUFFIXES - _HEADERLESS_SUFFIXES:
                raise AudioError(
                    f"{path}: not audio that can be read; expected WAV, FLAC, Ogg or the like, "
                    "or headerless PCM16 named .raw or .pcm"
                ) from None
        except AudioError as error:
            raise AudioError(f"{path}: {error}") from None
    return _headerless(path, data)


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise AudioError(f"{path}: is a directory, expected an audio file")
        if path.exists() and not path.is_file():
            raise AudioError(f"{path}: is not a regular file, expected an audio file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise AudioError(f"{path}: too large, expected at most {MAX_FILE_BYTES} bytes")
        data = path.read_bytes()
    except FileNotFoundError:
        raise AudioError(f"{path}: no such file") from None
    except OSError as error:
        raise AudioError(f"{path}: cannot be read: {error.strerror}") from None
    if not data:
        raise AudioError(f"{path}: is empty, expected audio")
    return data


def _decode(data: bytes) -> Recording:
    """Let libsndfile read a file that has a header."""
    # Without a name libsndfile goes by the content alone.
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        origin = f"{file.format}, {file.samplerate} Hz, {_channels(file.channels)}"
        as_it_is = (file.samplerate, file.channels) == (SAMPLE_RATE_HZ, 1)
        if as_it_is and file.subtype == "PCM_16":
            pcm = file.read(dtype="int16").astype("<i2").tobytes()
        else:
            pcm = _convert(file.read(dtype="float32", always_2d=True), file.samplerate)
            origin += ", converted"
    if not pcm:
        raise AudioError("holds no audio")
    return Recording(pcm, origin)


def _channels(count: int) -> str:
    return {1: "mono", 2: "stereo"}.get(count, f"{count} channels")


def _convert(samples: np.ndarray, rate_hz: int) -> bytes:
    """Mix the channels (the columns) and resample to 16 kHz."""
    mono = soxr.resample(np.nan_to_num(samples).mean(axis=1), rate_hz, SAMPLE_RATE_HZ)
    pcm: bytes = (mono * 32_768).round().clip(-32_768, 32_767).astype("<i2").tobytes()
    return pcm


def _headerless(path: Path, data: bytes) -> Recording:
    if data.startswith(_OTHER_MAGIC + _CONTAINER_MAGIC) or _is_text(data[:_HEAD_BYTES]):
        raise AudioError(f"{path}: not audio; expected WAV or headerless PCM16")
    if len(data) % SAMPLE_BYTES:
        raise AudioError(
            f"{path}: {len(data)} bytes are not whole samples; headerless PCM16 has an even length"
        )
    return Recording(data, f"headerless PCM16, taken as {SAMPLE_RATE_HZ} Hz, mono")


def _is_text(head: bytes) -> bool:
    """Tell whether these bytes are text. Samples of speech soon hold control characters."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last one may be cut
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)
