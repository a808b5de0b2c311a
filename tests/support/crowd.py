"""Many clients who speak until they are told to stop, and remember every attempt.

Each does what docs/protocol.md asks of a client. It repeats, after a pause, what was refused or is
surely not stored. It does not repeat what may be stored: that could store it twice. Used by the
tests under faults; `ledger` judges what is remembered.
"""

import asyncio
import random
from dataclasses import dataclass, field

from speech_lib.events import SAMPLE_BYTES, SAMPLE_RATE_HZ
from speech_tools.protocol.client import NotAGateway, Refused, Unreachable
from speech_tools.speakers import Speakers, Spoken, say

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
        await Speakers(self.url, self.clients).run(self._speak_on)

    def stop(self) -> None:
        """Have nobody begin another utterance, nor another attempt."""
        self._enough.set()

    async def say(self, pcm: bytes) -> Operation:
        """Try once to have this stored."""
        return await self._attempt(self._number(), pcm)

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
            if (await self._attempt(number, pcm)).verdict is not Verdict.FAILED:
                return
            await self._pause(longest * self.chance.uniform(0.5, 1.5))
            longest = min(2 * longest, _LONGEST_PAUSE_SECONDS)

    async def _attempt(self, number: int, pcm: bytes) -> Operation:
        operation = operation_of(number, await say(self.url, pcm, paced=False))
        self.operations.append(operation)
        return operation

    async def _pause(self, seconds: float) -> None:
        """Wait, but not after `stop`."""
        try:
            async with asyncio.timeout(seconds):
                await self._enough.wait()
        except TimeoutError:
            pass


def operation_of(number: int, spoken: Spoken) -> Operation:
    """Return what the ledger takes for an utterance that was spoken once."""
    return Operation(
        number,
        spoken.pcm,
        # The last of these is what a handshake that a stop breaks off looks like.
        opened=not isinstance(spoken.error, Refused | Unreachable | NotAGateway),
        correlation_id=spoken.greeting.get("correlation_id"),
        final=spoken.outcome.final if spoken.outcome else None,
        began=spoken.began,
        ended=spoken.ended,
    )
