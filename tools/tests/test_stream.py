"""`speech stream`: what it makes of a gateway's every answer, and of wrong input."""

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from speech_lib.testing.pipeline import Pipeline
from speech_tools import stack
from speech_tools.protocol import audio
from speech_tools.stream.command import app
from support.invoke import Done, invoke
from support.scripted_gateway import Visit, scripted
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

ROOT = Path(__file__).parents[2]
RAW = ROOT / "samples" / "go-forward-ten-meters.raw"
WAV = ROOT / "samples" / "sense-and-sensibility-0870.wav"
RUN_TIMEOUT_SECONDS = 50


def stream(*arguments: object, attempts: int = 1) -> Done:
    """Run it to its end, with so many attempts an utterance."""
    return invoke(app, *arguments, "--attempts", attempts)


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """Return a recording of half a second."""
    path = tmp_path / "short.raw"
    path.write_bytes(RAW.read_bytes()[:16_000])
    return path


# What a gateway answers


@pytest.mark.parametrize(
    ("code", "close_code", "retryable", "stored", "expected"),
    [
        ("broker_unavailable", 1013, True, "no", 3),
        ("broker_unavailable", 1013, True, "unknown", 3),
        ("rejected_by_broker", 1011, False, "no", 4),
        ("internal_error", 1011, False, "no", 4),
        ("internal_error", 1011, False, "unknown", 3),
    ],
)
def test_an_error_is_for_a_second_try_or_for_good(
    code: str, close_code: int, *, retryable: bool, stored: str, expected: int
):
    """Exit 3 where a second try may help or it may be stored already, 4 where it cannot help."""

    def script(visit: Visit) -> None:
        visit.greet()
        visit.hear()
        visit.fail(code, close_code, retryable=retryable, stored=stored)

    with scripted(script) as (url, _):
        done = stream(RAW, "--fast", "--url", url)
    assert done.returncode == expected
    assert done.stderr.startswith(f"stream: {code}: m")
    assert ("it may be stored" in done.stderr) == (stored == "unknown")


def test_a_receipt_for_other_samples_has_its_own_exit_code():
    """A digest that is not of what was sent is noticed."""

    def script(visit: Visit) -> None:
        visit.greet()
        visit.hear()
        visit.accept(sha256="0" * 64)

    with scripted(script) as (url, _):
        done = stream(RAW, "--fast", "--url", url)
    assert (done.returncode, done.stderr) == (
        5,
        "stream: the receipt is not about the audio that was sent\n",
    )


def test_what_a_gateway_cuts_off_goes_on_in_a_new_utterance(short: Path):
    """It begins behind the last sample that is stored, so none is lost and none is said twice."""

    def script(visit: Visit) -> None:
        visit.greet()
        visit.hear(chunks=4)
        visit.accept(ended_by="session_expired")

    with scripted(script) as (url, visits):
        done = stream(short, "--url", url, "--json")
    receipts = [json.loads(line) for line in done.stdout.splitlines()]
    heard = [b"".join(visit.chunks) for visit in visits]
    assert (done.returncode, b"".join(heard)) == (0, short.read_bytes())
    assert [each["audio_bytes"] for each in receipts] == [6400, 6400, 3200]
    assert [each["start_ms"] for each in receipts] == [0, 200, 400]


# The text on the same connection


def test_the_text_is_printed_where_it_was_asked_for():
    """The query asks for it, with the client's own name; the last line is the text."""
    asked: list[str] = []

    def judge(_: ServerConnection, request: Request) -> None:
        asked.append(request.path)

    def script(visit: Visit) -> None:
        visit.greet()
        visit.hear()
        visit.recognise("go forward")

    with scripted(script, judge) as (url, _):
        done = stream(RAW, "--fast", "--results", "--client-ref", "note-17", "--url", url)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "go forward")
    assert asked == ["/ws/audio?results=text&client_ref=note-17&on_disconnect=discard"]


@pytest.mark.parametrize(
    ("end", "line"),
    [
        (lambda visit: visit.connection.close(1011), "stream: stored; the connection ended"),
        (
            lambda visit: visit.fail("result_timeout", 1013, retryable=False, stored="yes"),
            "stream: stored; result_timeout: m",
        ),
    ],
    ids=["the connection ends", "an error says so"],
)
def test_a_stored_utterance_without_its_text_has_its_own_exit_code(
    end: Callable[[Visit], None], line: str
):
    """Nobody should send it again."""

    def script(visit: Visit) -> None:
        visit.greet()
        visit.hear()
        visit.say(**visit.receipt())
        end(visit)

    with scripted(script) as (url, _):
        done = stream(RAW, "--fast", "--results", "--url", url)
    assert done.returncode == 7
    assert line in done.stderr


@pytest.mark.parametrize("results", [[], ["--results"]])
def test_a_text_out_of_turn_is_no_gateway(results: list[str]):
    """Before the receipt, or unasked for."""

    def script(visit: Visit) -> None:
        visit.greet()
        visit.hear()
        visit.say(status="recognized", text="go", language="en", confidence=1)

    with scripted(script) as (url, _):
        done = stream(RAW, "--fast", *results, "--url", url)
    assert done.returncode == 1


def test_an_error_in_the_middle_ends_the_sending():
    """The final message counts at once, not when everything has been sent."""

    def script(visit: Visit) -> None:
        visit.greet()
        visit.hear(chunks=1)
        visit.fail("audio_too_long", 1009, retryable=False, stored="no")

    with scripted(script) as (url, _):
        begun = time.monotonic()
        done = stream(WAV, "--url", url)
    assert done.returncode == 4
    assert time.monotonic() - begun < 6  # the recording lasts 7.1 s


def test_draining_makes_it_hurry():
    """Told that the gateway is stopping, the client sends the rest at once, whole."""

    def script(visit: Visit) -> None:
        visit.greet()
        visit.hear(chunks=1)
        visit.say(status="draining", deadline_ms=20_000)
        visit.hear()
        visit.accept()

    with scripted(script) as (url, visits):
        done = stream(WAV, "--url", url)
    (visit,) = visits
    assert (done.returncode, b"".join(visit.chunks)) == (0, audio.load(WAV).pcm)
    assert len(visit.chunks) < 20  # at the pace of speech there are 142


def test_sending_keeps_the_pace_of_speech(short: Path):
    """Without --fast a chunk leaves when a microphone would have given it."""

    def script(visit: Visit) -> None:
        visit.greet()
        begun = time.monotonic()
        visit.hear()
        visit.accept(took=time.monotonic() - begun)

    with scripted(script) as (url, visits):
        done = stream(short, "--url", url, "--json")
    took = json.loads(done.stdout)["took"]
    assert list(map(len, visits[0].chunks)) == [1600] * 10
    assert took > 0.4  # of half a second, for the greeting is read before the clock starts


def test_limits_of_the_greeting_are_obeyed():
    """Even in a hurry no chunk is larger, and no more are sent a second, than the greeting says."""

    def script(visit: Visit) -> None:
        visit.greet(max_chunk_bytes=1001, max_messages_per_second=50)
        begun = time.monotonic()
        visit.hear()
        visit.accept(took=time.monotonic() - begun)

    with scripted(script) as (url, visits):
        done = stream(RAW, "--url", url, "--fast", "--json")
    took = json.loads(done.stdout)["took"]
    count = len(visits[0].chunks)
    assert (done.returncode, max(map(len, visits[0].chunks)), count) == (0, 1001, 90)
    assert took > (count - 50) / 50 - 0.1


@pytest.mark.parametrize(("close_code", "expected"), [(1009, 4), (1007, 4), (1011, 3), (1001, 3)])
def test_a_close_without_a_final_message(close_code: int, expected: int):
    """A close that blames the client is for good; any other leaves the outcome unknown."""

    def script(visit: Visit) -> None:
        visit.greet()
        visit.connection.close(close_code, "why")

    with scripted(script) as (url, _):
        done = stream(RAW, "--url", url)
    assert (done.returncode, done.stderr) == (
        expected,
        f'stream: the connection ended with {close_code} "why" and no final message\n',
    )


@pytest.mark.parametrize("greeting", ["hello", "[]", '{"status": "connected"}', '{"status":'])
def test_another_server_is_recognised(greeting: str):
    """What does not greet as the protocol says is no gateway."""
    with scripted(lambda visit: visit.connection.send(greeting)) as (url, _):
        done = stream(RAW, "--url", url)
    assert done.returncode == 1
    assert done.stderr.startswith("stream: what answers ")


@pytest.mark.parametrize(
    ("status", "body", "expected", "line"),
    [
        (503, b'{"code": "draining", "message": "m"}', 3, "refused with HTTP 503 draining: m"),
        (429, b'{"code": "too_many", "message": "m"}', 3, "refused with HTTP 429 too_many: m"),
        (403, b'{"code": "no_way", "message": "m"}', 4, "refused with HTTP 403 no_way: m"),
        (404, b"<html>", 4, "refused with HTTP 404 Not Found"),
        (502, b"", 3, "refused with HTTP 502 Bad Gateway"),
    ],
)
def test_a_refused_request(status: int, body: bytes, expected: int, line: str):
    """A refusal says why, also where a proxy answers without JSON."""

    def refuse(connection: ServerConnection, _request: Request) -> Response:
        response = connection.respond(HTTPStatus(status), "")
        response.body = body
        del response.headers["Content-Length"]
        response.headers["Content-Length"] = str(len(body))
        return response

    with serve(lambda _: None, "127.0.0.1", 0, process_request=refuse) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            port = server.socket.getsockname()[1]
            done = stream(RAW, "--url", f"ws://127.0.0.1:{port}/ws/audio")
        finally:
            server.shutdown()
            thread.join()
    assert (done.returncode, done.stderr) == (expected, f"stream: {line}\n")


# The command line


@pytest.mark.parametrize(
    ("url", "expected", "line"),
    [
        ("http://localhost:8000/", 2, "http://localhost:8000/: expected ws://HOST:PORT/ws/audio"),
        ("localhost", 2, "localhost: expected ws://HOST:PORT/ws/audio"),
        ("ws://localhost:99999/", 2, "ws://localhost:99999/: expected ws://HOST:PORT/ws/audio"),
        ("ws://localhost:0/", 2, "ws://localhost:0/: expected ws://HOST:PORT/ws/audio"),
        ("ws://[/", 2, "ws://[/: expected ws://HOST:PORT/ws/audio"),
        ("ws://localhost:1/", 3, "cannot connect to localhost:1: "),
        ("ws://no-such-host.invalid/", 3, "cannot connect to no-such-host.invalid: the host name"),
    ],
)
def test_a_wrong_url_gets_one_line(url: str, expected: int, line: str):
    """Each wrong URL is named with what was expected."""
    done = stream(RAW, "--url", url)
    assert done.returncode == expected
    assert done.stderr.startswith(f"stream: {line}")
    assert done.stderr.count("\n") == 1


def test_a_bad_file_is_a_wrong_usage(tmp_path: Path):
    """One line, no traceback, and exit code 2."""
    done = stream(tmp_path / "none.wav")
    assert (done.returncode, done.stderr) == (2, f"stream: {tmp_path}/none.wav: no such file\n")


# A real gateway


@pytest.fixture
def gateway(pipeline: Pipeline, tmp_path: Path) -> Iterator[stack.Gateway]:
    """Run a gateway."""
    settings = {"TOPIC_AUDIO_INGRESS": pipeline.make_topic("ingress")}
    with stack.gateway(pipeline, tmp_path, settings) as running:
        yield running


@pytest.mark.pipeline
@pytest.mark.parametrize("options", [[], ["--fast"]], ids=["paced", "fast"])
@pytest.mark.parametrize("file", [RAW, WAV], ids=["raw", "wav"])
def test_a_gateway_accepts_it(gateway: stack.Gateway, file: Path, options: list[str]):
    """Sent to a gateway, a recording is accepted, and the receipt is for its samples."""
    speech = [sys.executable, "-W", "error", "-m", "speech_tools"]
    command = [*speech, "stream", str(file), "--json", "--language", "en-US"]
    done = subprocess.run(  # noqa: S603 - our own command
        [*command, "--url", gateway.url, *options],
        check=False,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_SECONDS,
    )
    receipt = json.loads(done.stdout)
    pcm = audio.load(file).pcm
    assert (done.returncode, done.stderr) == (0, "")
    assert receipt["sha256"] == hashlib.sha256(pcm).hexdigest()
    assert (receipt["ended_by"], receipt["attempts"]) == ("done", 1)


@pytest.mark.pipeline
def test_a_gateway_refuses_it(gateway: stack.Gateway):
    """A permanent refusal of the real gateway ends with 4 and its sentence."""
    done = stream(RAW, "--language", "not!a!tag", "--url", gateway.url)
    assert done.returncode == 4
    assert done.stderr.startswith("stream: refused with HTTP 400 invalid_language: ")
