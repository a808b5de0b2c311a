"""Read a recording as what the gateway takes: PCM16 little-endian, 16 kHz, mono.

Used by every command that speaks to a gateway. Whatever libsndfile reads (WAV, FLAC, Ogg, MP3 …) is
converted where it has to be. What already has the right form passes bit for bit.
"""

import codecs
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from speech_lib.events import BYTES_PER_SECOND, SAMPLE_BYTES, SAMPLE_RATE_HZ

MAX_FILE_BYTES = 256 * 1024 * 1024
"""A file is read whole. This is more than two hours of PCM16, and far more of MP3."""
HEAD_BYTES = 12
"""What tells a container."""

_HEADERLESS_SUFFIXES = frozenset({".raw", ".pcm"})
_AUDIO_SUFFIXES = frozenset(f".{name.lower()}" for name in soundfile.available_formats()) | {
    ".opus",
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
_FOREIGN_SUFFIXES = frozenset({".aac", ".amr", ".m4a", ".mkv", ".mov", ".mp4", ".webm", ".wma"})
_FOREIGN_MAGIC = (b"\x1a\x45\xdf\xa3", b"#!AMR", b"\x30\x26\xb2\x75")
_BLOCK_FRAMES = 65_536
_TEXT_BYTES = 4096
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
    refuse_foreign(str(path), data, path.suffix.lower())
    if path.suffix.lower() in _HEADERLESS_SUFFIXES and not is_container(data):
        return _headerless(path, data)
    try:
        return _decode(data)
    except soundfile.LibsndfileError:
        if path.suffix.lower() in _AUDIO_SUFFIXES - _HEADERLESS_SUFFIXES:
            raise AudioError(f"{path}: {_UNREADABLE}") from None
        return _headerless(path, data)
    except AudioError as error:
        raise AudioError(f"{path}: {error}") from None


_UNREADABLE = (
    "not audio that can be read; expected WAV, FLAC, Ogg, MP3 or the like, "
    "or headerless PCM16 named .raw or .pcm"
)


def decode(name: str, data: bytes) -> Recording:
    """Read a recording that has a header.

    Raises:
        AudioError: if there is none in it.
    """
    try:
        return _decode(data)
    except soundfile.LibsndfileError:
        raise AudioError(f"{name}: {_UNREADABLE}") from None
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from None


def is_container(head: bytes) -> bool:
    """Tell whether what begins so has a header."""
    return head.startswith(_CONTAINER_MAGIC)


def refuse_foreign(name: str, head: bytes, suffix: str = "") -> None:
    """Refuse what only other programs read, and name one.

    Raises:
        AudioError: It is WebM, M4A or the like.
    """
    foreign = head.startswith(_FOREIGN_MAGIC) or head[4:8] == b"ftyp"
    if foreign or (suffix in _FOREIGN_SUFFIXES and not is_container(head)):
        source = "FILE" if name == "-" else name
        raise AudioError(
            f"{name}: WebM, M4A and AAC are not read here; convert it: "
            f"ffmpeg -i {source} -f s16le -ac 1 -ar 16000 - | speech stream -"
        )


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
            pcm = b"".join(_converted(file))
            origin += ", converted"
    if not pcm:
        raise AudioError("holds no audio")
    return Recording(pcm, origin)


def _channels(count: int) -> str:
    return {1: "mono", 2: "stereo"}.get(count, f"{count} channels")


def _converted(file: soundfile.SoundFile) -> Iterator[bytes]:
    """Mix the channels and resample to 16 kHz, block by block: an MP3 may last for hours."""
    resampler = soxr.ResampleStream(file.samplerate, SAMPLE_RATE_HZ, 1, dtype="float32")
    for block in file.blocks(_BLOCK_FRAMES, dtype="float32", always_2d=True):
        mono = np.nan_to_num(block).mean(axis=1, dtype=np.float32)
        yield _pcm(resampler.resample_chunk(mono))
    yield _pcm(resampler.resample_chunk(np.empty(0, np.float32), last=True))


def _pcm(samples: np.ndarray) -> bytes:
    pcm: bytes = (samples * 32_768).round().clip(-32_768, 32_767).astype("<i2").tobytes()
    return pcm


def _headerless(path: Path, data: bytes) -> Recording:
    if data.startswith(_OTHER_MAGIC + _CONTAINER_MAGIC) or _is_text(data[:_TEXT_BYTES]):
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
