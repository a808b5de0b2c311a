"""The operations port: `/livez`, `/readyz` and `/metrics`, on the service's own event loop.

On the same loop on purpose: an answer of `/livez` shows that the loop turns. `service_main` of each
service starts it first and stops it last.
"""

import json
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from speech_lib.config import unusable_address
from speech_lib.health import Health

_BACKLOG: Final = 16
_KEEPALIVE_SECONDS: Final = 15.0
_CLOSE_SECONDS: Final = 1.0


class OperationsServer:
    """An HTTP server for the platform; it never tells an address or the text of an exception."""

    def __init__(self, host: str, port: int, health: Health, metrics: CollectorRegistry) -> None:
        self._host = host
        self._port = port
        self._health = health
        self._metrics = metrics
        app = web.Application(middlewares=[_errors_as_json])
        app.on_response_prepare.append(_hide_server)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics_page)
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            keepalive_timeout=_KEEPALIVE_SECONDS,
            shutdown_timeout=_CLOSE_SECONDS,
        )

    async def start(self) -> int:
        """Listen, and return the port (a free one where 0 was asked for).

        Raises:
            ConfigError: the address cannot be taken.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port, backlog=_BACKLOG).start()
        except OSError as error:
            await self._runner.cleanup()
            raise unusable_address("OPS_HOST, OPS_PORT", error) from None
        port: int = self._runner.addresses[0][1]
        return port

    async def stop(self) -> None:
        """Close the listener and all connections; doing it twice does no harm."""
        await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return _json(200, {"status": "alive"})

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._health.ready:
            return _json(200, {"status": "ready"})
        return _json(503, {"status": "not_ready", "reasons": self._health.reasons})

    async def _metrics_page(self, _: web.Request) -> web.Response:
        page = generate_latest(self._metrics)
        return web.Response(body=page, headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})


def _json(status: int, body: dict[str, object]) -> web.Response:
    return web.Response(status=status, text=json.dumps(body), content_type="application/json")


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer an unknown path or method in JSON, as everything else here."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        response = _json(error.status, {"code": error.reason.lower().replace(" ", "_")})
        if hdrs.ALLOW in error.headers:
            response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
        return response


async def _hide_server(_: web.Request, response: web.StreamResponse) -> None:
    # Names the versions of Python and aiohttp otherwise.
    response.headers.pop(hdrs.SERVER, None)
