"""What is wrong with a model for sherpa-onnx is told in one line."""

import sys
from typing import get_args

import pytest
from speech_asr.engine import ModelFamily
from speech_asr.errors import EngineUnavailable
from speech_asr.sherpa_engine import SherpaListener

MOONSHINE = ("tokens.txt", "encoder_model.ort", "decoder_model_merged.ort")


def directory(tmp_path, *names):
    for name in names:
        (tmp_path / name).write_bytes(b"0 0\n")
    return tmp_path


def line(place, family):
    with pytest.raises(EngineUnavailable) as caught:
        SherpaListener(place, family, None)
    return str(caught.value)


@pytest.mark.parametrize("family", get_args(ModelFamily))
def test_every_family_says_which_files_it_wants(tmp_path, family):
    """An empty directory lacks the tokens; with these, the first file of the model."""
    expected = f"ASR_MODEL: expected a model of ASR_MODEL_FAMILY={family}; the model has no "
    assert line(tmp_path, family) == f"{expected}*tokens.txt"
    first = line(directory(tmp_path, "base-tokens.txt"), family).removeprefix(expected)
    assert first in {"*encoder*.onnx", "*model*.onnx"}


def test_a_family_that_needs_another_file_names_it(tmp_path):
    """Moonshine has no joiner, which a transducer needs."""
    assert line(directory(tmp_path, *MOONSHINE), "transducer") == (
        "ASR_MODEL: expected a model of ASR_MODEL_FAMILY=transducer; the model has no *joiner*.onnx"
    )


def test_files_that_are_no_model_are_refused(tmp_path):
    """The line tells no path, as the library does."""
    assert line(directory(tmp_path, *MOONSHINE), "moonshine") == (
        "ASR_MODEL: expected a model of ASR_MODEL_FAMILY=moonshine; its files cannot be read"
    )


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    """Whoever asks for sherpa is told which package brings it."""
    monkeypatch.setitem(sys.modules, "sherpa_onnx", None)
    assert line(tmp_path, "moonshine") == (
        "ASR_ENGINE: sherpa needs the package sherpa-onnx (the extra `sherpa`)"
    )
