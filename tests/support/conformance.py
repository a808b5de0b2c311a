"""Measure how the gateway's WebSocket server keeps to RFC 6455, by the Autobahn|Testsuite.

Used by `support.conformance_report` and by its test. The suite wants its messages echoed, so it
talks to the gateway's own server, with its settings, connection, admission and handshake, in which
an echo stands in the place of the session.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from speech_gateway.connection import GatewayConnection
from speech_gateway.errors import Ending
from speech_gateway.server import GatewayServer
from speech_gateway.testing import run_server
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from support import autobahn
from support.autobahn import Outcome, Suite

SECTIONS = {
    1: "framing",
    2: "pings and pongs",
    3: "reserved bits",
    4: "opcodes",
    5: "fragmentation",
    6: "UTF-8",
    7: "closing",
    10: "automatic fragmentation",
}
"""What is tried. Left out: 9 measures speed with messages up to 16 MB, 12 and 13 compression."""

VERDICTS = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED")
DOCUMENT = autobahn.ROOT / "docs" / "conformance.md"
_TABLE = re.compile(r"(?<=<!-- sections -->\n).*?(?=<!-- end -->)", re.DOTALL)


class _Inbox:
    """Keeps what a connection hands over until the echo takes it."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[str | bytes | Ending] = asyncio.Queue()

    def receive(self, message: str | bytes) -> None:
        self.events.put_nowait(message)

    def end(self, ending: Ending) -> None:
        self.events.put_nowait(ending)

    def lost(self) -> None:
        self.events.put_nowait(Ending.DISCONNECT)


class EchoGateway(GatewayServer):
    """The gateway's server, but for what it does with an admitted client's messages."""

    async def _serve_client(self, connection: ServerConnection) -> None:
        assert isinstance(connection, GatewayConnection)
        inbox = _Inbox()
        connection.listen(inbox)
        with suppress(ConnectionClosed):
            while not isinstance(event := await inbox.events.get(), Ending):
                await connection.send(event)
            if event is Ending.RATE_LIMITED:
                await connection.cut(1008, "rate_limited")
            else:
                connection.fail()


async def measure(suite: Suite, directory: Path) -> dict[str, Outcome]:
    """Return the outcome of every case of `SECTIONS`."""
    async with run_server(kind=EchoGateway) as server:
        cases = [f"{section}.*" for section in SECTIONS]
        return await autobahn.run(suite, server.url, cases, directory)


def count(outcomes: Mapping[str, Outcome]) -> dict[int, Counter[str]]:
    """Return how often each verdict was given, by section."""
    counts: dict[int, Counter[str]] = {section: Counter() for section in SECTIONS}
    for case, outcome in outcomes.items():
        counts[int(case.partition(".")[0])][outcome.verdict] += 1
    return counts


def table(outcomes: Mapping[str, Outcome]) -> str:
    """Return the table of sections as it stands in the document."""
    lines = [f"| section | cases | {' | '.join(VERDICTS)} |", "| --- |" + " --- |" * 6]
    for section, verdicts in count(outcomes).items():
        cells = [verdicts.total(), *(verdicts[verdict] for verdict in VERDICTS)]
        lines.append(f"| {section} {SECTIONS[section]} | {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, ""])


def with_table(document: str, outcomes: Mapping[str, Outcome]) -> str:
    """Return the document with a new table of sections."""
    return _TABLE.sub(lambda _: table(outcomes), document, count=1)
