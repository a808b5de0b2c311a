"""The limit of live connections is exact, and nothing leaks, over real sockets."""

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from speech_gateway.connection import GatewayConnection
from speech_gateway.testing import CONFIG, LIMITS, raw_client, request, run_server, until
from websockets.frames import Frame, Opcode

pytestmark = pytest.mark.anyio

LIMIT = 10
CLIENTS = 400
PCM = bytes(640)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

BAD_KEY = request(without=frozenset({"Sec-WebSocket-Key"}), headers=[("Sec-WebSocket-Key", "x")])
CONFIGURED = replace(CONFIG, limits=replace(LIMITS, idle_timeout_seconds=0.3))


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


async def says_done(client):
    answer = await client.read_head()
    if answer.startswith("HTTP/1.1 101"):
        client.send(Frame(Opcode.BINARY, PCM), Frame(Opcode.TEXT, b'{"event":"done"}'))
        while (frame := await client.read_frame()).opcode is not Opcode.CLOSE:
            pass
        client.send(frame)
    return answer[9:12]


async def says_nothing(client):
    return (await client.read_rest())[9:12].decode()


async def leaves(_client):
    return "left"


async def resets(client):
    client.reset()
    return "left"


KINDS = [
    (request(), says_done),
    (request(), says_nothing),
    (request(), leaves),
    (request(), resets),
    (request()[:40], leaves),
    (BAD_KEY, says_nothing),
    (request(version="HTTP/1.0"), says_nothing),
]


async def one_client(port, kind):
    """Be one client of the storm; return the status that it was answered with, or how it ended."""
    head, behave = KINDS[kind % len(KINDS)]
    try:
        async with raw_client(port, head, upgrade=False) as client:
            return await behave(client)
    except (ConnectionError, asyncio.IncompleteReadError):
        return "cut"


async def test_a_storm_never_passes_the_limit_and_leaks_nothing():
    """Of 400 clients at once, good and bad, never more than the limit live; all is given back."""
    tasks, files = len(asyncio.all_tasks()), descriptors()
    async with run_server(CONFIGURED, max_connections=LIMIT) as server:
        admission, lives = server.gateway.admission, []
        admit = admission.admit

        def watched(*args, **kwargs):
            slot = admit(*args, **kwargs)
            lives.append((admission.live, len(server.gateway._server.connections)))
            return slot

        admission.admit = watched
        storm = [one_client(server.port, kind) for kind in range(CLIENTS)]
        ends = Counter(await asyncio.gather(*storm))
        await until(lambda: server.live == 0)
        assert max(live for live, _ in lives) == LIMIT
        assert max(connections for _, connections in lives) <= LIMIT
        # Everyone who stays is answered, also where more come at once than handshakes may wait.
        admitted, full = ends.pop("101"), ends.pop("503")
        assert (ends, admitted + full) == ({"left": 171, "400": 57, "505": 57}, 115)
        async with contextlib.AsyncExitStack() as opened:  # all of the slots are there again
            for _ in range(LIMIT):
                await opened.enter_async_context(raw_client(server.port))
            assert server.live == LIMIT
    await until(lambda: len(asyncio.all_tasks()) == tasks)
    await until(lambda: descriptors() == files)


async def test_a_client_that_left_before_its_request_was_read_takes_no_slot():
    """Request and end of the connection arrive together: no 101, and no slot is lost."""
    async with run_server() as server:
        for how in [None, RESET_ON_CLOSE] * 3:
            with socket.create_connection(("127.0.0.1", server.port)) as client:  # before the loop
                client.sendall(request())
                if how is not None:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)
        async with raw_client(server.port):  # accepted after all of them
            await until(lambda: server.live == 1)


async def test_a_handshake_that_is_cut_behind_its_request_takes_no_slot(monkeypatch):
    """Where the connection is lost before the request is judged, nobody would return a slot."""
    take = GatewayConnection.process_event

    def take_and_cut(self, event):
        take(self, event)
        self.abort()  # as the bound of unfinished handshakes does

    monkeypatch.setattr(GatewayConnection, "process_event", take_and_cut)
    async with run_server() as server:
        async with raw_client(server.port, request(), upgrade=False) as client:
            assert await client.read_rest() == b""
        await until(lambda: not server.gateway._server.handler_tasks)
        assert server.live == 0


async def test_the_slot_outlives_the_connection_while_audio_waits():
    """A gone client's slot is taken until the broker has answered: its audio is in memory."""
    async with run_server(max_connections=1) as server:
        server.store.hold()
        async with raw_client(server.port) as client:
            client.send(Frame(Opcode.BINARY, PCM), Frame(Opcode.CLOSE, b""))
            await server.store.until_given()
        async with raw_client(server.port, upgrade=False) as second:
            assert (await second.read_head()).startswith("HTTP/1.1 503 ")
        server.store.release()
        await until(lambda: server.live == 0)


async def test_the_slot_is_free_as_soon_as_the_connection_is_lost(monkeypatch):
    """A client that has its receipt and comes back at once finds its place, however busy it is."""
    lost, lives = GatewayConnection.connection_lost, []

    async with run_server(max_connections=1) as server:

        def lost_and_looked(self, exc):
            lost(self, exc)
            lives.append(server.live)

        monkeypatch.setattr(GatewayConnection, "connection_lost", lost_and_looked)
        async with raw_client(server.port) as client:
            assert server.live == 1
            client.send(Frame(Opcode.BINARY, PCM), Frame(Opcode.TEXT, b'{"event":"done"}'))
            while (frame := await client.read_frame()).opcode is not Opcode.CLOSE:
                pass
            client.send(frame)
        await until(lambda: lives != [])
        assert lives == [0]


async def test_the_slot_outlives_the_answer_while_tcp_is_open():
    """A client that is told its receipt and does not close keeps its slot until it is cut."""
    config = replace(CONFIG, close_timeout=0.3)
    async with run_server(config) as server, raw_client(server.port) as client:
        client.send(Frame(Opcode.BINARY, PCM), Frame(Opcode.TEXT, b'{"event":"done"}'))
        while (await client.read_frame()).opcode is not Opcode.CLOSE:
            pass
        assert server.live == 1
        await until(lambda: server.live == 0, 1)
