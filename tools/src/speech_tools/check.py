"""`speech check`: see whether a gateway can be spoken to, what it takes, and why not.

It connects once, reads the greeting and leaves, so nothing is stored. Where the gateway sends no
texts it connects a second time.
"""

import asyncio
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from ssl import SSLObject
from typing import Annotated, Any

import typer
from rich.table import Table
from websockets.exceptions import ConnectionClosed

from speech_tools.command_line import DEFAULT_URL, ApiKey, exit_codes, fail, make_app
from speech_tools.microphone import microphone
from speech_tools.protocol import messages
from speech_tools.protocol.audio import AudioError
from speech_tools.protocol.connection import Connection, check_url, open_connection
from speech_tools.protocol.errors import NotAGateway, Refused, StreamError
from speech_tools.protocol.outcome import Wanted
from speech_tools.terminal import Terminal, json_text, printable
from speech_tools.verdict import judge_error

GREETING_SECONDS = 10.0


class Exit(IntEnum):
    """What was found, with the numbers of `speech stream`."""

    FINE = 0
    UNEXPECTED = 1
    USAGE = 2
    RETRY = 3
    REFUSED = 4


EPILOG = exit_codes(
    {
        Exit.FINE: "it can be spoken to",
        Exit.UNEXPECTED: "what answers is not a gateway",
        Exit.USAGE: "wrong usage: the URL",
        Exit.RETRY: "not now: no connection, 503 or 429",
        Exit.REFUSED: "refused for good: the same again gets the same answer",
    },
    "A microphone is not needed, so its row does not change the exit code.",
)
_complain = partial(fail, "check")


@dataclass
class Found:
    """What was found at a URL. `None` stands for what could not be seen.

    Attributes:
        tls: version, cipher, and the certificate's subject, issuer and end.
        subprotocol: what the gateway picked.
        limits: those of the greeting.
        results: whether it sends texts.
        refused: status, code, message and retry_after of a refusal.
        error: why it cannot be spoken to.
        microphone: its name, or why there is none.
    """

    url: str
    tls: dict[str, str] | None = None
    subprotocol: str | None = None
    limits: dict[str, float] | None = None
    results: bool | None = None
    refused: dict[str, Any] | None = None
    error: StreamError | None = field(default=None, repr=False)
    microphone: str = ""

    @property
    def exit(self) -> Exit:
        """The exit code."""
        return Exit(judge_error(self.error)) if self.error else Exit.FINE

    def told(self) -> dict[str, Any]:
        """Return it for JSON."""
        error = str(self.error) if self.error else None
        return {**vars(self), "error": error, "exit": int(self.exit)}


async def look(url: str, api_key: str | None) -> Found:
    """Connect, read the greeting, and leave."""
    found = Found(url, microphone=_microphone())
    try:
        try:
            await _visit(found, Wanted(results=True, discard=True, api_key=api_key))
            found.results = True
        except Refused as refusal:
            if refusal.code != "results_not_offered":
                raise
            await _visit(found, Wanted(discard=True, api_key=api_key))
            found.results = False
    except StreamError as error:
        found.error = error
        if isinstance(error, Refused):
            found.refused = {
                "status": error.status,
                "code": error.code,
                "message": error.message,
                "retry_after": error.retry_after,
            }
    return found


async def _visit(found: Found, wanted: Wanted) -> None:
    url = check_url(found.url, wanted.query())
    connection = await open_connection(url, headers=wanted.headers())
    try:
        async with connection:
            found.tls = _tls(connection)
            found.subprotocol = connection.subprotocol
            try:
                async with asyncio.timeout(GREETING_SECONDS):
                    frame = messages.read(await connection.recv())
                messages.greeting(frame)
            except TimeoutError:
                raise NotAGateway("connected, but there was no greeting") from None
            except ConnectionClosed:
                raise NotAGateway("what answers closes without a greeting") from None
            except messages.AnswerError as error:
                raise NotAGateway(f"what answers {error}") from None
            found.limits = {name: frame["limits"][name] for name in messages.LIMITS}
    finally:
        connection.transport.abort()


def _tls(connection: Connection) -> dict[str, str] | None:
    tls: SSLObject | None = connection.transport.get_extra_info("ssl_object")
    if tls is None:
        return None
    certificate: dict[str, Any] = dict(tls.getpeercert() or {})
    names = [name for _, name in certificate.get("subjectAltName", ())]
    issuer = dict(pair for each in certificate.get("issuer", ()) for pair in each)
    return {
        "version": tls.version() or "",
        "cipher": (tls.cipher() or ("",))[0],
        "names": ", ".join(names),
        "issuer": issuer.get("organizationName") or issuer.get("commonName") or "",
        "valid_until": certificate.get("notAfter", ""),
    }


def _microphone() -> str:
    try:
        return str(microphone()["name"])
    except AudioError as error:
        problem, _, _ = str(error).removeprefix("--mic: ").partition("; without it")
        return f"none: {problem}"


def rows(found: Found) -> list[tuple[str, str]]:
    """Return what is told to people: what was looked at, and what was found."""
    told = [("connection", "refused" if found.refused else str(found.error or "open"))]
    if found.refused:
        facts = {
            name.replace("_", " "): str(value) for name, value in found.refused.items() if value
        }
        told += facts.items()
    if found.tls:
        told += [(f"TLS {name.replace('_', ' ')}", value) for name, value in found.tls.items()]
    if found.limits:
        told.append(("subprotocol", found.subprotocol or "none picked"))
        told += [(name.replace("_", " "), f"{value:,}") for name, value in found.limits.items()]
        told.append(("text on the connection", "yes" if found.results else "no (RESULTS=off)"))
    return [*told, ("microphone", found.microphone)]


app = make_app()


@app.command(epilog=EPILOG)
def main(
    url: Annotated[
        str, typer.Argument(metavar="URL", envvar="GATEWAY_URL", help="ws://HOST:PORT/ws/audio")
    ] = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,  # noqa: FBT002
    api_key: ApiKey = None,
) -> None:
    """See whether a gateway can be spoken to, and why not.

    It stores nothing.
    """
    found = asyncio.run(look(url, api_key))
    if as_json:
        print(json_text(found.told()))
    elif found.exit is not Exit.USAGE:
        table = Table(show_header=False, title=printable(url), title_justify="left")
        for name, value in rows(found):
            table.add_row(name, printable(value))
        Terminal().print(table)
    if found.error is not None:
        raise typer.Exit(_complain(found.exit, str(found.error)))
