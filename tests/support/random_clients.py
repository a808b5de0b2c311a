"""Random clients for a live server: what each does, who comes together, and a crowd of each ending.

Used by the tests that let them at a gateway; hypothesis draws and shrinks them.
"""

from dataclasses import dataclass

from hypothesis import strategies as st
from speech_gateway.errors import Ending, Failure, Stored
from speech_gateway.testing import request

from support import moves
from support.moves import Move

FEWEST, MOST = 5, 8
"""Clients in a crowd; there are slots for all."""
MAX_AUDIO = 8_192
"""What the server is to take of an utterance, in bytes: little, so that it is soon too much."""
FAILURES: dict[str, tuple[Failure, Stored]] = {
    "unavailable": (Failure.BROKER_UNAVAILABLE, "unknown"),
    "refuses": (Failure.REJECTED_BY_BROKER, "no"),
    "breaks": (Failure.INTERNAL_ERROR, "unknown"),
    "is defective": (Failure.INTERNAL_ERROR, "no"),
}
"""What is said of an utterance that the store does not store."""


@dataclass(frozen=True, slots=True)
class Script:
    """What one client does.

    Attributes:
        moves: what it sends, one after the other.
        unfinished: the beginning of a message that it never ends.
        parting: how it parts: `stays`, `ends its side`, `leaves`, `resets`.
        polite: whether it answers a close frame.
    """

    moves: tuple[Move, ...]
    unfinished: bytes
    parting: str
    polite: bool


@dataclass(frozen=True, slots=True)
class Crowd:
    """Clients who come to one server at once.

    Attributes:
        scripts: what they do once they are admitted.
        strangers: what further ones send who do not wait for the answer to their request.
        store: what the server's store does: `works`, `held` for a while, or one of `FAILURES`.
        silence: what ends those who neither end nor leave.
        fill: whether the server publishes what fits of too long an utterance.
    """

    scripts: tuple[Script, ...]
    strangers: tuple[bytes, ...]
    store: str
    silence: Ending
    fill: bool


recordings = st.builds(
    lambda head, size, byte: (head + bytes([byte]) * size)[:size],
    st.sampled_from([b"", b"", b"", b"", b"OggS", b"RIFF\0\0\0\0WAVE"]),
    st.integers(1, 3000) | st.integers(1, 14),
    st.integers(0, 255),
)
harmless = st.one_of(
    recordings.map(moves.speak),
    recordings.map(moves.speak),
    st.builds(
        moves.speak_in_fragments,
        recordings,
        st.integers(128, 900),  # what is smaller has a budget
        st.sampled_from([b"", moves.PING.wire]),
    ),
    st.sampled_from([moves.PING, moves.PONG, moves.EMPTY]),
)
last = st.one_of(
    st.just(moves.DONE),
    st.just(moves.DONE),
    st.sampled_from([moves.say(text) for text in moves.WRONG_TEXTS]),
    st.just(moves.speak(bytes(MAX_AUDIO + 2))),
    st.sampled_from([moves.flood(each.wire) for each in (moves.PING, moves.PONG, moves.EMPTY)]),
    st.sampled_from([moves.break_protocol(wire) for wire in moves.BAD_FRAMES.values()]),
    st.just(moves.TOO_LARGE),
    st.sampled_from([b"", b"\x03\xe8", b"\x0b\xb8bye"]).map(moves.close),
)
scripts = st.builds(
    Script,
    moves=st.builds(
        lambda *parts: tuple(move for part in parts for move in part),
        st.lists(harmless, max_size=4),
        st.lists(last, min_size=1, max_size=1) | st.lists(last, max_size=1),
        st.lists(harmless | last, max_size=2),
    ),
    unfinished=st.sampled_from([b"", b"", b"\x82", moves.speak(bytes(9)).wire[:-2]]),
    parting=st.sampled_from(["stays", "stays", "ends its side", "leaves", "resets"]),
    polite=st.sampled_from([True, True, True, False]),
)
half_a_request = st.integers(0, len(request()) - 1).map(lambda size: request()[:size])
frames_too_early = st.builds(
    lambda head, move: head + move.wire,
    st.sampled_from([request(), request("/"), request(method="POST")]),
    harmless | last,
)
strangers = half_a_request | frames_too_early
crowds = st.builds(
    Crowd,
    scripts=st.lists(scripts, min_size=FEWEST, max_size=MOST).map(tuple),
    strangers=st.lists(strangers, max_size=2).map(tuple),
    store=st.sampled_from(["works", "works", "held", *FAILURES]),
    silence=st.sampled_from([Ending.SHUTTING_DOWN] * 9 + [Ending.IDLE_TIMEOUT]),
    fill=st.booleans(),
)

_SPEECH = moves.speak(bytes(64))
_ENDS = [
    (_SPEECH, moves.DONE),
    (moves.DONE,),
    (_SPEECH, moves.say("{}")),
    (_SPEECH, moves.speak(bytes(MAX_AUDIO))),
    (moves.speak(b"OggS" + bytes(64)),),
    (_SPEECH, moves.flood(moves.PING.wire)),
    (_SPEECH, moves.break_protocol(moves.BAD_FRAMES["a reserved bit"])),
    (_SPEECH, moves.TOO_LARGE),
    (_SPEECH, moves.close()),
    (_SPEECH,),
]


def examples(store: str, silence: Ending) -> list[Crowd]:
    """Return crowds with each ending in them, and haste that fails, which chance may leave out."""
    each = [Script(ends, b"", "stays", polite=True) for ends in _ENDS]
    hasty = tuple(request("/") + move.wire for move in (moves.TOO_LARGE, moves.close()))
    return [Crowd(tuple(half), hasty, store, silence, fill=False) for half in (each[:5], each[5:])]
