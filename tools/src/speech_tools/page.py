"""Serve the browser's page and its gateway on one loopback origin, for `speech demo --web`.

The page is `clients/web` of the checkout. `/ws/audio` is passed on to the gateway, message by
message, with its query, its close code and its refusals. In containers Caddy does the same.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import ClientError, ClientSession, ClientWebSocketResponse, WSMsgType, web

PAGE = Path(__file__).parents[3] / "clients" / "web"
FILES = (
    "index.html",
    "page.css",
    "page.js",
    "icon.svg",
    "speech-client.js",
    "microphone-worklet.js",
)
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_MAX_MESSAGE_BYTES = 1 << 17  # the gateway's own limit is lower, and it tells the client so
_SUBPROTOCOL = "speech-ingress.v1"

Socket = ClientWebSocketResponse | web.WebSocketResponse


@asynccontextmanager
async def serving(
    gateway: str, port: int, folder: Path = PAGE, files: Iterable[str] = FILES
) -> AsyncIterator[str]:
    """Serve the page on loopback; yield its address.

    Args:
        gateway: The gateway's URL.
        port: Where to listen; 0 for any free port.
        folder: Where the page is: the client's, or what a bundler made of it.
        files: Those of the folder that are served.

    Raises:
        OSError: The port is taken.
    """
    async with ClientSession() as session:
        app = web.Application()
        app.router.add_get("/", _file(folder / "index.html"))
        for name in files:
            app.router.add_get(f"/{name}", _file(folder / name))
        app.router.add_get("/ws/audio", _pass_on(session, gateway))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", port)
            await site.start()
            yield f"http://localhost:{runner.addresses[0][1]}/"
        finally:
            await runner.cleanup()


def _file(path: Path):  # type: ignore[no-untyped-def] # noqa: ANN202 - a handler of aiohttp's
    async def answer(_: web.Request) -> web.FileResponse:
        return web.FileResponse(path, headers=HEADERS)

    return answer


def _pass_on(session: ClientSession, gateway: str):  # type: ignore[no-untyped-def] # noqa: ANN202
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            upstream = await session.ws_connect(
                f"{gateway}?{request.query_string}",
                protocols=[_SUBPROTOCOL],
                max_msg_size=_MAX_MESSAGE_BYTES,
                autoclose=False,
            )
        except ClientError as error:  # a browser sees no more of it than a failed open
            return web.json_response(
                {"code": "gateway_refused", "message": "the gateway refused the connection"},
                status=getattr(error, "status", 502),
            )
        client = web.WebSocketResponse(
            protocols=[_SUBPROTOCOL], max_msg_size=_MAX_MESSAGE_BYTES, compress=False
        )
        await client.prepare(request)
        await _relay(client, upstream)
        return client

    return answer


async def _relay(client: web.WebSocketResponse, upstream: ClientWebSocketResponse) -> None:
    """Pass messages both ways until one side ends, and its close to the other one."""
    both = {
        asyncio.create_task(_copy(client, upstream)),
        asyncio.create_task(_copy(upstream, client)),
    }
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in both:
            each.cancel()
        await asyncio.gather(*both, return_exceptions=True)


async def _copy(source: Socket, target: Socket) -> None:
    # A side that breaks ends the copying, and the other one is closed.
    with contextlib.suppress(ClientError, ConnectionError, RuntimeError):
        async for message in source:
            if message.type is WSMsgType.BINARY:
                await target.send_bytes(message.data)
            elif message.type is WSMsgType.TEXT:
                await target.send_str(message.data)
    with contextlib.suppress(ClientError, ConnectionError, RuntimeError):
        await target.close(code=source.close_code or 1011)
