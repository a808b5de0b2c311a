"""`speech check`: what it finds at a URL, and what it says where it cannot speak there."""

import json
import ssl
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
import trustme
from speech_lib.testing.pipeline import Pipeline
from speech_tools import stack
from speech_tools.check import app
from support.invoke import invoke
from support.scripted_gateway import LIMITS, Visit, scripted
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

KEY = "k" * 32


def found(*arguments: object) -> tuple[int, dict, str]:
    done = invoke(app, *arguments, "--json")
    return done.returncode, json.loads(done.stdout), done.stderr


def greet(visit: Visit) -> None:
    visit.greet()
    visit.hear()


def test_a_gateway_shows_its_limits():
    """And nothing is said to it."""
    with scripted(greet) as (url, visits):
        code, told, complaint = found(url)
        table = invoke(app, url).stdout
    assert (code, complaint, told["limits"], told["results"]) == (0, "", LIMITS, True)
    assert told["error"] is told["refused"] is told["tls"] is None
    assert [visit.chunks for visit in visits] == [[], []]
    assert "1,572,820" in table


def refusing(status: int, code: str, **headers: str):
    def refuse(connection: ServerConnection, _request: Request) -> Response:
        response = connection.respond(
            HTTPStatus(status), json.dumps({"code": code, "message": "m"})
        )
        for name, value in headers.items():
            response.headers[name.replace("_", "-")] = value
        return response

    return refuse


@pytest.mark.parametrize(
    ("status", "name", "headers", "expected"),
    [
        (503, "at_capacity", {"Retry_After": "7"}, 3),
        (401, "api_key_missing", {}, 4),
        (404, "not_found", {}, 4),
    ],
)
def test_a_refusal_is_shown_in_full(status: int, name: str, headers: dict, expected: int):
    """With when to come back."""
    with scripted(greet, refusing(status, name, **headers)) as (url, _):
        code, told, complaint = found(url)
        table = invoke(app, url).stdout
    assert (code, complaint) == (expected, f"check: refused with HTTP {status} {name}: m\n")
    wait = float(headers.get("Retry_After", 0))
    assert told["refused"] == {"status": status, "code": name, "message": "m", "retry_after": wait}
    assert name in table


def test_the_key_opens_an_edge_and_is_never_shown():
    """It goes into the header that the edge reads."""
    seen: list[str | None] = []

    def judge(_: ServerConnection, request: Request) -> None:
        seen.append(request.headers.get("X-API-Key"))

    with scripted(greet, judge) as (url, _):
        done = invoke(app, url, "--json", env={"SPEECH_API_KEY": KEY})
    assert (done.returncode, seen) == (0, [KEY])
    assert KEY not in done.stdout + done.stderr


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA(organization_name="an authority")


@pytest.fixture
def over_tls(authority: trustme.CA) -> Iterator[str]:
    """Serve a gateway over TLS, under localhost; yield its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    def handle(connection: ServerConnection) -> None:
        greet(Visit(connection))

    with serve(handle, "localhost", 0, ssl=context, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"wss://localhost:{server.socket.getsockname()[1]}/ws/audio"
        finally:
            server.shutdown()
            thread.join()


def test_a_certificate_is_shown(
    over_tls: str, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of an authority that is trusted."""
    pem = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    code, told, _ = found(over_tls)
    assert (code, told["tls"]["names"], told["tls"]["issuer"]) == (0, "localhost", "an authority")
    assert told["tls"]["version"] == "TLSv1.3"


def test_a_certificate_that_is_not_trusted_is_named(over_tls: str):
    """With what to do about it."""
    code, told, complaint = found(over_tls)
    assert (code, told["tls"]) == (3, None)
    assert "its certificate is not trusted: " in complaint
    assert "SSL_CERT_FILE=FILE" in complaint


@pytest.mark.parametrize(
    ("url", "code", "line"),
    [
        ("http://localhost/", 2, "http://localhost/: expected ws://HOST:PORT/ws/audio (or wss://)"),
        ("ws://127.0.0.1:1/", 3, "cannot connect to 127.0.0.1:1: connection refused"),
    ],
)
def test_where_nobody_answers_it_says_so(url: str, code: int, line: str):
    """In one line."""
    done = invoke(app, url)
    assert (done.returncode, done.stderr) == (code, f"check: {line}\n")


@pytest.mark.parametrize("greeting", ["hello", "[]", None])
def test_another_server_is_no_gateway(greeting: str | None):
    """Whatever it says."""

    def script(visit: Visit) -> None:
        if greeting is not None:
            visit.connection.send(greeting)

    with scripted(script) as (url, _):
        done = invoke(app, url)
    assert done.returncode == 1
    assert done.stderr.startswith("check: what answers ")


@pytest.mark.pipeline
@pytest.mark.parametrize("results", ["on", "off"])
def test_a_real_gateway_says_whether_it_sends_texts(
    pipeline: Pipeline, make_topic, tmp_path: Path, results: str
):
    """Where it does not, a second visit finds its limits."""
    names = ("TOPIC_AUDIO_INGRESS", "TOPIC_ASR_TEXT", "TOPIC_DEAD_LETTER")
    settings = {name: make_topic() for name in names}
    with stack.gateway(pipeline, tmp_path, {**settings, "RESULTS": results}) as gateway:
        code, told, _ = found(gateway.url)
    assert (code, told["results"], told["limits"]["max_audio_bytes"]) == (
        0,
        results == "on",
        1_572_820,
    )
