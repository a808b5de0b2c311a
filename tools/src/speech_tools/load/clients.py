"""Many clients that speak to one gateway at the pace of speech, and what becomes of each utterance.

Used by `load.py`. Each client speaks one utterance after another, every one its own stretch of
recorded speech, so that a receipt for somebody else's audio has another digest.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from speech_tools import client
from speech_tools.audio import BYTES_PER_SECOND, SAMPLE_BYTES, AudioError, load

_STEP_SAMPLES = 7919
"""From one utterance's first sample to the next one's: a prime, so that few begin alike."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to speak.

    Attributes:
        clients: how many speak at once; all begin at once, and so end at once.
        seconds: how long utterances are begun; those that have begun are spoken to their end.
        utterance_seconds: how long each utterance lasts. No client begins another one earlier,
            also if it was refused at once, so that a refusal is no reason for a storm.
    """

    clients: int
    seconds: float
    utterance_seconds: float


class Kind(StrEnum):
    """What became of an utterance."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one utterance.

    Attributes:
        kind: refused is before the upgrade, failed is everything after it.
        code: why, in the gateway's words or ours; empty for accepted.
        wait_seconds: from the end of the audio to `accepted`, for accepted alone.
    """

    kind: Kind
    code: str = ""
    wait_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of all utterances.

    Attributes:
        accepted: how many were stored, with a receipt that matches.
        refused: how many were refused before the upgrade, by code.
        failed: how many failed later, by code.
        waits: the seconds from the end of the audio to `accepted`.
    """

    accepted: int
    refused: dict[str, int]
    failed: dict[str, int]
    waits: tuple[float, ...]

    @classmethod
    def of(cls, answers: Sequence[Answer]) -> "Tally":
        """Count the answers."""
        by_kind = {kind: Counter(a.code for a in answers if a.kind is kind) for kind in Kind}
        return cls(
            accepted=by_kind[Kind.ACCEPTED].total(),
            refused=dict(by_kind[Kind.REFUSED]),
            failed=dict(by_kind[Kind.FAILED]),
            waits=tuple(a.wait_seconds for a in answers if a.wait_seconds is not None),
        )


class Tape:
    """Recorded speech without an end, from which every utterance is cut at another place."""

    def __init__(self, pcm: bytes) -> None:
        self._pcm = pcm

    @classmethod
    def of(cls, folder: Path) -> "Tape":
        """Join the recordings of a folder.

        Raises:
            AudioError: One of them cannot be read, or there is none.
        """
        files = sorted(file for file in folder.iterdir() if file.suffix in {".raw", ".wav"})
        if not files:
            raise AudioError(f"{folder}: holds no recording, expected .raw or .wav")
        return cls(b"".join(load(file).pcm for file in files))

    def cut(self, number: int, seconds: float) -> bytes:
        """Return utterance `number`, in whole samples."""
        size = int(seconds * BYTES_PER_SECOND) // SAMPLE_BYTES * SAMPLE_BYTES
        start = number * _STEP_SAMPLES * SAMPLE_BYTES % len(self._pcm)
        rounds = (start + size) // len(self._pcm) + 1
        return (self._pcm * rounds)[start : start + size]


class Load:
    """One run.

    Args:
        url: of the gateway.
        plan: how much to speak.
        tape: what to speak.
        on_answer: called on the event loop for each utterance, as it ends.
    """

    def __init__(
        self, url: str, plan: Plan, tape: Tape, on_answer: Callable[[Answer], None]
    ) -> None:
        self._url = url
        self._plan = plan
        self._tape = tape
        self._on_answer = on_answer
        self._numbers = itertools.count()
        self._answers: list[Answer] = []
        self._met = False
        self._in_vain = 0

    async def run(self) -> Tally:
        """Speak until the time is up, and return what became of it.

        What one client meets is counted and never ends another one, a defect of ours included.

        Raises:
            StreamError: Nobody has met a gateway, or the gateway does not take such utterances.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._plan.clients):
                    group.create_task(self._client())
        except ExceptionGroup as errors:  # a client gave up for all
            raise errors.exceptions[0] from errors
        return Tally.of(self._answers)

    async def _client(self) -> None:
        begun = next_at = time.monotonic()
        while next_at < begun + self._plan.seconds:
            await asyncio.sleep(next_at - time.monotonic())
            answer = await self._utterance()
            self._answers.append(answer)
            self._on_answer(answer)
            next_at = max(next_at + self._plan.utterance_seconds, time.monotonic())

    async def _utterance(self) -> Answer:
        """Speak one utterance, and judge its end.

        Raises:
            StreamError: It is hopeless for all.
        """
        try:
            answer = await self._speak()
        except client.Refused as refusal:
            answer = Answer(Kind.REFUSED, refusal.code)
        except client.TooLong:
            raise
        except client.StreamError as error:
            return self._missed(error)
        except Exception as error:  # noqa: BLE001 - a defect is counted like every other failure
            answer = Answer(Kind.FAILED, f"defect: {type(error).__name__}")
        self._met = True
        return answer

    async def _speak(self) -> Answer:
        pcm = self._tape.cut(next(self._numbers), self._plan.utterance_seconds)
        clock = _Clock()
        hooks = client.Hooks(frame=clock.frame, progress=clock.progress)
        outcome = await client.stream(self._url, pcm, paced=True, hooks=hooks)
        return judge(outcome, len(pcm), clock.wait_seconds)

    def _missed(self, error: client.StreamError) -> Answer:
        """Count a stream without a final message; give up if no client has ever met a gateway."""
        self._in_vain += 1
        self._met = self._met or isinstance(error, client.NoAnswer)
        if not self._met and self._in_vain >= self._plan.clients:
            raise error
        return Answer(Kind.FAILED, _CODES[type(error)])


_CODES: dict[type[client.StreamError], str] = {
    client.NoAnswer: "no_answer",
    client.Unreachable: "unreachable",
    client.NotAGateway: "not_a_gateway",
    client.WrongUrl: "wrong_url",
}


def judge(outcome: client.Outcome, size: int, wait_seconds: float) -> Answer:
    """Return what a final message says of an utterance of `size` bytes."""
    final = outcome.final
    if final["status"] != "accepted":
        return Answer(Kind.FAILED, final["code"])
    if not outcome.receipt_matches:
        return Answer(Kind.FAILED, "receipt_mismatch")
    if final["audio_bytes"] != size:
        return Answer(Kind.FAILED, "cut_short")
    return Answer(Kind.ACCEPTED, wait_seconds=wait_seconds)


class _Clock:
    """When the last audio was handed to the connection (`done` follows at once), and the answer."""

    def __init__(self) -> None:
        self._spoken = self._answered = time.monotonic()

    def progress(self, _sent: int) -> None:
        self._spoken = time.monotonic()

    def frame(self, _frame: client.Frame) -> None:
        self._answered = time.monotonic()

    @property
    def wait_seconds(self) -> float:
        """The last frame is the final one."""
        return self._answered - self._spoken
