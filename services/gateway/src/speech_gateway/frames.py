"""What the connection does with frames: split the bytes, weigh a frame, put fragments together.

Used by `connection.py`. Knows no connection, no loop and no clock. The library parses every frame
but the kind that nearly all audio comes in: binary, whole, masked, not too large. Parsing that kind
here takes a third off what a short message costs. All others, and whatever is wrong, go to the
library as they came.
"""

from __future__ import annotations

from collections.abc import Iterator

from websockets.asyncio.messages import MAX_FRAGMENTS
from websockets.exceptions import TooManyFragments
from websockets.frames import CLOSE, CONT, DATA_OPCODES, TEXT, Frame

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the library's wheel
    from websockets.utils import apply_mask

PARSED_BYTES = 2_048
"""Some 340 of the smallest frames: what a flooder costs before its budget is checked."""

_TINY_FRAGMENT_BYTES = 128
"""4 ms of audio. A shorter fragment that does not end its message takes from the budget."""

# RFC 6455 section 5.2.
_WHOLE_BINARY = 0x82
_FIN, _RESERVED_BITS, _OPCODE = 0x80, 0x70, 0x0F
_MASKED, _LENGTH = 0x80, 0x7F
_IN_TWO_BYTES, _IN_EIGHT_BYTES = 126, 127
_CONTINUATION, _FIRST_CONTROL = 0x0, 0x8
_KNOWN_OPCODES = frozenset({0x0, 0x1, 0x2, 0x8, 0x9, 0xA})
_LONGEST_CONTROL = 125


class FrameSplitter:
    """Splits the bytes of a stream, from its first frame on, into messages and frames.

    Args:
        max_size: The largest message, in bytes.
    """

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._kept = bytearray()
        """The frame that has not arrived whole."""
        self._needed = 0
        """How many bytes it has at least."""
        self._fragmented: int | None = None
        """The bytes so far of a message in fragments, while one arrives."""
        self._refused = False

    def split(self, data: bytes) -> Iterator[tuple[bool, bytes]]:
        """Yield what is whole now, in order: whether it is a message, and its bytes.

        A message is the payload of a binary frame, unmasked and not empty. All else is whole frames
        for the library, some `PARSED_BYTES` at a time. From the first frame that the library will
        refuse, all bytes are for the library, whole or not: it refuses by the head.
        """
        if self._refused:
            yield False, data
            return
        if self._kept:
            self._kept += data
            if len(self._kept) < self._needed:
                return
            data = bytes(self._kept)
            self._kept.clear()
        start = at = 0  # what is from `start` to `at` is for the library
        while bounds := self._bounds(data, at):
            payload, end = bounds
            if data[at] == _WHOLE_BINARY and payload < end:
                if start < at:
                    yield False, data[start:at]
                yield True, apply_mask(data[payload:end], data[payload - 4 : payload])
                start = at = end
                continue
            self._follow(data[at], end - payload)
            at = end
            if at - start >= PARSED_BYTES:
                yield False, data[start:at]
                start = at
        if self._refused:
            at = len(data)
        if start < at:
            yield False, data[start:at]
        self._kept += data[at:]

    def _bounds(self, data: bytes, at: int) -> tuple[int, int] | None:
        """Return where the payload of the frame at `at` begins and ends, if it is there whole."""
        here = len(data) - at
        if here < 2:  # noqa: PLR2004 - the two bytes that every frame begins with
            self._needed = 0
            return None
        first, second = data[at], data[at + 1]
        plain = first == _WHOLE_BINARY and second >= _MASKED and self._fragmented is None
        self._refused = not plain and self._will_refuse(first, second)
        length, payload = second & _LENGTH, at + 6
        if length >= _IN_TWO_BYTES:
            size = 2 if length == _IN_TWO_BYTES else 8
            self._needed = 2 + size
            if here < self._needed or self._refused:
                return None
            length = int.from_bytes(data[at + 2 : at + 2 + size])
            payload += size
        if length > self._max_size - (self._fragmented or 0):
            self._refused = True
        end = payload + length
        self._needed = end - at
        return (payload, end) if end <= len(data) and not self._refused else None

    def _will_refuse(self, first: int, second: int) -> bool:
        """Return whether the library will refuse a frame that begins with these two bytes."""
        opcode = first & _OPCODE
        if second < _MASKED or first & _RESERVED_BITS or opcode not in _KNOWN_OPCODES:
            return True
        if opcode >= _FIRST_CONTROL:
            return second & _LENGTH > _LONGEST_CONTROL or first < _FIN
        # A continuation of nothing, or a message within a message.
        return (opcode == _CONTINUATION) is (self._fragmented is None)

    def _follow(self, first: int, length: int) -> None:
        """Follow a message in fragments, whose frame begins with the byte `first`."""
        if first & _OPCODE >= _FIRST_CONTROL:
            return
        self._fragmented = None if first & _FIN else (self._fragmented or 0) + length


class MessageAssembler:
    """Puts the fragments of each message together."""

    def __init__(self) -> None:
        self._fragments: list[Frame] = []

    def add(self, frame: Frame) -> str | bytes | None:
        """Take a data frame; return the message that it ends.

        Raises:
            TooManyFragments: The message has more than the library takes.
            UnicodeDecodeError: It is text, and not UTF-8.
        """
        if len(self._fragments) >= MAX_FRAGMENTS:
            raise TooManyFragments(MAX_FRAGMENTS)
        self._fragments.append(frame)
        if not frame.fin:
            return None
        frames, self._fragments = self._fragments, []
        data = b"".join(each.data for each in frames)
        return data.decode() if frames[0].opcode is TEXT else data


def is_on_budget(frame: Frame) -> bool:
    """Tell whether this is a control frame, an empty message, or a tiny fragment.

    An empty final fragment is none: some honest clients end every fragmented message so.
    """
    if frame.opcode not in DATA_OPCODES:
        return frame.opcode is not CLOSE
    if not frame.fin:
        return len(frame.data) < _TINY_FRAGMENT_BYTES
    return not frame.data and frame.opcode is not CONT
