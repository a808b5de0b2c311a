"""The clients of `docs/protocol.md` and `docs/clients`, run for real where their toolchains are."""

import asyncio
import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from speech_gateway.handshake import Refusal
from speech_gateway.messages import SUBPROTOCOL, Accepted, Connected
from speech_gateway.testing import CONFIG, LIMITS, run_server
from speech_gateway.testing import until as loop_until
from speech_lib.kafka.headers import is_client_ref
from speech_lib.testing.pipeline import Pipeline
from speech_tools import stack
from support import whole_topic
from support.documents import parse
from support.proxy import Proxy
from support.topics import Topics
from support.waiting import until
from websockets.asyncio.server import ServerConnection, serve
from websockets.sync.client import connect
from websockets.typing import Subprotocol

pytestmark = pytest.mark.pipeline

ROOT = Path(__file__).parent.parent
BLOCKS = parse((ROOT / "docs" / "protocol.md").read_text()).blocks
SAMPLE = ROOT / "samples" / "go-forward-ten-meters.raw"
SPEECH = SAMPLE.read_bytes()
PROTOCOLS = [Subprotocol(SUBPROTOCOL)]
RUN_TIMEOUT_SECONDS = 45
BUILD_SECONDS = 240
START_SECONDS = 20.0

Run = Callable[..., subprocess.CompletedProcess[str]]


def code(language: str) -> str:
    """Return the document's only block of one language."""
    (text,) = (block.text for block in BLOCKS if block.language == language)
    return text


def sha256(samples: bytes) -> str:
    return hashlib.sha256(samples).hexdigest()


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
    path = tmp_path / "client.py"
    path.write_text(code("python"))
    return [sys.executable, "-W", "error", str(path)]


@pytest.fixture
def javascript_client(tmp_path: Path) -> list[str]:
    """Return the command that runs the document's JavaScript client."""
    path = tmp_path / "client.mjs"
    path.write_text(code("javascript"))
    return [*node_with_websocket(), str(Path(__file__).parent / "clients" / "speak.mjs"), str(path)]


def node_with_websocket() -> list[str]:
    """Return the command of a Node that has the standard WebSocket; skip without one."""
    if node := shutil.which("node"):
        for options in ([], ["--experimental-websocket"]):  # the latter is for Node 20 and 21
            probe = [node, *options, "-e", "process.exit(typeof WebSocket === 'function' ? 0 : 1)"]
            if finished(probe).returncode == 0:
                return [node, *options]
    pytest.skip("the JavaScript client needs Node 20 or newer on PATH")


SAMPLES = ROOT / "docs" / "clients"


def built(folder: Path, sample: str, *command: str) -> Path:
    """Copy a sample, and build it there by its own tools; skip without them."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]} on PATH")
    there = folder / sample
    ignore = shutil.ignore_patterns("node_modules", "target")
    shutil.copytree(SAMPLES / sample, there, ignore=ignore, dirs_exist_ok=True)
    done = subprocess.run(  # noqa: S603 - commands of this file
        command, cwd=there, check=False, capture_output=True, text=True, timeout=BUILD_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return there


@pytest.fixture(scope="session")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the command of the client in Go."""
    there = built(tmp_path_factory.mktemp("clients"), "go", "go", "build", "-o", "client", ".")
    return [str(there / "client")]


@pytest.fixture(scope="session")
def kotlin_client(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the command of the client in Kotlin."""
    if shutil.which("java") is None:
        pytest.skip("needs Java 17 or newer")
    there = built(tmp_path_factory.mktemp("clients"), "kotlin", "mvn", "-q", "-B", "package")
    return ["java", "-XX:TieredStopAtLevel=1", "-jar", str(there / "target" / "client.jar")]


@pytest.fixture(scope="session")
def node_client(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the command of the client for Node."""
    command = ("npm", "ci", "--ignore-scripts", "--no-fund", "--no-audit")
    there = built(tmp_path_factory.mktemp("clients"), "node", *command)
    return ["node", str(there / "client.mjs")]


@pytest.fixture(scope="session")
def shell_client() -> list[str]:
    """Return the command of the client in the shell."""
    if missing := [each for each in ("websocat", "jq", "curl") if shutil.which(each) is None]:
        pytest.skip(f"needs {missing[0]} on PATH")
    return ["bash", str(SAMPLES / "speak.sh")]


COMMANDS = ["python_client", "go_client", "kotlin_client", "node_client", "shell_client"]
"""Of the clients that are commands: each takes a URL and a file."""


@pytest.fixture(params=[*COMMANDS, "javascript_client"])
def documented_client(request: pytest.FixtureRequest) -> Run:
    """Return a function that runs one of the clients to its end."""
    command: list[str] = request.getfixturevalue(request.param)

    def run(url: str, file: Path) -> subprocess.CompletedProcess[str]:
        return finished([*command, url, str(file)])

    return run


def test_client_gets_a_receipt_for_what_it_sent(documented_client: Run, gateway: stack.Gateway):
    """The client sends the sample and prints the receipt for these very samples."""
    done = documented_client(f"{gateway.url}?language=en-US", SAMPLE)
    final = json.loads(done.stdout.splitlines()[0])
    assert (final["status"], final["ended_by"], final["audio_bytes"], final["sha256"]) == (
        "accepted",
        "done",
        len(SPEECH),
        sha256(SPEECH),
    )


def test_client_shows_the_text_that_comes_back(
    documented_client: Run, pipeline: Pipeline, topics: Topics, tmp_path: Path
):
    """With `results=text` the receipt has the text, and the records the client's name."""
    with (
        stack.gateway(pipeline, tmp_path, {**topics.names, "RESULTS": "on"}) as gateway,
        stack.recogniser(pipeline, tmp_path, topics.names),
    ):
        done = documented_client(f"{gateway.url}?results=text", SAMPLE)
    final = json.loads(done.stdout.splitlines()[0])
    assert (final["status"], final["text"]) == ("accepted", "go forward ten meters")
    record = topics.find("TOPIC_ASR_TEXT", final["correlation_id"])
    assert is_client_ref(record.headers["client_ref"])


def test_client_waits_for_a_place(documented_client: Run, gateway: stack.Gateway):
    """Refused for want of a place, the client comes back, and its utterance is stored."""
    with connect(gateway.url) as occupant:
        occupant.recv()
        leave = threading.Timer(1.0, occupant.close)
        leave.start()
        begun = time.monotonic()
        done = documented_client(gateway.url, SAMPLE)
        leave.join()
    assert json.loads(done.stdout.splitlines()[0])["status"] == "accepted"
    assert time.monotonic() - begun > 1.0


def test_client_does_not_repeat_what_is_refused_for_good(
    documented_client: Run, gateway: stack.Gateway
):
    """A file with a container ends in the gateway's verdict, once."""
    wav = ROOT / "samples" / "sense-and-sensibility-0870.wav"
    done = documented_client(gateway.url, wav)
    assert '"code":"unsupported_audio"' in (done.stdout + done.stderr).replace('": "', '":"')


def test_client_does_not_send_more_than_the_gateway_takes(
    documented_client: Run, gateway: stack.Gateway, tmp_path: Path
):
    """A recording over `max_audio_bytes` is refused by the client itself, before it is sent.

    A shell that reads no answers before it has sent everything hears it from the gateway.
    """
    long = tmp_path / "long.raw"
    long.write_bytes(bytes(1_572_822))
    done = documented_client(gateway.url, long)
    told = done.stdout + done.stderr
    assert "the recording is longer than the gateway takes" in told or "audio_too_long" in told


@pytest.mark.parametrize("client", COMMANDS)
def test_client_shows_a_permanent_refusal(
    client: str, request: pytest.FixtureRequest, gateway: stack.Gateway
):
    """A refused request is not repeated, and its JSON body is shown."""
    command = request.getfixturevalue(client)
    done = finished([*command, f"{gateway.url}?language=not!a!tag", str(SAMPLE)])
    assert done.returncode == 1
    assert done.stderr == f"refused for good: {Refusal.INVALID_LANGUAGE.value.body().decode()}\n"


# A gateway that cuts: the real server, with a store that keeps nothing

SLOWLY = replace(LIMITS, max_messages_per_second=1)
CUTS = {
    "session_expired": replace(SLOWLY, max_session_seconds=1.5),
    "shutting_down": SLOWLY,
}


def left_over(done: subprocess.CompletedProcess[str]) -> tuple[dict[str, object], int]:
    """Return the final message that a client printed, and how many bytes it says are left."""
    final, *more = done.stdout.splitlines()
    receipt = json.loads(final)
    if more:  # the JavaScript client, by speak.mjs
        return receipt, json.loads(more[0])["rest"]
    if done.returncode == 0:
        return receipt, 0
    before, _, behind = done.stderr.partition(f"cut off by {receipt['ended_by']}: ")
    count, _, line = behind.partition(" ")
    assert (before, line, done.returncode) == ("", "bytes are not stored\n", 1)
    return receipt, int(count)


@asynccontextmanager
async def cutting(ending: str) -> AsyncIterator[str]:
    """Run a gateway that takes a message a second and ends each utterance so; yield its URL."""
    async with run_server(replace(CONFIG, limits=CUTS[ending])) as server:

        async def stop() -> None:
            await loop_until(lambda: server.live > 0, START_SECONDS)
            server.drain(2.5)

        async with asyncio.TaskGroup() as group:
            if ending == "shutting_down":
                group.create_task(stop())
            yield server.url


@pytest.mark.anyio
@pytest.mark.parametrize("ending", CUTS)
async def test_client_says_what_a_cut_has_left(documented_client: Run, ending: str):
    """Cut off by the gateway, the client reports no success: it says how much is not stored."""
    async with cutting(ending) as url:
        done = await asyncio.to_thread(documented_client, url, SAMPLE)
    receipt, rest = left_over(done)
    stored = len(SPEECH) - rest
    assert 0 < stored < len(SPEECH)
    assert (receipt["status"], receipt["ended_by"], receipt["audio_bytes"], receipt["sha256"]) == (
        "accepted",
        ending,
        stored,
        sha256(SPEECH[:stored]),
    )


@pytest.mark.anyio
async def test_client_has_nothing_left_after_done(documented_client: Run):
    """Stored to its end, an utterance leaves no rest, and that is success."""
    async with run_server() as server:
        done = await asyncio.to_thread(documented_client, server.url, SAMPLE)
    receipt, rest = left_over(done)
    assert (receipt["ended_by"], rest, done.returncode) == ("done", 0, 0)


@pytest.mark.anyio
async def test_websocat_speaks_an_utterance():
    """The command of the document prints the receipt for the whole sample."""
    async with run_server() as server:
        command = code("sh").replace("ws://localhost:8000/ws/audio", server.url)
        done = await asyncio.to_thread(finished, ["bash", "-c", f"cd '{ROOT}' && {command}"])
    final = json.loads(done.stdout.splitlines()[-1])
    assert (final["ended_by"], final["sha256"]) == ("done", sha256(SPEECH))


# A network that breaks


@pytest.mark.parametrize("client", COMMANDS)
def test_what_breaks_in_the_middle_is_said_again_under_the_same_name(
    client: str, request: pytest.FixtureRequest, pipeline: Pipeline, topics: Topics, tmp_path: Path
):
    """Whoever counts by `client_ref` counts one, and it is whole."""
    command = request.getfixturevalue(client)
    with stack.gateway(pipeline, tmp_path, topics.names) as gateway:
        there = urlsplit(gateway.url)
        assert there.port is not None
        proxy = Proxy(target=there.port)

        def break_in_the_middle() -> None:
            until(lambda: proxy.passed_on > len(SPEECH) // 2, seconds=START_SECONDS, every=0.001)
            proxy.break_all()

        broken = threading.Thread(target=break_in_the_middle)
        broken.start()
        try:
            url = there._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()
            done = finished([*command, url, str(SAMPLE)])
        finally:
            broken.join()
            proxy.close()
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout)
    record = topics.find("TOPIC_AUDIO_INGRESS", receipt["correlation_id"])
    every = whole_topic.read(topics.kafka, topics.names["TOPIC_AUDIO_INGRESS"])
    names = [each.headers["client_ref"] for each in every]
    assert names.count(record.headers["client_ref"]) == 1
    assert receipt["sha256"] == sha256(SPEECH)


# Answers that our gateway never gives


def receipt(samples: bytes) -> Accepted:
    return Accepted("id", "event", "topic", 0, 0, len(samples), 0, sha256(samples), "done")


@asynccontextmanager
async def answering(*messages: str) -> AsyncIterator[str]:
    """Greet like the gateway, and answer `done` with these messages; yield the URL."""

    async def handle(client: ServerConnection) -> None:
        await client.send(Connected("id", LIMITS).to_json())
        async for message in client:
            if isinstance(message, str):
                break
        for answer in messages:
            await client.send(answer)

    async with serve(handle, "127.0.0.1", 0, subprotocols=PROTOCOLS) as server:
        (listener,) = server.sockets
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "wrong",
    [
        replace(receipt(SPEECH), sha256=sha256(SPEECH[:-2])),
        replace(receipt(SPEECH), audio_bytes=len(SPEECH) + 2),
    ],
    ids=["other samples", "more samples"],
)
async def test_client_does_not_trust_a_receipt_for_other_audio(
    documented_client: Run, wrong: Accepted
):
    """A receipt that does not describe what was sent is an error, whatever its status."""
    async with answering(wrong.to_json()) as url:
        done = await asyncio.to_thread(documented_client, url, SAMPLE)
    assert "the receipt is not about the audio that was sent" in done.stdout + done.stderr


@pytest.mark.anyio
async def test_client_ignores_a_status_that_it_does_not_know(documented_client: Run):
    """Messages of a later gateway are passed over; the final one is the answer."""
    later = '{"status":"overheard","correlation_id":"id","retryable":true,"stored":"no"}'
    async with answering(later, receipt(SPEECH).to_json()) as url:
        done = await asyncio.to_thread(documented_client, url, SAMPLE)
    assert left_over(done) == (json.loads(receipt(SPEECH).to_json()), 0)
