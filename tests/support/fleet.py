"""Many replicas of a service under compose, and clients who speak to them through the edge.

Used by `tests/e2e/test_fleet.py`. A client does what docs/protocol.md asks: it tries again after a
pause what was refused, and never what may be stored. `ledger` judges what is remembered.
"""

import asyncio
import json
import random
import ssl
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.request import urlopen

from docker.models.containers import Container  # type: ignore[import-untyped]
from speech_lib.events import BYTES_PER_SECOND, SAMPLE_BYTES
from speech_tools.operations import metrics_page
from speech_tools.operations.metrics_page import Page
from speech_tools.speakers import Tape
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from support.compose import Project
from support.ledger import Operation

CHUNK_SECONDS = 0.1
ANSWER_SECONDS = 30
REPLICA_SECONDS = 5
_PAUSE_SECONDS = (0.1, 1.0)
_AWAY = (OSError, TimeoutError, InvalidHandshake, InvalidMessage, EOFError)


def replicas(stack: Project, service: str) -> list[Container]:
    """Return the running containers of a service, oldest first."""
    labels = [
        f"com.docker.compose.project={stack.name}",
        f"com.docker.compose.service={service}",
    ]
    found = stack.client.containers.list(filters={"label": labels})
    return sorted(found, key=lambda each: str(each.attrs["Created"]))


def page(replica: Container, port: int) -> Page:
    """Read the metrics of one replica, by its address on the developer's network."""
    networks = replica.attrs["NetworkSettings"]["Networks"]
    (address,) = (each["IPAddress"] for name, each in networks.items() if name.endswith("_dev"))
    with urlopen(f"http://{address}:{port}/metrics", timeout=REPLICA_SECONDS) as answer:
        return metrics_page.read(answer.read().decode())


def live(stack: Project) -> list[int]:
    """Return how many sessions each gateway has, the fewest first."""
    pages = (page(each, 8001) for each in replicas(stack, "gateway-service"))
    return sorted(int(each.value("speech_gateway_sessions_live") or 0) for each in pages)


@dataclass(frozen=True, slots=True)
class Door:
    """The edge, as clients reach it."""

    url: str
    key: str
    trust: ssl.SSLContext | None

    @property
    def origin(self) -> str:
        """Where the edge has its page."""
        return self.url.replace("wss:", "https:").removesuffix("/ws/audio")

    def open(self, query: str = "") -> connect:
        """Return a connection to be entered."""
        return connect(
            self.url + query,
            ssl=self.trust,
            additional_headers={"X-API-Key": self.key},
            compression=None,
            open_timeout=ANSWER_SECONDS,
        )

    async def refusal(self) -> tuple[int, str, str | None]:
        """Return status, code and Retry-After of a connection that is refused.

        Raises:
            AssertionError: It is admitted.
        """
        try:
            async with self.open():
                raise AssertionError("admitted")
        except InvalidStatus as refused:
            answer = refused.response
            code = json.loads(answer.body or b"{}")["code"]
            return answer.status_code, code, answer.headers.get("Retry-After")


@dataclass
class Speakers:
    """Clients who speak at the pace of speech until they are told to stop.

    Attributes:
        door: Where they go.
        chance: Decides on samples, lengths and pauses.
        seconds: The shortest and the longest utterance.
        tape: What they say; without one it is noise.
        query: What they ask for in the URL.
        operations: Every attempt so far.
        closes: How the connections of those who were let in have ended, by close code.
        texts: What became of the texts, where they are asked for: `recognized`, or an error's code.
        refusals: What the others were told, by code; nobody there is `away`.
    """

    door: Door
    chance: random.Random
    seconds: tuple[float, float] = (0.5, 3.0)
    tape: Tape | None = None
    query: str = ""
    operations: list[Operation] = field(default_factory=list)
    closes: Counter[int | None] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    _begun: int = 0
    _enough: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def accepted(self) -> int:
        """How many utterances have been accepted so far."""
        return sum((each.final or {}).get("status") == "accepted" for each in self.operations)

    async def speak(self, clients: int) -> None:
        """Let so many speak until `stop`; what has been begun then is brought to its end."""
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._speak_on())

    def stop(self) -> None:
        """Have nobody begin another utterance."""
        self._enough.set()

    async def _speak_on(self) -> None:
        await self._pause()
        while not self._enough.is_set():
            self._begun += 1
            pcm = self._utterance(self._begun)
            while not await self._is_let_in(self._begun, pcm) and not self._enough.is_set():
                await self._pause()
            await self._pause()

    def _utterance(self, number: int) -> bytes:
        seconds = self.chance.uniform(*self.seconds)
        if self.tape:
            return self.tape.cut(number, seconds)
        return self.chance.randbytes(int(seconds * BYTES_PER_SECOND) // SAMPLE_BYTES * SAMPLE_BYTES)

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.chance.uniform(*_PAUSE_SECONDS)):
                await self._enough.wait()

    async def _is_let_in(self, number: int, pcm: bytes) -> bool:
        began = time.monotonic()
        try:
            async with self.door.open(self.query) as connection:
                frames = await self._say(connection, pcm)
        except InvalidStatus as refused:
            self.refusals[_code(refused)] += 1
            return False
        except _AWAY as error:
            self.refusals[f"away: {type(error).__name__}"] += 1
            return False
        self.closes[connection.close_code] += 1
        final = next((each for each in frames if each["status"] in {"accepted", "error"}), None)
        for last in frames[-1:]:
            if self.query and last is not final:
                self.texts[last.get("code", last["status"])] += 1
        name = frames[0]["correlation_id"] if frames else None
        self.operations.append(Operation(number, pcm, True, name, final, began, time.monotonic()))
        return True

    async def _say(self, connection: ClientConnection, pcm: bytes) -> list[dict[str, Any]]:
        """Speak as a microphone does; return the gateway's messages."""
        listening = asyncio.create_task(_messages(connection))
        with suppress(ConnectionClosed):
            size = int(CHUNK_SECONDS * BYTES_PER_SECOND)
            for start in range(0, len(pcm), size):
                await connection.send(pcm[start : start + size])
                await asyncio.sleep(CHUNK_SECONDS)  # the pace of speech
            await connection.send('{"event": "done"}')
        return await asyncio.wait_for(listening, ANSWER_SECONDS)


async def _messages(connection: ClientConnection) -> list[dict[str, Any]]:
    frames = []
    with suppress(ConnectionClosed):
        async for message in connection:
            frames.append(json.loads(message))  # noqa: PERF401 - what came before the end counts
    return frames


def _code(refused: InvalidStatus) -> str:
    answer = refused.response
    if not answer.body:
        return f"bare {answer.status_code}, {dict(answer.headers.raw_items())}"
    return str(json.loads(answer.body)["code"])
