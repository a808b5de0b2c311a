"""Malformed handshakes: one table with the answer to each, over real sockets.

Each is refused with a status or a bare close. None writes more into the log than a refusal's one
line, and after each the gateway's only slot is there for an honest client.
"""

import asyncio
import logging
from dataclasses import replace
from http import HTTPStatus

import pytest
from speech_gateway.handshake import Refusal
from speech_gateway.testing import CONFIG, raw_client, request, run_server, until
from structlog.testing import capture_logs

pytestmark = [pytest.mark.anyio, pytest.mark.security]

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
LINES = (
    "GET /ws/audio HTTP/1.1",
    "Host: gateway",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY}",
)
TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32) + b"\n" + bytes(500)
HTTP_2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)
CLOSE_FRAME = b"\x88\x80\x00\x00\x00\x00"
IMPATIENT = replace(CONFIG, handshake_timeout=0.3)
PATIENT = replace(CONFIG, handshake_timeout=60.0)  # so that no answer is the clock's

Answer = Refusal | HTTPStatus | None
"""A refusal of ours (JSON), one in plain text, or nothing but a close."""

CLOSE = None
BAD_REQUEST = HTTPStatus.BAD_REQUEST
TOO_LONG_LINE = HTTPStatus.REQUEST_URI_TOO_LONG
TOO_LARGE_HEADERS = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE

SESSION = ("session", "info")
QUIET = ([SESSION], [("refused", "info"), SESSION])
"""All that the log may say of a malformed handshake and the honest client after it."""


def lines(*sent: str, end: str = "\r\n") -> bytes:
    """Return these lines, byte for byte, and a blank one."""
    return end.join([*sent, "", ""]).encode("latin-1")


def adding(name: str, value: str) -> bytes:
    """Return a good handshake with one header more."""
    return lines(*LINES, f"{name}: {value}")


def lacking(name: str) -> bytes:
    """Return a good handshake without one header."""
    return request(without=frozenset({name}))


def changing(name: str, value: str) -> bytes:
    """Return a good handshake with another value in one header."""
    return lines(*(line for line in LINES if not line.startswith(f"{name}:")), f"{name}: {value}")


def asking(query: str) -> bytes:
    """Return a good handshake but for its query."""
    return request(f"/ws/audio?{query}")


def filled(size: int) -> bytes:
    """Return a handshake of this many bytes, in lines that are not too long."""
    head = lines(*LINES)[:-2]
    while (left := size - len(head) - 2) > 0:
        line = min(left, 8_000) if not 8_000 < left < 8_020 else left // 2
        head += b"X: " + b"x" * (line - 5) + b"\r\n"
    return head + b"\r\n"


def listing(name: str, items: str, size: int, *, times: int = 1) -> bytes:
    """Return a handshake in which a header has so many bytes of a list, so many times."""
    value = (items * size)[:size]
    kept = [line for line in LINES if not line.startswith(f"{name}:")]
    return lines(*kept, *[f"{name}: {value}"] * times)


MALFORMED: dict[str, tuple[bytes, Answer]] = {
    # Too much of it
    "129 headers": (request(headers=[(f"X-{i}", "x") for i in range(124)]), TOO_LARGE_HEADERS),
    "header line of 9 kB": (adding("X", "x" * 9_000), TOO_LARGE_HEADERS),
    "header name of 9 kB": (adding("X" * 9_000, "x"), TOO_LARGE_HEADERS),
    "target of 9 kB": (asking("x=" + "x" * 9_000), TOO_LONG_LINE),
    "method of 9 kB": (request(method="G" * 9_000), TOO_LONG_LINE),
    "10,000 languages": (asking("&".join(["language="] * 10_000)), TOO_LONG_LINE),
    "800 languages": (asking("&".join(["language="] * 800)), Refusal.INVALID_LANGUAGE),
    "1 MB without an end of line": (b"GET /" + b"x" * 1_000_000, TOO_LONG_LINE),
    "head of 16 KiB and a byte": (filled(16_385), TOO_LARGE_HEADERS),
    "head of 1 MB": (filled(1_000_000), TOO_LARGE_HEADERS),
    "head of 16 KiB without an end": (filled(16_386)[:-2] + b"x", TOO_LARGE_HEADERS),
    "Connection of 513 bytes": (listing("Connection", "upgrade,", 513), TOO_LARGE_HEADERS),
    "Connection of 8 kB": (listing("Connection", "a,", 8_000), TOO_LARGE_HEADERS),
    "Connections of 513 bytes": (listing("Connection", "a,", 171, times=3), TOO_LARGE_HEADERS),
    "Upgrade of 513 bytes": (listing("Upgrade", "websocket,", 513), TOO_LARGE_HEADERS),
    "subprotocols of 513 bytes": (
        listing("Sec-WebSocket-Protocol", "a,", 513),
        TOO_LARGE_HEADERS,
    ),
    "extensions of 513 bytes": (
        listing("Sec-WebSocket-Extensions", "a,", 513),
        TOO_LARGE_HEADERS,
    ),
    # Sec-WebSocket-Version
    "version 12": (changing("Sec-WebSocket-Version", "12"), BAD_REQUEST),
    "version 8": (changing("Sec-WebSocket-Version", "8"), BAD_REQUEST),
    "version 13.0": (changing("Sec-WebSocket-Version", "13.0"), BAD_REQUEST),
    "version is empty": (changing("Sec-WebSocket-Version", ""), BAD_REQUEST),
    "version is a list": (changing("Sec-WebSocket-Version", "13, 8"), BAD_REQUEST),
    "version is doubled": (adding("Sec-WebSocket-Version", "13"), BAD_REQUEST),
    "version is missing": (lacking("Sec-WebSocket-Version"), BAD_REQUEST),
    # Sec-WebSocket-Key
    "key of 5 bytes": (changing("Sec-WebSocket-Key", "c2hvcnQ="), BAD_REQUEST),
    "key of 24 bytes": (changing("Sec-WebSocket-Key", "dGhl" * 8), BAD_REQUEST),
    "key is not base64": (changing("Sec-WebSocket-Key", "!" * 22 + "=="), BAD_REQUEST),
    "key is not ASCII": (changing("Sec-WebSocket-Key", "é" * 22 + "=="), BAD_REQUEST),
    "key is empty": (changing("Sec-WebSocket-Key", ""), BAD_REQUEST),
    "key is doubled": (adding("Sec-WebSocket-Key", KEY), BAD_REQUEST),
    "key is missing": (lacking("Sec-WebSocket-Key"), BAD_REQUEST),
    # Sec-WebSocket-Protocol, Origin, Host
    "subprotocol is not ASCII": (adding("Sec-WebSocket-Protocol", "spéech"), BAD_REQUEST),
    "subprotocol is empty": (adding("Sec-WebSocket-Protocol", ""), BAD_REQUEST),
    "subprotocols are commas": (adding("Sec-WebSocket-Protocol", ",,"), BAD_REQUEST),
    "subprotocols lack a comma": (
        adding("Sec-WebSocket-Protocol", "speech-ingress.v1, a b"),
        BAD_REQUEST,
    ),
    "Origin is doubled": (lines(*LINES, "Origin: https://a", "Origin: https://a"), BAD_REQUEST),
    "Host is missing": (lacking("Host"), BAD_REQUEST),
    "Host is doubled": (adding("Host", "evil.example"), BAD_REQUEST),
    # Upgrade and Connection
    "Upgrade is missing": (lacking("Upgrade"), Refusal.UPGRADE_REQUIRED),
    "Connection is missing": (lacking("Connection"), Refusal.UPGRADE_REQUIRED),
    "Upgrade to h2c": (
        lines(*LINES[:3], "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
        Refusal.UPGRADE_REQUIRED,
    ),
    "Upgrade to websocket/13": (changing("Upgrade", "websocket/13"), Refusal.UPGRADE_REQUIRED),
    "Upgrade to one of two": (changing("Upgrade", "websocket, h2c"), HTTPStatus.UPGRADE_REQUIRED),
    "Upgrade is doubled": (adding("Upgrade", "websocket"), HTTPStatus.UPGRADE_REQUIRED),
    "Upgrade lacks a comma": (changing("Upgrade", "websocket, a b"), BAD_REQUEST),
    "Connection lacks a comma": (changing("Connection", "upgrade, a b"), BAD_REQUEST),
    # The version of HTTP, and what is no HTTP
    "HTTP/1.0": (request(version="HTTP/1.0"), HTTPStatus.HTTP_VERSION_NOT_SUPPORTED),
    "HTTP/0.9": (b"GET /ws/audio\r\n\r\n", CLOSE),
    "HTTP/1.2": (request(version="HTTP/1.2"), CLOSE),
    "HTTP/2.0": (request(version="HTTP/2.0"), CLOSE),
    "HTTP/3": (request(version="HTTP/3"), CLOSE),
    "http/1.1": (request(version="http/1.1"), CLOSE),
    "HTTP/2 preface": (HTTP_2_PREFACE, CLOSE),
    "TLS hello": (TLS_HELLO, CLOSE),
    "SSH banner": (b"SSH-2.0-OpenSSH_9.6\r\n", CLOSE),
    "SMTP greeting": (b"EHLO client.example\r\n", CLOSE),
    "SIP request": (lines("OPTIONS sip:gateway SIP/2.0"), CLOSE),
    "PROXY protocol": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 8000\r\n" + request(), CLOSE),
    "Kafka request": (b"\x00\x00\x00\x10\x00\x12\x00\x03\x00\x00\x00\x01\x00\x04test\n", CLOSE),
    "every byte": (bytes(range(256)) * 4, CLOSE),
    "NUL bytes": (bytes(64) + b"\r\n", CLOSE),
    # Methods and targets
    "POST": (request(method="POST"), Refusal.METHOD_NOT_ALLOWED),
    "PUT": (request(method="PUT"), Refusal.METHOD_NOT_ALLOWED),
    "DELETE": (request(method="DELETE"), Refusal.METHOD_NOT_ALLOWED),
    "OPTIONS": (request(method="OPTIONS"), Refusal.METHOD_NOT_ALLOWED),
    "TRACE": (request(method="TRACE"), Refusal.METHOD_NOT_ALLOWED),
    "CONNECT": (request("gateway:8000", method="CONNECT"), Refusal.NOT_FOUND),
    "CONNECT to the path": (request(method="CONNECT"), Refusal.METHOD_NOT_ALLOWED),
    "target is absolute": (request("ws://gateway/ws/audio"), Refusal.NOT_FOUND),
    "target is *": (request("*", method="OPTIONS"), Refusal.NOT_FOUND),
    "path climbs": (request("/ws/audio/../"), Refusal.NOT_FOUND),
    "path climbs out": (request("/ws/audio/../../etc/passwd"), Refusal.NOT_FOUND),
    "path climbs, encoded": (request("/ws/audio/%2e%2e/audio"), Refusal.NOT_FOUND),
    "path with two slashes": (request("//ws/audio"), Refusal.NOT_FOUND),
    "path is encoded": (request("/ws/%61udio"), Refusal.NOT_FOUND),
    "path with a NUL": (request("/ws/audio\0"), Refusal.NOT_FOUND),
    "path with an encoded NUL": (request("/ws/audio%00"), Refusal.NOT_FOUND),
    "path is not ASCII": (request("/ws/audioé"), CLOSE),
    "language: %": (asking("language=%"), Refusal.INVALID_LANGUAGE),
    "language: %zz": (asking("language=%zz"), Refusal.INVALID_LANGUAGE),
    "language: %ff%fe": (asking("language=%ff%fe"), Refusal.INVALID_LANGUAGE),
    "language with a line end": (asking("language=en%0d%0aX:1"), Refusal.INVALID_LANGUAGE),
    # The form of lines
    "ends of line are LF": (lines(*LINES, end="\n"), CLOSE),
    "a CR inside a line": (adding("X", "a\rb"), CLOSE),
    "line is folded": (lines(*LINES, "X: a", "  b"), CLOSE),
    "first header is folded": (lines(LINES[0], "  X: a", *LINES[1:]), CLOSE),
    "header without a colon": (lines(*LINES, "nonsense"), CLOSE),
    "header without a name": (lines(*LINES, ": a"), CLOSE),
    "header name with a blank": (adding("X Y", "a"), CLOSE),
    "blank before the colon": (adding("X ", "a"), CLOSE),
    "header name is not ASCII": (adding("Xé", "a"), CLOSE),
    "header name with a NUL": (adding("X\0", "a"), CLOSE),
    "header value with a NUL": (adding("X", "a\0b"), CLOSE),
    "blank line first": (b"\r\n" + request(), CLOSE),
    "two blanks in the request line": (lines("GET  /ws/audio HTTP/1.1", *LINES[1:]), CLOSE),
    "tabs in the request line": (lines("GET\t/ws/audio\tHTTP/1.1", *LINES[1:]), CLOSE),
    "blank behind the request line": (lines(f"{LINES[0]} ", *LINES[1:]), CLOSE),
    "request line without a target": (lines("GET HTTP/1.1", *LINES[1:]), CLOSE),
    # Bodies, and other ways to smuggle a second request behind a first
    "Content-Length and a body": (adding("Content-Length", "4") + b"body", CLOSE),
    "Content-Length and no body": (adding("Content-Length", "4"), CLOSE),
    "two Content-Lengths": (lines(*LINES, "Content-Length: 0", "Content-Length: 4"), CLOSE),
    "Content-Length: -1": (adding("Content-Length", "-1"), CLOSE),
    "Content-Length: +0": (adding("Content-Length", "+0"), CLOSE),
    "Content-Length of 4,000 digits": (adding("Content-Length", "9" * 4_000), CLOSE),
    "chunked": (adding("Transfer-Encoding", "chunked") + b"0\r\n\r\n", CLOSE),
    "chunked in disguise": (adding("Transfer-Encoding", "xchunked"), CLOSE),
    "chunked, blank before the colon": (adding("Transfer-Encoding ", "chunked"), CLOSE),
    "chunked with a Content-Length": (
        lines(*LINES, "Transfer-Encoding: chunked", "Content-Length: 0") + b"0\r\n\r\n",
        CLOSE,
    ),
    "POST with a body": (
        request(method="POST", headers=[("Content-Length", "4")]) + b"body",
        CLOSE,
    ),
    "a second request behind a good one": (request() + request(), CLOSE),
    "a second request behind a refused one": (request("/nowhere") + request(), CLOSE),
    "a close frame behind a good one": (request() + CLOSE_FRAME, CLOSE),
    "a close frame behind a refused one": (request("/nowhere") + CLOSE_FRAME, CLOSE),
    "garbage behind a good one": (request() + bytes(range(256)), CLOSE),
    "garbage behind a refused one": (request("/nowhere") + bytes(range(256)), CLOSE),
}

UNFINISHED = {
    "nothing": b"",
    "half a request": request()[:40],
    "all but the last byte": request()[:-1],
    "ends of line are CR": lines(*LINES, end="\r"),
    "TLS hello in one line": b"\x16\x03\x01\x00\x2e\x01\x00\x00\x2a\x03\x03" + bytes(39),
    "SOCKS greeting": b"\x05\x01\x00",
    "frame without a handshake": b"\x82\x82\x00\x00\x00\x00ab",
}
"""What could still become a request; the clock decides."""

ODD = {
    "128 headers": request(headers=[(f"X-{i}", "x") for i in range(123)]),
    "target of 8,000 characters": asking("x=" + "x" * 7_988),
    "1,500 parameters": asking("&".join(["a=b"] * 1_500)),
    "parameter with a broken encoding": asking("x=%zz%"),
    "Content-Length: 0": adding("Content-Length", "0"),
    "head of 16 KiB": filled(16_384),
    "Connection of 512 bytes": listing("Connection", "upgrade,", 512),
    "subprotocols of 512 bytes": listing("Sec-WebSocket-Protocol", "a,", 512),
    "extensions of 512 bytes": listing("Sec-WebSocket-Extensions", "a,", 512),
    "Connection is a list": changing("Connection", "keep-alive, Upgrade"),
    "Connection is doubled": adding("Connection", "keep-alive"),
    "Upgrade in capitals": changing("Upgrade", "WEBSOCKET"),
    "extensions that are none": adding("Sec-WebSocket-Extensions", ";;="),
    "header value is not ASCII": adding("X", "é"),
}
"""What is within the rules, or of no consequence."""


def answered(said: bytes) -> Answer:
    """Return which answer this is, byte for byte where it is ours."""
    if not said:
        return CLOSE
    head, _, body = said.partition(b"\r\n\r\n")
    first, *fields = head.decode("ascii").split("\r\n")
    headers = dict(field.split(": ", 1) for field in fields)
    status = HTTPStatus(int(first.split(" ")[1]))
    assert (headers["Connection"], int(headers["Content-Length"])) == ("close", len(body))
    assert "Server" not in headers
    if headers["Content-Type"] == "text/plain; charset=utf-8":
        return status
    refusals = {(each.value.status, each.value.body()): each for each in Refusal}
    return refusals[status, body]


def test_the_table_is_large_enough():
    """There are at least 30 malformed handshakes, some of each kind of answer."""
    answers = [answer for _, answer in MALFORMED.values()]
    kinds = {each.value.status if isinstance(each, Refusal) else each for each in answers}
    assert len(answers) >= 30
    assert kinds == {CLOSE, 400, 404, 405, 414, 426, 431, 505}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_handshake_gets_its_answer(name, caplog):
    """As in the table; the log has no word more, and an honest client finds its place."""
    head, answer = MALFORMED[name]
    with capture_logs() as logged, caplog.at_level(logging.WARNING):
        async with run_server(PATIENT, max_connections=1) as server:
            async with raw_client(server.port, head, upgrade=False) as client:
                assert answered(await client.read_rest()) == answer
            await until(lambda: not server.gateway._handshakes)
            async with raw_client(server.port):
                assert server.live == 1
    assert caplog.record_tuples == []
    assert [(line["event"], line["log_level"]) for line in logged] in QUIET


async def test_unfinished_handshakes_are_closed_when_their_time_is_over(caplog):
    """Without a word, to the client or in the log."""
    async with run_server(IMPATIENT, max_connections=1) as server:

        async def hears(head: bytes) -> bytes:
            async with raw_client(server.port, head, upgrade=False) as client:
                return await client.read_rest()

        said = await asyncio.gather(*map(hears, UNFINISHED.values()))
        assert dict(zip(UNFINISHED, said, strict=True)) == dict.fromkeys(UNFINISHED, b"")
        await until(lambda: not server.gateway._handshakes)
        async with raw_client(server.port):
            assert server.live == 1
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.parametrize("name", UNFINISHED)
async def test_a_client_that_leaves_before_its_handshake_is_finished_is_forgotten_at_once(
    name, caplog
):
    """Its end is enough, nobody waits for the clock."""
    async with (
        run_server(PATIENT) as server,
        raw_client(server.port, UNFINISHED[name], upgrade=False) as client,
    ):
        client.end_sending()
        assert await client.read_rest() == b""
        await until(lambda: not server.gateway._handshakes)
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_a_request_byte_by_byte_is_cut_when_its_time_is_over():
    """Each byte is progress, and none prolongs the time."""
    async with (
        run_server(IMPATIENT) as server,
        raw_client(server.port, b"", upgrade=False) as client,
    ):

        async def dribble() -> None:
            for byte in request() * 10:
                client.send(bytes([byte]))
                await asyncio.sleep(0.01)

        dribbling = asyncio.create_task(dribble())
        assert await client.read_rest() == b""
        assert not dribbling.done()
        dribbling.cancel()
        await asyncio.wait([dribbling])
        await until(lambda: not server.gateway._handshakes)
        assert server.live == 0


@pytest.mark.parametrize("name", ["129 headers", "every byte", "path climbs"])
async def test_a_refused_client_that_stays_is_cut(name):
    """It counts as an unfinished handshake for no longer than a handshake may take."""
    head, answer = MALFORMED[name]
    async with (
        run_server(IMPATIENT) as server,
        raw_client(server.port, head, upgrade=False) as client,
    ):
        assert answered(await client.read_rest()) == answer
        await until(lambda: not server.gateway._handshakes)


@pytest.mark.parametrize("name", ODD)
async def test_what_is_odd_but_within_the_rules_is_admitted(name):
    """The limits are where they are said to be, and no stricter."""
    async with run_server(max_connections=1) as server, raw_client(server.port, ODD[name]):
        assert server.live == 1
