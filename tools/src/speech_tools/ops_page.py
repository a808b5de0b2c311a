"""Get a page of an operations port, whatever is behind its URL: bounded in size, sent nowhere else.

Used by `top.look` and `load.metrics`.
"""

from collections.abc import Collection

import aiohttp

MAX_BYTES = 1 << 18
"""More than ten times as much as any page of ours has: what answers may be something else, and a
megabyte of metrics takes a second to read."""


async def get(
    session: aiohttp.ClientSession, url: str, expected: Collection[int], seconds: float
) -> tuple[int, str]:
    """Return status and text, cut at `MAX_BYTES`.

    Raises:
        TimeoutError: It took longer.
        aiohttp.ClientError, ValueError: What answers is something else.
    """
    timeout = aiohttp.ClientTimeout(total=seconds)
    async with session.get(url, timeout=timeout, allow_redirects=False) as answer:
        if answer.status not in expected:
            raise ValueError(answer.status)
        body = await answer.content.read(MAX_BYTES)
        while not answer.content.at_eof() and len(body) < MAX_BYTES:
            body += await answer.content.read(MAX_BYTES)
        return answer.status, body.decode()
