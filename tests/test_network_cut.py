"""The network is cut while clients speak, who say again what has no receipt: nothing is doubled."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord
from speech_tools import stack
from speech_tools.protocol import audio, client
from speech_tools.protocol.client import Hooks, StreamError, Wanted
from support import whole_topic
from support.ledger import Entry
from support.proxy import Fault, Proxy
from support.waiting import until

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(600)]

SENTENCE = audio.load(
    Path(__file__).parent.parent / "samples" / "sense-and-sensibility-0870.wav"
).pcm
UTTERANCES = 200
SPOKEN_BYTES = 12_800
CLIENTS = 8
CUT_OFF = 2
"""So many receipts at least must be lost."""
IDLE_SECONDS = "2"
PATIENCE_SECONDS = 5.0
PAUSE_SECONDS = 0.2
CALM_SECONDS = 120.0


def utterances() -> dict[str, bytes]:
    """Return what is said, by the name that its client gives it; no two say the same."""
    step = (len(SENTENCE) - SPOKEN_BYTES) // UTTERANCES // 2 * 2
    return {f"note-{i}": SENTENCE[i * step : i * step + SPOKEN_BYTES] for i in range(UTTERANCES)}


@dataclass
class Speakers:
    """Clients that say each utterance until it is accepted, as docs/protocol.md tells them to.

    Attributes:
        url: Of the gateway.
        attempts: How often each has been said.
        accepted: Whose receipt has come.
        speaking: Who is in the middle of an utterance.
    """

    url: str
    attempts: Counter[str] = field(default_factory=Counter)
    accepted: set[str] = field(default_factory=set)
    speaking: set[str] = field(default_factory=set)

    async def say_all(self, said: dict[str, bytes]) -> None:
        left = iter(said.items())

        async def one_client() -> None:
            for name, pcm in left:
                await self._say_until_accepted(name, pcm)

        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(one_client())

    async def _say_until_accepted(self, name: str, pcm: bytes) -> None:
        await self._say(name, pcm)
        while name not in self.accepted:
            await asyncio.sleep(PAUSE_SECONDS)  # a client's, which knows of nothing to wait for
            await self._say(name, pcm)

    async def _say(self, name: str, pcm: bytes) -> None:
        """Say it once, at the pace of speech."""
        self.attempts[name] += 1
        wanted = Wanted(client_ref=name, discard=True)

        def progress(sent: int) -> None:
            (self.speaking.add if sent < len(pcm) else self.speaking.discard)(name)

        hooks = Hooks(progress=progress)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                outcome = await client.stream(self.url, pcm, paced=True, wanted=wanted, hooks=hooks)
        except (StreamError, TimeoutError):
            return
        finally:
            self.speaking.discard(name)
        if outcome.final["status"] == "accepted":
            self.accepted.add(name)


@dataclass(frozen=True)
class Network:
    """What lies between the clients and the gateway, and what lies behind it."""

    proxy: Proxy
    gateway: stack.Gateway
    recogniser: stack.Process

    @property
    def url(self) -> str:
        return urlsplit(self.gateway.url)._replace(netloc=f"127.0.0.1:{self.proxy.port}").geturl()

    @contextmanager
    def cut(self, fault: Fault) -> Iterator[None]:
        """Injure it for a while; what was open then is broken for good."""
        self.proxy.fault = fault
        try:
            yield
        finally:
            self.proxy.fault = "none"
            self.proxy.break_all()


@pytest.fixture
def network(pipeline, topics, logs) -> Iterator[Network]:
    """A gateway that is ready, behind a network that is whole, and a recogniser."""
    with ExitStack() as running:
        settings = {
            **topics.names,
            **stack.MANY_FROM_ONE_ADDRESS,
            "IDLE_TIMEOUT_SECONDS": IDLE_SECONDS,
        }
        gateway = running.enter_context(stack.gateway(pipeline, logs, settings))
        recogniser = running.enter_context(stack.recogniser(pipeline, logs, topics.names))
        port = urlsplit(gateway.url).port
        assert port is not None
        proxy = Proxy(target=port)
        running.callback(proxy.close)
        yield Network(proxy, gateway, recogniser)


def by_name(records: Sequence[ReceivedRecord]) -> dict[str, list[ReceivedRecord]]:
    """Put the records of each utterance together, as whoever counts by `client_ref` does."""
    found: dict[str, list[ReceivedRecord]] = {}
    for record in records:
        found.setdefault(record.headers[headers.CLIENT_REF], []).append(record)
    return found


def cut_twice(network: Network, speakers: Speakers, stored_now: Callable[[], int]) -> None:
    """Lose receipts for a while, and later everything, each time while half of the clients speak.

    The first cut lasts until some are stored that nobody is told of, the second one until the
    gateway has given up a client in the middle of an utterance as idle.
    """
    given_up = partial(network.gateway.process.wait_for, event="session", ended_by="idle_timeout")

    def wait_until_half_speak(accepted: int) -> None:
        until(
            lambda: len(speakers.accepted) > accepted and len(speakers.speaking) >= CLIENTS // 2,
            seconds=CALM_SECONDS,
            every=0.01,
        )

    wait_until_half_speak(UTTERANCES // 3)
    with network.cut("lose answers"):
        until(lambda: stored_now() >= len(speakers.accepted) + CUT_OFF, seconds=CALM_SECONDS)
    wait_until_half_speak(2 * UTTERANCES // 3)
    with network.cut("swallow"):
        until(given_up, lambda line: line["messages"], seconds=CALM_SECONDS)


def test_a_cut_network_loses_and_doubles_nothing(network, topics):
    """Cut twice among 200 utterances: each has its text, and counted by `client_ref` one.

    What was stored without a receipt is said again. Of what the cut broke in the middle nothing is
    stored: every record is whole.
    """
    kafka, said = topics.kafka, utterances()
    audio_topic, text_topic, dead_topic, _ = topics.names.values()
    speakers = Speakers(network.url)
    stored_now = partial(whole_topic.count, kafka, audio_topic)

    async def speak() -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(speakers.say_all(said))
            both.create_task(asyncio.to_thread(cut_twice, network, speakers, stored_now))

    asyncio.run(speak())
    stored = whole_topic.read(kafka, audio_topic)
    for _ in stored:
        network.recogniser.wait_for(event="utterance")
    texts = whole_topic.read(kafka, text_topic)
    print(  # noqa: T201  # with -rP
        f"{UTTERANCES} utterances, {speakers.attempts.total()} attempts, "
        f"{len(stored)} records of audio, {len(texts)} of text"
    )
    heard = {
        name: {Entry.of(each).pcm for each in records} for name, records in by_name(stored).items()
    }
    assert heard == {name: {pcm} for name, pcm in said.items()}
    assert by_name(texts).keys() == said.keys()
    assert whole_topic.count(kafka, dead_topic) == 0
    assert len(stored) >= UTTERANCES + CUT_OFF, "nothing was said again that had been stored"
