"""How fast the recogniser is, and whether its workers are idle while there is work.

A backlog is stored at once, and the members' own metrics are read until all of it is done.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from speech_tools import stack
from speech_tools.bench import clients
from speech_tools.bench.clients import BenchError
from speech_tools.bench.result import Line, spreads
from speech_tools.bench.servers import SPEECH_TOPIC, TOPIC_VARIABLES, Server
from speech_tools.operations.metrics_page import Page
from speech_tools.protocol.audio import SAMPLES
from speech_tools.speakers import Tape

TOPICS = {**TOPIC_VARIABLES, "TOPIC_AUDIO_INGRESS": SPEECH_TOPIC}
"""For the gateway, too: the other parts store silence, which takes no time to recognise."""
GROUP = "speech-bench"
"""Each member goes on where the one before it ended."""
UTTERANCES = "speech_asr_utterances_total"
AT_WORK = "speech_asr_recognition_seconds_sum"
SPEECH = "speech_asr_audio_seconds_total"
FACTOR, IDLE, SPEED = "real-time factor", "idle %", "times speech"
PATIENCE_SECONDS = 180.0
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Setup:
    """How many members a group has, and how many workers each."""

    members: int
    workers: int

    def __str__(self) -> str:
        """Return it for people."""
        members = "one member" if self.members == 1 else f"{self.members} members"
        workers = "one worker" if self.workers == 1 else f"{self.workers} workers"
        return f"{members}, {workers}"


SETUPS = (Setup(1, 1), Setup(1, 2), Setup(2, 1))


@dataclass(frozen=True, slots=True)
class Backlog:
    """So many utterances of one length."""

    count: int
    seconds: float

    def __str__(self) -> str:
        """Return it for people."""
        return f"{self.count} of {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class Done:
    """What members have done so far: utterances, seconds at work, and seconds of speech."""

    utterances: float
    at_work: float
    speech: float

    @classmethod
    def of(cls, pages: Sequence[Page]) -> "Done":
        """Return the sum of the members'."""
        told = [
            [page.value(name) or 0.0 for page in pages] for name in (UTTERANCES, AT_WORK, SPEECH)
        ]
        return cls(*map(sum, told))


async def measure(
    kafka: stack.Addresses, gateway: Server, setup: Setup, backlogs: Sequence[Backlog], logs: Path
) -> list[Mapping[str, float]]:
    """Start the members, and return the figures of each backlog.

    Raises:
        BenchError: It was not done in time, or not stored.
        StackError: A member did not start.
    """
    settings = {**TOPICS, "ASR_GROUP_ID": GROUP, "ASR_WORKERS": str(setup.workers)}
    with ExitStack() as running:
        members = []
        for number in range(setup.members):
            folder = logs / f"member-{number}"
            folder.mkdir(exist_ok=True)
            process = running.enter_context(stack.recogniser(kafka, folder, settings))
            members.append(Server("recogniser", "", process.pid, process.ops_url))
        tape = Tape.of(SAMPLES)
        await _work_off(gateway, members, tape, Backlog(3 * setup.members, 1.0))  # the warm-up
        found = list[Mapping[str, float]]()
        for backlog in backlogs:
            was, began = await _done(members), time.monotonic()
            now = await _work_off(gateway, members, tape, backlog)
            wall = time.monotonic() - began
            found.append(figures(was, now, wall, setup.members * setup.workers))
        return found


def figures(was: Done, now: Done, wall: float, workers: int) -> dict[str, float]:
    """Return what became of a backlog in `wall` seconds."""
    at_work, speech = now.at_work - was.at_work, now.speech - was.speech
    return {
        FACTOR: at_work / speech,
        IDLE: max(0.0, 1 - at_work / (workers * wall)) * 100,
        SPEED: speech / wall,
    }


async def _work_off(
    gateway: Server, members: Sequence[Server], tape: Tape, backlog: Backlog
) -> Done:
    """Store a backlog, and wait until it is done. Nothing else may be on the topic."""
    target = (await _done(members)).utterances + backlog.count
    for number in range(backlog.count):
        await clients.said(gateway.url, tape.cut(number, backlog.seconds))
    return await _until(members, target)


async def _until(members: Sequence[Server], target: float) -> Done:
    patience_ends = time.monotonic() + PATIENCE_SECONDS
    while (done := await _done(members)).utterances < target:
        if time.monotonic() > patience_ends:
            raise BenchError(f"{target - done.utterances:.0f} utterances were not done in time")
        await asyncio.sleep(_LOOK_SECONDS)
    return done


async def _done(members: Sequence[Server]) -> Done:
    pages = [await member.page() for member in members]
    return Done.of([page for page in pages if page])


def lines(
    part: str,
    setup: Setup,
    backlogs: Sequence[Backlog],
    rounds: Sequence[Sequence[Mapping[str, float]]],
) -> list[Line]:
    """Put the rounds of a setup together."""
    return [
        Line(part, str(backlog), str(setup), spreads([each[number] for each in rounds]))
        for number, backlog in enumerate(backlogs)
    ]
