"""What the connection adds to the library's, and every inside of it that it leans on.

The pins come last: they fail when a new version of `websockets` or Python changes what
`connection.py` and `server.py` rely on, and say which.
"""

import asyncio
import contextlib
import inspect
import json
import socket
from dataclasses import replace
from functools import partial

import pytest
from speech_gateway.admission import UnfinishedHandshakes
from speech_gateway.connection import (
    MAX_QUEUED_FRAMES,
    READ_BYTES,
    WRITE_LIMIT_BYTES,
    GatewayConnection,
    StreamEnded,
)
from speech_gateway.errors import Ending
from speech_gateway.testing import (
    CONFIG,
    LIMITS,
    RunningServer,
    raw_client,
    request,
    run_server,
    until,
)
from websockets.asyncio.connection import Connection
from websockets.asyncio.messages import Assembler
from websockets.asyncio.server import serve
from websockets.exceptions import PayloadTooBig, ProtocolError, TooManyFragments
from websockets.frames import CLOSE, CONT, PING, PONG, Frame, Opcode
from websockets.protocol import CLOSING, OPEN, State
from websockets.server import ServerProtocol

pytestmark = pytest.mark.anyio

PCM = bytes(640)
REQUEST = request()


def connection_of(server: RunningServer) -> GatewayConnection:
    (connection,) = server.gateway._server.connections
    return connection


@contextlib.asynccontextmanager
async def lone_connection():
    """Give a connection that nobody else reads, and the client at its other end."""
    opened = asyncio.get_running_loop().create_future()

    async def hand_over(connection):
        opened.set_result(connection)
        await connection.wait_closed()

    create = partial(GatewayConnection, handshakes=UnfinishedHandshakes())
    server = await serve(hand_over, "127.0.0.1", 0, create_connection=create, compression=None)
    async with server, raw_client(server.sockets[0].getsockname()[1]) as client:
        yield await opened, client


def received(*frames):
    """Return the state of the library's own protocol after a handshake and these frames."""
    protocol = ServerProtocol(max_size=100)
    protocol.receive_data(REQUEST)
    (asked,) = protocol.events_received()
    protocol.send_response(protocol.accept(asked))
    protocol.data_to_send()
    data = [f.serialize(mask=True) if isinstance(f, Frame) else f for f in frames]
    protocol.receive_data(b"".join(data))
    return protocol


async def test_it_reads_little_at_a_time(monkeypatch):
    """However much has arrived, one turn of the loop takes 16 KiB of it."""
    sizes = []
    take = GatewayConnection.data_received

    def measured(self, data):
        sizes.append(len(data))
        take(self, data)

    monkeypatch.setattr(GatewayConnection, "data_received", measured)
    async with run_server() as server, raw_client(server.port) as client:
        client.send(Frame(Opcode.BINARY, bytes(60_000)), Frame(Opcode.TEXT, b'{"event":"done"}'))
        await server.store.until_given()
    assert max(sizes) == READ_BYTES
    assert sum(sizes) > 60_000


async def test_a_stalled_client_holds_few_frames():
    """What waits for a slowed client is bounded: a few frames, and one read of the next."""
    config = replace(CONFIG, limits=replace(LIMITS, max_messages_per_second=1))
    async with run_server(config) as server, raw_client(server.port) as client:
        await client.read_frame()
        waiting = connection_of(server).recv_messages
        client.send(*[Frame(Opcode.BINARY, bytes(60_000))] * 40)
        await until(lambda: waiting.paused)
        assert len(waiting.frames) == MAX_QUEUED_FRAMES + 1


async def test_receiving_can_be_cancelled():
    """A message that is half there when `receive` is cancelled is returned whole by the next."""
    async with lone_connection() as (connection, client):
        client.send(Frame(Opcode.BINARY, b"ab", fin=False), Frame(Opcode.PING, b""))
        assert (await client.read_frame()).opcode is Opcode.PONG
        receiving = asyncio.create_task(connection.receive())
        await asyncio.wait([receiving], timeout=0.01)
        receiving.cancel()
        await asyncio.wait([receiving])
        client.send(Frame(Opcode.CONT, b"cd"))
        assert await connection.receive() == b"abcd"


@pytest.mark.parametrize(
    ("last", "ending"),
    [
        (Frame(Opcode.CLOSE, b""), Ending.DISCONNECT),
        (b"\xf2\x80\x00\x00\x00\x00", Ending.PROTOCOL_ERROR),
        (b"\x82\xff" + bytes(2) + b"\xff" * 6, Ending.CHUNK_TOO_LARGE),
    ],
)
async def test_the_end_comes_after_all_that_was_before_it(last, ending):
    """Messages of the same TCP write are received first, then how the stream ended, for good."""
    async with lone_connection() as (connection, client):
        client.send(Frame(Opcode.BINARY, b"ab"), Frame(Opcode.TEXT, b"cd"), last)
        await connection.stream_ended.wait()
        assert [await connection.receive(), await connection.receive()] == [b"ab", "cd"]
        for _ in range(2):
            with pytest.raises(StreamEnded) as ended:
                await connection.receive()
            assert ended.value.ending is ending


async def test_the_end_is_noticed_while_something_is_unsent():
    """A client that ends its side is gone, although what it does not read cannot be sent."""
    async with lone_connection() as (connection, client):
        client.stop_reading()
        connection.transport.set_write_buffer_limits(high=64 * 2**20)
        connection.transport.write(bytes(16 * 2**20))
        client.end_sending()
        async with asyncio.timeout(1):
            with pytest.raises(StreamEnded) as ended:
                await connection.receive()
        assert ended.value.ending is Ending.DISCONNECT
        assert connection.transport.get_write_buffer_size() > 0


async def test_a_cut_client_gets_a_moment_and_no_more():
    """`cut` sends the close and aborts a client that does not answer it."""
    async with run_server() as server, raw_client(server.port) as client:
        await client.read_frame()
        connection = connection_of(server)
        async with asyncio.timeout(1):
            await connection.cut(1008, "rate_limited")
            await connection.wait_closed()
        assert (await client.read_frame()).opcode is Opcode.CLOSE


async def test_an_ended_connection_keeps_no_timer():
    """The timer that bounds a closing connection does not outlive it."""
    async with run_server() as server, raw_client(server.port) as client:
        await client.read_frame()
        connection = connection_of(server)
        client.send(Frame(Opcode.CLOSE, b""))
        await connection.stream_ended.wait()
        assert not connection._abort_timer.cancelled()
        client.reset()
        await connection.wait_closed()
        assert connection._abort_timer.cancelled()


async def test_pin_asyncio_reads_into_the_buffer_of_a_buffered_protocol():
    """For a `BufferedProtocol` asyncio asks for room, and never offers more than there is of it."""

    class Small(asyncio.Protocol, asyncio.BufferedProtocol):
        def __init__(self):
            self.sizes = []
            self.over = asyncio.get_running_loop().create_future()

        def get_buffer(self, _sizehint):
            return bytearray(100)

        def buffer_updated(self, nbytes):
            self.sizes.append(nbytes)

        def connection_lost(self, _exc):
            self.over.set_result(None)

    here, there = socket.socketpair()
    _, protocol = await asyncio.get_running_loop().create_connection(Small, sock=here)
    with there:
        there.sendall(bytes(250))
    await protocol.over
    assert protocol.sizes == [100, 100, 50]


async def test_pin_asyncio_tells_of_unsent_data_over_the_limit():
    """The library passes `write_limit` on, and asyncio calls `pause_writing` above it."""
    async with run_server() as server, raw_client(server.port) as client:
        await client.read_frame()
        connection = connection_of(server)
        assert connection.transport.get_write_buffer_limits()[1] == WRITE_LIMIT_BYTES


async def test_pin_asyncio_accepts_as_many_as_the_backlog_in_one_turn():
    """`backlog` is how many connections asyncio accepts before the loop turns."""
    accept = asyncio.selector_events.BaseSelectorEventLoop._accept_connection
    assert "for _ in range(backlog):" in inspect.getsource(accept)


def test_pin_the_library_calls_what_is_overridden():
    """The library's connection has every method that ours overrides, and calls `process_event`."""
    for name in (
        "connection_made",
        "connection_lost",
        "data_received",
        "eof_received",
        "pause_writing",
        "process_event",
    ):
        assert callable(getattr(Connection, name, None)), name
    assert "self.process_event(event)" in inspect.getsource(Connection.data_received)


async def test_pin_messages_queue_up_in_the_assembler():
    """`get` returns what was put before `close`, and then raises EOFError."""
    assembler = Assembler()
    assembler.put(Frame(Opcode.BINARY, b"ab"))
    assembler.close()
    assert await assembler.get() == b"ab"
    with pytest.raises(EOFError):
        await assembler.get()


async def test_pin_the_assembler_finds_bad_text():
    """Invalid UTF-8 is found when a whole message is taken out."""
    assembler = Assembler()
    assembler.put(Frame(Opcode.TEXT, b"\xff"))
    with pytest.raises(UnicodeDecodeError):
        await assembler.get()


async def test_pin_the_assembler_bounds_fragments():
    """The library takes 4,096 fragments a message."""
    assembler = Assembler()
    assembler.put(Frame(Opcode.BINARY, b"", fin=False))
    for _ in range(4096):
        assembler.put(Frame(Opcode.CONT, b"", fin=False))
    with pytest.raises(TooManyFragments):
        await assembler.get()


def test_pin_a_large_frame_is_refused_on_its_head():
    """`parser_exc` tells of a message over `max_size` before any of its payload is there."""
    assert received(b"\x82\xe4").parser_exc is None  # 100 bytes are to come
    protocol = received(b"\x82\xe5")
    assert isinstance(protocol.parser_exc, PayloadTooBig)
    assert protocol.state is State.CLOSING


def test_pin_a_bad_frame_sets_the_exception_of_the_parser():
    """`parser_exc` tells of whatever RFC 6455 forbids, with the frames before it kept."""
    protocol = received(Frame(Opcode.BINARY, b"ab"), b"\xf2\x80\x00\x00\x00\x00")
    assert isinstance(protocol.parser_exc, ProtocolError)
    assert protocol.state is State.CLOSING
    assert [frame.data for frame in protocol.events_received()] == [b"ab"]


def test_pin_a_close_frame_is_told_in_close_rcvd():
    """`close_rcvd` holds the client's close, the state is CLOSING, and nothing has failed."""
    protocol = received(Frame(Opcode.CLOSE, b""))
    assert (protocol.parser_exc, protocol.state) == (None, State.CLOSING)
    assert protocol.close_rcvd is not None


def test_pin_failing_sends_the_close_and_ends_this_side():
    """`fail` leaves a close frame and the end of the data to be sent."""
    protocol = received()
    protocol.fail(1007, "invalid")
    close, end = protocol.data_to_send()
    assert (close, end) == (b"\x88\x09\x03\xefinvalid", b"")
    assert protocol.state is State.CLOSING


def test_pin_the_constants():
    """The library's short names are those of its enumerations."""
    assert (CLOSE, CONT, PING, PONG) == (Opcode.CLOSE, Opcode.CONT, Opcode.PING, Opcode.PONG)
    assert (CLOSING, OPEN) == (State.CLOSING, State.OPEN)


async def test_pin_the_library_runs_no_handler_for_what_it_refuses():
    """After a bad key `connection_lost` is called and the handler is not."""
    bad_key = request(without=frozenset({"Sec-WebSocket-Key"}))
    async with run_server() as server:
        async with raw_client(server.port, bad_key, upgrade=False) as client:
            assert b" 400 " in await client.read_rest()
        registry = server.gateway.metrics.registry
        assert registry.get_sample_value("speech_gateway_sessions_live") == 0
        async with raw_client(server.port) as client:
            greeting = json.loads((await client.read_frame()).data)
            assert greeting["status"] == "connected"
            assert registry.get_sample_value("speech_gateway_sessions_live") == 1
