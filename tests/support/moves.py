"""What clients send to a gateway, good and bad: bytes on the wire, and what a session makes of it.

Used by the tests that let random and mixed clients at a gateway.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from speech_gateway.actions import Action
from speech_gateway.errors import Ending
from speech_gateway.session import Session
from websockets.frames import Frame, Opcode

FLOOD_FRAMES = 200
"""Many times what the gateway's budget allows at once."""
_REFUSED_CHUNK_BYTES = 65_537


@dataclass(frozen=True, slots=True, repr=False)
class Move:
    """Whole frames, sent at once.

    Attributes:
        name: what it is, for people.
        wire: the bytes.
        message: the message in them, if there is one.
        ending: how the connection ends the stream for what it sees in them.
    """

    name: str
    wire: bytes
    message: str | bytes | None = None
    ending: Ending | None = None

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def tell(self, session: Session, now: float) -> Iterable[Action]:
        """Give a session what a connection would, and return what it owes."""
        if isinstance(self.message, str):
            return session.receive_text(self.message, now)
        if self.message is not None:
            return session.receive_audio(self.message, now)
        if self.ending is Ending.DISCONNECT:
            return session.disconnect(now)
        return session.fail(self.ending, now) if self.ending else ()


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    """Return one frame as clients send it."""
    return Frame(opcode, data, fin).serialize(mask=True)


def say(text: str) -> Move:
    """Return a text message."""
    return Move(f"says {text[:20]!r}", frame(Opcode.TEXT, text.encode()), message=text)


def speak(pcm: bytes) -> Move:
    """Return audio in one message."""
    return Move(f"{len(pcm)} bytes", frame(Opcode.BINARY, pcm), message=pcm)


def speak_in_fragments(pcm: bytes, size: int, between: bytes = b"") -> Move:
    """Return audio in one message of several frames, with control frames `between`."""
    bounds = [*range(0, len(pcm), size), len(pcm)]
    wire = [
        frame(Opcode.CONT if start else Opcode.BINARY, pcm[start:end], fin=end == len(pcm))
        for start, end in pairwise(bounds)
    ]
    return Move(f"{len(pcm)} bytes in {len(wire)} frames", between.join(wire), message=pcm)


def flood(wire: bytes) -> Move:
    """Return a frame so often that the client is cut."""
    return Move(
        f"{FLOOD_FRAMES} frames {wire[:1]!r}", wire * FLOOD_FRAMES, ending=Ending.RATE_LIMITED
    )


def close(data: bytes = b"\x03\xe8") -> Move:
    """Return a close frame."""
    return Move(f"closes with {data!r}", frame(Opcode.CLOSE, data), ending=Ending.DISCONNECT)


def break_protocol(wire: bytes) -> Move:
    """Return what RFC 6455 forbids."""
    return Move(f"breaks the protocol by {wire[:9]!r}", wire, ending=Ending.PROTOCOL_ERROR)


DONE = say('{"event":"done"}')
PING = Move("ping", frame(Opcode.PING, b"?"))
PONG = Move("pong", frame(Opcode.PONG, b""))
EMPTY = Move("empty message", frame(Opcode.BINARY, b""))
TOO_LARGE = Move(
    "too large a message",
    b"\x82\xff" + _REFUSED_CHUNK_BYTES.to_bytes(8, "big") + bytes(4),
    ending=Ending.CHUNK_TOO_LARGE,
)
"""The header of a frame that is refused before its payload comes."""

BAD_FRAMES = {
    "not masked": b"\x82\x01\0",
    "a reserved bit": b"\xc2\x80\0\0\0\0",
    "a reserved opcode": b"\x83\x80\0\0\0\0",
    "a control frame of 126 bytes": b"\x89\xfe\0\x7e" + bytes(4 + 126),
    "a fragmented ping": b"\x09\x80\0\0\0\0",
    "a continuation of nothing": b"\x80\x80\0\0\0\0",
    "a message inside another": (
        frame(Opcode.BINARY, bytes(200), fin=False) + frame(Opcode.BINARY, b"\0")
    ),
    "text that is not UTF-8": frame(Opcode.TEXT, b"\xff"),
    "half a close code": frame(Opcode.CLOSE, b"\x03"),
    "a close code that is never sent": frame(Opcode.CLOSE, b"\x03\xed"),
    "a close reason that is not UTF-8": frame(Opcode.CLOSE, b"\x03\xe8\xff"),
}
WRONG_TEXTS = ("", "{}", '"done"', "[" * 4096, " " * 4097, "NaN", '{"event":"\\ud800"}')
