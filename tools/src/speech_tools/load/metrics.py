"""Read a gateway's metrics from outside, as Prometheus would: the lag of its loop, its memory.

Used by `load.command`. What cannot be read is `None`: a gateway whose operations port is out of
reach can still be measured by what its clients see.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from speech_tools.operations import fetch
from speech_tools.operations.metrics_page import Histogram, Page

LAG = "speech_gateway_loop_lag_seconds"
MEMORY = "process_resident_memory_bytes"

_SECONDS = 5.0
_WARM_UP = 0.1
"""This part of a run fills pools and caches. The rest tells how memory grows."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look at `/metrics` has shown."""

    lag: Histogram | None
    memory_bytes: float | None

    @classmethod
    def of(cls, page: Page) -> "Reading":
        """Return what concerns a load."""
        return cls(page.histogram(LAG), page.value(MEMORY))


class Watch:
    """Look at the metrics of one gateway again and again."""

    def __init__(self, ops_url: str) -> None:
        self._url = ops_url
        self._readings: list[Reading] = []

    async def run(self, every: float) -> None:
        """Look every so many seconds until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(every)

    async def look(self) -> None:
        """Look once. A page that is not there is left out."""
        try:
            async with aiohttp.ClientSession() as session:
                page = await fetch.metrics(session, self._url, _SECONDS)
            self._readings.append(Reading.of(page))
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
