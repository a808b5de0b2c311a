"""The browser's page, served before a gateway, from a thread of its own. For tests/web."""

import asyncio
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from speech_tools.page import FILES, serving

CLIENT = Path(__file__).parents[2] / "clients" / "web"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
PAGE_SECONDS = 10


@contextmanager
def page_of(gateway: str, folder: Path = CLIENT, files: Iterable[str] = FILES) -> Iterator[str]:
    """Serve these files before a gateway, from a loop on a thread of its own; yield the address."""
    loop = asyncio.new_event_loop()
    started = threading.Event()
    address: list[str] = []
    stop = asyncio.Event()

    async def serve() -> None:
        async with serving(gateway, 0, folder, files) as url:
            address.append(url)
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(PAGE_SECONDS)
        yield address[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(PAGE_SECONDS)
        loop.close()
