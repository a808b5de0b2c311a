"""What runs in a worker process: one engine, loaded once.

`pool` starts the processes and calls these functions in them; nothing else here is imported there
but the engine, which keeps a worker small.
"""

import multiprocessing
import os
import signal
import threading
import time
from functools import cache
from multiprocessing import connection
from pathlib import Path

from speech_asr.engine import Engine, EngineChoice, Listener, Recognition
from speech_asr.errors import EngineFailed


def prepare(errors: connection.Connection) -> None:
    """Set the process up: it ends with its parent, drains with it, and leaves its errors to it.

    Args:
        errors: Where its standard error goes: native libraries print what and when they like.
    """
    # Before numpy and the like are imported, which else start a thread for each core there is. The
    # detector's library asks for four whatever the number says: the limit alone makes them one, and
    # a frame cost fourteen times as much.
    os.environ.update(OMP_NUM_THREADS="1", OMP_THREAD_LIMIT="1", OPENBLAS_NUM_THREADS="1")
    os.dup2(errors.fileno(), 2)
    errors.close()
    # Ctrl-C in a terminal goes to every process; the parent alone decides what is finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()


def _end_with_parent() -> None:
    """Exit as soon as the parent has gone, also by SIGKILL; at the latest after the utterance."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def load(choice: EngineChoice) -> int:
    """Load the engine and return the id of this process.

    Args:
        choice: Which; its model is a directory that has been checked (`pool`).

    Raises:
        EngineUnavailable: It cannot be loaded.
    """
    _engine(choice)
    return os.getpid()


def transcribe(choice: EngineChoice, samples: bytes, hint: str | None) -> tuple[Recognition, float]:
    """Return what the engine hears, and how many seconds it took.

    Raises:
        EngineFailed: It raised something; only the kind is told, since the text may hold words.
    """
    engine = _engine(choice)
    began = time.perf_counter()
    try:
        recognition = engine.transcribe(samples, hint)
    except Exception as error:  # noqa: BLE001  # whatever an engine raises stays in its process
        raise EngineFailed(type(error).__name__) from None
    return recognition, time.perf_counter() - began


@cache
def _engine(choice: EngineChoice) -> Engine:
    """Load an engine; its packages are imported nowhere else."""
    match choice.name:
        case "pocketsphinx":
            from speech_asr.pocketsphinx_engine import PocketSphinxEngine  # noqa: PLC0415

            return PocketSphinxEngine()
        case "whisper":
            from speech_asr.whisper_engine import WhisperListener  # noqa: PLC0415

            return _behind_a_detector(WhisperListener(Path(choice.model), choice.language))
        case "sherpa":
            from speech_asr.sherpa_engine import SherpaListener  # noqa: PLC0415

            assert choice.family is not None  # noqa: S101 - `settings` sees to it
            return _behind_a_detector(
                SherpaListener(Path(choice.model), choice.family, choice.language)
            )


def _behind_a_detector(listener: Listener) -> Engine:
    from speech_asr.neural import NeuralEngine  # noqa: PLC0415
    from speech_asr.silero import SileroDetector  # noqa: PLC0415

    return NeuralEngine(listener, SileroDetector())
