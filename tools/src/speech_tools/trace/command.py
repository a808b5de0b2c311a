"""`speech trace`: show every hop of an utterance, from its handshake to its text.

The exit code says whether the text is there, and the last line which hop is missing.
"""

import re
import time
import uuid
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Annotated

import typer
from pydantic import Field
from speech_lib.errors import (
    BrokerUnavailable,
    ConfigError,
    EventError,
    RegistryUnavailable,
    SchemaNotFound,
    SchemaRefused,
    TopicMissing,
)
from speech_lib.service.setting_types import Text

from speech_tools.command_line import (
    DEFAULT_REGISTRY,
    DEFAULT_SERVERS,
    INTERRUPTED,
    RegistryUrl,
    Servers,
    exit_codes,
    fail,
    make_app,
    silence_library,
)
from speech_tools.environment import KAFKA_VARIABLES, PipelineEnvironment
from speech_tools.trace.tracer import Tracer, Where, tracer

MAX_LAST = 1_000


class Exit(IntEnum):
    """What came of the search."""

    COMPLETE = 0
    MISSING = 1
    USAGE = 2


EPILOG = exit_codes(
    {
        Exit.COMPLETE: "the text is there; with --last, all texts are",
        Exit.MISSING: "a hop is missing; the last line says which",
        Exit.USAGE: "wrong usage, or the broker or the schema registry cannot be asked",
        INTERRUPTED: "ended by Ctrl-C, as --follow always is",
    },
    '"stored" and "text stored" have the time that stands on the record: its writer set it when it '
    "handed the record over. The other hops have the time that the writer noted for them.",
    f"{KAFKA_VARIABLES} TOPIC_AUDIO_INGRESS, TOPIC_ASR_TEXT and TOPIC_DEAD_LETTER say where to "
    "look, and ASR_GROUP_ID which consumer group recognises.",
)

_complain = partial(fail, "trace")

_UNITS_S = {"s": 1, "m": 60, "h": 60 * 60, "d": 24 * 60 * 60}
_AGO = re.compile(r"([0-9]{1,6})([smhd])")


class TraceEnvironment(PipelineEnvironment):
    """What this command reads."""

    asr_group_id: Text = Field("asr-service", alias="ASR_GROUP_ID")
    """The recognisers' consumer group."""

    def where(self) -> Where:
        """Return where to look."""
        return Where(self.kafka(), self.schema_registry_url, self.topics(), self.asr_group_id)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for: an utterance, the newest, or to follow."""

    correlation_id: str | None
    last: int | None
    follow: bool
    since: str | None

    def problem(self) -> str | None:
        """Say what is wrong with it."""
        if [self.correlation_id is not None, self.last is not None, self.follow].count(True) != 1:
            return "expected one of CORRELATION_ID, --last and --follow"
        if self.correlation_id is not None and not _is_id(self.correlation_id):
            return "expected a correlation id, as speech stream prints it"
        if self.since is not None and self.correlation_id is None:
            return "--since: expected with a CORRELATION_ID only"
        if self.since is not None and not _AGO.fullmatch(self.since):
            return "--since: expected how long ago, as in 30s, 10m, 2h or 1d"
        return None


def run(wanted: Wanted, servers: str, registry: str, *, as_json: bool) -> Exit:
    """Trace, print, and return the exit code."""
    if problem := wanted.problem():
        return _complain(Exit.USAGE, problem)
    silence_library()
    try:
        where = TraceEnvironment.read(servers, registry).where()
        with tracer(where, as_json=as_json, follows=wanted.follow) as tracing:
            return _judge(wanted, tracing)
    except EventError as error:
        return _complain(Exit.MISSING, f"the record of the text cannot be read: {error}")
    except (ConfigError, BrokerUnavailable, TopicMissing) as error:
        return _complain(Exit.USAGE, str(error))
    except (RegistryUnavailable, SchemaNotFound, SchemaRefused) as error:
        return _complain(Exit.USAGE, f"the text cannot be decoded: {error}")


def _judge(wanted: Wanted, tracing: Tracer) -> Exit:
    """Show what is wanted and say which hop is missing."""
    if wanted.follow:
        tracing.follow()
    if wanted.correlation_id:
        found = [tracing.one(str(uuid.UUID(wanted.correlation_id)), _since_ms(wanted.since))]
    else:
        found = tracing.last(wanted.last or 1)
    missing = [each.missing for each in found if each.missing]
    if not found:
        return _complain(Exit.MISSING, "nothing is stored yet")
    if len(found) == 1 and missing:
        return _complain(Exit.MISSING, missing[0].line)
    if missing:
        hops = ", ".join(dict.fromkeys(each.hop for each in missing))
        line = f"{len(missing)} of {len(found)} have no text; missing: {hops}"
        return _complain(Exit.MISSING, line)
    return Exit.COMPLETE


def _is_id(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _since_ms(since: str | None) -> int | None:
    match = _AGO.fullmatch(since or "")
    return round((time.time() - int(match[1]) * _UNITS_S[match[2]]) * 1000) if match else None


app = make_app()


@app.command(epilog=EPILOG)
def main(
    correlation_id: Annotated[
        str | None,
        typer.Argument(metavar="CORRELATION_ID", help="as the gateway's first message names it"),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_LAST, help="show the newest utterances", metavar="N"),
    ] = None,
    follow: Annotated[  # noqa: FBT002 - how typer declares a switch
        bool, typer.Option("--follow", help="show utterances as they happen, until Ctrl-C")
    ] = False,
    since: Annotated[
        str | None, typer.Option(help="look no further back, as in 10m or 2h", metavar="TIME")
    ] = None,
    bootstrap_servers: Servers = DEFAULT_SERVERS,
    registry: RegistryUrl = DEFAULT_REGISTRY,
    as_json: Annotated[  # noqa: FBT002 - how typer declares a switch
        bool, typer.Option("--json", help="print one JSON object a line for each utterance")
    ] = False,
) -> None:
    """Show every hop of an utterance, and its text.

    Name it by its CORRELATION_ID, ask for the newest ones, or follow those that come.
    """
    wanted = Wanted(correlation_id, last, follow, since)
    raise typer.Exit(run(wanted, bootstrap_servers, registry, as_json=as_json))
