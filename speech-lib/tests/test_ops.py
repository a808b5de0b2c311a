"""The operations port over a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter
from speech_lib.errors import ConfigError
from speech_lib.health import Health
from speech_lib.ops import OperationsServer


@asynccontextmanager
async def running(health: Health, metrics: CollectorRegistry | None = None) -> AsyncIterator[str]:
    """Run the port and yield its address."""
    server = OperationsServer("127.0.0.1", 0, health, metrics or CollectorRegistry())
    port = await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop()


async def ask(url: str, method: str = "GET") -> tuple[int, dict[str, str], str]:
    """Send one request; return status, headers and body."""
    async with aiohttp.ClientSession() as session, session.request(method, url) as response:
        return response.status, dict(response.headers), await response.text()


def ready_health() -> Health:
    """Return the health of a service that can do its work."""
    return Health([], now=0.0)


def test_livez_answers_while_the_loop_turns() -> None:
    """Alive says nothing of being ready."""

    async def scenario() -> tuple[int, object]:
        async with running(Health(["broker"], now=0.0)) as url:
            status, _, body = await ask(f"{url}/livez")
            return status, json.loads(body)

    assert asyncio.run(scenario()) == (200, {"status": "alive"})


def test_readyz_follows_the_health() -> None:
    """503 with the reasons before, 200 while ready, 503 while draining."""

    async def scenario() -> list[tuple[int, object]]:
        health, answers = Health(["broker"], now=0.0), []
        async with running(health) as url:
            for change in (
                lambda: health.set("broker", False, "_TRANSPORT", now=1.0),
                lambda: health.set("broker", ok=True, now=2.0),
                lambda: health.drain(3.0),
            ):
                change()
                status, _, body = await ask(f"{url}/readyz")
                answers.append((status, json.loads(body)))
        return answers

    assert asyncio.run(scenario()) == [
        (503, {"status": "not_ready", "reasons": {"broker": "_TRANSPORT"}}),
        (200, {"status": "ready"}),
        (503, {"status": "not_ready", "reasons": {"service": "draining"}}),
    ]


def test_metrics_are_in_the_text_format_of_prometheus() -> None:
    """The page holds the given registry and names its format."""
    metrics = CollectorRegistry()
    Counter("utterances", "Utterances stored.", registry=metrics).inc(3)

    async def scenario() -> tuple[int, dict[str, str], str]:
        async with running(ready_health(), metrics) as url:
            return await ask(f"{url}/metrics")

    status, headers, body = asyncio.run(scenario())
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    assert "utterances_total 3.0\n" in body


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("GET", "/", 404, "not_found", None),
        ("GET", "/livez/", 404, "not_found", None),
        ("POST", "/livez", 405, "method_not_allowed", "GET,HEAD"),
        ("DELETE", "/metrics", 405, "method_not_allowed", "GET,HEAD"),
    ],
)
def test_other_requests_are_refused_in_json(
    method: str, path: str, status: int, code: str, allow: str | None
) -> None:
    """Unknown paths and methods get the form that everything else here has."""

    async def scenario() -> tuple[int, dict[str, str], str]:
        async with running(ready_health()) as url:
            return await ask(url + path, method)

    answered, headers, body = asyncio.run(scenario())
    assert (answered, json.loads(body), headers.get("Allow")) == (status, {"code": code}, allow)
    assert headers["Content-Type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/nope"])
def test_no_answer_names_the_software(path: str) -> None:
    """Versions of Python and libraries are nobody's business."""

    async def scenario() -> dict[str, str]:
        async with running(ready_health()) as url:
            return (await ask(url + path))[1]

    assert "Server" not in asyncio.run(scenario())


def test_port_that_is_taken_is_one_clear_line() -> None:
    """The line names the variables and no address, and nothing is left open."""

    async def scenario() -> str:
        async with running(ready_health()) as url:
            port = int(url.rsplit(":", 1)[1])
            second = OperationsServer("127.0.0.1", port, ready_health(), CollectorRegistry())
            with pytest.raises(ConfigError) as error:
                await second.start()
            return str(error.value)

    expected = "OPS_HOST, OPS_PORT: expected an address that is free to listen on, got EADDRINUSE"
    assert asyncio.run(scenario()) == expected


def test_stopping_frees_the_port_and_may_be_repeated() -> None:
    """Afterwards nobody listens there, also where a client has kept its connection."""

    async def scenario() -> None:
        server = OperationsServer("127.0.0.1", 0, ready_health(), CollectorRegistry())
        port = await server.start()
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/livez") as response:
                await response.read()
            await server.stop()
            await server.stop()
        with pytest.raises(OSError, match="onnect"):
            await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(scenario())
