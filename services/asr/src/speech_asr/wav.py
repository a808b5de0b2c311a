"""Take the samples out of an utterance's WAV file, or say why they cannot be had.

Pure; used by `intake`. Wraps the standard library's `wave`.
"""

import io
import wave

from speech_lib.events import AudioInput

from speech_asr.engine import CHANNELS, SAMPLE_BYTES, SAMPLE_RATE_HZ
from speech_asr.errors import Reason, Unprocessable


def samples_of(audio: AudioInput) -> bytes:
    """Return the samples: PCM16 little-endian, 16 kHz, mono; empty for an empty data chunk.

    Raises:
        Unprocessable: `not_wav` if the file is cut short or none at all, `unsupported_format` if
            it, or what the event says of it, is anything but 16 kHz mono PCM16.
    """
    if audio.audio_format.lower() != "wav" or audio.sample_rate_hz != SAMPLE_RATE_HZ:
        raise Unprocessable(Reason.UNSUPPORTED_FORMAT)
    try:
        with wave.open(io.BytesIO(audio.audio_bytes)) as file:
            return _read(file)
    except wave.Error as error:
        # The only one of its errors that speaks of a good file: another encoding than PCM.
        encoding = str(error).startswith("unknown format")
        raise Unprocessable(Reason.UNSUPPORTED_FORMAT if encoding else Reason.NOT_WAV) from None
    except (
        EOFError,
        RuntimeError,
    ):  # the latter for a chunk that claims to be longer than its file
        raise Unprocessable(Reason.NOT_WAV) from None


def _read(file: wave.Wave_read) -> bytes:
    found = (file.getframerate(), file.getnchannels(), file.getsampwidth())
    if found != (SAMPLE_RATE_HZ, CHANNELS, SAMPLE_BYTES):
        raise Unprocessable(Reason.UNSUPPORTED_FORMAT)
    samples = file.readframes(file.getnframes())
    if len(samples) != file.getnframes() * SAMPLE_BYTES:
        raise Unprocessable(Reason.NOT_WAV)
    return samples
