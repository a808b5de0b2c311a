"""Many replicas behind the edge: each is used, none that refuses is, and a rollout cuts nobody."""

import asyncio
import os
import random
import secrets
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.request import urlopen

import pytest
from packaging.version import Version
from speech_gateway import wav
from speech_lib.kafka.settings import KafkaSettings
from speech_tools.protocol import audio
from speech_tools.speakers import Tape
from support import compose, conformance, whole_topic
from support.browsing import browse
from support.fleet import Door, Speakers, live, replicas
from support.ledger import Entry, Findings, audit
from support.waiting import until

ROOT_CERTIFICATE = "/data/caddy/pki/authorities/local/root.crt"
KEY = secrets.token_urlsafe(32)
REPLICAS, LIMIT, CLIENTS, SAYING = 3, 10, 20, 4
OLDEST_CADDY = Version("2.11.7")
STRANGE_TRUST = ssl._create_unverified_context()  # noqa: S323 - a new edge has a new authority
RETRY_SECONDS = 1
FULL = (503, "at_capacity", str(RETRY_SECONDS))
SESSION_SECONDS, DELIVERY_SECONDS = 8, 5
ROLLOUT_SECONDS = 300
ABOUT_A_MINUTE = 60
SETTINGS = {
    "EDGE_API_KEY": KEY,
    "EDGE_PAGE": "on",
    "RESULTS": "on",
    "ORIGIN_ALLOWLIST": "none,https://localhost:{EDGE_PORT}",
    "DRAIN_SECONDS": "65",
    "MAX_SESSION_SECONDS": str(SESSION_SECONDS),
    "DELIVERY_TIMEOUT_SECONDS": str(DELIVERY_SECONDS),
    "ASR_ENGINE": "pocketsphinx",
    "ASR_WORKERS": "1",
}
SENTENCE = compose.ROOT / "samples" / "sense-and-sensibility-0870.wav"
pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run on asyncio alone."""
    return "asyncio"


@pytest.fixture(scope="module")
def stack(bring_up_fleet) -> Any:
    """Return a developer's stack with three gateways of ten clients each, behind the edge."""
    return bring_up_fleet(REPLICAS, **SETTINGS)


@pytest.fixture
def door(stack) -> Door:
    """Return the way in; there are three idle gateways, all of them used by the edge."""
    become(stack, [0] * REPLICAS)
    return Door(f"wss://localhost:{stack.ports['EDGE_PORT']}/ws/audio", KEY, STRANGE_TRUST)


def become(stack: Any, sessions: list[int]) -> None:
    """Wait until the gateways have so many sessions each; they tell it once a second."""
    until(lambda: live(stack), sessions.__eq__, seconds=ABOUT_A_MINUTE)


def topic(stack: Any, name: str) -> list[Any]:
    """Return what a topic holds."""
    servers = f"localhost:{stack.ports['KAFKA_HOST_PORT']}"
    return whole_topic.read(KafkaSettings(bootstrap_servers=servers), name)


def utterances(stack: Any) -> list[Entry]:
    """Return what the topic of utterances holds."""
    return [Entry.of(each) for each in topic(stack, "speech.audio.ingress")]


@asynccontextmanager
async def speaking(door: Door, clients: int = CLIENTS, **more: Any) -> AsyncIterator[Speakers]:
    """Let clients speak from before what happens until after it."""
    speakers = Speakers(door, random.Random(clients), **more)  # noqa: S311 - samples, not secrets
    task = asyncio.create_task(speakers.speak(clients))
    try:
        await some_more(speakers, clients)
        yield speakers
        await some_more(speakers, clients)
    finally:
        speakers.stop()
        await task


async def some_more(speakers: Speakers, count: int) -> None:
    """Wait until so many more are accepted."""
    wanted = speakers.accepted + count
    await asyncio.to_thread(
        until, lambda: speakers.accepted >= wanted, seconds=ABOUT_A_MINUTE, every=0.2
    )


def told(speakers: Speakers, entries: list[Entry]) -> Findings:
    """Compare what these were told with their part of the topic."""
    own = {each.correlation_id for each in speakers.operations}
    return audit(speakers.operations, [each for each in entries if each.correlation_id in own])


async def test_the_edge_is_a_caddy_that_can_do_this(stack):
    """Older ones cut streams, or cannot try again by a response's status."""
    said = stack.container("edge").exec_run(["caddy", "version"]).output.decode()
    assert Version(said.split()[0]) >= OLDEST_CADDY


@pytest.fixture
def recognisers(stack) -> Iterator[None]:
    """Have two recognisers for a test, and then none: what others say is noise, and much."""
    scale(stack, "asr-service", 2, build=True)
    yield
    scale(stack, "asr-service", 0)


async def come_and_go(stack: Any, speakers: Speakers) -> None:
    """Have four recognisers, and later one."""
    for count in (4, 1):
        await asyncio.to_thread(scale, stack, "asr-service", count)
        await some_more(speakers, SAYING)


@pytest.mark.usefixtures("recognisers")
@pytest.mark.parametrize("change", ["recognisers", "gateways"])
async def test_everybody_gets_the_text_meanwhile(stack, door, change):
    """Recognisers come and go, or all gateways are replaced: on each connection there is a text."""
    tape = Tape.of(compose.ROOT / "samples")
    async with speaking(door, SAYING, tape=tape, query="?results=text") as speakers:
        if change == "gateways":
            await replace_gateways(stack)
        else:
            await come_and_go(stack, speakers)
    own = {each.correlation_id for each in speakers.operations}
    texts = [each for each in topic(stack, "speech.asr.text") if each.key.decode() in own]
    print(f"{change}: {len(own)} utterances, {len(texts) - len(own)} texts twice")  # noqa: T201
    assert {each.key.decode() for each in texts} == own
    assert speakers.texts == {"recognized": len(speakers.operations)}
    assert speakers.closes == {1000: len(speakers.operations)}
    assert told(speakers, utterances(stack)) == Findings()


@pytest.mark.usefixtures("recognisers")
def test_the_protocol_holds_through_the_edge_before_three_gateways(stack, door, tmp_path):
    """By `speech conformance`, over TLS, with a key, with the gateway's clocks."""
    shown = stack.container("edge").exec_run(["cat", ROOT_CERTIFICATE])
    assert shown.exit_code == 0
    authority = tmp_path / "root.crt"
    authority.write_bytes(shown.output)
    trust = {"SPEECH_API_KEY": KEY, "SSL_CERT_FILE": str(authority)}
    seen = conformance.passed(conformance.held(door.url, "--slow", **trust))
    assert seen >= {"what-the-gateway-sends/recognized", "how-an-utterance-ends/session_expired"}


@pytest.mark.usefixtures("recognisers")
def test_the_page_takes_a_key_and_speaks(stack, door, tmp_path):
    """Without a key anybody gets the page, and nobody speaks; with one the text comes."""
    steps = [("open", "/"), ("click", None), ("state", "error"), ("type", KEY), ("click", None)]
    steps += [("heard_more", 4), ("click", None), ("state", ["done", "error"])]
    somebody_who_speaks_on = tmp_path / "sound.wav"
    somebody_who_speaks_on.write_bytes(wav.wrap(10 * audio.load(SENTENCE).pcm))
    seen = browse(door.origin, steps, sound=str(somebody_who_speaks_on))
    assert (seen.state, seen.message, seen.live) == ("done", "", 0)
    assert seen.transcript
    stored = {each.correlation_id: each for each in utterances(stack)}
    joined = b"".join(stored[each].pcm for each in seen.receipts)
    assert joined
    assert seen.made.endswith(joined)


def test_the_page_may_load_and_reach_its_own_origin_alone(door):
    """Whatever is injected into it has nowhere to send the key."""
    with urlopen(f"{door.origin}/?key", context=STRANGE_TRUST) as answer:  # noqa: S310 - https
        headers = answer.headers
    assert headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert (headers["X-Content-Type-Options"], headers["Server"]) == ("nosniff", None)


async def test_each_replica_is_filled_and_then_the_gateway_says_so(stack, door):
    """Thirty at once are ten each; the next is refused in the gateway's words, and told when."""
    async with AsyncExitStack() as held:
        opening = (held.enter_async_context(door.open()) for _ in range(REPLICAS * LIMIT))
        connections = await asyncio.gather(*opening)
        become(stack, [LIMIT] * REPLICAS)
        # Also while the edge knows that all are full.
        assert [await door.refusal() for _ in range(3)] == [FULL] * 3
        assert await asyncio.gather(*(door.refusal() for _ in range(10))) == [FULL] * 10
        await connections[0].close()
        await asyncio.sleep(RETRY_SECONDS)  # as the refusal says; then the slot is given again
        await admit(door, 1)


async def admit(door: Door, count: int) -> None:
    """Check that so many clients are let in at once."""
    async with AsyncExitStack() as held:
        await asyncio.gather(*(held.enter_async_context(door.open()) for _ in range(count)))


@asynccontextmanager
async def one_less(stack: Any, injure: Callable[[Any], Any]) -> AsyncIterator[Any]:
    """Injure one replica; afterwards there are as many as before."""
    injured = replicas(stack, "gateway-service")[0]
    try:
        await asyncio.to_thread(injure, injured)
        yield injured
    finally:
        await asyncio.to_thread(injured.remove, force=True)
        await asyncio.to_thread(scale, stack, "gateway-service", REPLICAS)


def scale(stack: Any, service: str, count: int, *, build: bool = False) -> None:
    """Have so many replicas of a service."""
    up = ("up", "--build" if build else "--no-build", "--no-recreate", "--no-deps", "--wait")
    done = stack.compose(*up, "--scale", f"{service}={count}", service)
    assert done.returncode == 0, done.stderr


async def test_a_draining_replica_gets_nobody(stack, door):
    """It has the fewest clients, and refuses each: all who come are let in elsewhere, at once."""
    async with AsyncExitStack() as held:
        opening = (held.enter_async_context(door.open()) for _ in range(REPLICAS))
        await asyncio.gather(*opening)  # so that it has whom to wait for
        async with one_less(stack, lambda each: each.kill("SIGTERM")) as injured:
            began = time.monotonic()
            while time.monotonic() - began < 3:
                await admit(door, LIMIT)
            injured.reload()
            assert injured.status == "running"


async def test_a_dead_replica_gets_nobody(stack, door):
    """Killed, or with its network cut so that nobody answers: all others are let in within 2 s."""
    name = f"{stack.name}_ingress"
    async with one_less(stack, lambda each: stack.client.networks.get(name).disconnect(each)):
        await asyncio.sleep(2)
        await admit(door, 2 * LIMIT)
    become(stack, [0] * REPLICAS)
    async with one_less(stack, lambda each: each.kill("SIGKILL")):
        await asyncio.sleep(2)
        await admit(door, 2 * LIMIT)


async def test_a_new_replica_is_used(stack, door):
    """A fourth takes its share of those who come three seconds after it is ready."""
    try:
        scale(stack, "gateway-service", REPLICAS + 1)
        await asyncio.sleep(3)
        async with AsyncExitStack() as held:
            opening = (held.enter_async_context(door.open()) for _ in range(4 * (REPLICAS + 1)))
            await asyncio.gather(*opening)
            become(stack, [4] * (REPLICAS + 1))
    finally:
        scale(stack, "gateway-service", REPLICAS)


async def replace_gateways(stack: Any) -> None:
    """Replace each by `scripts/rollout`, as an operator does."""
    before = {each.id for each in replicas(stack, "gateway-service")}
    environment = stack.environment() | {
        "COMPOSE_PROJECT_NAME": stack.name,
        "COMPOSE_ENV_FILES": os.devnull,
    }
    done = await asyncio.to_thread(
        subprocess.run,
        [compose.ROOT / "scripts" / "rollout", "gateway-service"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=ROLLOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    after = {each.id for each in replicas(stack, "gateway-service")}
    assert (len(after), before & after) == (REPLICAS, set())


async def replace_edge(stack: Any) -> None:
    """Replace the edge."""
    before = stack.container("edge").id
    up = ("up", "--no-build", "--no-deps", "--force-recreate", "--wait", "edge")
    done = await asyncio.to_thread(stack.compose, *up)
    assert done.returncode == 0, done.stderr
    assert stack.container("edge").id != before


@pytest.mark.parametrize("replace", [replace_gateways, replace_edge], ids=["gateways", "edge"])
async def test_a_rollout_cuts_nobody(stack, door, replace: Callable[[Any], Awaitable[None]]):
    """Each utterance of twenty speakers is stored once, and every connection ends with 1000."""
    async with speaking(door) as speakers:
        began = time.monotonic()
        await replace(stack)
        seconds = time.monotonic() - began
    print(  # noqa: T201  # with -rP
        f"{replace.__name__}: {seconds:.0f} s, {speakers.accepted} accepted,"
        f" refused {dict(speakers.refusals)}"
    )
    assert set(speakers.closes) == {1000}
    assert speakers.accepted == len(speakers.operations)
    assert told(speakers, utterances(stack)) == Findings()


async def test_a_killed_gateway_loses_nothing_that_was_accepted(stack, door):
    """Those who speak to it are cut, and know that they have no answer; the others go on."""
    async with (
        speaking(door) as speakers,
        one_less(stack, lambda each: each.kill("SIGKILL")),
    ):
        await some_more(speakers, CLIENTS)
    found = told(speakers, utterances(stack))
    assert found == Findings(unanswered=found.unanswered)
    assert set(speakers.closes) <= {1000, 1006}
    assert len(found.unanswered) == speakers.closes[1006] <= LIMIT
