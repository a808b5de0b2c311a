"""Drive one session: feed it what happens on its connection, and perform its actions.

The I/O around `session.py`. The server starts one driver for each admitted connection. The
connection feeds each message, and the end of the stream, in the turn of the loop in which they
arrive. A timer feeds the session's deadline, and the server feeds the drain. `run` performs the
actions in their order.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from speech_gateway.actions import Action, Actions, Close, Publish, Reply
from speech_gateway.connection import GatewayConnection
from speech_gateway.errors import Ending, Failure, NotStored, Stored
from speech_gateway.session import Session, State
from speech_gateway.utterance import Answer, Context, Receipt, Store, Utterance

log = structlog.get_logger()


class SessionDriver:
    """Drives one client's session over one connection.

    It calls `on_ended` before it closes the connection, because a client that sees the close may
    come back before this driver's task has its last turns. The session holds no audio by then.
    """

    def __init__(
        self,
        connection: GatewayConnection,
        session: Session,
        context: Context,
        store: Store,
        on_ended: Callable[[], None],
    ) -> None:
        self.session = session
        self.context = context
        self.ack_seconds: float | None = None
        """From the end of the utterance to the broker's answer."""
        self.stored: Stored | None = None
        """What is known of the audio, where the broker did not confirm it."""
        self._connection = connection
        self._closed_with: int | None = None
        self._store = store
        self._on_ended = on_ended
        self._loop = asyncio.get_running_loop()
        self._clock = time.monotonic  # the loop's clock, which uvloop tells in milliseconds
        self.began_at = self._clock()
        self._actions: deque[Action] = deque(session.start())
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._unpaid: deque[str | bytes | Ending] = deque()
        """What one read brought and must wait until its audio is paid for."""
        self._pay_timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Drive the session to its end; return when the last action has been performed."""
        self._set_timer()
        self._connection.listen(self)
        try:
            while await self._has_action():
                await self._perform_next()
        finally:
            self._stop_timer()
            self._stop_paying()

    def drain(self, deadline: float) -> None:
        """Tell the session that the gateway stops at `deadline`, on the loop's clock."""
        self._enqueue(self.session.drain(self._clock(), deadline))
        self._set_timer()

    def answer(self, answer: Answer) -> None:
        """Tell the session what became of its stored utterance."""
        self._enqueue(self.session.answered(answer, self._clock()))

    # What the report of the session reads

    def age(self) -> float:
        """Return the seconds since the handshake."""
        return self._clock() - self.began_at

    @property
    def close_code(self) -> int | None:
        """The code that this side closed with; None where the client closed or broke it.

        It is known as soon as the session has ended.
        """
        ending = self.session.ending
        if self._closed_with is None and ending is not None and ending.value.closed_by_library:
            sent = self._connection.protocol.close_sent
            return int(sent.code) if sent else None
        return self._closed_with

    # What happens on the connection

    def receive(self, message: str | bytes) -> None:
        """Feed a message, and slow the client where it is too fast."""
        now = self._clock()
        if self._must_wait(now):
            self._keep(message)
            return
        try:
            self._feed(message, now)
        except Exception:
            log.exception("reading failed", correlation_id=self.context.correlation_id)
            self._enqueue(self.session.fail(Ending.INTERNAL_ERROR, now))

    def end(self, ending: Ending) -> None:
        """Feed the end of the stream."""
        now = self._clock()
        if self._must_wait(now):
            self._keep(ending)
        elif ending is Ending.DISCONNECT:
            self._enqueue(self.session.disconnect(now))
        elif self.session.state is State.LISTENING:
            self._connection.fail()
            self._enqueue(self.session.fail(ending, now))
        # Otherwise a bad frame or a flood came after the end of the utterance, and changes nothing.

    def lost(self) -> None:
        """Feed that the connection is gone, however its stream ended."""
        self.end(Ending.DISCONNECT)

    def _feed(self, message: str | bytes, now: float) -> None:
        session = self.session
        # Not bound to a local name, because this frame would keep the WAV alive.
        if isinstance(message, str):
            self._enqueue(session.receive_text(message, now))
        else:
            self._enqueue(session.receive_audio(message, now))
        if session.read_at > now:
            self._connection.read_later(session.read_at)

    def _must_wait(self, now: float) -> bool:
        """Return whether audio of the client's address must be paid for first.

        The end of a stream waits too, or many short connections would pass the rate. The session's
        deadline bounds the wait.
        """
        return bool(self._unpaid) or self.session.audio_paid_at > now

    def _keep(self, event: str | bytes | Ending) -> None:
        """Keep what one read brought until its audio is paid for."""
        self._unpaid.append(event)
        if self._pay_timer is None:
            self._pay_timer = self._loop.call_at(self.session.audio_paid_at, self._on_paid)

    def _on_paid(self) -> None:
        """Feed what was kept, as far as its audio is paid for."""
        self._pay_timer = None
        kept, self._unpaid = self._unpaid, deque()
        for event in kept:
            self.end(event) if isinstance(event, Ending) else self.receive(event)

    def _stop_paying(self) -> None:
        if self._pay_timer is not None:
            self._pay_timer.cancel()
            self._pay_timer = None

    def _on_timer(self) -> None:
        self._timer = None
        self._enqueue(self.session.tick(self._clock()))
        self._set_timer()

    # The actions

    def _enqueue(self, actions: Actions) -> None:
        self._actions.extend(actions)
        if actions or self.session.state is State.ENDED:
            self._wake.set()

    async def _has_action(self) -> bool:
        """Wait for an action; return False when the session has ended and none is left."""
        while not self._actions and self.session.state is not State.ENDED:
            self._wake.clear()
            await self._wake.wait()
        return bool(self._actions)

    def _set_timer(self) -> None:
        """Set the timer to the session's deadline.

        Audio only moves the deadline on, so a timer that is set stays, and is set anew when it
        fires. So a message costs nothing here.
        """
        deadline = self.session.deadline
        if deadline is None:
            self._stop_timer()
        elif self._timer is None or deadline < self._timer.when():
            self._stop_timer()
            self._timer = self._loop.call_at(deadline, self._on_timer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _perform_next(self) -> None:
        match self._actions.popleft():  # a local name would keep the WAV alive until it is stored
            case Reply(message):
                self._connection.say(message.to_json())
            case Publish(utterance):
                pending = self._publish(utterance)
                del utterance  # only the producer holds the audio while it waits for the broker
                self._enqueue(await self._store_answer(pending))
                self._set_timer()
            case Close(code, reason, abort):
                self._closed_with = code
                self._on_ended()
                close = self._connection.cut if abort else self._connection.close
                await close(code, reason)

    def _publish(self, utterance: Utterance) -> Awaitable[Receipt] | None:
        """Hand the audio over; return None after a defect, when it is surely not stored."""
        try:
            return self._store.publish(self.context, utterance)
        except Exception:
            log.exception("publishing failed", correlation_id=self.context.correlation_id)
            return None

    async def _store_answer(self, pending: Awaitable[Receipt] | None) -> Actions:
        """Wait for the broker's answer, and feed it to the session."""
        if pending is None:
            return self._not_stored(Failure.INTERNAL_ERROR, "no")
        began = self._clock()
        try:
            receipt = await pending
        except NotStored as error:
            self._log_not_stored(error)
            return self._not_stored(error.failure, error.stored)
        except Exception:
            log.exception("storing failed", correlation_id=self.context.correlation_id)
            return self._not_stored(Failure.INTERNAL_ERROR, "unknown")
        finally:
            self.ack_seconds = self._clock() - began
        return self.session.stored(receipt, self._clock())

    def _not_stored(self, failure: Failure, stored: Stored) -> Actions:
        self.stored = stored
        return self.session.not_stored(failure, stored)

    def _log_not_stored(self, error: NotStored) -> None:
        log.warning(
            "not stored",
            correlation_id=self.context.correlation_id,
            code=error.failure.value.code,
            stored=error.stored,
            reason=error.reason,
        )
