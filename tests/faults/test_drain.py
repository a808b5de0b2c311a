"""Ten clients speak when the gateway is told to stop: each keeps what it has said."""

import asyncio
import random
import signal
from collections import Counter
from dataclasses import dataclass, field

from speech_lib.events import BYTES_PER_SECOND
from speech_tools.protocol.client import Frame, Hooks
from speech_tools.speakers import Spoken, say
from support.crowd import operation_of
from support.ledger import Findings
from support.operations import readiness

CLIENTS = 10
DRAIN_SECONDS = 4
DELIVERY_SECONDS = 10
UTTERANCE_BYTES = 30 * BYTES_PER_SECOND
"""Longer than any of them can speak before the deadline."""


@dataclass
class Speaker:
    """A client at the pace of speech. During the drain it sends its rest at once, unless live."""

    live: bool
    pcm: bytes = field(repr=False)
    speaking: asyncio.Event = field(default_factory=asyncio.Event)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    async def speak(self, url: str) -> Spoken:
        hooks = Hooks(self._hear, lambda _: self.speaking.set())
        return await say(url, self.pcm, paced=True, live=self.live, hooks=hooks)

    def _hear(self, frame: Frame) -> None:
        if frame["status"] == "draining":
            self.told.set()


async def drain(gateway, speakers: list[Speaker]) -> tuple[list[Spoken], int, dict]:
    """Stop the gateway while all of them speak.

    Returns:
        What came of their utterances, and readiness as it was when the first of them was told.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each.speak(gateway.url)) for each in speakers]
        await asyncio.gather(*(each.speaking.wait() for each in speakers))
        assert (await asyncio.to_thread(readiness, gateway.ops_port))[0] == 200
        gateway.signal(signal.SIGTERM)
        waiting = [asyncio.create_task(each.told.wait()) for each in speakers]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        status, body = await asyncio.to_thread(readiness, gateway.ops_port)
        late = await say(gateway.url, bytes(UTTERANCE_BYTES), paced=False)
        assert str(late.error).startswith("refused with HTTP 503 draining")
        await asyncio.gather(*waiting)
    return [task.result() for task in tasks], status, body


def test_ten_live_streams_are_drained(start_gateway, topics, reckon, chance: random.Random):
    """Not ready and nobody new; who ends in time is accepted, the rest is kept at the deadline."""
    speakers = [
        Speaker(live=number % 2 == 1, pcm=chance.randbytes(UTTERANCE_BYTES))
        for number in range(CLIENTS)
    ]
    with start_gateway(DRAIN_SECONDS=str(DRAIN_SECONDS)) as gateway:
        spoken, status, body = asyncio.run(drain(gateway, speakers))
        assert gateway.wait(DELIVERY_SECONDS) == 0
    operations = [operation_of(*each) for each in enumerate(spoken)]
    findings, _ = reckon(operations, topics["TOPIC_AUDIO_INGRESS"])
    assert findings == Findings()
    assert (status, body["reasons"]) == (503, {"service": "draining"})
    assert [[frame["status"] for frame, _ in each.frames] for each in spoken] == [
        ["connected", "draining", "accepted"]
    ] * CLIENTS
    ends = Counter((each.outcome.final["ended_by"], each.outcome.close_code) for each in spoken)
    assert ends == {("done", 1000): CLIENTS // 2, ("shutting_down", 1001): CLIENTS // 2}
