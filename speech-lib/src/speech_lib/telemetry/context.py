"""W3C trace context, as far as records need it: read a `traceparent`, continue it, write it.

The gateway continues the header of the handshake or begins a trace. The recogniser continues the
one in the record's headers. Pure. See https://www.w3.org/TR/trace-context/#traceparent-header.
"""

import re
import secrets
from dataclasses import dataclass
from typing import Self

_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<more>-.*)?"
)
_INVALID_VERSION = "ff"
_VERSION = "00"
_SAMPLED = 0x01
_KNOWN_FLAGS = 0x03
"""Sampled, and (level 2) that the trace id is random."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span of a trace.

    Attributes:
        trace_id: 32 lower-case hexadecimal digits, the same for the whole trace.
        span_id: 16 lower-case hexadecimal digits, new for each span.
        flags: Bit 0: the trace is recorded.
    """

    trace_id: str
    span_id: str
    flags: int

    @classmethod
    def parse(cls, traceparent: str | None) -> Self | None:
        """Return the span that a header names; None where the header is absent or not valid.

        A later version is read as far as ours goes, as the standard asks.
        """
        found = _TRACEPARENT.fullmatch(traceparent or "")
        if found is None or found["version"] == _INVALID_VERSION:
            return None
        if found["version"] == _VERSION and found["more"]:
            return None
        if not found["trace"].strip("0") or not found["span"].strip("0"):
            return None
        return cls(found["trace"], found["span"], int(found["flags"], 16) & _KNOWN_FLAGS)

    @classmethod
    def begin(cls) -> Self:
        """Begin a trace."""
        return cls(secrets.token_hex(16), secrets.token_hex(8), _SAMPLED)

    def child(self) -> Self:
        """Return a new span of the same trace."""
        return type(self)(self.trace_id, secrets.token_hex(8), self.flags)

    def header(self) -> str:
        """Return the value of the `traceparent` header."""
        return f"{_VERSION}-{self.trace_id}-{self.span_id}-{self.flags:02x}"
