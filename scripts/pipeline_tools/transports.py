"""The same utterance over WebSocket, HTTP and gRPC: for each a bare server, and a client for it.

Used by `transports.py` to measure what a transport costs before anything is done with the audio:
every server counts the bytes and answers with their number. None of this is the gateway's.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

HOST = "127.0.0.1"
DONE = "done"
GRPC_METHOD = "/speech.Ingress/Stream"
COMPRESSION = "deflate"

Port = int
Server = Callable[[], contextlib.AbstractAsyncContextManager[Port]]
Client = Callable[[Port, list[bytes]], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Transport:
    """One way to bring an utterance in.

    Attributes:
        server: Runs a server on a free port.
        client: Sends the chunks one by one, and returns how many bytes the server has counted.
    """

    server: Server
    client: Client


async def _count_messages(connection: ServerConnection) -> None:
    count = 0
    async for message in connection:
        if message == DONE:
            await connection.send(str(count))
            return
        count += len(message)


@contextlib.asynccontextmanager
async def _websocket_server(compression: str | None) -> AsyncIterator[Port]:
    async with serve(_count_messages, HOST, 0, compression=compression) as server:
        port: int = next(iter(server.sockets)).getsockname()[1]
        yield port


async def _websocket_client(port: Port, chunks: list[bytes], compression: str | None) -> int:
    async with connect(f"ws://{HOST}:{port}", compression=compression) as connection:
        for chunk in chunks:
            await connection.send(chunk)
        await connection.send(DONE)
        return int(await connection.recv())


@contextlib.asynccontextmanager
async def _http_server() -> AsyncIterator[Port]:
    async def post(request: web.Request) -> web.Response:
        count = 0
        async for data in request.content.iter_any():
            count += len(data)
        return web.Response(text=str(count))

    app = web.Application(client_max_size=0)
    app.router.add_post("/", post)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        port: int = runner.addresses[0][1]
        yield port
    finally:
        await runner.cleanup()


async def _http_client(port: Port, chunks: list[bytes]) -> int:
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{HOST}:{port}/", data=body()) as answer,
    ):
        return int(await answer.text())


@contextlib.asynccontextmanager
async def _grpc_server() -> AsyncIterator[Port]:
    import grpc  # noqa: PLC0415 - not everybody has it

    async def stream(requests: AsyncIterator[bytes], _context: object) -> bytes:
        return str(sum([len(chunk) async for chunk in requests])).encode()

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, _details: object) -> Any:  # noqa: ANN401 - the library has no types
            return grpc.stream_unary_rpc_method_handler(stream)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(grace=None)


async def _grpc_client(port: Port, chunks: list[bytes]) -> int:
    import grpc  # noqa: PLC0415

    async def requests() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk
            await asyncio.sleep(0)  # as the other clients do between two chunks

    async with grpc.aio.insecure_channel(f"{HOST}:{port}") as channel:
        return int(await channel.stream_unary(GRPC_METHOD)(requests()))


TRANSPORTS = {
    "WebSocket": Transport(
        lambda: _websocket_server(None), lambda port, chunks: _websocket_client(port, chunks, None)
    ),
    "WebSocket, compressed": Transport(
        lambda: _websocket_server(COMPRESSION),
        lambda port, chunks: _websocket_client(port, chunks, COMPRESSION),
    ),
    "HTTP, chunked": Transport(_http_server, _http_client),
    "gRPC stream": Transport(_grpc_server, _grpc_client),
}
NEEDS = {"gRPC stream": "grpc"}
"""What has to be importable for a transport, beyond what every checkout has."""
