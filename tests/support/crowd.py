"""Many clients who speak until they are told to stop, and remember every attempt.

Each does what `docs/protocol.md` asks of a client: what was refused, or is surely not stored, is
said again after a pause; what may be stored is not, because that could store it twice. Used by the
tests under faults; `ledger` judges what is remembered.
"""

import asyncio
import random
import time
from dataclasses import dataclass, field

from speech_tools import client
from speech_tools.audio import SAMPLE_BYTES, SAMPLE_RATE_HZ

from support.ledger import Operation, Verdict

SHORT_SECONDS = (0.1, 3.0)
LONG_SECONDS = (10.0, 30.0)
LONG_SHARE = 0.03
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 4.0


@dataclass
class Crowd:
    """Clients at one gateway, and all that they have tried.

    Attributes:
        url: Of the gateway, `ws://HOST:PORT/ws/audio`; it may come and go.
        chance: Decides on lengths, samples and pauses.
        clients: How many speak at once.
        pause_seconds: The longest pause after an utterance; nothing for the most load there can be.
        operations: Every attempt so far.
    """

    url: str
    chance: random.Random
    clients: int = 10
    pause_seconds: float = 1.0
    operations: list[Operation] = field(default_factory=list)
    _begun: int = 0
    _enough: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def accepted(self) -> int:
        """How many utterances have been accepted so far."""
        return sum(each.verdict is Verdict.ACCEPTED for each in self.operations)

    async def speak(self) -> None:
        """Speak until `stop`; what has been begun then is brought to its end."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.clients):
                group.create_task(self._speak_on())

    def stop(self) -> None:
        """Have nobody begin another utterance, nor another attempt."""
        self._enough.set()

    async def say(self, pcm: bytes) -> Operation:
        """Try once to have this stored."""
        operation = await self._attempt(self._number(), pcm)
        self.operations.append(operation)
        return operation

    def utterance(self) -> bytes:
        """Return samples that no other utterance has."""
        span = LONG_SECONDS if self.chance.random() < LONG_SHARE else SHORT_SECONDS
        samples = int(self.chance.uniform(*span) * SAMPLE_RATE_HZ)
        return self.chance.randbytes(samples * SAMPLE_BYTES)

    def _number(self) -> int:
        self._begun += 1
        return self._begun

    async def _speak_on(self) -> None:
        while not self._enough.is_set():
            await self._speak_until_stored(self._number(), self.utterance())
            await self._pause(self.chance.uniform(0, self.pause_seconds))

    async def _speak_until_stored(self, number: int, pcm: bytes) -> None:
        longest = _FIRST_PAUSE_SECONDS
        while not self._enough.is_set():
            operation = await self._attempt(number, pcm)
            self.operations.append(operation)
            if operation.verdict is not Verdict.FAILED:
                return
            await self._pause(longest * self.chance.uniform(0.5, 1.5))
            longest = min(2 * longest, _LONGEST_PAUSE_SECONDS)

    async def _attempt(self, number: int, pcm: bytes) -> Operation:
        began = time.monotonic()
        heard: list[client.Frame] = []
        final, opened = None, True
        try:
            hooks = client.Hooks(frame=heard.append)
            final = (await client.stream(self.url, pcm, paced=False, hooks=hooks)).final
        except client.NoAnswer:
            pass
        except (client.Refused, client.Unreachable, client.NotAGateway):
            opened = False  # the last where the handshake was broken off by a stop
        name = heard[0]["correlation_id"] if heard else None
        return Operation(number, pcm, opened, name, final, began, time.monotonic())

    async def _pause(self, seconds: float) -> None:
        """Wait, but not after `stop`."""
        try:
            async with asyncio.timeout(seconds):
                await self._enough.wait()
        except TimeoutError:
            pass
