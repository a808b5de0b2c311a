"""A model's directory is found, and refused in one line where it is not what it should be."""

import hashlib

import pytest
from speech_asr.errors import EngineUnavailable
from speech_asr.model_files import find, one_of


def model(folder, *, sums=True, **files):
    """Make a model's directory of files and their contents."""
    folder.mkdir(parents=True)
    lines = ""
    for name, content in files.items():
        (folder / name).write_bytes(content)
        lines += f"{hashlib.sha256(content).hexdigest()}  {name}\n"
    if sums:
        (folder / "SHA256SUMS").write_text(lines)
    return folder


def line(model, folders=()):
    with pytest.raises(EngineUnavailable) as caught:
        find(model, folders)
    return str(caught.value)


def test_a_name_is_looked_for_in_each_folder(tmp_path):
    """The first that has it wins: a mounted one before the image's."""
    mounted, image = tmp_path / "mounted", tmp_path / "image"
    model(image / "tiny", weights=b"image's")
    assert find("tiny", (str(mounted), str(image))) == image / "tiny"
    model(mounted / "tiny", weights=b"mounted")
    assert find("tiny", (str(mounted), str(image))) == mounted / "tiny"


def test_what_has_a_slash_is_a_path(tmp_path, monkeypatch):
    """Also within the working directory; no folder is asked then."""
    monkeypatch.chdir(tmp_path)
    model(tmp_path / "tiny", weights=b"w")
    assert find("./tiny", ()).samefile(tmp_path / "tiny")
    assert find(str(tmp_path / "tiny"), ()) == tmp_path / "tiny"


def test_a_model_that_is_nowhere_is_told_without_its_name(tmp_path):
    """Nor where it was looked for: the line is for a log."""
    (tmp_path / "file").write_bytes(b"")
    expected = (
        "ASR_MODEL: expected a directory, or the name of a model in ASR_MODELS_DIR;"
        " `speech models fetch` gets one"
    )
    for name in ("tiny", "file", str(tmp_path / "none"), str(tmp_path / "file"), "."):
        assert line(name, (str(tmp_path / "folder"),)) == expected


@pytest.mark.parametrize("content", [b"weightt", b"weigh", None], ids=["byte", "half", "missing"])
def test_a_file_that_is_not_what_its_hash_says_is_named(tmp_path, content):
    """One byte is enough, and no path is told."""
    directory = model(tmp_path / "tiny", config=b"{}", weights=b"weights")
    (directory / "weights").unlink()
    if content is not None:
        (directory / "weights").write_bytes(content)
    assert line(str(directory)) == (
        "ASR_MODEL: weights of the model is not what its SHA256SUMS says: fetch it again"
    )


def test_a_list_of_hashes_that_is_none_is_refused(tmp_path):
    """It is there to be believed."""
    directory = model(tmp_path / "tiny", weights=b"w")
    (directory / "SHA256SUMS").write_bytes(b"\xff\xfe")
    assert line(str(directory)) == "ASR_MODEL: the model's SHA256SUMS cannot be read"


def test_a_model_without_hashes_is_taken_as_it_is(tmp_path):
    """Whoever brings their own need not write any."""
    directory = model(tmp_path / "own", sums=False, weights=b"w")
    assert find(str(directory), ()) == directory


def test_the_better_file_is_taken(tmp_path):
    """A directory may hold a model at several precisions."""
    names = {"model.onnx": b"", "model.int8.onnx": b"", "tokens.txt": b""}
    directory = model(tmp_path / "m", **names)
    patterns = ("*model.int8.onnx", "*model.onnx")
    assert one_of(directory, patterns, "a model").name == "model.int8.onnx"
    (directory / "model.int8.onnx").unlink()
    assert one_of(directory, patterns, "a model").name == "model.onnx"


def test_a_file_that_is_missing_is_told_with_what_is_expected(tmp_path):
    """A directory of that name is no file."""
    directory = model(tmp_path / "m")
    (directory / "model.onnx").mkdir()
    with pytest.raises(EngineUnavailable) as caught:
        one_of(directory, ("model.int8.onnx", "model.onnx"), "a CTC model")
    assert str(caught.value) == "ASR_MODEL: expected a CTC model; the model has no model.onnx"
