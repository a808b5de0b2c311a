"""Say all that comes, one utterance after the other, until each has its receipt.

What has no receipt is kept and sent again, under the same `client_ref` and with
`on_disconnect=discard` (docs/protocol.md, "Saying it again"). The next utterance begins behind what
the receipt is about, so nothing is lost or said twice where the gateway cuts one. A text may come
while the next utterance is sent.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from speech_tools.protocol import client
from speech_tools.protocol.client import Frame, Hooks, Outcome, StreamError, Wanted
from speech_tools.protocol.outcome import is_receipt_for
from speech_tools.stream.incoming import Incoming, Stretch
from speech_tools.stream.parts import MISMATCH, Part, Trouble, pause, trouble_of, trouble_told

ATTEMPTS = 5
MAX_WAITING = 3
"""Utterances that wait for their text while another one is sent: each holds a connection."""


class View(Protocol):
    """Where it is shown. Called on the event loop: must be quick."""

    def frame(self, part: Part, frame: Frame) -> None:
        """Show a message of the gateway."""

    def sent(self, place: int) -> None:
        """Show up to which byte it is sent."""

    def stored(self, part: Part) -> None:
        """Show a receipt."""

    def heard(self, part: Part) -> None:
        """Show a text, or that there is none."""

    def again(self, part: Part, trouble: Trouble, seconds: float) -> None:
        """Show that it is sent again after some seconds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to say it.

    Attributes:
        url: of the gateway.
        wanted: what to ask for; its `client_ref` is that of the first utterance.
        paced: at the pace of speech.
        attempts: how often to send an utterance at most.
        sleep: waits so many seconds.
    """

    url: str
    wanted: Wanted
    paced: bool
    attempts: int = ATTEMPTS
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep


@dataclass
class Sender:
    """Says it all; `parts` has what became of each utterance, also while it is going on."""

    plan: Plan
    incoming: Incoming
    view: View
    parts: list[Part] = field(default_factory=list)
    _texts: list["asyncio.Task[None]"] = field(default_factory=list)
    _stretch: Stretch | None = None
    _sent: int = 0

    @property
    def said_all(self) -> bool:
        """Whether all of the latest utterance has been sent, so that it may be stored."""
        return self._stretch is not None and self._sent == self._stretch.end

    async def run(self) -> None:
        """Return once everything is stored and its texts are there, or an utterance is given up."""
        place = 0
        try:
            while await self.incoming.reaches(place):
                part = self._next(place)
                await self._say(part)
                if part.trouble is not None:
                    break
                place = part.end
                self.incoming.forget(place)
            await asyncio.gather(*self._texts)
        finally:
            for waiting in self._texts:
                waiting.cancel()
            await asyncio.gather(*self._texts, return_exceptions=True)

    def _next(self, place: int) -> Part:
        number = len(self.parts) + 1
        name = self.plan.wanted.client_ref
        self.parts.append(Part(number, f"{name}-{number}" if number > 1 else f"{name}", place))
        return self.parts[-1]

    async def _say(self, part: Part) -> None:
        """Send it until it has its receipt, or is given up."""
        stretch = self._stretch = Stretch(self.incoming, part.start)
        while True:
            part.attempts += 1
            trouble = await self._attempt(part, stretch)
            if trouble is None:
                return
            if not trouble.again or part.attempts >= self.plan.attempts:
                part.trouble = trouble
                return
            part.doubled |= trouble.doubtful
            seconds = pause(part.attempts, trouble.wait)
            self.view.again(part, trouble, seconds)
            await self.plan.sleep(seconds)

    async def _attempt(self, part: Part, stretch: Stretch) -> Trouble | None:
        """Send it once, up to its receipt; return what went wrong."""
        accepted: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._sent = part.start

        def frame(told: Frame) -> None:
            self.view.frame(part, told)
            if told.get("status") == "accepted" and not accepted.done():
                accepted.set_result(told)

        def progress(count: int) -> None:
            self._sent = part.start + count
            self.view.sent(self._sent)

        wanted = replace(self.plan.wanted, client_ref=part.client_ref, discard=True)
        speaking = asyncio.create_task(
            client.stream(
                self.plan.url,
                stretch,
                paced=self.plan.paced,
                wanted=wanted,
                hooks=Hooks(frame, progress),
            )
        )
        try:
            waiting: set[asyncio.Future[Any]] = {speaking, accepted}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if accepted.done():
                return await self._stored(part, stretch, accepted.result(), speaking)
            return trouble_told((await speaking).final)
        except StreamError as error:
            return trouble_of(error, sent=self._sent > part.start)
        finally:
            if part.receipt is None:
                speaking.cancel()
                await asyncio.gather(speaking, return_exceptions=True)

    async def _stored(
        self, part: Part, stretch: Stretch, accepted: Frame, speaking: "asyncio.Task[Outcome]"
    ) -> Trouble | None:
        sent = stretch.first(self._sent - part.start)
        if not accepted["audio_bytes"] or not is_receipt_for(accepted, sent):
            return MISMATCH
        part.receipt = accepted
        self.view.stored(part)
        if self.plan.wanted.results:
            before = self._texts[-1:]
            self._texts.append(asyncio.create_task(self._hear(part, speaking, before)))
            if len(self._texts) > MAX_WAITING:
                await self._texts[-1 - MAX_WAITING]
        else:
            with contextlib.suppress(StreamError):  # it is stored, whatever follows
                await speaking
        return None

    async def _hear(
        self,
        part: Part,
        speaking: "asyncio.Task[Outcome]",
        before: "list[asyncio.Task[None]]",
    ) -> None:
        """Wait for the text; show it behind the one before."""
        try:
            with contextlib.suppress(StreamError):
                part.result = (await speaking).result
            await asyncio.gather(*before)
        finally:
            speaking.cancel()
        self.view.heard(part)
