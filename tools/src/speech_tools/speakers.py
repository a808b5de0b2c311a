"""Let clients speak to a gateway, and note what came of each utterance, and when.

Used by `speech load`, by `speech latency` and by tests. `say` speaks one utterance, `Speakers` lets
several clients speak at once. When a client speaks again is the caller's matter: a loop around it.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from speech_lib.events import BYTES_PER_SECOND, SAMPLE_BYTES

from speech_tools.protocol import client
from speech_tools.protocol.audio import AudioError, load
from speech_tools.protocol.client import Frame, Hooks, Outcome, StreamError

_STEP_SAMPLES = 7919
"""From one utterance's first sample to the next one's: a prime, so that few begin alike."""

Clock = Callable[[], float]


class Tape:
    """Recorded speech without an end. Each utterance is another stretch, with another digest."""

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


class Kind(StrEnum):
    """What became of an utterance: `refused` is before the upgrade, `failed` is after it."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Spoken:
    """An utterance that was spoken once. Times are by the clock of `say`.

    Attributes:
        pcm: the samples.
        began: before the client connected.
        said: when the last audio was handed to the connection (`done` follows at once).
        ended: when the connection was closed, or there was none.
        frames: the gateway's messages, each with the time at which it came.
        outcome: how it ended; nothing where there was no final message.
        error: why there was no final message.
    """

    pcm: bytes = field(repr=False)
    began: float
    said: float
    ended: float
    frames: tuple[tuple[Frame, float], ...]
    outcome: Outcome | None = None
    error: StreamError | None = None

    @property
    def kind(self) -> Kind:
        """What became of it."""
        if isinstance(self.error, client.Refused):
            return Kind.REFUSED
        return Kind.FAILED if self.code else Kind.ACCEPTED

    @property
    def code(self) -> str:
        """Why it is not accepted, in the gateway's word or ours. Empty where it is.

        It is accepted where the receipt is about all of the samples, and about no others.
        """
        if self.outcome is None:
            return self.error.code if self.error else ""
        final = self.outcome.final
        if final["status"] != "accepted":
            return str(final["code"])
        if not self.outcome.receipt_matches:
            return "receipt_mismatch"
        return "" if final["audio_bytes"] == len(self.pcm) else "cut_short"

    @property
    def greeting(self) -> Frame:
        """The gateway's first message; empty where there was none."""
        return self.frames[0][0] if self.frames else {}

    @property
    def answered(self) -> float:
        """When the last message came; where there was none, when it began."""
        return self.frames[-1][1] if self.frames else self.began


async def say(
    url: str,
    pcm: bytes,
    *,
    paced: bool,
    live: bool = False,
    source: str | None = None,
    hooks: Hooks | None = None,
    clock: Clock = time.monotonic,
) -> Spoken:
    """Speak one utterance, and return what came of it, whatever that is.

    The arguments are those of `client.stream`; `clock` gives the times.
    """
    seen = hooks or Hooks()
    frames: list[tuple[Frame, float]] = []
    began = said = clock()

    def on_frame(frame: Frame) -> None:
        frames.append((frame, clock()))
        seen.frame(frame)

    def on_progress(sent: int) -> None:
        nonlocal said
        said = clock()
        seen.progress(sent)

    outcome, error = None, None
    try:
        outcome = await client.stream(
            url, pcm, paced=paced, live=live, source=source, hooks=Hooks(on_frame, on_progress)
        )
    except StreamError as caught:
        error = caught
    return Spoken(pcm, began, said, clock(), tuple(frames), outcome, error)


class Speakers:
    """So many clients who speak to one gateway at once. The arguments are those of `say`."""

    def __init__(
        self, url: str, clients: int, *, paced: bool = True, clock: Clock = time.monotonic
    ) -> None:
        self._url = url
        self._clients = clients
        self._paced = paced
        self._clock = clock
        self._met = False
        self._in_vain = 0

    async def run(self, speak: Callable[[], Coroutine[None, None, None]]) -> None:
        """Call `speak` for each client, and return when all of them have ended.

        Raises:
            Exception: What the first one raised. It ends the others.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._clients):
                    group.create_task(speak())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    async def say(self, pcm: bytes) -> Spoken:
        """Speak one utterance.

        Raises:
            StreamError: No utterance can get through: the gateway does not take this length, or all
                clients have tried and none of them has met a gateway.
        """
        spoken = await say(self._url, pcm, paced=self._paced, clock=self._clock)
        match spoken.error:
            case client.TooLong() | client.WrongUrl():
                raise spoken.error
            case client.Unreachable() | client.NotAGateway() if not self._met:
                self._in_vain += 1
                if self._in_vain >= self._clients:
                    raise spoken.error
            case _:
                self._met = True
        return spoken
