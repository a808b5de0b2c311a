"""What the connection adds to the library's own."""

import asyncio
import contextlib
import logging
from asyncio.proactor_events import BaseProactorEventLoop
from dataclasses import dataclass, replace
from functools import partial

import pytest
from speech_gateway.admission import Admission, UnfinishedHandshakes
from speech_gateway.connection import (
    MAX_QUEUED_FRAMES,
    PARSED_BYTES,
    READ_BYTES,
    GatewayConnection,
)
from speech_gateway.errors import Ending, StreamEnded
from speech_gateway.metrics import Metrics
from speech_gateway.server import GatewayServer, require_selector_loop
from speech_gateway.testing import (
    CONFIG,
    LIMITS,
    FakeStore,
    RunningServer,
    Switch,
    raw_client,
    run_server,
    until,
)
from speech_lib.errors import ConfigError
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode

pytestmark = pytest.mark.anyio

PCM = bytes(640)
PING = Frame(Opcode.PING, b"").serialize(mask=True)
PONG_BYTES = Frame(Opcode.PONG, b"").serialize(mask=False)


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


@pytest.mark.parametrize(
    ("method", "most"), [("buffer_updated", READ_BYTES), ("data_received", PARSED_BYTES)]
)
async def test_it_takes_little_at_a_time(monkeypatch, method, most):
    """However much has arrived, one turn of the loop reads 16 KiB, and parses it by 2 KiB."""
    sizes = []
    take = getattr(GatewayConnection, method)

    def measured(self, taken):
        sizes.append(taken if isinstance(taken, int) else len(taken))
        take(self, taken)

    monkeypatch.setattr(GatewayConnection, method, measured)
    async with run_server() as server, raw_client(server.port) as client:
        client.send(Frame(Opcode.BINARY, bytes(60_000)), Frame(Opcode.TEXT, b'{"event":"done"}'))
        await server.store.until_given()
    assert max(sizes) == most
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


@dataclass
class Clock:
    """An event loop whose time the test tells."""

    loop: asyncio.AbstractEventLoop
    now: float

    def time(self):
        return self.now

    def __getattr__(self, name):
        return getattr(self.loop, name)


BUDGETED = {
    "ping": Frame(Opcode.PING, b""),
    "long ping": Frame(Opcode.PING, bytes(125)),
    "pong": Frame(Opcode.PONG, b""),
    "empty message": Frame(Opcode.BINARY, b""),
    "empty text": Frame(Opcode.TEXT, b""),
    "empty first fragment": Frame(Opcode.BINARY, b"", fin=False),
    "empty fragment": Frame(Opcode.CONT, b"", fin=False),
    "tiny first fragment": Frame(Opcode.BINARY, bytes(127), fin=False),
    "tiny fragment": Frame(Opcode.CONT, bytes(127), fin=False),
}
FREE = {
    "one byte": Frame(Opcode.BINARY, b"\0"),
    "short text": Frame(Opcode.TEXT, b"{}"),
    "fragment": Frame(Opcode.CONT, bytes(128), fin=False),
    "first fragment": Frame(Opcode.BINARY, bytes(128), fin=False),
    "last fragment": Frame(Opcode.CONT, b"\0"),
    "empty last fragment": Frame(Opcode.CONT, b""),
}


async def passed(frame, *times):
    """Return how many of these frames, at these times of a clock, are passed on."""
    async with lone_connection() as (connection, _client):
        began = connection.loop.time() + 1
        connection.loop = clock = Clock(connection.loop, began)
        count = 0
        for at in times:
            clock.now = began + at
            connection.process_event(frame)
            if connection.stream_ended.is_set():
                break
            count += 1
        connection.abort()  # with so much unread it would not notice that the client leaves
    return count


@pytest.mark.parametrize("frame", BUDGETED.values(), ids=BUDGETED)
async def test_the_budget_is_forty_at_once_and_twenty_a_second(frame):
    """Control frames, empty messages and tiny fragments: exactly so many, by a clock."""
    burst = [0.0] * 40
    assert await passed(frame, *burst, 0.0) == 40
    assert await passed(frame, *burst, 0.049) == 40
    assert await passed(frame, *burst, 0.05, 0.05) == 41
    assert await passed(frame, *burst, *[at / 20 for at in range(1, 30)]) == 69
    assert await passed(frame, *burst, *[9.0] * 41) == 80


@pytest.mark.parametrize("frame", FREE.values(), ids=FREE)
async def test_what_holds_audio_is_not_on_the_budget(frame):
    """Audio has its own rate, however it is cut; the end of a message costs nothing."""
    assert await passed(frame, *[0.0] * 100) == 100


async def test_a_flood_of_pings_is_answered_in_one_write():
    """A system call for each pong would make the client's flood the gateway's work."""
    async with lone_connection() as (connection, _client):
        written = []
        connection.transport.write = written.append
        connection.data_received(PING * 40)
        assert written == [PONG_BYTES * 40]


async def test_a_client_that_has_gone_is_not_written_to(caplog):
    """Pings that are read after the connection broke are not answered: asyncio would log each."""
    caplog.set_level(logging.WARNING)  # as asyncio does; another test may have turned on more
    async with lone_connection() as (connection, _client):
        connection.transport.abort()
        for _ in range(10):
            connection.data_received(PING)
    assert caplog.messages == []


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


async def test_a_slot_is_given_back_whatever_the_library_makes_of_the_end(monkeypatch):
    """The count of connections is exact, also where the library's own part raises."""

    def fail(_self, _exc):
        raise RuntimeError

    async with run_server() as server:
        async with raw_client(server.port) as client:
            await client.read_frame()
            connection = connection_of(server)
            slot = connection.slot
            with monkeypatch.context() as patched:
                patched.setattr(ServerConnection, "connection_lost", fail)
                with pytest.raises(RuntimeError):
                    connection.connection_lost(None)
            assert slot._holders == 1  # the driver, which has not ended
            slot.hold()  # the transport is lost once more, in earnest
        await until(lambda: server.live == 0)


class Proactor(BaseProactorEventLoop):
    """A loop of the kind that Windows has, of which nothing runs."""

    def __init__(self):
        self._closed = True


async def test_a_loop_that_reads_in_the_background_is_refused():
    """There all connections would read into one buffer at the same time."""
    with pytest.raises(ConfigError, match="proactor"):
        require_selector_loop(Proactor())
    require_selector_loop(asyncio.get_running_loop())


async def test_the_server_asks_for_a_loop_that_it_can_use(monkeypatch):
    """It does not listen on another one."""
    monkeypatch.setattr(asyncio, "get_running_loop", Proactor)
    with pytest.raises(ConfigError):
        await GatewayServer(CONFIG, FakeStore(), Admission(1, 1), Switch(), Metrics()).start()
