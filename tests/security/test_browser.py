"""A page of another origin, in a real browser, that cannot connect."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from speech_gateway.testing import CONFIG, run_server

pytestmark = [pytest.mark.anyio, pytest.mark.pipeline, pytest.mark.timeout(90)]

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
BROWSER_SECONDS = 60
FLAGS = (
    *("--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--no-sandbox",  # as root, in CI, it has none to use; the page is our own
)
# Connects to the gateway that its query names; tells its own server what became of that.
PAGE = """<!doctype html><title>page</title><script>
const socket = new WebSocket(location.search.slice(1), ["speech-ingress.v1"]);
let heard = [];
const tell = () => fetch("/outcome", {method: "POST", body: JSON.stringify(heard)});
socket.onmessage = (message) => {
  heard.push(JSON.parse(message.data).status);
  socket.close(1000);
};
socket.onerror = () => heard.push("error");
socket.onclose = (closed) => { heard.push(closed.code, closed.reason); tell(); };
</script>"""

needs_browser = pytest.mark.skipif(
    BROWSER is None, reason=f"needs a browser on PATH: one of {', '.join(BROWSERS)}"
)


@contextlib.asynccontextmanager
async def site() -> AsyncIterator[tuple[str, asyncio.Future[list[object]]]]:
    """Serve the page on a port, and so under an origin, of its own; yield it and the outcome."""
    outcome: asyncio.Future[list[object]] = asyncio.get_running_loop().create_future()

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    async def told(request: web.Request) -> web.Response:
        outcome.set_result(await request.json())
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/", page), web.post("/outcome", told)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", outcome
    finally:
        await runner.cleanup()


async def visit(url: str, profile: Path, outcome: "asyncio.Future[list[object]]") -> list[object]:
    """Open a page in the browser until it tells its outcome; end the browser in any case."""
    assert BROWSER
    browser = await asyncio.create_subprocess_exec(
        *(BROWSER, *FLAGS, f"--user-data-dir={profile}", url),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(BROWSER_SECONDS):
            return await outcome
    finally:
        browser.terminate()
        await browser.wait()


@needs_browser
async def test_only_a_listed_page_can_connect(tmp_path):
    """The listed page is greeted; one of another origin learns nothing but that it failed."""
    async with site() as (listed, first), site() as (other, second):
        config = replace(CONFIG, origin_allowlist=frozenset({listed}))
        async with run_server(config) as server:
            heard = await visit(f"{listed}/?{server.url}", tmp_path, first)
            assert heard == ["connected", 1000, ""]
            heard = await visit(f"{other}/?{server.url}", tmp_path, second)
            assert heard == ["error", 1006, ""]
            code = {"code": "origin_not_allowed"}
            registry = server.gateway.metrics.registry
            assert registry.get_sample_value("speech_gateway_refusals_total", code) == 1
