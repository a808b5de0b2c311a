"""Whose pages may connect: every row of the table in docs/security.md, over real sockets."""

import asyncio
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from speech_gateway.handshake import Refusal
from speech_gateway.settings import GatewaySettings
from speech_gateway.testing import CONFIG, RawClient, raw_client, request, run_server
from speech_lib.errors import ConfigError

pytestmark = pytest.mark.anyio

DOCUMENT = Path(__file__).parents[2] / "docs" / "security.md"
ROW = re.compile(r"^\| (?P<fields>.+?) \| (?P<answer>admitted|403|closed) \| (?P<why>.+) \|$")
NO_FIELD = "(no Origin field)"
APP = "https://app.example"


@dataclass(frozen=True)
class Row:
    """One decision: the Origin fields of a request, as they stand in it, and the answer."""

    fields: tuple[str, ...]
    answer: str


def table(name: str) -> tuple[frozenset[str], list[Row]]:
    """Return an allowlist and the rows below it, from the document."""
    section = DOCUMENT.read_text().partition(f"<!-- origins: {name} -->")[2]
    section = section.partition("<!-- end -->")[0]
    allowlist = re.search(r"`ORIGIN_ALLOWLIST=(.*?)`", section)
    assert allowlist
    return parsed(allowlist[1]), list(rows(section))


def rows(section: str) -> Iterator[Row]:
    for line in section.splitlines():
        if found := ROW.match(line):
            quoted = re.findall(r"`([^`]*)`", found["fields"])
            assert quoted or NO_FIELD in found["fields"]
            yield Row(tuple(quoted), found["answer"])


def parsed(allowlist: str) -> frozenset[str]:
    """Return what the gateway makes of `ORIGIN_ALLOWLIST`."""
    needed = {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092", "SCHEMA_REGISTRY_URL": "http://registry"}
    return GatewaySettings.load(needed | {"ORIGIN_ALLOWLIST": allowlist}).origin_allowlist


LISTED, ROWS = table("listed")
OPEN, OPEN_ROWS = table("none")
CASES = [(LISTED, row) for row in ROWS] + [(OPEN, row) for row in OPEN_ROWS]


def head(fields: tuple[str, ...]) -> bytes:
    """Return a handshake with these Origin fields, byte for byte."""
    values = [value.replace("\\t", "\t").replace("\\0", "\0") for value in fields]
    return request(headers=[("Origin", value) for value in values])


async def answer_to(fields: tuple[str, ...], allowlist: frozenset[str]) -> str:
    """Return what the live gateway does with a request; who is refused gets no slot."""
    async with (
        run_server(replace(CONFIG, origin_allowlist=allowlist)) as server,
        raw_client(server.port, head(fields), upgrade=False) as client,
    ):
        match await status_line(client), server.live:
            case "HTTP/1.1 101 Switching Protocols", 1:
                return "admitted"
            case "HTTP/1.1 403 Forbidden", 0:
                assert await client.read_rest() == Refusal.ORIGIN_NOT_ALLOWED.value.body()
                return "403"
            case "", 0:
                return "closed"
            case other:
                raise AssertionError(other)


async def status_line(client: RawClient) -> str:
    """Return the first line of an answer, or nothing where the connection is closed instead."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        return (await client.read_head()).partition("\r\n")[0]
    return ""


def test_the_table_is_whole():
    """There are at least 25 origins, of both answers, and the lists are what the text says."""
    assert len(ROWS) >= 25
    assert {row.answer for row in ROWS} == {"admitted", "403", "closed"}
    assert {"null", "none"} == OPEN


@pytest.mark.parametrize(
    ("allowlist", "row"), CASES, ids=[" + ".join(row.fields) or NO_FIELD for _, row in CASES]
)
async def test_each_origin_gets_the_answer_of_the_table(allowlist, row):
    """The gateway decides as it is documented."""
    assert await answer_to(row.fields, allowlist) == row.answer


@pytest.mark.parametrize("fields", [("https://evil.example",), ("null",), ("",), ()])
async def test_without_a_list_every_origin_is_admitted(fields):
    """An allowlist that is not set is open to all, which the gateway warns of at its start."""
    assert await answer_to(fields, frozenset()) == "admitted"


async def test_a_refused_page_learns_nothing_about_the_gateway():
    """The origin is judged before the state: also a full, stopping gateway answers 403."""
    config, evil = replace(CONFIG, origin_allowlist=LISTED), head(("https://evil.example",))
    async with (
        run_server(config, max_connections=1) as server,
        raw_client(server.port, head((APP,))),
    ):
        server.ready.on = False
        server.drain(60)
        async with raw_client(server.port, evil, upgrade=False) as client:
            assert await status_line(client) == "HTTP/1.1 403 Forbidden"


@pytest.mark.parametrize(
    "wrong",
    [
        "https://APP.example",
        "https://app.example/",
        "https://app.example:443",
        "https://user@app.example",
        "https://*.app.example",
        "https://bücher.example",
        "app.example",
        "*",
        ",",
    ],
)
def test_what_no_browser_sends_is_no_entry_of_the_list(wrong):
    """An entry that would never match is refused at the start, not found out later."""
    with pytest.raises(ConfigError, match=r"^ORIGIN_ALLOWLIST: expected origins as browsers send"):
        parsed(wrong)
