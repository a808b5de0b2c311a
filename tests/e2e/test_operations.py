"""Production as `docs/operations.md` starts it: every command of the documents works there.

The stack is that of `docker-compose.yml` alone, chosen by one line in `.env`. The commands are
those of the documents themselves, in their order.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from docker.models.containers import Container
from support.checkout import ROOT
from support.documents import Command, commands, parse
from support.waiting import until

DOCUMENTS = ("operations.md", "runbook.md")
TEXT_SECONDS = 120
SAMPLE = "samples/go-forward-ten-meters.raw"
CHANGING = {"up", "build", "stop", "start", "restart"}
Completed = subprocess.CompletedProcess[str]
ELSEWHERE = {"down", "push", "pull"}
"""The way out of this very stack, and what needs a registry of images."""

INSTEAD = {
    "asr-service=N": "asr-service=2",
    "60": "1 --utterance-seconds 1",
    "100": "1 --seconds 1 --warm-up 0",
}
"""For a placeholder, and for sizes that prove no more."""


def told() -> Iterator[Command]:
    """Yield the commands of the documents that speak to Docker."""
    for name in DOCUMENTS:
        document = parse((ROOT / "docs" / name).read_text())
        blocks = [block.text for block in document.blocks if block.language == "sh"]
        for text in (*blocks, *(span for span in document.spans if " " in span)):
            yield from (each for each in commands(text) if each[0] == "docker" and each[2:])


def subcommand(command: Command) -> str:
    """Return what `docker compose` is asked to do; of plain `docker`, what that is."""
    words = iter(command[2:] if command[1] == "compose" else command[1:])
    return next(word for word in words if word != "--profile" or not next(words))


ALL = tuple(dict.fromkeys(each for each in told() if subcommand(each) not in ELSEWHERE))
LOOKING = [each for each in ALL if subcommand(each) not in CHANGING and "--follow" not in each]
DOING = [each for each in ALL if subcommand(each) in CHANGING]


def filled_in(command: Command, **more: str) -> list[str]:
    """Return a command as it is run."""
    given = INSTEAD | more
    return [part for word in command for part in given.get(word, word).split()]


@pytest.fixture(scope="module")
def watched(production):
    """Return the stack, started again as the runbook says, with its Prometheus.

    The tools run on demand, so that `up --build` leaves an image of theirs that is older.
    """
    built = production.compose("build", "tools")
    assert built.returncode == 0, built.stderr
    started = production.compose("--profile", "observability", "up", "--build", "--wait")
    assert started.returncode == 0, started.stderr
    return production


def speak(stack) -> str:
    """Speak through the container of tools; return the correlation id."""
    done = stack.compose("run", "--rm", "tools", "speech", "stream", SAMPLE, "--fast", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)["correlation_id"]


def in_time(trace: Callable[[], Completed]) -> Completed:
    """Trace until the text is there: 1 means that it is not."""
    return until(trace, lambda done: done.returncode != 1, seconds=TEXT_SECONDS, every=1)


def texts(stack, correlation_id: str) -> list[str]:
    """Wait for the texts of an utterance, as the container of tools sees them."""
    command = ("run", "--rm", "tools", "speech", "trace", correlation_id, "--json")
    done = in_time(lambda: stack.compose(*command))
    assert done.returncode == 0, done.stderr
    return [result["text"] for result in json.loads(done.stdout)["results"]]


@pytest.fixture(scope="module")
def spoken(watched) -> str:
    """Return the id of an utterance that has its text."""
    correlation_id = speak(watched)
    assert texts(watched, correlation_id) == ["Go forward 10 meters."]
    return correlation_id


def published(stack) -> dict[str, object]:
    """Return what is reachable from the host."""
    ports = {name: each.ports.values() for name, each in stack.containers().items()}
    return {
        name: bound for name, each in ports.items() if (bound := [port for port in each if port])
    }


def test_nothing_is_published(watched):
    """Everything is healthy, nothing is reachable from the host, no network leads out."""
    running = watched.containers()
    assert {each.health for each in running.values()} == {"healthy"}
    assert published(watched) == {}
    config = json.loads(watched.compose("config", "--format", "json").stdout)
    assert [name for name, each in config["services"].items() if "ports" in each] == []
    assert {name: each["internal"] for name, each in config["networks"].items()} == {
        "pipeline": True,
        "ingress": True,
    }


@pytest.mark.parametrize("command", LOOKING, ids=" ".join)
def test_what_looks_inside_works(watched, spoken, command):
    """Each command that only looks ends with 0 where all is well."""
    done = in_time(lambda: watched.run(*filled_in(command, CORRELATION_ID=spoken)))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def following(watched) -> Iterator[Container]:
    """Return a container of tools that follows the pipeline."""
    name = f"{watched.name}-following"
    command = ("run", "--detach", "--name", name, "tools", "speech", "trace", "--follow")
    assert watched.compose(*command).returncode == 0
    container = watched.client.containers.get(name)
    yield container
    container.remove(force=True)


def test_following_shows_what_is_said_until_ctrl_c(watched, following):
    """An utterance that is spoken meanwhile is shown with its text; then it ends with 130."""
    shows = partial(until, seconds=TEXT_SECONDS, every=0.5)
    shows(lambda: "bars:" in following.logs().decode())  # its first line: it reads now
    correlation_id = speak(watched)
    line = re.compile(rf"{correlation_id} .* Go forward 10 meters\.$", re.MULTILINE)
    shows(lambda: line.search(following.logs().decode()))
    following.kill("SIGINT")
    assert following.wait()["StatusCode"] == 130


@pytest.mark.parametrize("command", DOING, ids=" ".join)
def test_what_is_done_leaves_production_as_it_is(watched, command):
    """Each command that acts ends with 0 and publishes nothing; what was stopped starts again."""
    done = watched.run(*filled_in(command))
    assert done.returncode == 0, done.stdout + done.stderr
    if subcommand(command) == "stop":
        started = watched.compose("up", "--wait")
        assert started.returncode == 0, started.stderr
    assert published(watched) == {}


def test_speech_is_recognised_after_all_that(watched):
    """Whatever was stopped, restarted and scaled, the pipeline is whole."""
    started = watched.compose("up", "--wait")
    assert started.returncode == 0, started.stderr
    assert texts(watched, speak(watched)) == ["Go forward 10 meters."]


def test_both_kinds_of_commands_are_in_the_documents():
    """A document that is read wrongly would leave nothing to try."""
    assert len(LOOKING) > 8
    assert len(DOING) > 5
