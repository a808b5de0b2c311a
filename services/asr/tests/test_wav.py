"""Which audio is an utterance, and what is said of the rest."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speech_asr import wav
from speech_asr.errors import Reason, Unprocessable
from speech_lib.events import AudioInput

PCM = b"\x01\x00\x02\x00\x03\x00"
STREAMED = 0xFFFFFFFF
"""The size that is written where nobody knows it yet."""


def chunk(name, content, size=None):
    size = len(content) if size is None else size
    return name + struct.pack("<I", size) + content + bytes(len(content) % 2)


def fmt(tag=1, byte_rate=32_000, block_align=2, bits=16, more=b""):
    fields = struct.pack("<HHIIHH", tag, 1, 16_000, byte_rate, block_align, bits)
    return chunk(b"fmt ", fields + more)


def riff(*chunks, size=None):
    return chunk(b"RIFF", b"WAVE" + b"".join(chunks), size)


FMT, DATA, NOTE = fmt(), chunk(b"data", PCM), chunk(b"LIST", b"INFO")
EXTENSIBLE = bytes.fromhex("1600 1000 04000000 01000000 0000 1000 8000 00aa00389b71")
"""Says in 24 bytes what the tag of PCM says."""


def refusal(audio):
    with pytest.raises(Unprocessable) as caught:
        wav.samples_of(audio)
    return caught.value.reason


@given(st.binary(max_size=400).map(lambda b: b[: len(b) // 2 * 2]))
def test_the_samples_come_out_as_they_went_in(wav_file, pcm):
    """The file adds and loses nothing."""
    assert wav.samples_of(AudioInput(wav_file(pcm))) == pcm


def test_an_empty_data_chunk_is_an_utterance_without_samples(wav_file):
    """Nothing was said, which is no mistake."""
    assert wav.samples_of(AudioInput(wav_file(b""))) == b""


def test_other_chunks_around_the_data_are_passed_over():
    """Editors write lists of their own into the file."""
    odd = chunk(b"note", b"odd")
    assert wav.samples_of(AudioInput(riff(odd, FMT, NOTE, DATA, NOTE))) == PCM


@pytest.mark.parametrize("pcm", [b"", PCM], ids=["empty", "some"])
def test_a_file_of_unknown_size_is_read_if_its_data_chunk_has_one(pcm):
    """Whoever streams a file does not know the size of the whole when it begins."""
    assert wav.samples_of(AudioInput(riff(FMT, chunk(b"data", pcm), size=STREAMED))) == pcm


@pytest.mark.parametrize("size", [STREAMED, None], ids=["streamed", "known"])
def test_data_of_unknown_size_is_refused(size):
    """Nothing tells where the samples end."""
    file = riff(FMT, chunk(b"data", PCM, STREAMED), size=size)
    assert refusal(AudioInput(file)) == Reason.NOT_WAV


@pytest.mark.parametrize(
    "other",
    [{"rate": 8_000}, {"rate": 44_100}, {"channels": 2}, {"width": 1}, {"width": 3}],
    ids=str,
)
def test_anything_but_16_khz_mono_pcm16_is_not_supported(wav_file, other):
    """A decoder would hear nonsense at another rate or width."""
    assert refusal(AudioInput(wav_file(PCM * 2, **other))) == Reason.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("encoding", [3, 6, 7, 0x55])
def test_a_good_file_in_another_encoding_is_not_supported(wav_file, encoding):
    """Float, A-law, mu-law and MP3 also come in WAV files."""
    file = wav_file(PCM)
    other = file[:20] + struct.pack("<H", encoding) + file[22:]
    assert refusal(AudioInput(other)) == Reason.UNSUPPORTED_FORMAT


@pytest.mark.parametrize(
    "other",
    [
        *(fmt(bits=bits) for bits in range(9, 16)),
        fmt(block_align=4),
        fmt(byte_rate=16_000),
        fmt(0xFFFE, more=EXTENSIBLE),
        chunk(b"fmt ", FMT[8:22]),
    ],
    ids=[*range(9, 16), "block align", "byte rate", "extensible", "short"],
)
def test_a_format_that_is_not_pcm16_in_each_field_is_not_supported(other):
    """Readers differ in which field they believe, and versions of Python in the extensible one."""
    assert refusal(AudioInput(riff(other, DATA))) == Reason.UNSUPPORTED_FORMAT


def test_what_follows_a_pcm_format_is_passed_over():
    """The size of an extension, which PCM does not have."""
    assert wav.samples_of(AudioInput(riff(fmt(more=bytes(2)), DATA))) == PCM


@pytest.mark.parametrize("named", [{"audio_format": "flac"}, {"sample_rate_hz": 8_000}], ids=str)
def test_an_event_that_names_another_format_is_not_supported(wav_file, named):
    """What the event says must fit as well as what the file holds."""
    assert refusal(AudioInput(wav_file(PCM), **named)) == Reason.UNSUPPORTED_FORMAT


@pytest.mark.parametrize(
    "data",
    [b"", b"RIFF", PCM * 100, b"OggS" + bytes(60)],
    ids=["empty", "magic only", "headerless", "ogg"],
)
def test_what_is_no_wav_file_is_refused_as_such(data):
    """Headerless samples are refused too: nothing says what they are."""
    assert refusal(AudioInput(data)) == Reason.NOT_WAV


@pytest.mark.parametrize("size", [20, 44 + 5], ids=["header", "data"])
def test_a_file_that_was_cut_short_is_refused(wav_file, size):
    """It has lost words, and nobody would know which."""
    assert refusal(AudioInput(wav_file(PCM)[:size])) == Reason.NOT_WAV


@pytest.mark.parametrize(
    "file",
    [
        riff(FMT, chunk(b"data", PCM, 0)),
        riff(FMT, chunk(b"data", bytes(64), 0)),
        riff(FMT, chunk(b"data", b""), NOTE),
        riff(FMT, chunk(b"data", PCM + bytes(64), len(PCM))),
        riff(FMT, chunk(b"data", PCM + b"\0", len(PCM) + 1)),
        riff(FMT, DATA, PCM),
        riff(FMT, DATA, size=4 + len(FMT + DATA) + 2),
        riff(FMT, DATA) + PCM,
        riff(FMT, DATA, chunk(b"\xff\xfe\0\1", PCM)),
    ],
    ids=[
        *("sound behind none", "silence behind none", "a chunk behind none"),
        *(
            "silence behind some",
            "half a sample",
            "behind all chunks",
            "missing",
            "behind the file",
            "a chunk without a name",
        ),
    ],
)
def test_chunks_that_do_not_add_up_to_the_file_are_refused(file):
    """There may be speech in what no chunk has, and some readers take none to mean the rest."""
    assert refusal(AudioInput(file)) == Reason.NOT_WAV


@pytest.mark.parametrize(
    "chunks",
    [
        *((FMT, DATA, DATA), (FMT, FMT, DATA), (DATA, FMT), (FMT, DATA, FMT), (FMT,), (DATA,)),
        (FMT, DATA, riff(FMT, DATA)),
    ],
    ids=["data twice", "fmt twice", "data first", "fmt again", "no data", "no fmt", "two files"],
)
@pytest.mark.parametrize("size", [STREAMED, None], ids=["streamed", "known"])
def test_a_file_has_one_format_and_behind_it_one_data_chunk(chunks, size):
    """Of two, some readers take the first, others the last or both."""
    assert refusal(AudioInput(riff(*chunks, size=size))) == Reason.NOT_WAV


def test_a_file_of_very_many_chunks_is_refused():
    """Each costs time to read, which the other utterances wait for."""
    notes = [NOTE] * (wav.MAX_CHUNKS - 2)
    assert wav.samples_of(AudioInput(riff(FMT, *notes, DATA))) == PCM
    assert refusal(AudioInput(riff(FMT, *notes, DATA, NOTE))) == Reason.NOT_WAV


@given(data=st.binary(max_size=80), at=st.integers(0, 50), cut=st.integers(0, 60))
def test_no_bytes_lead_to_any_other_error(wav_file, data, at, cut):
    """Whatever stands in the header, the answer is samples or a reason."""
    file = bytearray(wav_file(PCM * 4))
    file[at : at + len(data)] = data
    assert outcome(bytes(file[: len(file) - cut])) in {
        "whole samples",
        Reason.NOT_WAV,
        Reason.UNSUPPORTED_FORMAT,
    }


def outcome(data):
    try:
        samples = wav.samples_of(AudioInput(data))
    except Unprocessable as refused:
        return refused.reason
    return "half a sample" if len(samples) % 2 else "whole samples"
