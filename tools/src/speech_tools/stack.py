"""Run the services as child processes on free ports: beside a broker, or with one of their own.

Used by `speech demo`, by `speech latency --embedded` and by tests. Each context stops what it has
started, however it ends.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Protocol, Self

from speech_tools.topics import OWN

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 10.0
LOG_LINES_SHOWN = 30
NEEDS_A_CHECKOUT = (
    "the embedded broker is not installed here: starting a pipeline needs a checkout of the "
    "repository"
)

_INHERITED = ("PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "COVERAGE_PROCESS_START")
"""Variables that children keep. Settings of a pipeline that happen to be set do not count."""

Line = dict[str, Any]


class StackError(Exception):
    """A part of the pipeline did not start. The text is the one line for the user."""


class NotInstalled(StackError):
    """The embedded broker is not there: images do not hold it."""


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Handle SIGINT and SIGTERM at the end of the block.

    A handler that raises while `Popen` waits for its child would lose the child, which goes on.
    """
    if threading.current_thread() is not threading.main_thread():  # where handlers never run
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


class Process:
    """A child that writes JSON lines on stdout. They are kept in a log file, and tell its state.

    Attributes:
        name: What it is called in messages, and its log file.
        ops_url: Where the metrics of a service are, once it is ready.
    """

    def __init__(self, name: str, module: str, env: Mapping[str, str], log_dir: Path) -> None:
        self.name = name
        self.ops_url: str | None = None
        self._log = log_dir / f"{name}.log"
        self._lines: SimpleQueue[Line | None] = SimpleQueue()
        try:
            with _signals_held_back():
                self._start(module, env)
        except (KeyboardInterrupt, SystemExit):  # of a signal that was held back
            self.stop()
            raise

    def _start(self, module: str, env: Mapping[str, str]) -> None:
        inherited = {key: os.environ[key] for key in _INHERITED if key in os.environ}
        self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            [sys.executable, "-m", module],
            env={**inherited, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the parent, who stops its children in order
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id, also after its end."""
        return self._process.pid

    def __enter__(self) -> Self:
        """Return the running process."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the process."""
        self.stop()

    def wait_for(self, **fields: object) -> Line:
        """Return the next line that has all of `fields`.

        Raises:
            StackError: if the process ends before, or takes too long.
        """
        while True:
            try:
                line = self._lines.get(timeout=START_TIMEOUT_SECONDS)
            except Empty:
                raise self._failed("did not start in time") from None
            if line is None:
                raise self._failed(f"ended with code {self._process.wait()}")
            if all(line.get(key) == value for key, value in fields.items()):
                return line

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Wait for the process to end by itself, and return its exit code.

        Raises:
            StackError: if it goes on for longer.
        """
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self._failed(f"has not ended in {seconds:g} s") from None

    def stop(self) -> int:
        """End the process, by force if it does not end when asked, and return its exit code."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:  # also after a second Ctrl-C; does nothing to what has ended
            self._process.kill()
            self._process.wait()
        self._reader.join(STOP_TIMEOUT_SECONDS)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return self._process.returncode

    def _failed(self, how: str) -> StackError:
        error = StackError(f"the {self.name} {how}")
        error.add_note(_end_of(self._log))  # pytest shows it
        return error

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - asked for above
        with self._log.open("wb", buffering=0) as log:
            for raw in self._process.stdout:
                log.write(raw)
                try:
                    line = json.loads(raw)
                except ValueError:
                    continue
                if isinstance(line, dict):
                    self._lines.put(line)
        self._lines.put(None)


class Addresses(Protocol):
    """Where broker and registry are: `EmbeddedPipeline`, or whatever else knows."""

    @property
    def bootstrap_servers(self) -> str:
        """What `KAFKA_BOOTSTRAP_SERVERS` takes."""

    @property
    def registry_url(self) -> str:
        """What `SCHEMA_REGISTRY_URL` takes."""


MANY_FROM_ONE_ADDRESS = {
    "MAX_SESSIONS_PER_SECOND_PER_ADDRESS": "10000",
    "MAX_AUDIO_SPEED": "10000",
}
"""For a gateway whose clients all come from this machine, more or faster than people would."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that is ready, where it listens, and its process."""

    url: str
    process: Process


@contextmanager
def gateway(
    kafka: Addresses, log_dir: Path, settings: Mapping[str, str] | None = None
) -> Iterator[Gateway]:
    """Run a gateway on a free port. `settings` are further environment variables."""
    env = {**_environ(kafka), "PORT": "0", **(settings or {})}
    with Process("gateway", "speech_gateway", env, log_dir) as process:
        port = _ready(process)["port"]
        yield Gateway(f"ws://127.0.0.1:{port}/ws/audio", process)


@contextmanager
def recogniser(
    kafka: Addresses, log_dir: Path, settings: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """Run the ASR service with one worker. `settings` are further environment variables.

    Unless they name another, the engine is the one that needs no model.
    """
    own = {"ASR_WORKERS": "1", "ASR_ENGINE": "pocketsphinx"}
    env = {**_environ(kafka), **own, **(settings or {})}
    with Process("recogniser", "speech_asr", env, log_dir) as process:
        _ready(process)
        yield process


def _ready(process: Process) -> Line:
    """Wait until a service is ready, and return the line that says where it listens."""
    listening = process.wait_for(event="listening")
    process.wait_for(event="ready")
    process.ops_url = f"http://127.0.0.1:{listening['ops_port']}"
    return listening


def require_embedded() -> None:
    """Return where the embedded broker is installed.

    Raises:
        NotInstalled: It is not, as in an image.
    """
    if find_spec("speech_lib.testing") is None:
        raise NotInstalled(NEEDS_A_CHECKOUT)


@contextmanager
def pipeline(
    log_dir: Path,
    settings: Mapping[str, str] | None = None,
    engine: Mapping[str, str] | None = None,
) -> Iterator[tuple[Addresses, Gateway]]:
    """Run broker, registry, recogniser and gateway; yield where they are once all are ready.

    Args:
        log_dir: where the services' logs are kept.
        settings: further environment variables of the gateway.
        engine: those of the recogniser, if its engine is not the one that needs no model.

    Raises:
        NotInstalled: what is installed holds no embedded broker.
        StackError: a part did not start.
    """
    require_embedded()
    from speech_lib.testing import embedded  # noqa: PLC0415 - not in an image

    with ExitStack() as running:
        try:
            kafka = running.enter_context(embedded.EmbeddedPipeline(astuple(OWN)))
        except embedded.EmbeddedError as error:
            raise StackError(str(error)) from error
        running.enter_context(recogniser(kafka, log_dir, engine))
        texts = {"RESULTS": "on", **(settings or {})}
        yield kafka, running.enter_context(gateway(kafka, log_dir, texts))


def _environ(kafka: Addresses) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "SCHEMA_REGISTRY_URL": kafka.registry_url,
        "OPS_PORT": "0",
    }


def last_lines(log_dir: Path) -> str:
    """Return the end of each process's log, for a person who wonders why it failed."""
    return "\n".join(map(_end_of, sorted(log_dir.glob("*.log"))))


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    return "\n".join([f"--- {log.stem}", *lines])
