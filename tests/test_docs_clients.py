"""What `docs/protocol.md` says is so: tables, examples, and its two clients, run for real."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import dropwhile, takewhile
from pathlib import Path

import pytest
from pipeline_tools import stack
from speech_gateway.errors import Ending, Failure
from speech_gateway.handshake import Refusal
from speech_gateway.messages import Accepted, Connected, Draining, Failed, Limits
from speech_lib.testing.pipeline import Pipeline
from websockets.sync.client import connect

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "protocol.md").read_text()
SAMPLE = ROOT / "samples" / "go-forward-ten-meters.raw"
RUN_TIMEOUT_SECONDS = 45


def fenced(language: str) -> list[str]:
    """Return the document's fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table under a heading."""
    lines = iter(DOCUMENT.split(f"\n## {heading}\n")[1].splitlines())
    lines = dropwhile(lambda line: not line.startswith("| "), lines)
    lines = list(takewhile(lambda line: line.startswith("| "), lines))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# The tables and examples


def test_refusals_are_those_of_the_gateway_in_its_order():
    """The table of refusals names every status and code in the order of the checks."""
    documented = [(int(row[0]), row[1].strip("`")) for row in rows("Refusals")]
    assert documented == [(refusal.value.status, refusal.value.code) for refusal in Refusal]


def test_endings_are_those_of_the_gateway_with_their_close_codes():
    """The table of endings names every code of the gateway, and its close code."""
    documented = {
        row[0].strip("`"): set(map(int, re.findall(r"\b1\d{3}\b", row[4])))
        for row in rows("How an utterance ends")
    }
    rules = [ending.value for ending in (*Ending, *Failure)]
    assert documented.keys() == {rule.code for rule in rules}
    seen_by_client = [rule for rule in rules if rule.code != "disconnect"]
    assert [
        rule.code for rule in seen_by_client if rule.close_code not in documented[rule.code]
    ] == []


def test_endings_that_may_be_repeated_are_marked():
    """The last column says yes exactly where the gateway's error says retryable."""
    marked = {row[0].strip("`") for row in rows("How an utterance ends") if row[5] == "yes"}
    assert marked == {rule.value.code for rule in (*Ending, *Failure) if rule.value.retryable}


def test_examples_are_messages_of_the_gateway():
    """Each JSON example is what the gateway sends for these values, key for key."""
    identity = "7d5a1c3e-7a51-4f0a-9f0e-0c6f3d6f1b52"
    samples = SAMPLE.read_bytes()
    messages = [
        Connected(identity, Limits(65536, 1572820, 200, 10, 60)),
        Draining(identity, 20000),
        Accepted(
            identity,
            "0b0f6d2c-5a5e-4bb1-8f0c-5d1f7a1b9e11",
            "speech.audio.ingress",
            0,
            41,
            len(samples),
            2786,
            hashlib.sha256(samples).hexdigest(),
            "done",
        ),
        Failed(
            identity,
            "audio_too_long",
            Ending.AUDIO_TOO_LONG.value.message,
            retryable=False,
            stored="no",
            limit=1572820,
            observed=1576000,
        ),
    ]
    assert list(map(json.loads, fenced("json"))) == [json.loads(m.to_json()) for m in messages]


# The clients

Run = Callable[..., subprocess.CompletedProcess[str]]


def finished(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(  # noqa: S603 - commands of this file
        command, check=False, capture_output=True, text=True, timeout=RUN_TIMEOUT_SECONDS
    )


@pytest.fixture
def gateway(pipeline: Pipeline, tmp_path: Path) -> Iterator[stack.Gateway]:
    """Run a gateway that takes one client at a time."""
    settings = {
        "MAX_CONNECTIONS": "1",
        "TOPIC_AUDIO_INGRESS": pipeline.make_topic("ingress"),
    }
    with stack.gateway(pipeline, tmp_path, settings) as running:
        yield running


@pytest.fixture
def python_client(tmp_path: Path) -> list[str]:
    """Return the command of the document's Python client."""
    (script,) = fenced("python")
    path = tmp_path / "client.py"
    path.write_text(script)
    return [sys.executable, "-W", "error", str(path)]


@pytest.fixture
def javascript_client(tmp_path: Path) -> list[str]:
    """Return the command that runs the document's JavaScript client."""
    (script,) = fenced("javascript")
    path = tmp_path / "client.mjs"
    path.write_text(script)
    return [*node_with_websocket(), str(Path(__file__).parent / "clients" / "speak.mjs"), str(path)]


def node_with_websocket() -> list[str]:
    """Return the command of a Node that has the standard WebSocket; skip without one."""
    if node := shutil.which("node"):
        for options in ([], ["--experimental-websocket"]):  # the latter is for Node 20 and 21
            probe = [node, *options, "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"]
            if finished(probe).returncode == 0:
                return [node, *options]
    pytest.skip("the JavaScript client needs Node 20 or newer on PATH")


@pytest.fixture(params=["python_client", "javascript_client"])
def documented_client(request: pytest.FixtureRequest) -> Run:
    """Return a function that runs one of the clients to its end."""
    command: list[str] = request.getfixturevalue(request.param)

    def run(url: str, file: Path) -> subprocess.CompletedProcess[str]:
        return finished([*command, url, str(file)])

    return run


@pytest.mark.pipeline
def test_client_gets_a_receipt_for_what_it_sent(documented_client: Run, gateway: stack.Gateway):
    """The client sends the sample and prints the receipt for these very samples."""
    done = documented_client(f"{gateway.url}?language=en-US", SAMPLE)
    final = json.loads(done.stdout)
    sent = SAMPLE.read_bytes()
    assert (final["status"], final["ended_by"], final["audio_bytes"], final["sha256"]) == (
        "accepted",
        "done",
        len(sent),
        hashlib.sha256(sent).hexdigest(),
    )


@pytest.mark.pipeline
def test_client_waits_for_a_place(documented_client: Run, gateway: stack.Gateway):
    """Refused for want of a place, the client comes back, and its utterance is stored."""
    with connect(gateway.url) as occupant:
        occupant.recv()
        leave = threading.Timer(1.0, occupant.close)
        leave.start()
        begun = time.monotonic()
        done = documented_client(gateway.url, SAMPLE)
        leave.join()
    assert json.loads(done.stdout)["status"] == "accepted"
    assert time.monotonic() - begun > 1.0


@pytest.mark.pipeline
def test_client_does_not_repeat_what_is_refused_for_good(
    documented_client: Run, gateway: stack.Gateway
):
    """A file with a container ends in the gateway's verdict, once."""
    wav = ROOT / "samples" / "sense-and-sensibility-0870.wav"
    done = documented_client(gateway.url, wav)
    assert '"code":"unsupported_audio"' in (done.stdout + done.stderr).replace('": "', '":"')


@pytest.mark.pipeline
def test_client_does_not_send_more_than_the_gateway_takes(
    documented_client: Run, gateway: stack.Gateway, tmp_path: Path
):
    """A recording over `max_audio_bytes` is refused by the client itself, before it is sent."""
    long = tmp_path / "long.raw"
    long.write_bytes(bytes(1_572_822))
    done = documented_client(gateway.url, long)
    assert "the recording is longer than the gateway takes" in done.stdout + done.stderr


@pytest.mark.pipeline
def test_python_client_shows_a_permanent_refusal(python_client: list[str], gateway: stack.Gateway):
    """A refused request is not repeated, and its JSON body is shown."""
    done = finished([*python_client, f"{gateway.url}?language=not!a!tag", str(SAMPLE)])
    assert done.returncode == 1
    assert done.stderr == f"refused for good: {Refusal.INVALID_LANGUAGE.value.body().decode()}\n"
