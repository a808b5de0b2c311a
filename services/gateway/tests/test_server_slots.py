"""The limit of live connections is exact, and nothing leaks, over real sockets."""

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from dataclasses import replace

import pytest
from speech_gateway.connection import GatewayConnection
from speech_gateway.testing import CONFIG, raw_client, request, run_server, until
from websockets.frames import Frame, Opcode

pytestmark = pytest.mark.anyio

PCM = bytes(640)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


async def test_of_many_at_once_exactly_the_limit_is_admitted():
    """Thirty who come together and stay: ten are in, and the others are told to try again."""
    async with run_server(max_connections=10) as server, contextlib.AsyncExitStack() as opened:
        clients = [raw_client(server.port, upgrade=False) for _ in range(30)]
        entering = map(opened.enter_async_context, clients)
        heads = [await client.read_head() for client in await asyncio.gather(*entering)]
        assert Counter(head[9:12] for head in heads) == {"101": 10, "503": 20}
        assert server.live == 10


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
