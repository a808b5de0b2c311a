"""How late the event loop runs what is due: what one client waits while the loop serves others.

`run` of each service measures it in the background from its start to its end; the histogram on
`/metrics` shows it. `speech load` reads it there, and measures its own loop likewise.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

LAG_SECONDS: Final = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0),
)
"""Buckets for a histogram. The loop sleeps in whole milliseconds, so when idle it is 1 ms late."""

EVERY_SECONDS: Final = 0.1


async def measure(report: Callable[[float], None], every: float = EVERY_SECONDS) -> None:
    """Report every `every` seconds how many seconds late a timer ran, until cancelled.

    The timers stand on a fixed grid. Those that a blocked loop has missed are reported too, each
    with its own delay: one block of 2 s counts as twenty late timers, not as one.
    """
    clock = time.monotonic  # the loop's clock; uvloop tells its time once a turn, in milliseconds
    due = clock()
    while True:
        due += every
        await asyncio.sleep(due - clock())
        report(max(0.0, clock() - due))
