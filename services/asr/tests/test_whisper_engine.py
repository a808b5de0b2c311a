"""What is missing for the optional engine is told in one line."""

import asyncio
import importlib.util

import pytest
from speech_asr.engine import EngineChoice
from speech_asr.errors import EngineUnavailable
from speech_asr.pool import RecogniserPool
from speech_asr.whisper_engine import WhisperEngine

INSTALLED = importlib.util.find_spec("faster_whisper") is not None


@pytest.mark.skipif(INSTALLED, reason="faster-whisper is installed")
def test_a_missing_extra_is_named():
    """Whoever asks for whisper is told which package brings it."""
    with pytest.raises(EngineUnavailable) as caught:
        WhisperEngine("tiny.en")
    assert str(caught.value) == (
        "ASR_ENGINE: whisper needs the package faster-whisper (the extra `whisper`)"
    )


@pytest.mark.skipif(not INSTALLED, reason="needs the extra `whisper` (faster-whisper)")
@pytest.mark.parametrize("model", ["no/such/directory", "tiny.en", ""])
def test_a_model_that_is_not_there_is_told_without_its_path(model):
    """Nothing is downloaded, and no path gets into a log."""
    with pytest.raises(EngineUnavailable) as caught:
        WhisperEngine(model)
    assert str(caught.value).startswith("ASR_MODEL: expected a Whisper model")


async def _start(pool):
    try:
        await pool.start()
    finally:
        pool.close()


def test_the_line_reaches_the_parent_of_the_worker():
    """The engine is loaded in another process, the service ends in this one."""
    pool = RecogniserPool(EngineChoice("whisper", "no/such/directory"), 1)
    with pytest.raises(EngineUnavailable, match=r"^ASR_(ENGINE|MODEL): "):
        asyncio.run(_start(pool))
