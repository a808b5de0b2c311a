"""Run a compose project under a name and on host ports of its own, for tests and measurements.

Brought up by the command line, because the `docker` package has no compose; what runs is inspected
and injured through the package. Whatever is brought up is taken down with its volumes.
"""

import os
import random
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NoReturn, TypeVar

import docker  # type: ignore[import-untyped]
import yaml  # type: ignore[import-untyped]
from docker.models.containers import Container  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
ANSWER_SECONDS = 30
UP_SECONDS = 600
DOWN_SECONDS = 120
LOG_LINES = "40"
_COMPOSE = ("docker", "compose")
_KEPT = frozenset({"PATH", "HOME"})


class ComposeError(Exception):
    """A project did not come up; the text is what compose and the containers said."""


def missing() -> str | None:
    """Return what this machine lacks for Docker with compose, or nothing."""
    if shutil.which("docker") is None:
        return "needs Docker with its compose plugin: there is no docker on PATH"
    # Not by the package: where nobody answers, `docker.from_env` leaves a socket open.
    if not _succeeds("docker", "info"):
        return (
            "needs Docker: the docker daemon does not answer (start it, or may this user use it?)"
        )
    return None if _succeeds(*_COMPOSE, "version") else "needs Docker's compose plugin"


def _succeeds(*command: str) -> bool:
    try:
        done = subprocess.run(  # noqa: S603 - docker's own program
            command, check=False, capture_output=True, timeout=ANSWER_SECONDS
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


@cache
def image(service: str) -> str:
    """Return the image that a service runs from, as the file has it."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return str(services[service]["image"])


def some_prefix() -> str:
    """Return an INGRESS_PREFIX that another project hardly has: one of some 50,000."""
    chance = random.SystemRandom()
    return f"10.{chance.randrange(64, 256)}.{chance.randrange(256)}"


@dataclass(frozen=True)
class Project:
    """A compose project.

    Attributes:
        client: Docker's API.
        files: The compose files that it is made of, from the root of the repository; none: those
            that compose loads by itself.
        ports: Host ports of what is published, by the variable that sets them.
        settings: Further variables, as .env would set them.
        name: What every container, network and volume of it bears.
        ingress_prefix: The first three numbers of its network `ingress`.
    """

    client: docker.DockerClient
    files: tuple[str, ...] = ()
    ports: dict[str, int] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"speech-{uuid.uuid4().hex[:8]}")
    ingress_prefix: str = field(default_factory=some_prefix)

    def compose(
        self, *arguments: str, timeout: float = UP_SECONDS
    ) -> "subprocess.CompletedProcess[str]":
        """Run `docker compose`, with nothing from this machine's own settings."""
        options = [part for file in self.files for part in ("-f", file)]
        return subprocess.run(  # noqa: S603 - docker's own program
            [*_COMPOSE, "-p", self.name, "--env-file", os.devnull, *options, *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=self.environment(),
            timeout=timeout,
        )

    def environment(self) -> dict[str, str]:
        """Return the variables that compose gets, and a script that runs it."""
        kept = {k: v for k, v in os.environ.items() if k in _KEPT or "DOCKER" in k}
        own = {"INGRESS_PREFIX": self.ingress_prefix} | {k: str(v) for k, v in self.ports.items()}
        return kept | own | self.settings

    def up(self, *services: str) -> None:
        """Bring services up, images included, and wait until they are healthy.

        Raises:
            ComposeError: They are not.
        """
        done = self.compose("up", "--build", "--wait", *services)
        if done.returncode:
            raise ComposeError(done.stderr[-3000:] + self.logs())

    def down(self) -> None:
        """Take everything down, volumes included."""
        self.compose(
            "down", "--volumes", "--remove-orphans", "--timeout", "10", timeout=DOWN_SECONDS
        )

    def logs(self, *services: str) -> str:
        """Return the end of what the containers have said."""
        return self.compose("logs", "--no-color", "--tail", LOG_LINES, *services).stdout

    def container(self, service: str) -> Container:
        """Return the one container of a service, running or not."""
        labels = [f"com.docker.compose.{k}={v}" for k, v in self._labels(service)]
        (found,) = self.client.containers.list(all=True, filters={"label": labels})
        return found

    def _labels(self, service: str) -> tuple[tuple[str, str], ...]:
        return ("project", self.name), ("service", service)


ProjectT = TypeVar("ProjectT", bound=Project)


@contextmanager
def running(project: ProjectT, *services: str) -> Iterator[ProjectT]:
    """Keep services up; afterwards nothing of them is left, also where SIGTERM ends the run."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        project.up(*services)
        yield project
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the way out is walked once
        project.down()
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
