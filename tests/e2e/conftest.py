"""The stack as compose runs it, under a project name and on host ports of its own.

`support.compose` brings it up and takes it down with its volumes, however the tests end.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import docker
import pytest
from docker.models.containers import Container
from speech_tools.stack import MANY_FROM_ONE_ADDRESS
from support import compose
from support.checkout import files
from support.ports import free_ports, port_ranges
from support.waiting import until

ROOT = compose.ROOT
E2E_DIR = Path(__file__).parent
Completed = subprocess.CompletedProcess[str]
UP_SECONDS = compose.UP_SECONDS
SCRIPT_SECONDS = 90
TEST_SECONDS = 900
NOT_YET = 1
"""What `speech trace` ends with where a text is not there."""
PUBLISHED = (
    "KAFKA_HOST_PORT",
    "SCHEMA_REGISTRY_HOST_PORT",
    "GATEWAY_HOST_PORT",
    "GATEWAY_OPS_HOST_PORT",
    "ASR_OPS_HOST_PORT",
    "PAGE_HOST_PORT",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this directory; a timeout must leave the way to the taking down open."""
    for item in items:
        if E2E_DIR in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(TEST_SECONDS, method="signal"))


class Stack(compose.Project):
    """The stack, with what its tests do to it."""

    def containers(self) -> dict[str, Container]:
        """Return the running containers by their service."""
        label = f"com.docker.compose.project={self.name}"
        running = self.client.containers.list(filters={"label": label})
        return {each.labels["com.docker.compose.service"]: each for each in running}

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
            network=f"{self.name}_{network}",
            remove=True,
        )
        return json.loads(said)

    def image(self, service: str) -> str:
        """Return the image that a service runs, also one of a profile."""
        told = self.compose("--profile", "*", "config", "--format", "json").stdout
        return json.loads(told)["services"][service]["image"]

    def _stream(self, file: Path) -> "subprocess.Popen[str]":
        url = f"ws://localhost:{self.ports['GATEWAY_HOST_PORT']}/ws/audio"
        arguments = [sys.executable, "-m", "speech_tools", "stream", str(file), "--fast", "--json"]
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

    def trace(self, correlation_id: str) -> "subprocess.CompletedProcess[str]":
        """Run `speech trace` on an utterance."""
        arguments = [
            *("--bootstrap-servers", f"localhost:{self.ports['KAFKA_HOST_PORT']}"),
            *("--registry", f"http://localhost:{self.ports['SCHEMA_REGISTRY_HOST_PORT']}"),
        ]
        return subprocess.run(  # noqa: S603 - our own script
            [sys.executable, "-m", "speech_tools", "trace", correlation_id, "--json", *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=SCRIPT_SECONDS,
        )

    def transcribed(self, correlation_id: str, seconds: float = 120) -> dict[str, object]:
        """Wait for the text of an utterance and return its trace."""
        done = until(
            lambda: self.trace(correlation_id),
            lambda done: done.returncode != NOT_YET,
            seconds=seconds,
            every=2,  # asking takes processor time too
        )
        assert (done.returncode, done.stderr) == (0, ""), self.logs("asr-service")
        return json.loads(done.stdout)


@dataclass(frozen=True)
class Production(Stack):
    """The stack as docs/operations.md starts it in production: by what `.env` says.

    Attributes:
        root: A copy of the repository's files, with an `.env`.
    """

    root: Path = ROOT

    def compose(self, *arguments: str, timeout: float = UP_SECONDS) -> Completed:
        """Run `docker compose` as an operator does, in the copy."""
        return self.run("docker", "compose", *arguments, timeout=timeout)

    def run(self, *command: str, timeout: float = UP_SECONDS) -> Completed:
        """Run a command there, with nothing from this machine's own settings."""
        kept = {k: v for k, v in os.environ.items() if k in {"PATH", "HOME"} or "DOCKER" in k}
        return subprocess.run(  # noqa: S603 - commands of the documents
            command,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=self.root,
            env=kept | {"COMPOSE_PROJECT_NAME": self.name, "INGRESS_PREFIX": self.ingress_prefix},
            timeout=timeout,
        )

    def down(self) -> None:
        """Take everything down, also what a profile has brought up."""
        self.compose("--profile", "*", "down", "--volumes", "--timeout", "10")


def _accepted_id(speaker: "subprocess.Popen[str]") -> str:
    """Wait for a speaker; return the correlation id that its utterance was accepted under."""
    try:
        said, _ = speaker.communicate(timeout=SCRIPT_SECONDS)
    finally:
        speaker.kill()
    assert speaker.returncode == 0, said
    return json.loads(said)["correlation_id"]


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.DockerClient]:
    """Return Docker's API, or skip where there is none."""
    if reason := compose.missing():
        pytest.skip(reason)
    client = docker.from_env(timeout=60)
    yield client
    client.close()


@pytest.fixture(scope="session")
def stack(docker_client, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Return the stack of a developer, healthy; a test that stops it starts it again."""
    failed = request.session.testsfailed
    with compose.running(Stack(docker_client, ports=free_ports(PUBLISHED))) as up:
        yield up
        if request.session.testsfailed > failed:
            request.config.get_terminal_writer().write(up.logs())


@pytest.fixture(scope="session")
def production(docker_client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """Return the stack that `docker-compose.yml` alone makes, by the line in `.env`; healthy."""
    root = tmp_path_factory.mktemp("production")
    for path in files():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, root / path)
    example = (root / ".env.example").read_text()
    (root / ".env").write_text(example.replace("#COMPOSE_FILE=", "COMPOSE_FILE="))
    with compose.running(Production(docker_client, root=root)) as up:
        yield up


@pytest.fixture(scope="module")
def bring_up(docker_client) -> Iterator[Callable[..., Stack]]:
    """Return `bring_up(*services, published=(), settings={}, **stack)`, which returns a stack.

    It lasts as long as the module. Settings may name a published port, such as `{EDGE_PORT}`.
    """
    with ExitStack() as stacks:

        def up(
            *services: str,
            published: tuple[str, ...] = (),
            settings: Mapping[str, str] = MappingProxyType({}),
            **fields: Any,
        ) -> Stack:
            ports = free_ports(published)
            named = {name: value.format(**ports) for name, value in settings.items()}
            stack = Stack(docker_client, ports=ports, settings=named, **fields)
            return stacks.enter_context(compose.running(stack, *services))

        yield up


@pytest.fixture(scope="module")
def bring_up_fleet(bring_up: Callable[..., Stack]) -> Callable[..., Stack]:
    """Return `bring_up_fleet(gateways, **settings)`, which returns a developer's stack.

    It has so many gateways behind the edge, and no recogniser. All clients come from one address.
    """

    def up(gateways: int, **settings: str) -> Stack:
        prefix = compose.some_prefix()
        scaled = port_ranges("GATEWAY_HOST_PORT", "GATEWAY_OPS_HOST_PORT", "ASR_OPS_HOST_PORT")
        own = {
            "COMPOSE_PROFILES": "edge",
            "EDGE_ADDRESS": "127.0.0.1",
            "ORIGIN_ALLOWLIST": "none",
            "TRUSTED_PROXIES": f"{prefix}.2",
            "MAX_CONNECTIONS_PER_ADDRESS": "1000",
            **MANY_FROM_ONE_ADDRESS,
        }
        return bring_up(
            *("--scale", f"gateway-service={gateways}", "edge", "gateway-service"),
            published=("EDGE_PORT", "KAFKA_HOST_PORT", "SCHEMA_REGISTRY_HOST_PORT"),
            ingress_prefix=prefix,
            settings=own | scaled | settings,
        )

    return up


@pytest.fixture(scope="session")
def speech() -> Path:
    """Return a recording of a few seconds."""
    return ROOT / "samples" / "go-forward-ten-meters.raw"
