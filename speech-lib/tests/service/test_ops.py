"""The operations port over a real socket."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter
from speech_lib.errors import ConfigError
from speech_lib.service import ops_connection
from speech_lib.service.health import Health
from speech_lib.service.ops import MAX_CONNECTIONS, OperationsServer, Page


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
    """Afterwards nobody listens there, also where a client has sent half a request."""

    async def scenario() -> None:
        server = OperationsServer("127.0.0.1", 0, ready_health(), CollectorRegistry())
        port = await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\n")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/livez") as response:
                await response.read()
            await server.stop()
            await server.stop()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        with pytest.raises(OSError, match="onnect"):
            await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(scenario())


# What it may cost


async def exchange(url: str, *sent: bytes) -> bytes:
    """Send bytes as they are, piece by piece, and return all that comes until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    for piece in sent:
        writer.write(piece)
        await asyncio.sleep(0)
    try:
        return await reader.read()
    except ConnectionResetError:
        return b"cut"
    finally:
        writer.close()


def test_one_connection_gets_one_answer() -> None:
    """What is sent behind the first request is not looked at, and the answer says so."""

    async def scenario() -> bytes:
        async with running(ready_health()) as url:
            return await exchange(url, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 50)

    answer = asyncio.run(scenario())
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 1
    assert b"\r\nConnection: close\r\n" in answer


def test_a_request_may_come_in_pieces() -> None:
    """However it is cut, also within the end of its head."""
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"

    async def scenario() -> list[bytes]:
        async with running(ready_health()) as url:
            return [
                await exchange(url, request[:cut], request[cut:])
                for cut in range(1, len(request), 3)
            ]

    assert all(each.startswith(b"HTTP/1.1 200 OK\r\n") for each in asyncio.run(scenario()))


@pytest.mark.parametrize(
    "head", [b"GET /livez HTTP/1.1\r\nX: ", b"\x16\x03\x01"], ids=["http", "tls"]
)
def test_an_endless_head_is_cut(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 8 KiB, without an answer, long before its time is over."""
    monkeypatch.setattr(ops_connection, "HELD_SECONDS", 600)

    async def scenario() -> bytes:
        async with running(ready_health()) as url, asyncio.timeout(10):
            return await exchange(url, head, b"x" * 20_000)

    assert asyncio.run(scenario()) in {b"", b"cut"}


def test_a_silent_connection_is_cut_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a request waits for its other half, but not for ever."""
    monkeypatch.setattr(ops_connection, "HELD_SECONDS", 0.05)

    async def scenario() -> bytes:
        async with running(ready_health()) as url:
            return await exchange(url, b"GET /livez HTTP/1.1\r\n")

    assert asyncio.run(scenario()) in {b"", b"cut"}


def test_no_more_than_sixteen_are_held_and_the_next_one_gets_in() -> None:
    """The oldest of those that wait makes room."""

    async def scenario() -> tuple[int, int]:
        async with running(ready_health()) as url:
            port = int(url.rsplit(":", 1)[1])
            held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
            status, _, _ = await ask(f"{url}/livez")
            open_ = 0
            for reader, writer in held:
                try:
                    async with asyncio.timeout(0.02):
                        await reader.read()
                except TimeoutError:
                    open_ += 1
                except ConnectionResetError:
                    pass
                writer.close()
            return status, open_

    # The one that asked took a sixteenth place.
    assert asyncio.run(scenario()) == (200, MAX_CONNECTIONS - 1)


def test_what_is_no_http_leaves_no_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Anyone could fill the disk with them."""

    async def scenario() -> bytes:
        async with running(ready_health()) as url:
            return await exchange(url, b"GET / HTTP/9.x\r\n\r\n")

    assert asyncio.run(scenario()).startswith(b"HTTP/1.0 400 Bad Request\r\n")
    assert caplog.records == []


def test_the_page_is_made_once_a_second() -> None:
    """However often it is asked for; and what it says is no older than that."""
    made: list[bytes] = []
    page = Page(lambda: made.append(b"") or b"page %d" % len(made))
    assert [page.at(now) for now in (5.0, 5.0, 5.99, 6.0, 6.5, 9.0)] == [
        *[b"page 1"] * 3,
        *[b"page 2"] * 2,
        b"page 3",
    ]
