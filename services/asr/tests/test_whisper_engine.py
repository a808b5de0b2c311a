"""What is wrong with a model for Whisper is told in one line, in the process that asked for it."""

import asyncio

import pytest
from speech_asr.engine import EngineChoice
from speech_asr.errors import EngineUnavailable
from speech_asr.pool import RecogniserPool
from speech_asr.whisper_engine import WhisperListener

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
