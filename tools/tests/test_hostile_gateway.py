"""What the tools make of a gateway that says anything at all: one line, and no gateway."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import typer
from speech_lib.testing.pipeline import Pipeline
from speech_tools import demo
from speech_tools.latency import command as latency
from speech_tools.load import command as load
from speech_tools.protocol import client
from speech_tools.stream import command as stream
from support.invoke import invoke
from support.scripted_gateway import CORRELATION_ID, LIMITS, Script, Visit, scripted
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection

RAW = Path(__file__).parents[2] / "samples" / "go-forward-ten-meters.raw"
HUGE = 10**400
OTHER_ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """Return a recording of a tenth of a second."""
    path = tmp_path / "short.raw"
    path.write_bytes(RAW.read_bytes()[:3200])
    return path


def first(message: str | bytes) -> Script:
    """Say this in place of a greeting."""

    def script(visit: Visit) -> None:
        visit.connection.send(message)
        visit.hear()

    return script


def greeting(**changed: Any) -> Script:
    told = {
        "status": "connected",
        "protocol": "speech-ingress.v1",
        "correlation_id": CORRELATION_ID,
        "limits": LIMITS,
        **changed,
    }
    return first(json.dumps({name: value for name, value in told.items() if value != "left out"}))


def limits(**changed: Any) -> Script:
    return greeting(limits={**LIMITS, **changed})


def last(make: Callable[[Visit], str | bytes]) -> Script:
    """Greet, take all, and say this in place of a final message."""

    def script(visit: Visit) -> None:
        visit.greet()
        visit.hear()
        visit.connection.send(make(visit))
        visit.hear()

    return script


def accepted(**changed: Any) -> Script:
    return last(
        lambda visit: json.dumps({"correlation_id": CORRELATION_ID, **visit.receipt(), **changed})
    )


def error(**changed: Any) -> Script:
    told = {"code": "internal_error", "message": "m", "retryable": False, "stored": "no"}
    whole = {"status": "error", "correlation_id": CORRELATION_ID, **told, **changed}
    return last(lambda _: json.dumps(whole))


BAD_NUMBERS = {"0": 0, "-5": -5, "x": "x", "huge": HUGE, "true": True, "null": None, "a list": [1]}
BAD_MESSAGES = {
    "binary": b'{"status": "connected"}',
    "900 kB of [": "[" * 900_000,
    "900 kB of {": '{"a":' * 180_000,
    "nested": '{"status": "connected", "a": ' + "[" * 50 + "]" * 50 + "}",
    "NaN": '{"status": NaN}',
    "1e999": '{"status": "connected", "a": 1e999}',
    "5,000 digits": '{"a": ' + "9" * 5_000 + "}",
    "a list": "[]",
    "a number": "7",
    "null": "null",
    "nothing": "",
    "html": "<html>",
    "a surrogate": '{"status": "\\ud800"}',
    "2 MB": json.dumps({"status": "connected", "a": "x" * 2_000_000}),
}
HOSTILE = {
    **{f"first, {name}": first(message) for name, message in BAD_MESSAGES.items()},
    **{
        f"{limit} {name}": limits(**{limit: value})
        for limit in ("max_chunk_bytes", "max_messages_per_second")
        for name, value in BAD_NUMBERS.items()
    },
    "max_audio_bytes 1.5": limits(max_audio_bytes=1.5),
    "idle_timeout_seconds x": limits(idle_timeout_seconds="x"),
    "max_session_seconds -1": limits(max_session_seconds=-1),
    "no limits": greeting(limits="left out"),
    "limits are a list": greeting(limits=[1]),
    "limits are empty": greeting(limits={}),
    "another protocol": greeting(protocol="speech-ingress.v2"),
    "protocol is a list": greeting(protocol=["speech-ingress.v1"]),
    "status is an object": greeting(status={}),
    "accepted at once": greeting(status="accepted"),
    "no id": greeting(correlation_id="left out"),
    "id is a number": greeting(correlation_id=7),
    "id is an object": greeting(correlation_id={}),
    "id is no UUID": greeting(correlation_id="\x1b]0;x\x07"),
    "accepted alone": last(lambda _: '{"status": "accepted"}'),
    "error alone": last(lambda _: '{"status": "error"}'),
    "last, binary": last(lambda visit: json.dumps(visit.receipt()).encode()),
    "last, 900 kB of [": last(lambda _: "[" * 900_000),
    "last, NaN": last(lambda _: '{"status": "accepted", "audio_bytes": NaN}'),
    "another id": accepted(correlation_id=OTHER_ID),
    "no id at the end": accepted(correlation_id=None),
    "audio_bytes -5": accepted(audio_bytes=-5),
    "audio_bytes x": accepted(audio_bytes="x"),
    "sha256 is a number": accepted(sha256=7),
    "sha256 is short": accepted(sha256="ab"),
    "offset null": accepted(offset=None),
    "ended_by is an object": accepted(ended_by={}),
    "code is a list": error(code=[]),
    "code of 100 kB": error(code="x" * 100_000),
    "message null": error(message=None),
    "retryable is a text": error(retryable="yes"),
    "stored is a list": error(stored=[]),
    "stored is another": error(stored="perhaps"),
    "error for another id": error(correlation_id=OTHER_ID),
}


def ran(app: Any, *arguments: object) -> tuple[int, str]:
    """Run a tool to its end in this process; return its exit code and what it complained."""
    done = invoke(app, *arguments)
    return done.returncode, done.stderr


@pytest.mark.parametrize("script", HOSTILE.values(), ids=HOSTILE)
def test_stream_says_in_one_line_that_it_is_no_gateway(script: Script, short: Path):
    """With the exit code for that, whatever was said."""
    with scripted(script) as (url, _):
        code, complaint = ran(stream.app, short, "--fast", "--url", url)
    assert (code, complaint.count("\n"), complaint.isascii()) == (1, 1, True)
    assert complaint.startswith("stream: what answers ")
    assert len(complaint) < 100


@pytest.mark.parametrize("script", HOSTILE.values(), ids=HOSTILE)
def test_load_says_in_one_line_that_it_is_no_gateway(script: Script):
    """It has reached none."""
    with scripted(script) as (url, _):
        options = ("--clients", 1, "--seconds", 1, "--utterance-seconds", 0.1, "--url", url)
        code, complaint = ran(load.app, *options, "--ops", "http://127.0.0.1:1")
    assert (code, complaint.count("\n")) == (3, 1)
    assert complaint.startswith("load: what answers ")


@pytest.fixture
def demo_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Let the demo meet another gateway than its own."""

    def of(url: str) -> Any:
        @contextmanager
        def pipeline(*_: object) -> Iterator[tuple[None, str]]:
            yield None, url

        monkeypatch.setattr(demo, "engine", dict)
        monkeypatch.setattr(demo, "pipeline", pipeline)
        return demo.main

    return of


SOME = {name: HOSTILE[name] for name in list(HOSTILE)[::5]}
"""For tools that only hand on what the client says."""


@pytest.mark.parametrize("script", SOME.values(), ids=SOME)
def test_the_demo_says_it_too(script: Script, short: Path, demo_of: Callable[[str], Any]):
    """In one line."""
    app = typer.Typer()
    with scripted(script) as (url, _):
        app.command()(demo_of(url))
        code, complaint = ran(app, short)
    assert (code, complaint.count("\n")) == (1, 1)
    assert complaint.startswith("demo: what answers ")


def test_latency_says_it_too(pipeline: Pipeline, make_topic, monkeypatch: pytest.MonkeyPatch):
    """In one line."""
    for name in ("TOPIC_AUDIO_INGRESS", "TOPIC_ASR_TEXT", "TOPIC_DEAD_LETTER"):
        monkeypatch.setenv(name, make_topic())
    where = ("--bootstrap-servers", pipeline.bootstrap_servers, "--registry", pipeline.registry_url)
    for script in SOME.values():
        with scripted(script) as (url, _):
            options = ("--url", url, "--count", 1, "--seconds", 0.1, "--pace", "fast")
            code, complaint = ran(latency.app, *where, *options)
        assert (code, complaint.count("\n")) == (2, 1)
        assert complaint.startswith("latency: what answers ")


def test_who_never_greets_is_no_gateway(short: Path, monkeypatch: pytest.MonkeyPatch):
    """After a while."""
    monkeypatch.setattr(client, "ANSWER_TIMEOUT_SECONDS", 0.2)
    with scripted(lambda visit: visit.hear()) as (url, _):
        code, complaint = ran(stream.app, short, "--url", url)
    assert (code, complaint) == (1, "stream: connected, but there was no greeting\n")


def test_who_greets_and_never_answers_may_have_stored_it(
    short: Path, monkeypatch: pytest.MonkeyPatch
):
    """That is what an honest gateway may look like, too."""
    monkeypatch.setattr(client, "ANSWER_TIMEOUT_SECONDS", 0.2)

    def script(visit: Visit) -> None:
        visit.greet()
        visit.hear()
        visit.hear()

    with scripted(script) as (url, _):
        code, complaint = ran(stream.app, short, "--fast", "--attempts", 1, "--url", url)
    assert (code, complaint.count("\n")) == (3, 1)
    assert "it may be stored" in complaint


REFUSALS = {
    "900 kB of [": (403, b"[" * 900_000, "refused with HTTP 403 Forbidden"),
    "code is a list": (403, b'{"code": [], "message": {}}', "refused with HTTP 403 Forbidden"),
    "not UTF-8": (403, b'{"code": "\xff"}', "refused with HTTP 403 Forbidden"),
    "a long message": (
        403,
        json.dumps({"code": "x", "message": "m" * 9000}).encode(),
        "refused with HTTP 403 Forbidden",
    ),
    "a redirect": (302, b"", "refused with HTTP 302 Found"),
}


@pytest.mark.parametrize(("status", "body", "line"), REFUSALS.values(), ids=REFUSALS)
def test_a_strange_refusal_is_one_all_the_same(status: int, body: bytes, line: str, short: Path):
    """Also one that sends the client, and what is said, to somebody else."""

    def refuse(connection: ServerConnection, _request: Request) -> Response:
        response = connection.respond(HTTPStatus(status), "")
        response.body = body
        del response.headers["Content-Length"]
        response.headers["Content-Length"] = str(len(body))
        response.headers["Location"] = f"ws://127.0.0.1:{elsewhere.getsockname()[1]}/"
        return response

    with (
        socket.create_server(("127.0.0.1", 0)) as elsewhere,
        scripted(lambda _: None, process_request=refuse) as (url, _),
    ):
        elsewhere.setblocking(False)
        assert ran(stream.app, short, "--url", url) == (4, f"stream: {line}\n")
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
