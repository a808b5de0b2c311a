"""Whisper encodes as much as was said, and what is wrong with its model is told in one line."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
from speech_asr.engine import EngineChoice
from speech_asr.errors import EngineUnavailable
from speech_asr.pool import RecogniserPool
from speech_asr.whisper_engine import WhisperListener, is_lost, window

FILES = ("config.json", "model.bin", "tokenizer.json")
EXPECTED = "ASR_MODEL: expected a Whisper model for faster-whisper"


@pytest.mark.parametrize("missing", FILES)
def test_a_missing_file_is_named(tmp_path, missing):
    """Without a tokenizer the package would look for one on the net."""
    for name in FILES:
        (tmp_path / name).write_bytes(b"{}")
    (tmp_path / missing).unlink()
    with pytest.raises(EngineUnavailable) as caught:
        WhisperListener(tmp_path, None)
    assert str(caught.value) == f"{EXPECTED}; the model has no {missing}"


def test_files_of_something_else_are_refused(tmp_path):
    """The line tells no path, as the libraries underneath do."""
    for name in FILES:
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(EngineUnavailable) as caught:
        WhisperListener(tmp_path, None)
    assert str(caught.value) == f"{EXPECTED}; its files cannot be read"


@pytest.mark.parametrize(
    ("said", "encoded"), [(0, 1_000), (300, 1_000), (900, 1_100), (2_500, 2_700), (2_950, 3_000)]
)
def test_what_is_encoded_is_what_was_said_and_a_little(said, encoded):
    """In hundredths of a second: 2 s more, at least 10 s, at most the 30 s that a model holds."""
    features = np.zeros((80, 3_000), dtype=np.float32)
    features[3, :said] = -0.5
    assert np.array_equal(window(features), features[:, :encoded])


@pytest.mark.parametrize(
    ("texts", "lost"),
    [
        ([], False),
        ([(0.0, " That PIN is invalid."), (3.7, " Ten of clubs.")], False),
        ([(0.0, " That PIN is invalid."), (3.7, " Ten of clubs."), (8.7, " Ten of clubs.")], True),
        ([(0.0, " Ten of clubs." * 20)], True),
    ],
    ids=["nothing", "in time", "after the end", "again and again"],
)
def test_a_model_that_says_something_after_the_end_has_lost_itself(texts, lost):
    """Nobody speaks there; so it has where it repeats itself. Of 4.6 s of audio."""
    segments = [SimpleNamespace(start=start, text=text) for start, text in texts]
    assert is_lost(segments, 4.6) is lost


async def _start(pool):
    try:
        await pool.start()
    finally:
        pool.close()


def test_the_line_reaches_the_parent_of_the_worker():
    """The engine is loaded in another process, the service ends in this one."""
    pool = RecogniserPool(EngineChoice("whisper", "no/such/directory"), 1)
    with pytest.raises(EngineUnavailable, match=r"^ASR_MODEL: expected a directory"):
        asyncio.run(_start(pool))
