"""`speech top`: how it asks the operations ports, and how it ends."""

import asyncio
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from io import RawIOBase
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from speech_gateway.metrics import Metrics as GatewayMetrics
from speech_lib.service.health import Health
from speech_lib.service.ops import OperationsServer
from speech_tools.operations import fetch
from speech_tools.top import look as top_look
from speech_tools.top.command import app
from speech_tools.top.figures import (
    Look,
    State,
)
from support.ports import free_ports
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
RUN_SECONDS = 30


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def ops_url():
    """Return the URL of a running operations port of a gateway that is not ready."""
    health = Health(["broker"], now=0.0)
    server = OperationsServer("127.0.0.1", 0, health, GatewayMetrics().registry)
    yield f"http://127.0.0.1:{await server.start()}/"
    await server.stop()


@pytest.mark.anyio
async def test_a_look_is_at_both_pages(ops_url):
    """Metrics, and readiness with its reasons."""
    async with aiohttp.ClientSession() as session:
        seen = await top_look.look(session, ops_url)
    assert (seen.ready, seen.reasons, seen.problem) == (False, {"broker": "not_yet_known"}, None)
    assert seen.page is not None
    assert seen.page.value("speech_gateway_sessions_live") == 0


@pytest.mark.anyio
async def test_what_is_no_operations_port_is_told(ops_url):
    """Something else answers there, or nobody listens."""
    async with aiohttp.ClientSession() as session:
        other = await top_look.look(session, f"{ops_url}livez")
        (nobody,) = free_ports(["port"]).values()
        closed = await top_look.look(session, f"http://127.0.0.1:{nobody}")
    assert other == Look(other.at, problem="what answers is not an operations port")
    assert closed == Look(closed.at, problem="cannot be reached")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["10.0.0.10", "10.0.0.9"], ("http://10.0.0.9:8001/x", "http://10.0.0.10:8001/x")),
        (["10.0.0.9"], ("http://gateway-service:8001/x",)),
        ([], ("http://gateway-service:8001/x",)),
    ],
)
async def test_each_address_of_a_name_is_a_replica(monkeypatch, addresses, expected):
    """A name with one address, or that nobody knows, is asked by its name."""

    async def found(*_: object, **__: object) -> list[tuple[object, ...]]:
        if not addresses:
            raise socket.gaierror
        return [(0, 0, 0, "", (each, 8001)) for each in addresses * 2]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
    assert await top_look.replicas("http://gateway-service:8001/x") == expected


@pytest.mark.anyio
async def test_a_page_without_end_is_cut():
    """Whatever its size, it is read no further than some pages of ours."""
    written = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal written
        answer = web.StreamResponse()
        await answer.prepare(request)
        with suppress(ConnectionError):
            while True:
                await answer.write(b"a 1\n" * 1_000)
                written += 4_000
        return answer

    served = web.Application()
    served.add_routes([web.get("/metrics", endless), web.get("/readyz", endless)])
    async with TestServer(served) as server, aiohttp.ClientSession() as session:
        _, text = await fetch.readiness(session, str(server.make_url("/")), 5)
    assert 0 < len(text) <= 2 * fetch.MAX_BYTES
    assert written > fetch.MAX_BYTES


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--gateway", "localhost:8001", "expected an http:// or https:// URL"),
        ("--interval", "nan", ""),
    ],
)
def test_wrong_usage_is_told(option, value, expected):
    """With what was wrong and what is expected; the exit code is 2."""
    done = CliRunner().invoke(app, [option, value], env={"COLUMNS": "200", "TERM": "dumb"})
    assert (done.exit_code, done.stdout) == (2, "")
    assert option in done.stderr
    assert expected in done.stderr


def arguments(*more: str) -> list[str]:
    """Return a command that asks where nobody listens."""
    gateway_port, asr_port = free_ports(["gateway", "asr"]).values()
    return [
        *(sys.executable, "-m", "speech_tools", "top", "--interval", "0.1", *more),
        *("--gateway", f"http://127.0.0.1:{gateway_port}", "--asr", f"http://127.0.0.1:{asr_port}"),
    ]


@pytest.mark.pipeline
def test_a_program_reads_one_frame():
    """`--once --json` is one object; the exit code says that a service cannot be reached."""
    done = subprocess.run(  # noqa: S603 - our own command
        arguments("--once", "--json"),
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=RUN_SECONDS,
    )
    assert (done.returncode, done.stderr) == (1, "")
    found = json.loads(done.stdout)
    away = State(None, ready=None, reasons={}, problem="cannot be reached")
    assert found["gateway"]["state"] == found["recogniser"]["state"] == asdict(away)


@pytest.mark.pipeline
def test_ctrl_c_ends_it_and_gives_the_terminal_back():
    """The exit code is 130, nothing is complained of, and the screen is as it was before."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        # What runs the tests may have been started in the background, where shells ignore SIGINT.
        watching = subprocess.Popen(  # noqa: S603 - our own command
            ["env", "--default-signal=INT", *arguments()],  # noqa: S607 - every system's own
            cwd=ROOT,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        try:
            seen = read_until(terminal, b"workers replaced")
            watching.send_signal(signal.SIGINT)
            code = watching.wait(RUN_SECONDS)
            seen += read_until(terminal, None)
        finally:
            watching.kill()
            watching.wait()
    assert code == 130
    entered, left = b"\x1b[?1049h", b"\x1b[?1049l"
    assert (seen.count(entered), seen.count(left)) == (1, 1)
    assert seen.partition(left)[2].strip(b"\r\n") in {b"", b"\x1b[?25h"}


def read_until(terminal: RawIOBase, wanted: bytes | None) -> bytes:
    """Read from a terminal until it has shown something, or until its other side is closed."""
    seen = b""
    until = time.monotonic() + RUN_SECONDS
    while wanted is None or wanted not in seen:
        readable, _, _ = select.select([terminal], [], [], max(0.0, until - time.monotonic()))
        assert readable, seen
        try:
            seen += terminal.read(65536)
        except OSError:  # how Linux says that the other side is closed
            assert wanted is None, seen
            return seen
    return seen
