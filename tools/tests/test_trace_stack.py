"""`speech trace` beside running services: what is told while they stop, start and speak."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from subprocess import PIPE

import pytest
from speech_tools import stack
from speech_tools.protocol import audio, client
from speech_tools.trace.tracing import HOPS
from support.waiting import until

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]
PCM = audio.load(ROOT / "samples" / "go-forward-ten-meters.raw").pcm
TEXT_SECONDS = 30


@pytest.fixture(scope="module")
def url(pipeline, topics, logs) -> Iterator[str]:
    with stack.gateway(pipeline, logs, topics.names) as gateway:
        yield gateway.url


@pytest.fixture
def command(pipeline, topics) -> tuple[list[str], dict[str, str]]:
    """Return the command line, and the environment that it needs."""
    env = {
        **os.environ,
        **topics.names,
        "KAFKA_BOOTSTRAP_SERVERS": pipeline.bootstrap_servers,
        "SCHEMA_REGISTRY_URL": pipeline.registry_url,
    }
    return [sys.executable, "-m", "speech_tools", "trace", "--json"], env


def speak(url: str) -> str:
    """Store an utterance and return its correlation id."""
    outcome = asyncio.run(client.stream(url, PCM, paced=False))
    assert outcome.final["status"] == "accepted", outcome.final
    return outcome.final["correlation_id"]


def trace(command, correlation_id: str) -> tuple[int, dict]:
    arguments, env = command
    done = subprocess.run(  # noqa: S603 - our own command
        [*arguments, correlation_id], env=env, check=False, capture_output=True, timeout=60
    )
    return done.returncode, json.loads(done.stdout)


@contextmanager
def following(command) -> Iterator["subprocess.Popen[str]"]:
    """Run the command with `--follow`; in the end it is gone, however it went."""
    arguments, env = command
    # What runs the tests may have been started in the background, where shells ignore SIGINT.
    as_from_a_terminal = ["env", "--default-signal=INT", *arguments, "--follow"]
    with subprocess.Popen(  # noqa: S603 - our own command
        as_from_a_terminal, env=env, stdout=PIPE, stderr=PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def first_seen(url: str, process: "subprocess.Popen[str]") -> dict:
    """Speak until an utterance is seen: those before the command was ready are not."""
    for _ in range(30):
        speak(url)
        if select([process.stdout], [], [], 1)[0]:
            return json.loads(process.stdout.readline())
    raise AssertionError("nothing was seen")


def test_a_stopped_recogniser_is_named_and_after_its_start_every_hop_is_told(
    pipeline, topics, logs, url, command
):
    """Nothing is lost meanwhile; the wait shows in the trace."""
    owed = speak(url)
    code, found = trace(command, owed)
    assert (code, found["missing"]["hop"], found["missing"]["before"]) == (1, "fetched", 0)
    assert found["missing"]["members"] == (0 if pipeline.real else None)
    assert [hop["name"] for hop in found["hops"]] == [*HOPS[:4]]

    with stack.recogniser(pipeline, logs, topics.names):
        code, found = until(
            lambda: trace(command, owed), lambda answer: answer[0] == 0, seconds=TEXT_SECONDS
        )
    assert (code, found["missing"]) == (0, None)
    assert [hop["name"] for hop in found["hops"]] == [*HOPS]
    times = [hop["at_ms"] for hop in found["hops"]]
    assert times == sorted(times)
    assert found["results"][0]["text"] == "go forward ten meters"


def test_following_shows_an_utterance_at_each_record_until_interrupted(
    pipeline, topics, logs, url, command
):
    """First what the gateway stored, then the text too; Ctrl-C ends it with 130 and no word."""
    with following(command) as process:
        first = first_seen(url, process)
        spoken = first["correlation_id"]
        assert (first["missing"]["hop"], len(first["hops"])) == ("fetched", 4)
        with stack.recogniser(pipeline, logs, topics.names):
            later = next(
                each
                for each in map(json.loads, process.stdout)
                if each["correlation_id"] == spoken and each["results"]
            )
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=10)
    assert [hop["name"] for hop in later["hops"]] == [*HOPS]
    assert (later["missing"], process.returncode, complaints) == (None, 130, "")
