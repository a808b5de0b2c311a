"""What the connection adds to the library's own."""

import asyncio
import contextlib
import logging
from asyncio.proactor_events import BaseProactorEventLoop
from dataclasses import dataclass, replace
from functools import partial

import pytest
from speech_gateway.admission import Admission, UnfinishedHandshakes
from speech_gateway.connection import GatewayConnection
from speech_gateway.errors import Ending
from speech_gateway.frames import PARSED_BYTES
from speech_gateway.metrics import Metrics
from speech_gateway.reading import READ_BYTES, SmallReads
from speech_gateway.server import GatewayServer, require_selector_loop
from speech_gateway.testing import (
    CONFIG,
    LIMITS,
    FakeStore,
    RunningServer,
    Switch,
    raw_client,
    request,
    run_server,
    until,
)
from speech_lib.errors import ConfigError
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode

pytestmark = pytest.mark.anyio

PCM = bytes(640)
PING = Frame(Opcode.PING, b"").serialize(mask=True)
DONE = Frame(Opcode.TEXT, b'{"event":"done"}')
PONG_BYTES = Frame(Opcode.PONG, b"").serialize(mask=False)


def connection_of(server: RunningServer) -> GatewayConnection:
    (connection,) = server.gateway._server.connections
    return connection


class Recorder:
    """A listener that keeps all that it is given."""

    def __init__(self):
        self.heard = []
        self.ended = asyncio.Event()

    def receive(self, message):
        self.heard.append(message)

    def end(self, ending):
        self.heard.append(ending)
        self.ended.set()

    def lost(self):
        self.heard.append("lost")


@contextlib.asynccontextmanager
async def lone_connection():
    """Give a connection to which nobody listens, and the client at its other end."""
    opened = asyncio.get_running_loop().create_future()

    async def hand_over(connection):
        opened.set_result(connection)
        await connection.wait_closed()

    create = partial(GatewayConnection, handshakes=UnfinishedHandshakes())
    server = await serve(hand_over, "127.0.0.1", 0, create_connection=create, compression=None)
    async with server, raw_client(server.sockets[0].getsockname()[1]) as client:
        yield await opened, client


@contextlib.contextmanager
def measured(monkeypatch, owner, method):
    """Keep the sizes that a method is given."""
    sizes = []
    take = getattr(owner, method)

    def measure(self, taken):
        sizes.append(taken if isinstance(taken, int) else len(taken))
        take(self, taken)

    monkeypatch.setattr(owner, method, measure)
    yield sizes


async def test_it_reads_little_at_a_time(monkeypatch):
    """However much has arrived, one turn of the loop reads no more than `READ_BYTES`."""
    with measured(monkeypatch, SmallReads, "buffer_updated") as sizes:
        async with run_server() as server, raw_client(server.port) as client:
            client.send(*[Frame(Opcode.BINARY, bytes(60_000))] * 3, *[DONE])
            await server.store.until_given()
    assert max(sizes) == READ_BYTES
    assert sum(sizes) > 180_000


async def test_it_parses_few_small_frames_at_a_time(monkeypatch):
    """The budget is checked every 2 KiB, and what is behind the end of the stream is not parsed."""
    with measured(monkeypatch, GatewayConnection, "data_received") as sizes:
        async with run_server() as server, raw_client(server.port) as client:
            client.send(PING * 2_000)
            await client.read_rest()
    handshake, *pieces = sizes
    assert handshake == len(request())
    assert pieces == [PARSED_BYTES + (-PARSED_BYTES) % len(PING)]


async def test_a_slowed_client_is_not_read():
    """What a client sends over its rate waits in the kernel, but for one read."""
    config = replace(CONFIG, limits=replace(LIMITS, max_messages_per_second=1))
    async with run_server(config) as server, raw_client(server.port) as client:
        await client.read_frame()
        connection = connection_of(server)
        client.send(*[Frame(Opcode.BINARY, bytes(60_000))] * 40)
        await until(lambda: not connection.transport.is_reading())
        (driver,) = server.gateway._drivers
        assert driver.session.messages <= 1 + -(-READ_BYTES // 60_000)


async def test_a_client_that_does_not_wait_for_the_switch_is_not_read_on(monkeypatch):
    """Before there is a session, no more than a few messages are kept."""
    gate = asyncio.Event()
    serve_client = GatewayServer._serve_client

    async def late(self, connection):
        await gate.wait()
        await serve_client(self, connection)

    monkeypatch.setattr(GatewayServer, "_serve_client", late)
    async with run_server() as server, raw_client(server.port) as client:
        connection = connection_of(server)
        client.send(*[Frame(Opcode.BINARY, PCM)] * 150, DONE)
        await until(lambda: not connection.transport.is_reading())
        gate.set()
        await server.store.until_given()
        assert server.store.published[0].pcm == PCM * 150


@pytest.mark.parametrize(
    ("last", "ending"),
    [
        (Frame(Opcode.CLOSE, b""), Ending.DISCONNECT),
        (b"\xf2\x80\x00\x00\x00\x00", Ending.PROTOCOL_ERROR),
        (b"\x82\xff" + bytes(2) + b"\xff" * 6, Ending.CHUNK_TOO_LARGE),
        (Frame(Opcode.TEXT, b"\xff"), Ending.PROTOCOL_ERROR),
    ],
)
@pytest.mark.parametrize("early", [True, False], ids=["before it is listened to", "after"])
async def test_the_end_comes_after_all_that_was_before_it(early, last, ending):
    """Messages of the same TCP write come first, then how the stream ended, once and for good."""
    recorder = Recorder()
    async with lone_connection() as (connection, client):
        if not early:
            connection.listen(recorder)
        client.send(
            Frame(Opcode.BINARY, b"a", fin=False),
            Frame(Opcode.CONT, b"b"),
            Frame(Opcode.TEXT, b"c"),
        )
        client.send(Frame(Opcode.BINARY, b"d"), last, Frame(Opcode.BINARY, b"e"))
        await until(lambda: connection.stream_ended)
        if early:
            connection.listen(recorder)
        assert recorder.heard == [b"ab", "c", b"d", ending]
        connection.abort()
        await connection.wait_closed()
        assert recorder.heard == [b"ab", "c", b"d", ending, "lost"]


async def test_the_end_is_noticed_while_something_is_unsent():
    """A client that ends its side is gone, although what it does not read cannot be sent."""
    async with lone_connection() as (connection, client):
        client.stop_reading()
        connection.transport.set_write_buffer_limits(high=64 * 2**20)
        connection.transport.write(bytes(16 * 2**20))
        client.end_sending()
        connection.listen(recorder := Recorder())
        async with asyncio.timeout(1):
            await recorder.ended.wait()
        assert recorder.heard == [Ending.DISCONNECT]
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


class RecordingTransport:
    """Takes what is written, and sends nothing."""

    def __init__(self):
        self.written = []

    def write(self, data):
        self.written.append(data)

    def is_closing(self):
        return False


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
            if connection.stream_ended:
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
        transport = connection.transport
        connection.transport = recording = RecordingTransport()
        connection.data_received(PING * 40)
        connection.transport = transport
        assert recording.written == [PONG_BYTES * 40]


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
        await until(lambda: connection.stream_ended)
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
