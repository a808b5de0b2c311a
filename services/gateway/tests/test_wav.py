"""WAV in memory: the header byte by byte, durations, and the heads of containers."""

import io
import struct
import wave

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_gateway import wav


def test_a_wrapped_utterance_is_the_canonical_header_and_the_very_samples() -> None:
    """RIFF, a 16-byte fmt chunk of 16 kHz mono PCM16, the data chunk: 44 bytes, then the PCM."""
    pcm = b"\x00\x00\xff\x7f\x00\x80"
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        *(b"RIFF", 36 + 6, b"WAVE"),
        *(b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16),
        *(b"data", 6),
    )
    assert wav.wrap(bytearray(pcm)) == header + pcm
    assert len(header) == wav.HEADER_BYTES


@settings(deadline=None)
@given(st.binary(max_size=400).map(lambda data: data[: len(data) // 2 * 2]))
def test_what_is_wrapped_is_read_back_bit_for_bit(pcm: bytes) -> None:
    """Any reader of WAV finds the samples and their format."""
    file = wav.wrap(pcm)
    assert len(file) == len(pcm) + wav.HEADER_BYTES
    with wave.open(io.BytesIO(file)) as reader:
        assert reader.getparams()[:4] == (1, 2, 16_000, len(pcm) // 2)
        assert reader.readframes(reader.getnframes()) == pcm


@pytest.mark.parametrize(
    ("pcm_bytes", "milliseconds"),
    [(0, 0), (2, 0), (16, 0), (18, 1), (640, 20), (89_160, 2786), (1_572_820, 49_151)],
)
def test_a_duration_is_rounded_to_whole_milliseconds(pcm_bytes: int, milliseconds: int) -> None:
    """32 bytes are a millisecond."""
    assert wav.duration_ms(pcm_bytes) == milliseconds


@pytest.mark.parametrize(
    "head",
    [
        b"RIFF\xff\xff\xff\xffWAVE",
        b"OggS",
        b"OggS\x00\x02\x00\x00\x00\x00\x00\x00",
        b"fLaC",
        b"\x1a\x45\xdf\xa3",
        b"ID3\x02\x00",
        b"ID3\x03\x00\x00\x00\x00\x00\x00\xff\xfb",
        b"ID3\x04\xfe\x00",
    ],
)
def test_the_heads_of_containers_are_known(head: bytes) -> None:
    """Each container by its magic, from bytes and from the session's own buffer alike."""
    assert wav.is_container(head)
    assert wav.is_container(bytearray(head))


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x00" * 12,
        b"RIFF",
        b"RIFF\x00\x00\x00\x00WAV",
        b"RIFF\x00\x00\x00\x00AVI ",
        b"riff\x00\x00\x00\x00WAVE",
        b"\x00RIFF\x00\x00\x00\x00WAV",
        b"Ogg",
        b"oggs",
        b"fLa",
        b"\x1a\x45\xdf",
        b"ID3",
        b"ID3\x03",
        b"ID3\x01\x00",
        b"ID3\x05\x00",
        b"ID3\x03\xff",
        b"TAG\x03\x00",
    ],
)
def test_other_beginnings_are_audio(head: bytes) -> None:
    """Samples may hold any bytes: no more than a whole magic is taken for a container."""
    assert not wav.is_container(head)
