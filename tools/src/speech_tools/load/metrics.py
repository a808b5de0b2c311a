"""Read a gateway's metrics from outside, as Prometheus would: the lag of its loop, its memory.

Used by `load.py`. Whatever cannot be read is `None`: a gateway whose operations port is out of
reach can still be measured by what its clients see.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from speech_tools.metrics_page import Histogram, read
from speech_tools.ops_page import get

LAG = "speech_gateway_loop_lag_seconds"
MEMORY = "process_resident_memory_bytes"

_SECONDS = 5.0
_WARM_UP = 0.1
"""This part of a run fills pools and caches; how memory grows is judged by the rest."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look at `/metrics` has shown."""

    lag: Histogram | None
    memory_bytes: float | None


def read_page(page: str) -> Reading:
    """Return what a page in Prometheus' text format says.

    Raises:
        ValueError: It is not such a page.
    """
    seen = read(page)
    return Reading(seen.histogram(LAG), seen.value(MEMORY))


class Watch:
    """Look at the metrics of one gateway again and again."""

    def __init__(self, ops_url: str) -> None:
        self._url = f"{ops_url.rstrip('/')}/metrics"
        self._readings: list[Reading] = []

    async def run(self, every: float) -> None:
        """Look every so many seconds until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(every)

    async def look(self) -> None:
        """Look once; a page that is not there is left out."""
        try:
            async with aiohttp.ClientSession() as session:
                _, page = await get(session, self._url, {200}, _SECONDS)
            self._readings.append(read_page(page))
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return

    @property
    def lag(self) -> Histogram | None:
        """What was observed between the first and the last look."""
        seen = [reading.lag for reading in self._readings if reading.lag is not None]
        return seen[-1].since(seen[0]) if seen else None

    @property
    def memory(self) -> "Memory | None":
        """How the memory developed."""
        seen = [each.memory_bytes for each in self._readings if each.memory_bytes is not None]
        return Memory.of(seen) if seen else None


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a gateway in the course of a run, in bytes.

    Attributes:
        start: at the first look.
        end: at the last one.
        highest: of all looks.
        growth: by how much the mean of the last third is over that of the first third, without the
            first tenth of the run.
    """

    start: int
    end: int
    highest: int
    growth: int

    @classmethod
    def of(cls, seen: Sequence[float]) -> "Memory":
        """Return the summary of at least one value."""
        warm = seen[int(len(seen) * _WARM_UP) :]
        third = max(1, len(warm) // 3)
        growth = math.fsum(warm[-third:]) / third - math.fsum(warm[:third]) / third
        return cls(*(round(value) for value in (seen[0], seen[-1], max(seen), growth)))
