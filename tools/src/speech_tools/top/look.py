"""Look at a service's operations port: is it ready, and what do its metrics say?

Used by `top.py`. Needs no Prometheus. A service that does not answer is part of what is to be seen,
not an error.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp

from speech_tools.metrics_page import Page, read
from speech_tools.ops_page import get

_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Look:
    """What one look has shown.

    Attributes:
        at: when, by a clock that only goes forward, in seconds.
        page: the metrics; none if the service could not be asked.
        ready: what `/readyz` says.
        reasons: why it is not ready, by condition.
        problem: why the service could not be asked, in a few words.
    """

    at: float
    page: Page | None = None
    ready: bool | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None


async def look(session: aiohttp.ClientSession, ops_url: str) -> Look:
    """Ask the operations port at `ops_url` once; takes 2 s at most."""
    try:
        (status, ready), (_, metrics) = await asyncio.gather(
            get(session, f"{ops_url.rstrip('/')}/readyz", {200, 503}, _SECONDS),
            get(session, f"{ops_url.rstrip('/')}/metrics", {200}, _SECONDS),
        )
        return Look(time.monotonic(), read(metrics), status == 200, _reasons(ready))  # noqa: PLR2004 - HTTP's OK
    except TimeoutError:
        problem = "does not answer"
    except aiohttp.ClientConnectionError:
        problem = "cannot be reached"
    except (aiohttp.ClientError, ValueError, RecursionError):
        problem = "what answers is not an operations port"
    return Look(time.monotonic(), problem=problem)


def _reasons(body: str) -> dict[str, str]:
    found = json.loads(body)
    reasons = found.get("reasons", {}) if isinstance(found, dict) else {}
    if not isinstance(reasons, dict):
        raise ValueError(reasons)  # noqa: TRY004 - what was read is wrong, no argument
    return {str(condition): str(reason) for condition, reason in reasons.items()}
