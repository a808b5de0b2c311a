"""A small run of `speech latency`, as its tests compare it: times, waits, settings and a report."""

import uuid
from dataclasses import replace
from typing import Any

from speech_tools.latency.hops import POINTS
from speech_tools.latency.report import Figures, Lost, Report, Settings, Slow
from speech_tools.machine import Machine

SETTINGS = Settings(
    stack="embedded",
    engine="pocketsphinx",
    speech="samples",
    seconds=1.0,
    pace="realtime",
    count=2,
    warm_up=1,
    clients=1,
    limits={"max_chunk_bytes": 65_536, "max_session_seconds": 60.0},
)
MACHINE = Machine("a processor", 2, 2**30, "3.11.7", "Linux 6.1", 0.25)
TIMES = dict(
    zip(POINTS, (0, 3, 1, 51, 1_051, 1_060, 1_052, 1_060, 1_300, 1_299, 1_303), strict=True)
)
WAITS = {
    "connecting": 3,
    "first audio": 50,
    "speaking": 1_000,
    "receipt": 9,
    "handing over": 1,
    "queueing": 8,
    "recognising": 240,
    "storing the text": -1,  # the clocks of two machines
    "reading the text": 4,
    "end to end": 248,
    "in all": 1_298,
}


def name_of(number: int) -> str:
    return str(uuid.UUID(int=number, version=4))


def report(p50: float = 248, **changed: Any) -> Report:
    """Return the report of a small run."""
    made = Report(
        format="speech-latency/1",
        measured_at="2026-01-02T03:04:05+00:00",
        note="",
        machine=MACHINE,
        settings=SETTINGS,
        measured=2,
        hops={"queueing": Figures(-1, 2.5, 1, 6, 6, 6, 6), "end to end": Figures(p50=p50, p99=300)},
        slowest=(Slow(name_of(1), 300.0),),
        lost=(Lost(None, "connected", "refused"),),
    )
    return replace(made, **changed)
