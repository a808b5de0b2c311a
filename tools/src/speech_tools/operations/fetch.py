"""Fetch the pages of an operations port: bounded in size, and from the given URL only.

Used by `top.look` and `load.metrics`. Any server may answer at that URL.
"""

from collections.abc import Collection

import aiohttp

from speech_tools.operations.metrics_page import Page, read

MAX_BYTES = 1 << 18
"""Ten times as much as any page of ours has. A megabyte of metrics takes a second to read."""
_OK, _UNAVAILABLE = 200, 503


async def metrics(session: aiohttp.ClientSession, ops_url: str, seconds: float) -> Page:
    """Return what `/metrics` says.

    Raises:
        TimeoutError: It took longer.
        aiohttp.ClientError, ValueError: What answers is something else.
    """
    _, text = await _get(session, f"{ops_url.rstrip('/')}/metrics", {_OK}, seconds)
    return read(text)


async def readiness(
    session: aiohttp.ClientSession, ops_url: str, seconds: float
) -> tuple[bool, str]:
    """Return whether `/readyz` says that the service is ready, and the body. Raises likewise."""
    url = f"{ops_url.rstrip('/')}/readyz"
    status, text = await _get(session, url, {_OK, _UNAVAILABLE}, seconds)
    return status == _OK, text


async def _get(
    session: aiohttp.ClientSession, url: str, expected: Collection[int], seconds: float
) -> tuple[int, str]:
    """Return status and text, cut at `MAX_BYTES`."""
    timeout = aiohttp.ClientTimeout(total=seconds)
    async with session.get(url, timeout=timeout, allow_redirects=False) as answer:
        if answer.status not in expected:
            raise ValueError(answer.status)
        body = await answer.content.read(MAX_BYTES)
        while not answer.content.at_eof() and len(body) < MAX_BYTES:
            body += await answer.content.read(MAX_BYTES)
        return answer.status, body.decode()
