"""The microphone: what is said where it cannot be used."""

import sys

import pytest
from speech_tools.stream.command import app
from support.invoke import invoke


def test_what_is_missing_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch):
    """Without the extra, before anybody connects, and with a way that needs nothing."""
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    done = invoke(app, "--mic", "--url", "ws://127.0.0.1:1/")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "uv pip install --no-config sounddevice" in done.stderr
    assert "arecord -q -t raw -f S16_LE -r 16000 -c 1 | speech stream -" in done.stderr


def test_a_missing_library_is_named(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """As the package says it where PortAudio is not installed."""
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    done = invoke(app, "--mic", "--url", "ws://127.0.0.1:1/")
    assert done.returncode == 2
    assert "sudo apt install libportaudio2" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["a.raw", "--mic"]])
def test_one_source_is_named(arguments: list[str]):
    """A file, a pipe or the microphone, and no two of them."""
    done = invoke(app, *arguments)
    assert (done.returncode, done.stderr) == (
        2,
        "stream: expected a FILE, - for a pipe, or --mic\n",
    )
