"""The stack as compose runs it, under a project name and on host ports of its own.

Brought up by the command line, because the `docker` package has no compose; what runs is inspected
through the package. Whatever is brought up is taken down with its volumes, however the tests end.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import docker
import pytest
from docker.errors import DockerException
from docker.models.containers import Container
from tenacity import retry, retry_if_result, stop_after_delay, wait_exponential

ROOT = Path(__file__).parent.parent.parent
E2E_DIR = Path(__file__).parent
COMPOSE = ("docker", "compose")
UP_SECONDS = 600
DOWN_SECONDS = 120
SCRIPT_SECONDS = 90
TEST_SECONDS = 900
PUBLISHED = (
    "KAFKA_HOST_PORT",
    "SCHEMA_REGISTRY_HOST_PORT",
    "GATEWAY_HOST_PORT",
    "GATEWAY_OPS_HOST_PORT",
    "ASR_OPS_HOST_PORT",
)
LOG_LINES = "40"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this directory; a timeout must leave the way to the taking down open."""
    for item in items:
        if E2E_DIR in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(TEST_SECONDS, method="signal"))


def missing() -> str | None:
    """Return what this machine lacks for these tests."""
    if shutil.which("docker") is None:
        return "needs Docker with its compose plugin: there is no docker on PATH"
    try:
        with closing(docker.from_env(timeout=10)) as client:
            client.ping()
    except DockerException:
        return (
            "needs Docker: the docker daemon does not answer (start it, or may this user use it?)"
        )
    compose = subprocess.run([*COMPOSE, "version"], check=False, capture_output=True)  # noqa: S603
    return "needs Docker's compose plugin" if compose.returncode else None


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Stack:
    """A compose project.

    Attributes:
        client: Docker's API.
        files: Which compose files it is made of; none: those that compose loads by itself.
        project: Its name, which every container, network and volume of it bears.
        ports: Host ports of what is published, by the variable that sets them.
        settings: Further variables, as .env would set them.
    """

    client: docker.DockerClient
    files: tuple[str, ...] = ()
    project: str = field(default_factory=lambda: f"speech-e2e-{uuid.uuid4().hex[:8]}")
    ports: dict[str, int] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    def compose(self, *arguments: str, timeout: float = UP_SECONDS) -> Done:
        """Run `docker compose`, with nothing from this machine's own settings."""
        options = [part for file in self.files for part in ("-f", file)]
        kept = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME"} or "DOCKER" in k}
        ports = {name: str(port) for name, port in self.ports.items()}
        return _run(
            [*COMPOSE, "-p", self.project, "--env-file", os.devnull, *options, *arguments],
            env=kept | ports | self.settings,
            timeout=timeout,
        )

    def up(self, *services: str) -> None:
        """Bring services up, or all, images included, and wait until they are healthy."""
        done = self.compose("up", "--build", "--wait", *services)
        assert done.returncode == 0, done.stderr[-3000:] + self.logs()

    def logs(self, *services: str) -> str:
        """Return the end of what the containers have said."""
        return self.compose("logs", "--no-color", "--tail", LOG_LINES, *services).stdout

    def containers(self) -> dict[str, Container]:
        """Return the running containers by their service."""
        label = f"com.docker.compose.project={self.project}"
        running = self.client.containers.list(filters={"label": label})
        return {each.labels["com.docker.compose.service"]: each for each in running}

    def container(self, service: str) -> Container:
        """Return the one container of a service."""
        return self.containers()[service]

    def python(self, service: str, code: str, *arguments: str) -> object:
        """Run code in a service's container; return what it prints as JSON."""
        answer = self.container(service).exec_run(["python", "-c", code, *arguments])
        assert answer.exit_code == 0, answer.output.decode()
        return json.loads(answer.output)

    def run_on(self, network: str, code: str, *arguments: str) -> object:
        """Run code in a throw-away container on one network only; return what it prints as JSON."""
        said = self.client.containers.run(
            self.container("gateway-service").image.id,
            ["python", "-c", code, *arguments],
            network=f"{self.project}_{network}",
            remove=True,
        )
        return json.loads(said)

    def _stream(self, file: Path) -> "subprocess.Popen[str]":
        url = f"ws://localhost:{self.ports['GATEWAY_HOST_PORT']}/ws/audio"
        arguments = [sys.executable, "scripts/stream.py", str(file), "--fast", "--json"]
        return subprocess.Popen(  # noqa: S603 - our own script
            [*arguments, "--url", url], cwd=ROOT, text=True, stdout=subprocess.PIPE
        )

    def speak(self, *files: Path) -> list[str]:
        """Speak recordings at once, each as fast as the gateway takes it.

        Returns:
            The correlation ids that they have been accepted under.
        """
        with ExitStack() as speaking:
            speakers = [speaking.enter_context(self._stream(file)) for file in files]
            return [_accepted_id(speaker) for speaker in speakers]

    def trace(self, correlation_id: str) -> Done:
        """Run `scripts/trace.py` on an utterance."""
        arguments = [
            *("--bootstrap-servers", f"localhost:{self.ports['KAFKA_HOST_PORT']}"),
            *("--registry", f"http://localhost:{self.ports['SCHEMA_REGISTRY_HOST_PORT']}"),
        ]
        return _run(
            [sys.executable, "scripts/trace.py", correlation_id, "--json", *arguments],
            env=dict(os.environ),
            timeout=SCRIPT_SECONDS,
        )

    def transcribed(self, correlation_id: str, seconds: float = 120) -> dict[str, object]:
        """Wait for the text of an utterance and return its trace."""
        attempt = retry(
            retry=retry_if_result(lambda done: done.returncode == 1),
            stop=stop_after_delay(seconds),
            wait=wait_exponential(0.5, max=8),  # asking takes processor time too
            retry_error_callback=lambda state: state.outcome.result(),
        )
        done = attempt(self.trace)(correlation_id)
        assert (done.returncode, done.stderr) == (0, ""), self.logs("asr-service")
        return json.loads(done.stdout)


def _run(command: list[str], *, env: dict[str, str], timeout: float) -> Done:
    done = subprocess.run(  # noqa: S603 - docker and our own scripts
        command, check=False, capture_output=True, text=True, cwd=ROOT, env=env, timeout=timeout
    )
    return Done(done.returncode, done.stdout, done.stderr)


def _accepted_id(speaker: "subprocess.Popen[str]") -> str:
    """Wait for a speaker; return the correlation id that its utterance was accepted under."""
    try:
        said, _ = speaker.communicate(timeout=SCRIPT_SECONDS)
    finally:
        speaker.kill()
    assert speaker.returncode == 0, said
    frames = [json.loads(line).get("frame", {}) for line in said.splitlines()]
    (accepted,) = [frame for frame in frames if frame.get("status") == "accepted"]
    return accepted["correlation_id"]


def free_ports(names: tuple[str, ...]) -> dict[str, int]:
    """Return a port for each name that nobody listens on."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in names]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}


@contextmanager
def running(stack: Stack, *services: str) -> Iterator[Stack]:
    """Keep a stack up, or some of its services; afterwards nothing of it is left.

    So it is also where the run is ended by SIGTERM.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        stack.up(*services)
        yield stack
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the way out is walked once
        stack.compose(
            *("down", "--volumes", "--remove-orphans", "--timeout", "10"), timeout=DOWN_SECONDS
        )
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.DockerClient]:
    """Return Docker's API, or skip where there is none."""
    if reason := missing():
        pytest.skip(reason)
    client = docker.from_env(timeout=60)
    yield client
    client.close()


@pytest.fixture(scope="session")
def stack(docker_client, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Return the stack of a developer, healthy; a test that stops it starts it again."""
    failed = request.session.testsfailed
    with running(Stack(docker_client, ports=free_ports(PUBLISHED))) as up:
        yield up
        if request.session.testsfailed > failed:
            request.config.get_terminal_writer().write(up.logs())


@pytest.fixture
def bare_stack(docker_client) -> Iterator[Stack]:
    """Return the stack that `docker-compose.yml` alone makes, healthy."""
    with running(Stack(docker_client, files=("docker-compose.yml",))) as up:
        yield up


@pytest.fixture(scope="module")
def bring_up(docker_client) -> Iterator[Callable[..., Stack]]:
    """Return `bring_up(*services, published=(), **stack)`: a stack as long as the module lasts."""
    with ExitStack() as stacks:

        def up(*services: str, published: tuple[str, ...] = (), **fields: Any) -> Stack:
            stack = Stack(docker_client, ports=free_ports(published), **fields)
            return stacks.enter_context(running(stack, *services))

        yield up


@pytest.fixture(scope="session")
def speech() -> Path:
    """Return a recording of a few seconds."""
    return ROOT / "samples" / "go-forward-ten-meters.raw"
