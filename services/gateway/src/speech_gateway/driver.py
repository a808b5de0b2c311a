"""Drive one session: feed it what happens on its connection, and perform its actions.

The I/O around `session.py`. The server starts one driver for each admitted connection. A reader
task feeds the messages, a timer feeds the session's deadline, and the server feeds the drain. `run`
performs the actions in their order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable

import structlog
from websockets.exceptions import ConnectionClosed

from speech_gateway.connection import GatewayConnection
from speech_gateway.errors import Ending, Failure, NotStored, Stored, StreamEnded
from speech_gateway.session import (
    Action,
    Actions,
    Close,
    Publish,
    Reply,
    Session,
    State,
)
from speech_gateway.utterance import Context, Receipt, Store, Utterance

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
        self.began_at = self._loop.time()
        self._actions: deque[Action] = deque(session.start())
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Drive the session to its end; return when the last action has been performed."""
        self._set_timer()
        reader = asyncio.create_task(self._read())
        try:
            while await self._has_action():
                await self._perform_next()
        finally:
            self._stop_timer()
            reader.cancel()
            await asyncio.wait([reader])

    def drain(self, deadline: float) -> None:
        """Tell the session that the gateway stops at `deadline`, on the loop's clock."""
        self._enqueue(self.session.drain(self._loop.time(), deadline))
        self._set_timer()

    # What the report of the session reads

    def age(self) -> float:
        """Return the seconds since the handshake."""
        return self._loop.time() - self.began_at

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

    async def _read(self) -> None:
        try:
            await self._read_until_end()
        except StreamEnded as end:
            if end.ending is not Ending.DISCONNECT:
                if self.session.state is State.LISTENING:
                    self._connection.fail()
                    self._enqueue(self.session.fail(end.ending, self._loop.time()))
                # Otherwise the bad frame came after the end of the utterance, and changes nothing.
                await self._connection.wait_closed()
            self._enqueue(self.session.disconnect(self._loop.time()))
        except Exception:
            log.exception("reading failed", correlation_id=self.context.correlation_id)
            self._enqueue(self.session.fail(Ending.INTERNAL_ERROR, self._loop.time()))

    async def _read_until_end(self) -> None:
        session, receive, clock = self.session, self._connection.receive, self._loop.time
        while True:
            message = await receive()
            now = clock()
            # Not bound to a local name, because this frame would keep the WAV alive.
            if isinstance(message, str):
                self._enqueue(session.receive_text(message, now))
            else:
                self._enqueue(session.receive_audio(message, now))
            if session.read_at > now:
                await self._pause()

    async def _pause(self) -> None:
        """Wait until `read_at`; once the stream has ended, only until `audio_paid_at`.

        The session's deadline bounds this too (`_on_timer`).
        """
        await asyncio.sleep(self.session.audio_paid_at - self._loop.time())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self.session.read_at):
                await self._connection.stream_ended.wait()

    def _on_timer(self) -> None:
        self._timer = None
        paid = self.session.audio_paid_at <= self._loop.time()
        if self._connection.stream_ended.is_set() and paid:
            return  # the reader knows how the stream ended, and will say it
        self._enqueue(self.session.tick(self._loop.time()))
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
                await self._send(message.to_json())
            case Publish(utterance):
                pending = self._publish(utterance)
                del utterance  # only the producer holds the audio while it waits for the broker
                self._enqueue(await self._answer(pending))
            case Close(code, reason, abort):
                self._closed_with = code
                self._on_ended()
                close = self._connection.cut if abort else self._connection.close
                await close(code, reason)

    async def _send(self, text: str) -> None:
        with contextlib.suppress(ConnectionClosed):  # gone: the reader will say so
            await self._connection.send(text)

    def _publish(self, utterance: Utterance) -> Awaitable[Receipt] | None:
        """Hand the audio over; return None after a defect, when it is surely not stored."""
        try:
            return self._store.publish(self.context, utterance)
        except Exception:
            log.exception("publishing failed", correlation_id=self.context.correlation_id)
            return None

    async def _answer(self, pending: Awaitable[Receipt] | None) -> Actions:
        """Wait for the broker's answer, and feed it to the session."""
        if pending is None:
            return self._not_stored(Failure.INTERNAL_ERROR, "no")
        began = self._loop.time()
        try:
            receipt = await pending
        except NotStored as error:
            self._log_not_stored(error)
            return self._not_stored(error.failure, error.stored)
        except Exception:
            log.exception("storing failed", correlation_id=self.context.correlation_id)
            return self._not_stored(Failure.INTERNAL_ERROR, "unknown")
        finally:
            self.ack_seconds = self._loop.time() - began
        return self.session.stored(receipt)

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
