"""Look at a service's operations port: is it ready, and what do its metrics say?

Used by `top.command`. A service that does not answer is something to show, not an error.
"""

import asyncio
import json
import time

import aiohttp

from speech_tools.operations.fetch import metrics, readiness
from speech_tools.top.figures import Look

_SECONDS = 2.0


async def look(session: aiohttp.ClientSession, ops_url: str) -> Look:
    """Ask the operations port at `ops_url` once; takes 2 s at most."""
    try:
        (ready, body), page = await asyncio.gather(
            readiness(session, ops_url, _SECONDS), metrics(session, ops_url, _SECONDS)
        )
        return Look(time.monotonic(), page, ready, _reasons(body))
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
