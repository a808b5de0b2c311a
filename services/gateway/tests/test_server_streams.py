"""Streams that break the rules, or TCP, over real sockets: cut at once, in stream order, for good.

The idle time is short wherever an ending must be known at once: where it is found out only when
the idle clock runs out, these tests see a published utterance, or another reason.
"""

import asyncio
import contextlib
import json
import time
from dataclasses import replace

import pytest
from speech_gateway.errors import Ending
from speech_gateway.testing import CONFIG, LIMITS, hear, raw_client, request, run_server, until
from websockets.asyncio.client import connect
from websockets.frames import Frame, Opcode

pytestmark = pytest.mark.anyio

PCM = bytes(range(256)) * 5
AUDIO = Frame(Opcode.BINARY, PCM)
DONE = Frame(Opcode.TEXT, b'{"event":"done"}')
PING = Frame(Opcode.PING, b"")
CLOSE = Frame(Opcode.CLOSE, b"\x03\xe8")
RESERVED_BITS = b"\xf2\x80\x00\x00\x00\x00"
UNMASKED = b"\x82\x02ab"
UNKNOWN_OPCODE = b"\x83\x80\x00\x00\x00\x00"
LONG_PING = b"\x89\xfe\x00\x7e" + bytes(4 + 126)
FRAGMENTED_PING = b"\x09\x80\x00\x00\x00\x00"
LONE_CONTINUATION = Frame(Opcode.CONT, b"ab")
TOO_LARGE_HEAD = b"\x82\xff" + (65_537).to_bytes(8, "big")
"""The head of a message that is one byte too large, and nothing of the message."""

QUICK = replace(CONFIG, limits=replace(LIMITS, idle_timeout_seconds=0.15), close_timeout=0.2)


def given(server):
    return [(p.utterance.ended_by, p.pcm) for p in server.store.published]


def sessions(server, ended_by, outcome):
    return server.gateway.metrics.registry.get_sample_value(
        "speech_gateway_sessions_total", {"ended_by": ended_by, "outcome": outcome}
    )


async def frames(client):
    """Return the frames that come until the server ends its side, without the greeting."""
    received = []
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            received.append(await client.read_frame())
    return received[1:]


def close_frame(code, reason):
    return Frame(Opcode.CLOSE, code.to_bytes(2, "big") + reason)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (TOO_LARGE_HEAD, 1009),
        (RESERVED_BITS, 1002),
        (UNMASKED, 1002),
        (UNKNOWN_OPCODE, 1002),
        (LONG_PING, 1002),
        (FRAGMENTED_PING, 1002),
        (LONE_CONTINUATION, 1002),
        (Frame(Opcode.TEXT, b"\xff"), 1007),
        (Frame(Opcode.CLOSE, b"\x03"), 1002),
    ],
)
async def test_a_failed_connection_is_known_at_once(sent, code):
    """The library's close is sent, nothing is published, the slot is back, TCP open or not."""
    async with run_server(QUICK) as server, raw_client(server.port) as client:
        client.send(AUDIO, sent)
        (close,) = await frames(client)
        assert (close.opcode, int.from_bytes(close.data[:2], "big")) == (Opcode.CLOSE, code)
        await until(lambda: server.live == 0, 2.5)  # the client keeps its side open
        assert given(server) == []
        ended_by = "chunk_too_large" if code == 1009 else "protocol_error"
        assert sessions(server, ended_by, ended_by) == 1


async def test_a_failed_connection_frees_its_slot_in_two_seconds():
    """As the gateway is built: idle time or not, a client cannot put off the end for longer."""
    config = replace(CONFIG, limits=replace(LIMITS, idle_timeout_seconds=0.5))
    async with run_server(config) as server, raw_client(server.port) as client:
        client.send(AUDIO, TOO_LARGE_HEAD)
        await until(lambda: server.live == 0, 2.5)
        assert given(server) == []


async def test_too_many_fragments_fail_the_connection(monkeypatch):
    """A message in more fragments than the library takes is 1009, and a protocol error.

    The library's own number is out of reach: so many fragments are tiny, and over their budget.
    """
    monkeypatch.setattr("speech_gateway.frames.MAX_FRAGMENTS", 20)
    fragment = Frame(Opcode.CONT, b"\x00", fin=False)
    async with run_server(QUICK) as server, raw_client(server.port) as client:
        client.send(AUDIO, Frame(Opcode.BINARY, b"\x00", fin=False), *[fragment] * 20)
        assert await frames(client) == [close_frame(1009, b"too many fragments")]
        await until(lambda: server.live == 0, 2.5)
        assert given(server) == []
        assert sessions(server, "protocol_error", "protocol_error") == 1


async def test_too_large_a_message_in_fragments_is_refused():
    """The limit is of the whole message, however it is cut."""
    async with run_server(QUICK) as server, raw_client(server.port) as client:
        client.send(Frame(Opcode.BINARY, bytes(65_536), fin=False), Frame(Opcode.CONT, b"\x00"))
        (close,) = await frames(client)
        assert int.from_bytes(close.data[:2], "big") == 1009
        await until(lambda: server.live == 0, 2.5)
        assert sessions(server, "chunk_too_large", "chunk_too_large") == 1


async def test_done_before_garbage_is_published():
    """In one TCP write, what came before the garbage counts: `done` was first."""
    async with run_server(QUICK) as server, raw_client(server.port) as client:
        client.send(AUDIO, DONE, RESERVED_BITS)
        await server.store.until_given()
        await until(lambda: server.live == 0, 2.5)
        assert given(server) == [("done", PCM)]
        assert sessions(server, "done", "accepted") == 1


async def test_invalid_text_before_a_close_frame_is_a_protocol_error():
    """A close frame in the same write as invalid UTF-8 does not make its audio good."""
    async with run_server(QUICK) as server, raw_client(server.port) as client:
        client.send(AUDIO, Frame(Opcode.TEXT, b"\xff"), CLOSE)
        await until(lambda: server.live == 0, 2.5)
        assert given(server) == []
        assert sessions(server, "protocol_error", "protocol_error") == 1


async def test_a_known_end_goes_before_a_deadline_in_the_same_turn():
    """A loop that is held up finds garbage and the idle time together: the garbage counts."""
    config = replace(CONFIG, limits=replace(LIMITS, idle_timeout_seconds=0.2), close_timeout=0.2)
    async with run_server(config) as server, raw_client(server.port) as client:
        client.send(AUDIO, PING)
        while (await client.read_frame()).opcode is not Opcode.PONG:
            pass
        client.send(RESERVED_BITS)
        time.sleep(0.3)  # noqa: ASYNC251 - this is what holds up the loop
        await until(lambda: server.live == 0)
        assert given(server) == []


async def test_a_close_frame_with_tcp_kept_open_is_a_disconnect():
    """All audio before the close frame is published, and the slot is back in time."""
    config = replace(QUICK, limits=replace(LIMITS, max_messages_per_second=10_000))
    async with run_server(config) as server, raw_client(server.port) as client:
        client.send(*[AUDIO] * 300, CLOSE)  # more than is read at once
        await server.store.until_given()
        await until(lambda: server.live == 0, 2.5)
        assert given(server) == [("disconnect", PCM * 300)]


EMPTY = Frame(Opcode.BINARY, b"")
FIRST = Frame(Opcode.BINARY, b"\x00\x01", fin=False)
EMPTY_FRAGMENT = Frame(Opcode.CONT, b"", fin=False)
TINY_FRAGMENT = Frame(Opcode.CONT, b"\x00", fin=False)
LAST = Frame(Opcode.CONT, b"\x00")


@pytest.mark.parametrize(
    "flood",
    [
        [PING] * 42,
        [Frame(Opcode.PONG, b"")] * 42,
        [Frame(Opcode.PING, bytes(125))] * 42,
        [EMPTY] * 42,
        [FIRST, *[EMPTY_FRAGMENT] * 42],
        [FIRST, *[TINY_FRAGMENT] * 42],
        [PING, EMPTY, FIRST, TINY_FRAGMENT, LAST] * 11,
    ],
    ids=[
        "pings",
        "pongs",
        "long pings",
        "empty messages",
        "empty fragments",
        "tiny fragments",
        "mixed",
    ],
)
async def test_a_flood_is_cut(flood):
    """Over the budget of control frames and their like: an error, 1008, and no audio kept."""
    async with run_server() as server, raw_client(server.port) as client:
        client.send(AUDIO, *flood)
        said = [frame for frame in await frames(client) if frame.opcode is not Opcode.PONG]
        rule = Ending.RATE_LIMITED.value
        failed = json.loads(said[0].data)
        del failed["correlation_id"]
        assert failed == {
            "status": "error",
            "code": "rate_limited",
            "message": rule.message,
            "retryable": False,
            "stored": "no",
        }
        assert said[1:] == [close_frame(1008, b"rate_limited")]
        await until(lambda: server.live == 0)
        assert given(server) == []


async def test_what_follows_a_flood_in_the_same_write_is_dropped():
    """Audio and `done` behind a flood change nothing: the flood came first."""
    async with run_server() as server, raw_client(server.port) as client:
        client.send(AUDIO, *[PING] * 60, AUDIO, DONE)
        said = [frame for frame in await frames(client) if frame.opcode is Opcode.CLOSE]
        assert said == [close_frame(1008, b"rate_limited")]
        await until(lambda: server.live == 0)
        assert given(server) == []


async def test_a_flooder_is_not_listened_to():
    """After the cut nothing that the client sends is answered, not even its pings."""
    async with run_server() as server, raw_client(server.port) as client:
        client.send(*[PING] * 60)
        while (await client.read_frame()).opcode is not Opcode.CLOSE:
            pass
        client.send(Frame(Opcode.PING, b"late"))
        assert await client.read_rest() == b""


@pytest.mark.parametrize("frame", [PING, EMPTY], ids=["pings", "empty messages"])
async def test_a_burst_of_forty_is_not_a_flood(frame):
    """Forty control frames or empty messages at once are within the budget."""
    async with run_server() as server, raw_client(server.port) as client:
        client.send(AUDIO, *[frame] * 40, DONE)
        await server.store.until_given()
        assert given(server) == [("done", PCM)]


async def test_fragments_that_end_empty_are_not_a_flood():
    """Messages that are ended by an empty final frame cost no budget, fifty a second or more."""
    message = [Frame(Opcode.BINARY, PCM, fin=False), Frame(Opcode.CONT, b"")]
    async with run_server() as server, raw_client(server.port) as client:
        client.send(*message * 100, DONE)
        await server.store.until_given()
        assert given(server) == [("done", PCM * 100)]


@pytest.mark.parametrize("size", [128, 1_024, 4_096])
async def test_a_large_message_in_pieces_is_not_a_flood(size):
    """64 KiB in fragments of an honest size, also of a small device's, cost no budget."""
    pieces = [bytes(size)] * (65_536 // size)
    first, last = Frame(Opcode.BINARY, pieces[0], fin=False), Frame(Opcode.CONT, pieces[-1])
    between = [Frame(Opcode.CONT, piece, fin=False) for piece in pieces[1:-1]]
    async with run_server() as server, raw_client(server.port) as client:
        client.send(*[first, *between, last] * 3, DONE)
        await server.store.until_given()
        assert given(server) == [("done", bytes(3 * 65_536))]


async def test_a_flood_after_done_does_not_change_the_answer():
    """The first ending wins: `done`, then a flood, is accepted."""
    async with run_server(QUICK) as server, raw_client(server.port) as client:
        server.store.hold()
        client.send(AUDIO, DONE, *[PING] * 60)
        await server.store.until_given()
        server.store.release()
        said = [frame for frame in await frames(client) if frame.opcode is Opcode.TEXT]
        assert [json.loads(frame.data)["status"] for frame in said] == ["accepted"]


BAD_FRAMES = {
    "a message too large": TOO_LARGE_HEAD + bytes(70_000),
    "too large in fragments": Frame(Opcode.BINARY, bytes(65_536), fin=False).serialize(mask=True)
    + Frame(Opcode.CONT, bytes(2)).serialize(mask=True),
    "reserved bits": RESERVED_BITS,
    "unmasked": UNMASKED,
    "unknown opcode": UNKNOWN_OPCODE,
    "long ping": LONG_PING,
    "fragmented ping": FRAGMENTED_PING,
    "lone continuation": LONE_CONTINUATION.serialize(mask=True),
    "a message within a message": Frame(Opcode.BINARY, bytes(200), fin=False).serialize(mask=True)
    + AUDIO.serialize(mask=True),
    "text that is not UTF-8": Frame(Opcode.TEXT, b"\xff").serialize(mask=True),
    "a close frame of one byte": Frame(Opcode.CLOSE, b"\x03").serialize(mask=True),
    "a close frame that is not UTF-8": Frame(Opcode.CLOSE, b"\x03\xe8\xff").serialize(mask=True),
    "a close frame within a message": Frame(Opcode.BINARY, bytes(200), fin=False).serialize(
        mask=True
    )
    + CLOSE.serialize(mask=True),
    "pings without end": PING.serialize(mask=True) * 60,
}
AFTER_THE_END = pytest.mark.parametrize("bad", BAD_FRAMES.values(), ids=BAD_FRAMES)


async def last_words(client):
    """Return the final message's status, or its code, and the code of the close behind it."""
    said = [frame for frame in await frames(client) if frame.opcode is not Opcode.PONG]
    message, close = json.loads(said[0].data), said[-1]
    assert [frame.opcode for frame in said] == [Opcode.TEXT, Opcode.CLOSE]
    return message.get("code", message["status"]), int.from_bytes(close.data[:2], "big")


@AFTER_THE_END
async def test_a_bad_frame_after_done_costs_no_receipt(bad):
    """While the broker is asked, whatever comes is dropped; then the receipt and a clean close."""
    async with run_server() as server, raw_client(server.port) as client:
        server.store.hold()
        client.send(AUDIO, DONE)
        await server.store.until_given()
        client.send(bad, AUDIO, RESERVED_BITS)
        (connection,) = server.gateway._server.connections
        await until(lambda: connection.stream_ended)
        server.store.release()
        assert await last_words(client) == ("accepted", 1000)
        assert given(server) == [("done", PCM)]
        client.end_sending()
        await until(lambda: server.live == 0)
        assert sessions(server, "done", "accepted") == 1


@AFTER_THE_END
async def test_a_bad_frame_right_behind_done_costs_no_receipt(bad):
    """Also where both came in one read, before anybody could look at the first."""
    async with run_server() as server, raw_client(server.port) as client:
        client.send(AUDIO, DONE, bad)
        assert await last_words(client) == ("accepted", 1000)
        assert given(server) == [("done", PCM)]


@AFTER_THE_END
async def test_a_bad_frame_before_done_still_discards_the_audio(bad):
    """In stream order: what is bad first ends the utterance, and `done` comes too late."""
    async with run_server() as server, raw_client(server.port) as client:
        client.send(AUDIO, bad, DONE)
        await frames(client)
        client.end_sending()
        await until(lambda: server.live == 0)
        assert given(server) == []


ENDINGS = {
    "audio beyond the limit": ([Frame(Opcode.BINARY, bytes(4_002))], ("audio_too_long", 1009)),
    "a container": ([Frame(Opcode.BINARY, b"OggS" + bytes(20))], ("unsupported_audio", 1003)),
    "unknown text": ([AUDIO, Frame(Opcode.TEXT, b"?")], ("invalid_message", 1003)),
    "no audio": ([DONE], ("empty_audio", 1008)),
    "a flood": ([AUDIO, *[PING] * 60], ("rate_limited", 1008)),
}


@pytest.mark.parametrize(("sent", "told"), ENDINGS.values(), ids=ENDINGS)
async def test_a_bad_frame_after_any_end_costs_no_final_message(sent, told):
    """Who is told why an utterance was refused is told so, whatever else was in that write."""
    config = replace(CONFIG, limits=replace(LIMITS, max_audio_bytes=4_000))
    async with run_server(config) as server, raw_client(server.port) as client:
        client.send(*sent, RESERVED_BITS)
        assert await last_words(client) == told


async def test_a_bad_frame_after_an_utterance_was_filled_costs_no_receipt():
    """What was cut at the limit and stored has its receipt, too."""
    limits = replace(LIMITS, max_audio_bytes=4_000)
    config = replace(CONFIG, limits=limits, fill_at_limit=True)
    async with run_server(config) as server, raw_client(server.port) as client:
        client.send(Frame(Opcode.BINARY, bytes(4_002)), RESERVED_BITS)
        assert await last_words(client) == ("accepted", 1009)
        assert given(server) == [("audio_too_long", bytes(4_000))]


async def test_a_bad_frame_after_the_idle_time_costs_no_receipt():
    """An ending that no frame brought is an ending as well."""
    async with run_server(QUICK) as server, raw_client(server.port) as client:
        server.store.hold()
        client.send(AUDIO)
        await server.store.until_given()
        client.send(Frame(Opcode.TEXT, b"\xff"))
        (connection,) = server.gateway._server.connections
        await until(lambda: connection.stream_ended)
        server.store.release()
        assert await last_words(client) == ("accepted", 1001)


async def test_a_client_that_leaves_after_a_bad_frame_is_noticed():
    """Nothing is said to it, and its slot is back, as soon as the broker has answered."""
    async with run_server() as server:
        async with raw_client(server.port) as client:
            server.store.hold()
            client.send(AUDIO, DONE, RESERVED_BITS, bytes(100_000))
            await server.store.until_given()
            (connection,) = server.gateway._server.connections
        async with asyncio.timeout(5):
            await connection.wait_closed()
        (driver,) = server.gateway._drivers
        await until(lambda: driver.session._peer_gone)
        server.store.release()
        await until(lambda: server.live == 0)
        assert driver.close_code is None
        assert sessions(server, "done", "accepted") == 1


async def test_a_polite_close_after_done_is_answered_at_once():
    """A client that leaves while its `done` is being stored need not wait for the broker."""
    async with run_server() as server, raw_client(server.port) as client:
        server.store.hold()
        client.send(AUDIO, DONE)
        await server.store.until_given()
        client.send(CLOSE)
        assert await frames(client) == [CLOSE]


async def test_a_fast_client_is_slowed_and_loses_nothing():
    """Over the rate a client is not read, never cut; every message is taken in the end."""
    config = replace(CONFIG, limits=replace(LIMITS, max_messages_per_second=100))
    async with run_server(config) as server, connect(server.url) as client:
        began = asyncio.get_running_loop().time()
        for _ in range(150):
            await client.send(PCM)
        await client.send(DONE.data.decode())
        heard = await hear(client)
        took = asyncio.get_running_loop().time() - began
        assert heard.reason == "done"
        assert given(server) == [("done", PCM * 150)]
        assert 0.5 <= took < 10  # a hundred at once, fifty more at a hundred a second


async def test_a_slowed_client_that_leaves_is_not_waited_for():
    """When the stream has ended what was read of it is taken at once."""
    config = replace(CONFIG, limits=replace(LIMITS, max_messages_per_second=1))
    async with run_server(config) as server, raw_client(server.port) as client:
        client.send(*[AUDIO] * 10, CLOSE)
        async with asyncio.timeout(1):
            await server.store.until_given()
        assert given(server) == [("disconnect", PCM * 10)]


SLOW = replace(
    CONFIG,
    limits=replace(LIMITS, max_audio_bytes=16_000, max_session_seconds=5.0),
    max_audio_speed=1,
    utterances_at_once=1,
)
"""An address may send half a second of audio at once, and then at the pace of speech."""


async def test_an_address_is_read_at_its_pace_however_many_clients_it_has():
    """Three clients share its bucket: two more utterances of it take the time of speech."""
    pcm = bytes(16_000)
    async with run_server(SLOW) as server:

        async def speak():
            async with connect(server.url) as client:
                for start in range(0, len(pcm), 3_200):
                    await client.send(pcm[start : start + 3_200])
                await client.send(DONE.data.decode())
                return (await hear(client)).reason

        began = asyncio.get_running_loop().time()
        assert await asyncio.gather(speak(), speak(), speak()) == ["done"] * 3
        assert 0.9 <= asyncio.get_running_loop().time() - began < 5
        assert given(server) == [("done", pcm)] * 3


async def test_another_address_is_read_at_once():
    """Whatever the first one owes."""
    pcm = Frame(Opcode.BINARY, bytes(16_000))
    async with run_server(SLOW) as server, raw_client(server.port) as greedy:
        greedy.send(pcm, DONE)
        await server.store.until_given()
        async with (
            raw_client(server.port) as late,
            raw_client(server.port, source="127.0.0.2") as other,
        ):
            late.send(pcm, DONE)
            other.send(pcm, DONE)
            while (await other.read_frame()).opcode is not Opcode.CLOSE:
                pass
            assert len(server.store.published) == 2  # the late one waits half a second


async def test_who_sends_and_leaves_pays_for_its_audio_all_the_same():
    """Else an address could send what it likes, one short connection after the other."""
    async with run_server(SLOW) as server:
        began = asyncio.get_running_loop().time()
        for _ in range(3):
            async with raw_client(server.port) as client:
                client.send(*[Frame(Opcode.BINARY, bytes(3_200))] * 5, CLOSE)
                client.end_sending()
                await client.read_rest()
        await server.store.until_given(3)
        assert 0.9 <= asyncio.get_running_loop().time() - began < 5
        assert given(server) == [("disconnect", bytes(16_000))] * 3


async def test_the_session_bounds_how_long_audio_is_paid_for():
    """A client that has gone holds its slot for no longer than one that is there."""
    config = replace(SLOW, limits=replace(SLOW.limits, max_session_seconds=0.3))
    async with run_server(config) as server:
        async with raw_client(server.port) as greedy:
            greedy.send(Frame(Opcode.BINARY, bytes(65_536)))  # rejected, and a debt of 1.5 s
            while (await greedy.read_frame()).opcode is not Opcode.CLOSE:
                pass
        async with raw_client(server.port) as client:
            client.send(*[AUDIO] * 2, CLOSE)
            await server.store.until_given()
        assert given(server) == [("session_expired", PCM)]


async def test_a_client_that_does_not_read_is_aborted():
    """Over 64 KiB unsent, whatever they are, the transport is aborted; the audio is published."""
    async with run_server() as server, raw_client(server.port) as client:
        client.send(AUDIO, PING)
        while (await client.read_frame()).opcode is not Opcode.PONG:
            pass
        client.stop_reading()
        (connection,) = server.gateway._server.connections
        for _ in range(200_000):  # more than the kernel takes
            connection.protocol.send_pong(bytes(125))
            connection.send_data()
            if connection.transport.is_closing():
                break
        frame = 2 + 125  # the one that passed the limit
        assert connection.transport.get_write_buffer_size() <= 65_536 + frame
        await until(lambda: server.live == 0)
        assert given(server) == [("disconnect", PCM)]


async def test_frames_before_the_switch_are_taken():
    """A client that does not wait for the 101 loses nothing."""
    async with run_server() as server:
        head = request() + AUDIO.serialize(mask=True) + DONE.serialize(mask=True)
        async with raw_client(server.port, head):
            await server.store.until_given()
            assert given(server) == [("done", PCM)]


@pytest.mark.parametrize(
    "early",
    [RESERVED_BITS, TOO_LARGE_HEAD, CLOSE.serialize(mask=True)],
    ids=["reserved bits", "too large", "close"],
)
async def test_a_failure_before_the_switch_leaks_no_slot(early):
    """Garbage right behind the request ends the connection; the slot is back."""
    async with run_server() as server:
        async with raw_client(server.port, request() + early, upgrade=False) as client:
            await client.read_rest()
            await until(lambda: server.live == 0)
        assert given(server) == []
