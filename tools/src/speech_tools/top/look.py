"""Look at a service's operations port: is it ready, and what do its metrics say?

Used by `top.command`. A service that does not answer is something to show, not an error.
"""

import asyncio
import json
import socket
import time
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from speech_tools.operations.fetch import metrics, readiness
from speech_tools.top.figures import Look

_SECONDS = 2.0
MAX_REPLICAS = 100
"""Of a name; more are not looked at."""


async def replicas(ops_url: str) -> tuple[str, ...]:
    """Return a URL for each address that the name in `ops_url` has; itself where it has one.

    A name with several IPv4 addresses is a service with several replicas, as compose and headless
    services of Kubernetes have it. A name that cannot be looked up stays what it is.
    """
    parts = urlsplit(ops_url)
    try:
        async with asyncio.timeout(_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(
                parts.hostname, parts.port, family=socket.AF_INET, type=socket.SOCK_STREAM
            )
    except (OSError, TimeoutError, UnicodeError):
        return (ops_url,)
    addresses = sorted({str(address) for *_, (address, *_) in found}, key=socket.inet_aton)
    if len(addresses) == 1:
        return (ops_url,)
    port = f":{parts.port}" if parts.port else ""
    each = (f"{address}{port}" for address in addresses[:MAX_REPLICAS])
    return tuple(urlunsplit(parts._replace(netloc=netloc)) for netloc in each)


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
