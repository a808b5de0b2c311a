"""The run of `speech load`: many clients at the pace of speech, and what becomes of it all.

Used by `load.command`. Each client speaks one utterance after another.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from speech_tools.protocol.client import StreamError
from speech_tools.speakers import Kind, Speakers, Tape


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to speak.

    Attributes:
        clients: how many speak at once. All begin at once, and so end at once.
        seconds: how long utterances are begun. What has begun is spoken to its end.
        utterance_seconds: how long each utterance lasts. No client begins another one earlier, also
            if it was refused at once, so that refusals make no storm.
    """

    clients: int
    seconds: float
    utterance_seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one utterance.

    Attributes:
        kind: see there.
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
        self._speakers = Speakers(url, plan.clients)
        self._plan = plan
        self._tape = tape
        self._on_answer = on_answer
        self._numbers = itertools.count()  # shared by all clients
        self._answers: list[Answer] = []

    async def run(self) -> Tally:
        """Speak until the time is up, and return what became of it.

        What one client meets is counted and ends no other one, a defect of ours included.

        Raises:
            StreamError: Nobody has met a gateway, or the gateway does not take such utterances.
        """
        await self._speakers.run(self._speak)
        return Tally.of(self._answers)

    async def _speak(self) -> None:
        """Speak as one client."""
        begun = next_at = time.monotonic()
        while next_at < begun + self._plan.seconds:
            await asyncio.sleep(next_at - time.monotonic())
            answer = await self._answer()
            self._answers.append(answer)
            self._on_answer(answer)
            next_at = max(next_at + self._plan.utterance_seconds, time.monotonic())

    async def _answer(self) -> Answer:
        """Speak one utterance."""
        try:
            pcm = self._tape.cut(next(self._numbers), self._plan.utterance_seconds)
            spoken = await self._speakers.say(pcm)
        except StreamError:
            raise  # it is hopeless for all
        except Exception as error:  # noqa: BLE001 - a defect is counted like every other failure
            return Answer(Kind.FAILED, f"defect: {type(error).__name__}")
        if spoken.kind is Kind.ACCEPTED:
            return Answer(Kind.ACCEPTED, wait_seconds=spoken.answered - spoken.said)
        return Answer(spoken.kind, spoken.code)
