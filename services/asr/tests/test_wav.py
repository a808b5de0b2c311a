"""Which audio is an utterance, and what is said of the rest."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speech_asr import wav
from speech_asr.errors import Reason, Unprocessable
from speech_lib.events import AudioInput

PCM = b"\x01\x00\x02\x00\x03\x00"


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


def test_other_chunks_around_the_data_are_passed_over(wav_file):
    """Editors write lists of their own into the file."""
    file = wav_file(PCM)
    note = b"LIST" + struct.pack("<I", 4) + b"INFO"
    chunks = file[8:36] + note + file[36:] + note
    edited = b"RIFF" + struct.pack("<I", len(chunks)) + chunks
    assert wav.samples_of(AudioInput(edited)) == PCM


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
