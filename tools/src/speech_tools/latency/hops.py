"""The hops of an utterance and how long each took: times in, waits out. Pure.

`tracing` finds the pipeline's own times in the records. The client, which is the measuring tool,
adds when it began and what it was told. Every time is in milliseconds since the epoch, by the clock
of whoever took it. So a wait between two machines is as wrong as their clocks differ, and may be
negative.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from speech_tools.trace import tracing

OPENING = "opening"
CONNECTED = "connected"
ACCEPTED = "accepted"
TEXT_READ = "text read"

Times = Mapping[str, int]
"""When an utterance passed each point, by the point's name: those here and those of `tracing`."""


@dataclass(frozen=True, slots=True)
class Hop:
    """The way from one point to another."""

    name: str
    begin: str
    end: str


END_TO_END = Hop("end to end", tracing.END_OF_AUDIO, tracing.TEXT_STORED)
RECEIPT = Hop("receipt", tracing.END_OF_AUDIO, ACCEPTED)

AFTER_THE_AUDIO = (
    Hop("handing over", tracing.END_OF_AUDIO, tracing.STORED),
    Hop("queueing", tracing.STORED, tracing.FETCHED),
    Hop("recognising", tracing.FETCHED, tracing.RECOGNISED),
    Hop("storing the text", tracing.RECOGNISED, tracing.TEXT_STORED),
)
"""Each begins where the one before ends, so together they are `END_TO_END`."""

HOPS = (
    Hop("connecting", OPENING, CONNECTED),
    Hop("first audio", tracing.HANDSHAKE, tracing.FIRST_AUDIO),
    Hop("speaking", tracing.FIRST_AUDIO, tracing.END_OF_AUDIO),
    RECEIPT,
    *AFTER_THE_AUDIO,
    Hop("reading the text", tracing.TEXT_STORED, TEXT_READ),
    END_TO_END,
    Hop("in all", tracing.HANDSHAKE, tracing.TEXT_STORED),
)
"""In their order. `receipt` goes on beside those after it."""

POINTS = tuple(dict.fromkeys(point for hop in HOPS for point in (hop.begin, hop.end)))


def unknown(times: Times) -> str | None:
    """Return the first point whose time is not known, or nothing."""
    return next((point for point in POINTS if point not in times), None)


def waits(times: Times) -> dict[str, int]:
    """Return how many milliseconds each hop took, by its name. All points have to be known."""
    return {hop.name: times[hop.end] - times[hop.begin] for hop in HOPS}


def traced(trace: tracing.Trace) -> dict[str, int]:
    """Return the times that the records tell. Of several texts the first one counts."""
    times: dict[str, int] = {}
    for hop in trace.hops:
        if hop.at_ms is not None:
            times.setdefault(hop.name, hop.at_ms)
    return times
