"""The embedded pipeline: a broker and a schema registry in one helper process, for demo and tests.

`python -m speech_lib.testing.embedded --topics a,b` prints one JSON line, {"bootstrap_servers",
"schema_registry_url"}. It takes commands as JSON lines on stdin, answers each with a line, and runs
until stdin closes or SIGTERM or SIGINT comes. A closed stdin tells the helper that its parent has
died. `EmbeddedPipeline` does the same as a context manager.
"""

import argparse
import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from ctypes import ArgumentError
from types import TracebackType
from typing import Any, NoReturn, Self

from speech_lib.service.setting_types import comma_separated
from speech_lib.testing.mock_cluster import UNKNOWN_TOPIC, MockCluster, MockClusterError
from speech_lib.testing.registry_server import RegistryServer

_ANSWER_SECONDS = 20.0
_STOP_SECONDS = 5.0
_COMMANDS: dict[str, Callable[..., None]] = {
    "create_topic": MockCluster.create_topic,
    "set_topic_error": MockCluster.set_topic_error,
    "push_request_errors": MockCluster.push_request_errors,
    "clear_request_errors": MockCluster.clear_request_errors,
    "set_broker_down": MockCluster.set_broker_down,
    "set_broker_up": MockCluster.set_broker_up,
    "set_rtt": MockCluster.set_rtt,
}


class EmbeddedError(Exception):
    """The helper process did not do what was asked."""


class EmbeddedPipeline:
    """Run the helper process between `with` and its end, and send it commands.

    Attributes:
        bootstrap_servers: The value for `KAFKA_BOOTSTRAP_SERVERS`.
        registry_url: The value for `SCHEMA_REGISTRY_URL`.
    """

    def __init__(self, topics: Iterable[str] = (), partitions: int = 1) -> None:
        self._arguments = ["--topics", ",".join(topics), "--partitions", str(partitions)]
        self.bootstrap_servers = ""
        self.registry_url = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603 - this module, by this interpreter
            [sys.executable, "-m", __spec__.name, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C in a terminal reaches the parent alone, which may need the broker to drain.
            start_new_session=True,
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, name="embedded", daemon=True)
        self._reader.start()
        try:
            ready = self._answer()
        except EmbeddedError:
            self._stop()
            raise
        self.bootstrap_servers = ready["bootstrap_servers"]
        self.registry_url = ready["schema_registry_url"]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._stop()

    def create_topic(self, topic: str, partitions: int = 1) -> None:
        """Make a topic."""
        self._command("create_topic", topic, partitions)

    def set_topic_error(self, topic: str, code: int = UNKNOWN_TOPIC) -> None:
        """Answer requests for this topic's metadata with a Kafka error code; 0 ends it."""
        self._command("set_topic_error", topic, code)

    def push_request_errors(self, api_key: int, *codes: int) -> None:
        """Answer the next requests of a kind (0 is Produce) with these error codes, one each."""
        self._command("push_request_errors", api_key, *codes)

    def clear_request_errors(self, api_key: int) -> None:
        """Forget the errors that are still to be answered."""
        self._command("clear_request_errors", api_key)

    def set_broker_down(self) -> None:
        """Break the broker's connections and accept no new ones."""
        self._command("set_broker_down")

    def set_broker_up(self) -> None:
        """Accept connections again."""
        self._command("set_broker_up")

    def set_rtt(self, milliseconds: int) -> None:
        """Hold back every answer of the broker for this long."""
        self._command("set_rtt", milliseconds)

    def _command(self, name: str, *arguments: str | int) -> None:
        assert self._process.stdin is not None  # noqa: S101 - opened as a pipe
        try:
            self._process.stdin.write(json.dumps([name, *arguments]) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise EmbeddedError("the helper process has ended") from error
        answer = self._answer()
        if "error" in answer:
            raise EmbeddedError(f"{name}: {answer['error']}")

    def _answer(self) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=_ANSWER_SECONDS)
        except queue.Empty:
            raise EmbeddedError(f"no answer within {_ANSWER_SECONDS:g} s") from None
        if not line:
            raise EmbeddedError("the helper process has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - opened as a pipe
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None  # noqa: S101
            pipe.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run broker and registry until stdin closes or a signal comes."""
    parser = argparse.ArgumentParser(prog="embedded", description=__doc__)
    parser.add_argument("--topics", type=comma_separated, default=(), help="separated by commas")
    parser.add_argument("--partitions", type=int, default=1, help="of each of these topics")
    parser.add_argument("--registry-port", type=int, default=0, help="0: any free port")
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit)
    try:
        _serve(options.topics, options.partitions, options.registry_port)
    except (MockClusterError, OSError) as error:
        sys.stderr.write(f"embedded: {error}\n")
        return 1
    return 0


def _serve(topics: Iterable[str], partitions: int, registry_port: int) -> None:
    with MockCluster() as cluster, RegistryServer(registry_port) as registry:
        for topic in topics:
            cluster.create_topic(topic, partitions)
        _say(bootstrap_servers=cluster.bootstrap_servers, schema_registry_url=registry.url)
        for line in sys.stdin:
            _say(**_obey(cluster, line))


def _exit(*_: object) -> NoReturn:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # it exits once
    raise SystemExit(0)


def _obey(cluster: MockCluster, line: str) -> dict[str, Any]:
    """Carry out one command, ["name", argument, ...], and return the answer."""
    try:
        name, *arguments = json.loads(line)
        _COMMANDS[name](cluster, *arguments)
    except (ValueError, KeyError, TypeError, AttributeError, ArgumentError):
        return {"error": 'expected ["command", argument, ...]', "commands": sorted(_COMMANDS)}
    except MockClusterError as error:
        return {"error": str(error)}
    return {"ok": True}


def _say(**answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
