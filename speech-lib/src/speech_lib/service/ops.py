"""The operations port: `/livez`, `/readyz` and `/metrics`, on the service's own event loop.

`run` of each service starts it first and stops it last. It runs on the same loop on purpose: an
answer of `/livez` shows that the loop turns. So its cost to the service's clients is bounded:
connections in number and time, one answer each, and one metrics page a second.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Final, cast

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from speech_lib.service.config import unusable_address
from speech_lib.service.health import Health
from speech_lib.service.ops_connection import OpsConnection
from speech_lib.service.places import Places

MAX_CONNECTIONS: Final = 16
PAGE_SECONDS: Final = 1.0
"""The greatest age of the metrics page. Making it takes milliseconds of the loop."""

_BACKLOG: Final = 100
"""Connections that the kernel holds for the loop. Where a flood fills it, an honest client's kernel
tries again after a second."""
_CLOSE_SECONDS: Final = 1.0


class OperationsServer:
    """An HTTP server for the platform. It never shows an address or the text of an exception."""

    def __init__(self, host: str, port: int, health: Health, metrics: CollectorRegistry) -> None:
        self._host = host
        self._port = port
        self._health = health
        self._page = Page(lambda: generate_latest(metrics))
        self._places: Places[OpsConnection] = Places(MAX_CONNECTIONS)
        self._listener: asyncio.Server | None = None
        app = web.Application(middlewares=[_one_answer, _errors_as_json])
        app.on_response_prepare.append(_hide_server)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics_page)
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            logger=_quiet_logger(),
            lingering_time=0,  # a request's body is never read
            shutdown_timeout=_CLOSE_SECONDS,
        )

    async def start(self) -> int:
        """Listen, and return the port (a free one for port 0).

        Raises:
            ConfigError: The address cannot be listened on.
        """
        await self._runner.setup()
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self._connection, self._host, self._port, backlog=_BACKLOG
            )
        except OSError as error:
            await self._runner.cleanup()
            raise unusable_address("OPS_HOST, OPS_PORT", error) from None
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Close the listener and all connections. May be repeated."""
        if self._listener is not None:
            self._listener.close()
        for each in self._places:
            if not each.asked:  # the others are the runner's to end
                each.cut()
        await self._runner.cleanup()

    def _connection(self) -> OpsConnection:
        # `web.Server` makes a protocol for each connection when called: aiohttp documents it so.
        answerer = cast("Callable[[], asyncio.Protocol]", self._runner.server)
        return OpsConnection(answerer, self._places)

    async def _livez(self, _: web.Request) -> web.Response:
        return _json(200, {"status": "alive"})

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._health.ready:
            return _json(200, {"status": "ready"})
        return _json(503, {"status": "not_ready", "reasons": self._health.reasons})

    async def _metrics_page(self, _: web.Request) -> web.Response:
        page = self._page.at(time.monotonic())
        return web.Response(body=page, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})


class Page:
    """A page that is made at most every `PAGE_SECONDS`, however often it is asked for."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._made: tuple[float, bytes] | None = None

    def at(self, now: float) -> bytes:
        """Return the page; `now` is in seconds of a monotonic clock."""
        if self._made is None or now - self._made[0] >= PAGE_SECONDS:
            self._made = now, self._make()
        return self._made[1]


def _json(status: int, body: dict[str, object]) -> web.Response:
    return web.Response(status=status, text=json.dumps(body), content_type="application/json")


def _quiet_logger() -> logging.Logger:
    """Return a logger for aiohttp without its line for each request that is not HTTP."""
    logger = logging.getLogger(f"{__name__}.requests")
    logger.addFilter(_is_ours)
    return logger


def _is_ours(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


@web.middleware
async def _one_answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer with `Connection: close`, and close."""
    response = await handler(request)
    response.force_close()
    return response


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer an unknown path or method in JSON, like everything else here."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        response = _json(error.status, {"code": error.reason.lower().replace(" ", "_")})
        if hdrs.ALLOW in error.headers:
            response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
        return response


async def _hide_server(_: web.Request, response: web.StreamResponse) -> None:
    # Otherwise it names the versions of Python and aiohttp.
    response.headers.pop(hdrs.SERVER, None)
