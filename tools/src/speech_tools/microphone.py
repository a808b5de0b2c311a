"""Find this machine's microphone. The package `sounddevice`, which finds it, is an extra, `mic`.

Used by `speech stream --mic` and `speech check`.
"""

from importlib import import_module
from typing import Any

from speech_tools.protocol.audio import AudioError

INSTEAD = "arecord -q -t raw -f S16_LE -r 16000 -c 1 | speech stream -"
NOT_INSTALLED = (
    "--mic: needs the extra `mic` of speech-tools (in a checkout: "
    f"uv pip install --no-config sounddevice); without it: {INSTEAD}"
)
NO_PORTAUDIO = (
    "--mic: needs PortAudio: sudo apt install libportaudio2 (Debian, Ubuntu); "
    f"without it: {INSTEAD}"
)


def microphone() -> Any:  # noqa: ANN401 - the library's
    """Return what the library says of the default microphone.

    Raises:
        AudioError: There is none, or what reads it is not installed.
    """
    try:
        sounddevice = import_module("sounddevice")
    except ImportError:
        raise AudioError(NOT_INSTALLED) from None
    except OSError:  # it looks for the library when it is imported
        raise AudioError(NO_PORTAUDIO) from None
    try:
        return sounddevice.query_devices(kind="input")
    except (sounddevice.PortAudioError, ValueError):
        raise AudioError("--mic: there is no microphone; connect one, or name a FILE") from None
