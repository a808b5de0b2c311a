"""Every inside of `websockets` and asyncio that `connection.py` and `server.py` lean on.

These fail when a new version changes one of them, and say which.
"""

import asyncio
import inspect
import json
import socket
from functools import partial

import pytest
from speech_gateway.connection import WRITE_LIMIT_BYTES
from speech_gateway.testing import raw_client, request, run_server, until
from websockets.asyncio.connection import Connection
from websockets.asyncio.messages import Assembler
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import CLOSE, CONT, DATA_OPCODES, Frame, Opcode
from websockets.protocol import CLOSING, OPEN, SEND_EOF, State
from websockets.server import ServerProtocol

pytestmark = pytest.mark.anyio

REQUEST = request()


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


async def test_pin_asyncio_reads_into_the_buffer_of_a_buffered_protocol():
    """For a `BufferedProtocol` asyncio asks for room, and never offers more than there is of it."""

    class Small(asyncio.BufferedProtocol):
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


async def test_pin_asyncio_reads_and_reports_in_one_go():
    """Nothing else runs between the offer of room and what was read: all may share one room."""
    loop, order = asyncio.get_running_loop(), []

    class Watched(asyncio.BufferedProtocol):
        def get_buffer(self, _sizehint):
            loop.call_soon(order.append, "others")
            return bytearray(100)

        def buffer_updated(self, _nbytes):
            order.append("read")

    here, there = socket.socketpair()
    transport, _ = await loop.create_connection(Watched, sock=here)
    with there:
        there.sendall(b"x")
        await until(lambda: len(order) == 2)
    transport.abort()
    assert order == ["read", "others"]


async def test_pin_asyncio_tells_of_unsent_data_over_the_limit():
    """The library passes `write_limit` on, and asyncio calls `pause_writing` above it."""
    async with run_server() as server, raw_client(server.port) as client:
        await client.read_frame()
        (connection,) = server.gateway._server.connections
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
        "send_data",
    ):
        assert callable(getattr(Connection, name, None)), name
    received = inspect.getsource(Connection.data_received)
    assert "self.process_event(event)" in received
    assert "self.send_data()" in received
    assert "self.recv_messages" not in received  # what `process_event` does not pass on is nowhere


async def test_pin_without_a_queue_the_library_never_pauses():
    """`max_queue=None`: the connection alone pauses and resumes the reading."""
    calls = []
    assembler = Assembler(None, None, pause=partial(calls.append, "pause"))
    for _ in range(1_000):
        assembler.put(Frame(Opcode.BINARY, b"ab"))
    assert calls == []


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


def test_pin_the_parser_fails_by_a_method_that_can_be_shadowed():
    """A bad frame is told to `fail` of the instance, before anything of it is sent."""
    told = []
    protocol = received(Frame(Opcode.BINARY, b"ab"))
    protocol.fail = lambda *failure: told.append(failure)
    protocol.receive_data(b"\xf2\x80\x00\x00\x00\x00")
    assert told == [(1002, "reserved bits must be 0")]
    assert (protocol.state, protocol.data_to_send()) == (State.OPEN, [])


def test_pin_the_parser_can_begin_anew():
    """A second `parse` in place of the first takes what comes then, and the end of the data."""
    protocol = received(b"\x82\x84ma")  # in the middle of a head
    protocol.reader.discard()
    protocol.parser = protocol.parse()
    next(protocol.parser)
    protocol.receive_data(Frame(Opcode.BINARY, b"ab").serialize(mask=True))
    assert [frame.data for frame in protocol.events_received()] == [b"ab"]
    protocol.receive_eof()
    assert (protocol.state, protocol.data_to_send()) == (State.CLOSED, [b""])


def test_pin_the_constants():
    """The library's short names are those of its enumerations."""
    assert (CLOSE, CONT, CLOSING, OPEN) == (Opcode.CLOSE, Opcode.CONT, State.CLOSING, State.OPEN)
    assert set(DATA_OPCODES) == {Opcode.CONT, Opcode.TEXT, Opcode.BINARY}
    assert SEND_EOF == b""


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
