"""Recordings: what is read, what is converted, and what is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech_tools.protocol import audio

ROOT = Path(__file__).parents[2]
RAW = ROOT / "samples" / "go-forward-ten-meters.raw"
WAV = ROOT / "samples" / "sense-and-sensibility-0870.wav"


def test_headerless_samples_pass_bit_for_bit():
    """A .raw file is sent as it is."""
    assert audio.load(RAW).pcm == RAW.read_bytes()


def test_wav_in_the_right_form_passes_bit_for_bit():
    """The samples of a 16 kHz mono PCM16 WAV are sent as they are, without its header."""
    assert audio.load(WAV).pcm == WAV.read_bytes()[44:]


def test_every_sample_value_passes_bit_for_bit(tmp_path: Path):
    """No value is rounded or clipped on its way through a WAV file."""
    samples = np.arange(-32768, 32768, dtype="<i2")
    soundfile.write(tmp_path / "all.wav", samples, 16_000, subtype="PCM_16")
    assert audio.load(tmp_path / "all.wav").pcm == samples.tobytes()


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (8_000, 1), (48_000, 1), (16_000, 2)])
def test_other_rates_and_channels_are_converted(tmp_path: Path, rate: int, channels: int):
    """A second of a 440 Hz tone is a second of a 440 Hz tone at 16 kHz, mono."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    soundfile.write(tmp_path / "tone.wav", np.column_stack([tone] * channels), rate)
    samples = np.frombuffer(audio.load(tmp_path / "tone.wav").pcm, "<i2")
    spectrum = np.abs(np.fft.rfft(samples))
    assert (len(samples), int(spectrum.argmax())) == (16_000, 440)
    assert 0.48 * 32_768 < np.abs(samples).max() < 0.52 * 32_768


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("a.flac", "PCM_16"), ("a.ogg", "VORBIS"), ("a.opus", "OPUS"), ("a.mp3", "MPEG_LAYER_III")],
)
def test_the_usual_formats_are_read(tmp_path: Path, name: str, subtype: str):
    """A tone of two seconds comes out again, whatever it was packed in."""
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(96_000) / 48_000)
    kind = {"flac": "FLAC", "mp3": "MP3"}.get(name.partition(".")[2], "OGG")
    soundfile.write(tmp_path / name, tone, 48_000, format=kind, subtype=subtype)
    samples = np.frombuffer(audio.load(tmp_path / name).pcm, "<i2")
    spectrum = np.abs(np.fft.rfft(samples[8_000:24_000]))
    assert (int(spectrum.argmax()), len(samples)) == (440, pytest.approx(32_000, abs=2_400))


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("talk.webm", b"\x1a\x45\xdf\xa3"),
        ("talk.m4a", b"\0\0\0\x20ftypM4A "),
        ("talk.aac", b"\xff\xf1"),
        ("talk", b"\0\0\0\x20ftypisom"),
    ],
)
def test_what_only_ffmpeg_reads_is_refused_with_its_command(tmp_path: Path, name: str, head: bytes):
    """By its name or its first bytes; nothing of it is taken for samples."""
    path = tmp_path / name
    path.write_bytes(head + bytes(range(256)) * 4)
    with pytest.raises(audio.AudioError) as refusal:
        audio.load(path)
    command = f"ffmpeg -i {path} -f s16le -ac 1 -ar 16000 - | speech stream -"
    assert str(refusal.value).endswith(command)


def test_a_file_without_a_suffix_may_be_headerless(tmp_path: Path):
    """What has no header that is known is taken for PCM16."""
    (tmp_path / "speech").write_bytes(RAW.read_bytes())
    assert audio.load(tmp_path / "speech").pcm == RAW.read_bytes()


def test_a_wav_named_raw_is_read_as_wav(tmp_path: Path):
    """A container counts more than a name: its header would be noise."""
    (tmp_path / "speech.raw").write_bytes(WAV.read_bytes())
    assert audio.load(tmp_path / "speech.raw").pcm == WAV.read_bytes()[44:]


BAD_FILES = [
    ("missing.wav", None, "no such file"),
    ("empty.wav", b"", "is empty, expected audio"),
    ("odd.raw", bytes(range(251)) * 3, "are not whole samples"),
    ("text.raw", b"go forward ten meters\n" * 400, "not audio"),
    ("notes", "zehn Meter vorwärts\n".encode() * 400, "not audio"),
    ("picture.png", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not audio"),
    ("broken.wav", b"RIFF\x24\0\0\0WAVEjunk" + bytes(range(256)), "not audio"),
    ("noise.wav", bytes(range(256)) * 8, "not audio that can be read"),
    ("silent.wav", WAV.read_bytes()[:40] + bytes(4), "holds no audio"),
]


@pytest.mark.parametrize(("name", "content", "problem"), BAD_FILES, ids=[b[0] for b in BAD_FILES])
def test_a_bad_file_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes | None, problem: str
):
    """What cannot be sent is named, with what is wrong with it."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(audio.AudioError) as refusal:
        audio.load(path)
    line = str(refusal.value)
    assert line.startswith(f"{path}: ")
    assert problem in line
    assert "\n" not in line


def test_a_directory_is_refused(tmp_path: Path):
    """A directory is no recording."""
    with pytest.raises(audio.AudioError, match="is a directory, expected an audio file"):
        audio.load(tmp_path)
