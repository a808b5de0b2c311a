"""Frames are split as the library parses them, however the bytes arrive."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_gateway.frames import MAX_FRAGMENTS, PARSED_BYTES, FrameSplitter, MessageAssembler
from speech_gateway.testing import request
from websockets.exceptions import TooManyFragments
from websockets.frames import CONT, Frame, Opcode
from websockets.server import ServerProtocol

MAX_SIZE = 70_000
REQUEST = request()


def opened() -> ServerProtocol:
    """Return the library's protocol after a handshake."""
    protocol = ServerProtocol(max_size=MAX_SIZE)
    protocol.receive_data(REQUEST)
    (asked,) = protocol.events_received()
    protocol.send_response(protocol.accept(asked))
    return protocol


def frames_of(protocol: ServerProtocol) -> list[tuple[Opcode, bytes, bool]]:
    return [(f.opcode, bytes(f.data), f.fin) for f in protocol.events_received()]


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({c % (len(data) + 1) for c in cuts}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def split(pieces: list[bytes]) -> tuple[list[tuple[Opcode, bytes, bool]], str]:
    """Return the frames of a stream, of which the splitter takes what it can, and how it failed."""
    splitter, protocol, frames = FrameSplitter(MAX_SIZE), opened(), []
    for piece in pieces:
        for is_message, part in splitter.split(piece):
            if protocol.parser_exc or protocol.close_rcvd:
                break  # as the connection does
            if is_message:
                assert part
                frames.append((Opcode.BINARY, part, True))
            else:
                protocol.receive_data(part)
                frames += frames_of(protocol)
    return frames, repr(protocol.parser_exc)


def parsed(pieces: list[bytes]) -> tuple[list[tuple[Opcode, bytes, bool]], str]:
    """Return what the library makes of the same bytes alone."""
    protocol = opened()
    for piece in pieces:
        protocol.receive_data(piece)
    return frames_of(protocol), repr(protocol.parser_exc)


def masked(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(Opcode(opcode), data, fin).serialize(mask=True)


SIZES = st.sampled_from([0, 1, 2, 5, 100, 125, 126, 127, 640, 3_200, 65_535, 65_536, 70_000])
WELL_FORMED = st.builds(
    lambda opcode, size, fin: masked(opcode, bytes([size % 251]) * size, fin=fin),
    st.sampled_from([0, 1, 2, 2, 2]),
    SIZES,
    st.sampled_from([True, True, False]),
)
CONTROL = st.builds(masked, st.sampled_from([9, 10]), st.binary(max_size=125))
ODD = st.sampled_from(
    [
        b"\xf2\x80\x00\x00\x00\x00",  # reserved bits
        b"\x82\x02ab",  # unmasked
        b"\x83\x80\x00\x00\x00\x00",  # no such opcode
        b"\x89\xfe\x00\x7e" + bytes(4 + 126),  # a long ping
        b"\x09\x80\x00\x00\x00\x00",  # a ping in fragments
        b"\x82\xff" + (MAX_SIZE + 1).to_bytes(8, "big"),  # too large, by its head alone
        b"\x82\xfe\x00\x05" + bytes(4 + 5),  # a length in more bytes than it needs
        b"\x82\xff" + (5).to_bytes(8, "big") + bytes(4 + 5),
        b"\x82",
        b"\x82\xfe",
        b"\x88\x80\x00\x00\x00\x00",  # a close
    ]
)
STREAM = st.lists(st.one_of(WELL_FORMED, WELL_FORMED, CONTROL, ODD), max_size=8).map(b"".join)
CUTS = st.lists(st.integers(0, 400_000), max_size=8)


@settings(deadline=None)
@given(STREAM, CUTS)
def test_a_stream_is_split_as_the_library_parses_it(stream: bytes, cuts: list[int]) -> None:
    """The same frames in the same order, and the same failure, at the same place."""
    pieces = cut(stream, cuts)
    assert split(pieces) == parsed(pieces)


@settings(deadline=None)
@given(st.binary(max_size=200), CUTS)
def test_any_bytes_are_split_as_the_library_parses_them(stream: bytes, cuts: list[int]) -> None:
    """Also those that are no frames."""
    pieces = cut(stream, cuts)
    assert split(pieces) == parsed(pieces)


def test_every_byte_may_come_alone() -> None:
    """A frame is passed on when its last byte is there."""
    splitter = FrameSplitter(MAX_SIZE)
    ping = masked(9, b"p")
    stream = masked(2, b"ab") + ping + masked(2, bytes(200))
    found = [part for byte in stream for part in splitter.split(bytes([byte]))]
    assert found == [(True, b"ab"), (False, ping), (True, bytes(200))]


def test_what_is_not_whole_is_kept_and_no_more() -> None:
    """At most one frame, which is at most as large as a message."""
    splitter = FrameSplitter(MAX_SIZE)
    frame = masked(2, bytes(MAX_SIZE))
    assert list(splitter.split(masked(2, b"ab") + frame[:-1])) == [(True, b"ab")]
    assert len(splitter._kept) == len(frame) - 1
    assert list(splitter.split(frame[-1:])) == [(True, bytes(MAX_SIZE))]
    assert splitter._kept == b""


@pytest.mark.parametrize(
    "head",
    [
        b"\x82\xff" + (MAX_SIZE + 1).to_bytes(8, "big"),
        b"\x82\x7e",
        b"\xc2\x80",
        b"\x83\x80",
        b"\x80\x80",
        b"\x89\xfe\x00\x7e",
    ],
)
def test_what_the_library_will_refuse_is_not_waited_for(head: bytes) -> None:
    """Its head goes to the library at once, and so does whatever follows."""
    splitter = FrameSplitter(MAX_SIZE)
    assert list(splitter.split(head)) == [(False, head)]
    assert list(splitter.split(b"more")) == [(False, b"more")]


def test_too_large_a_message_in_fragments_is_not_waited_for() -> None:
    """The limit is of the whole message: the head of the fragment that passes it is enough."""
    splitter = FrameSplitter(100)
    first = masked(2, bytes(60), fin=False)
    head = masked(0, bytes(41))[:2]
    assert list(splitter.split(first + head)) == [(False, first + head)]


def test_small_frames_come_in_small_pieces() -> None:
    """So that the budget is checked before a flood is parsed."""
    splitter = FrameSplitter(MAX_SIZE)
    ping = masked(9, b"")
    pieces = [part for _, part in splitter.split(ping * 1_000)]
    assert b"".join(pieces) == ping * 1_000
    assert max(map(len, pieces)) < PARSED_BYTES + len(ping)


def assembled(*frames: Frame) -> list[str | bytes | None]:
    assembler = MessageAssembler()
    return [assembler.add(frame) for frame in frames]


def test_fragments_are_put_together() -> None:
    """Bytes of a binary message, text of a text message, and nothing before the last fragment."""
    assert assembled(
        Frame(Opcode.BINARY, b"a", fin=False),
        Frame(CONT, b"", fin=False),
        Frame(CONT, b"b"),
        Frame(Opcode.TEXT, "ü".encode()[:1], fin=False),
        Frame(CONT, "ü".encode()[1:]),
        Frame(Opcode.BINARY, b""),
    ) == [None, None, b"ab", None, "ü", b""]


def test_text_that_is_not_utf8_is_found_at_its_end() -> None:
    """Not before: a character may be cut."""
    with pytest.raises(UnicodeDecodeError):
        assembled(Frame(Opcode.TEXT, b"\xff", fin=False), Frame(CONT, b""))


def test_a_message_has_as_many_fragments_as_the_library_takes() -> None:
    """One more is too many."""
    fragments = [Frame(Opcode.BINARY, b"", fin=False), *[Frame(CONT, b"", fin=False)] * 4_095]
    assert MAX_FRAGMENTS == 4_096
    assert assembled(*fragments) == [None] * 4_096
    with pytest.raises(TooManyFragments):
        assembled(*fragments, Frame(CONT, b""))
