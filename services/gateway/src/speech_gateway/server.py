"""The WebSocket server: listen, judge handshakes, drive admitted sessions, drain.

`__main__` builds and runs it. The rules are elsewhere: `handshake` and `admission` say who comes
in, `session` what one client may do. This is the only module that starts a `websockets` server.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from asyncio.proactor_events import BaseProactorEventLoop
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from secrets import token_bytes
from typing import Any

from speech_lib.errors import ConfigError
from speech_lib.telemetry.context import TraceContext
from speech_lib.telemetry.spans import NoSpans, SpanSink
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.typing import Subprotocol

from speech_gateway import handshake, session_report, wav
from speech_gateway.admission import (
    Admission,
    Sources,
    UnfinishedHandshakes,
    client_address,
)
from speech_gateway.connection import WRITE_LIMIT_BYTES, GatewayConnection
from speech_gateway.driver import SessionDriver
from speech_gateway.handshake import Refusal
from speech_gateway.messages import SUBPROTOCOL
from speech_gateway.metrics import Metrics
from speech_gateway.rates import AddressBuckets
from speech_gateway.server_config import ServerConfig
from speech_gateway.session import Session
from speech_gateway.session_report import LineBudget
from speech_gateway.utterance import Answers, Context, Store

_SWITCHING_PROTOCOLS = 101
_ACCEPTED_AT_ONCE = 3
"""Connections accepted in one turn of the loop, by asyncio's `backlog`. A handshake takes some six
turns. With the usual 100, a storm of good clients from one address would pass its bound of
unfinished handshakes."""
_KERNEL_QUEUE = 1024
"""Connections that wait in the kernel meanwhile. `backlog` alone would make it as small."""


@dataclass
class GatewayServer:
    """Listens, and drives one session for every admitted client."""

    config: ServerConfig
    store: Store
    admission: Admission
    is_ready: Callable[[], bool]
    metrics: Metrics
    answers: Answers | None = None
    """Brings the texts of those who want them; None where no client may ask."""
    spans: SpanSink = field(default_factory=NoSpans)
    _port: int = field(init=False)
    _server: Server = field(init=False)
    _handshakes: UnfinishedHandshakes = field(init=False)
    _audio: AddressBuckets = field(init=False)
    _sources: Sources = field(default_factory=lambda: Sources(token_bytes(32)))
    _drivers: set[SessionDriver] = field(default_factory=set)
    _drain_at: float | None = None
    _all_gone: asyncio.Event = field(default_factory=asyncio.Event)
    _refusal_lines: LineBudget = field(default_factory=lambda: LineBudget(time.monotonic()))
    _session_lines: LineBudget = field(default_factory=lambda: LineBudget(time.monotonic()))

    def __post_init__(self) -> None:
        config = self.config
        self._handshakes = UnfinishedHandshakes(config.trusted_proxies)
        self._audio = AddressBuckets(
            config.utterances_at_once * config.limits.max_audio_bytes,
            config.max_audio_speed * wav.BYTES_PER_SECOND,
        )
        self.metrics.sessions_limit.set(self.admission.limit)
        self.metrics.results_waiting.set_function(
            lambda: sum(driver.session.awaits_text for driver in self._drivers)
        )

    async def start(self) -> int:
        """Listen; return the port.

        Raises:
            OSError: The address cannot be listened on.
            ConfigError: This event loop cannot serve the connections.
        """
        require_selector_loop(asyncio.get_running_loop())
        self._server = await serve(
            self._serve_client,
            self.config.host,
            self.config.port,
            **self._websocket_settings(),
        )
        for listener in self._server.sockets:
            with listener.dup() as same:
                same.listen(_KERNEL_QUEUE)
        self.admission.on_release = self._note_if_all_gone
        self._port = next(iter(self._server.sockets)).getsockname()[1]
        return self._port

    def drain(self, deadline: float) -> None:
        """Refuse new clients, and tell those who speak to end by `deadline`, on the loop's clock.

        A later call moves the deadline nearer. The listener stays open, so that new clients learn
        why the gateway refuses them.
        """
        self.admission.draining = True
        self._drain_at = deadline if self._drain_at is None else min(deadline, self._drain_at)
        for driver in self._drivers:
            driver.drain(deadline)
        self._note_if_all_gone()

    async def close(self) -> None:
        """Wait until the last session has ended, then stop listening. `drain` comes first."""
        await self._all_gone.wait()
        self._handshakes.abort_all()
        self._server.close()  # there is nobody left for it to close
        await self._server.wait_closed()

    def _websocket_settings(self) -> dict[str, Any]:
        return {
            "logger": _quiet_logger(),
            "process_request": self._judge,
            "process_response": self._admit,
            "select_subprotocol": select_subprotocol,
            "create_connection": partial(GatewayConnection, handshakes=self._handshakes),
            "server_header": None,  # it would tell the versions of Python and the library
            "compression": None,  # 2.6 to 4.2 times the CPU, and a way to send bombs
            "backlog": _ACCEPTED_AT_ONCE,
            "open_timeout": self.config.handshake_timeout,
            "close_timeout": self.config.close_timeout,
            "ping_interval": None,  # the idle rule finds dead peers
            "max_size": self.config.limits.max_chunk_bytes,
            "max_queue": None,  # the connection pauses the reading itself
            "write_limit": WRITE_LIMIT_BYTES,
        }

    # The handshake

    def _judge(self, connection: GatewayConnection, request: Request) -> Response | None:
        """Refuse a request that we cannot serve; the library judges the rest of it."""
        if len(request.headers.get_all("Host")) != 1:  # RFC 9112 section 3.2
            return connection.respond(HTTPStatus.BAD_REQUEST, "expected one Host header\n")
        if handshake.has_too_long_list(request.headers):
            return connection.respond(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"expected at most {handshake.MAX_LIST_BYTES} bytes of each list\n",
            )
        judged = handshake.judge(
            handshake.Request(request.method, request.path, request.headers),
            self.config.origin_allowlist,
            offers_results=self.answers is not None,
        )
        if isinstance(judged, Refusal):
            return self._refuse(judged, connection, request)
        connection.wanted = judged
        return None

    def _admit(
        self, connection: GatewayConnection, request: Request, response: Response
    ) -> Response | None:
        """Take a slot for a handshake that is fine, just before its 101 is sent."""
        if response.status_code != _SWITCHING_PROTOCOLS:
            return None
        if connection.state is not State.CONNECTING:
            return None  # gone: the library sends no 101, and nobody would give the slot back
        address = client_address(
            connection.peer,
            request.headers.get_all("X-Forwarded-For"),
            self.config.trusted_proxies,
        )
        now = asyncio.get_running_loop().time()
        slot = self.admission.admit(address, now, ready=self.is_ready())
        if isinstance(slot, Refusal):
            return self._refuse(slot, connection, request)
        connection.slot = slot
        connection.handshake_finished()
        return None

    def _refuse(
        self, refusal: Refusal, connection: GatewayConnection, request: Request
    ) -> Response:
        answer = refusal.value
        self.metrics.refusals.labels(answer.code).inc()
        session_report.write_refusal_within(self._refusal_lines, time.monotonic(), answer.code)
        response = connection.respond(answer.status, answer.body().decode())
        del response.headers["Content-Type"]
        response.headers.update([("Content-Type", "application/json"), *answer.headers])
        if request.method == "HEAD":
            response.body = b""  # RFC 9110 section 9.3.2: the length stays that of GET
        return response

    # One client

    async def _serve_client(self, connection: ServerConnection) -> None:
        assert isinstance(connection, GatewayConnection)  # noqa: S101 - see `create_connection`
        slot = connection.slot
        if slot is None or slot.free:
            return  # lost between its 101 and now
        slot.hold()
        with ExitStack() as held:
            held.callback(slot.release)
            await self._drive(connection, slot.address, held)

    async def _drive(self, connection: GatewayConnection, address: str, held: ExitStack) -> None:
        """Drive one session to its end; close `held` as soon as it holds no audio any more."""
        context = self._context(connection, address)
        session = Session(
            context.correlation_id,
            self.config.limits,
            time.monotonic(),
            fill_at_limit=self.config.fill_at_limit,
            wanted=connection.wanted,
            result_timeout=self.config.result_timeout,
            spend_audio=partial(self._audio.spend, address),
        )
        driver = SessionDriver(connection, session, context, self.store, held.close)
        self._drivers.add(driver)
        self.metrics.sessions_live.inc()
        if self._drain_at is not None:
            driver.drain(self._drain_at)
        held.callback(self._note_end, driver, address)
        if self.answers and connection.wanted.results:
            held.callback(self.answers.expect(context.correlation_id, driver.answer))
        await driver.run()

    def _note_end(self, driver: SessionDriver, address: str) -> None:
        self._drivers.discard(driver)
        self.metrics.sessions_live.dec()
        session_report.count(driver, self.metrics)
        now = time.monotonic()
        session_report.write_line_within(self._session_lines, now, driver, address)
        session_report.record_spans(driver, self.spans, self._port)

    def _context(self, connection: GatewayConnection, address: str) -> Context:
        request = connection.request
        assert request is not None  # noqa: S101 - there is no 101 without one
        traceparents = request.headers.get_all("traceparent")
        # W3C Trace Context section 3.3: a doubled header counts as none.
        received = TraceContext.parse(traceparents[0] if len(traceparents) == 1 else None)
        return Context(
            correlation_id=str(uuid.uuid4()),
            trace=received.child() if received else TraceContext.begin(),
            language_hint=connection.wanted.language_hint,
            epoch=time.time() - time.monotonic(),
            parent=received,
            source=self._sources.name(address),
            client_ref=connection.wanted.client_ref,
        )

    def _note_if_all_gone(self) -> None:
        if self.admission.draining and self.admission.live == 0:
            self._all_gone.set()


def require_selector_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Refuse a loop that reads in the background, because all connections read into one buffer.

    Raises:
        ConfigError: It is a proactor loop, as on Windows.
    """
    if isinstance(loop, BaseProactorEventLoop):
        raise ConfigError(
            "the gateway needs a selector event loop, as on Linux; this is a proactor's"
        )


def _quiet_logger() -> logging.Logger:
    """Return the library's own logger, which then makes no lines that nobody reads.

    It would log the opening and closing of each connection, as the session's line does.
    """
    logger = logging.getLogger("websockets.server")
    logger.setLevel(logging.WARNING)
    return logger


def select_subprotocol(
    _connection: GatewayConnection, offered: Sequence[Subprotocol]
) -> Subprotocol | None:
    """Pick ours where the client offers it; admit a client that offers none, or only others."""
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None
