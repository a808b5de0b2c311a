"""What `speech stream` sends again, when, and what it says of what may be stored twice."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import pytest
from speech_tools.protocol.client import NoAnswer, NotAGateway, Refused, Unreachable, Wanted
from speech_tools.stream.incoming import Incoming
from speech_tools.stream.parts import Part, Trouble, pause, trouble_of, trouble_told
from speech_tools.stream.screen import Screen
from speech_tools.stream.sending import Plan, Sender
from speech_tools.verdict import Exit
from support.scripted_gateway import Visit, scripted
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection

RAW = Path(__file__).parents[2] / "samples" / "go-forward-ten-meters.raw"
SAID = RAW.read_bytes()
SECONDS = 20


def say(url: str, pcm: bytes = SAID, *, results: bool = False) -> tuple[Sender, list[float]]:
    """Say it as fast as can be, and without a pause between attempts; return the pauses."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    wanted = Wanted(results=results, client_ref="note")
    plan = Plan(url, wanted, paced=False, sleep=sleep)
    screen = Screen(len(pcm), as_json=True, results=results, verbose=False)
    sender = Sender(plan, Incoming(pcm, ended=True), screen)
    asyncio.run(sender.run())
    return sender, pauses


def turns(*scripts: Callable[[Visit], None]) -> Callable[[Visit], None]:
    """Return a script that does the next of these for each client, and the last for all others."""
    left = list(scripts)

    def script(visit: Visit) -> None:
        visit.greet()
        (left.pop(0) if len(left) > 1 else left[0])(visit)

    return script


def accept(visit: Visit) -> None:
    visit.hear()
    visit.accept()


def break_off(visit: Visit) -> None:
    visit.hear(chunks=1)
    visit.connection.socket.shutdown(2)


def break_off_behind_done(visit: Visit) -> None:
    visit.hear()
    visit.connection.socket.shutdown(2)


def fail(stored: str) -> Callable[[Visit], None]:
    def script(visit: Visit) -> None:
        visit.hear()
        visit.fail("broker_unavailable", 1013, retryable=True, stored=stored)

    return script


@pytest.mark.parametrize(
    ("first", "doubled"),
    [
        (fail("no"), False),
        (fail("unknown"), True),
        (break_off, True),
        (break_off_behind_done, True),
    ],
    ids=["not stored", "unknown", "broken", "broken behind done"],
)
def test_what_is_not_accepted_is_sent_again(first: Callable[[Visit], None], doubled: bool):  # noqa: FBT001 - a parameter
    """Whole, under the same name, and the gateway is to discard what breaks."""
    asked: list[str] = []

    def judge(_: ServerConnection, request: Request) -> None:
        asked.append(request.path)

    with scripted(turns(first, accept), judge) as (url, visits):
        sender, pauses = say(url)
    (part,) = sender.parts
    assert (part.attempts, part.doubled, part.trouble, len(pauses)) == (2, doubled, None, 1)
    assert b"".join(visits[-1].chunks) == SAID
    assert asked == ["/ws/audio?client_ref=note&on_disconnect=discard"] * 2


def test_five_attempts_are_enough():
    """Then it says why, and the pauses have grown."""
    with scripted(turns(fail("no"))) as (url, visits):
        sender, pauses = say(url)
    (part,) = sender.parts
    assert (len(visits), part.attempts, part.receipt) == (5, 5, None)
    assert part.trouble == Trouble(Exit.RETRY, "broker_unavailable: m", again=True)
    assert [low <= each <= 3 * low for low, each in zip((0.5, 1, 2, 4), pauses, strict=True)] == [
        True
    ] * 4


def test_pauses_grow_to_half_a_minute_and_vary():
    """Each between a half and one and a half of it, and never less than the gateway asks for."""
    mean = (1, 2, 4, 8, 16, 30, 30)
    for attempt, middle in enumerate(mean, 1):
        drawn = [pause(attempt, 0) for _ in range(200)]
        assert 0.5 * middle <= min(drawn) < 0.8 * middle
        assert 1.2 * middle < max(drawn) <= 1.5 * middle
    assert pause(1, 7) == 7


def test_a_refusal_is_obeyed():
    """`Retry-After` is the least that it waits."""
    left = [503, 503]

    def judge(connection: ServerConnection, _request: Request) -> Response | None:
        if not left:
            return None
        response = connection.respond(HTTPStatus(left.pop()), "")
        response.headers["Retry-After"] = "9"
        return response

    with scripted(turns(accept), judge) as (url, _):
        sender, pauses = say(url)
    assert ([part.attempts for part in sender.parts], pauses) == ([3], [9, 9])


REFUSED = Refused(403, "no", "m")
NEVER = [
    (trouble_of(REFUSED, sent=False), Exit.REFUSED),
    (trouble_of(NotAGateway("what"), sent=True), Exit.UNEXPECTED),
    (trouble_of(NoAnswer("1009", clients_fault=True), sent=True), Exit.REFUSED),
    (
        trouble_told({"code": "c", "message": "m", "retryable": False, "stored": "no"}),
        Exit.REFUSED,
    ),
    (
        trouble_told({"code": "c", "message": "m", "retryable": False, "stored": "unknown"}),
        Exit.RETRY,
    ),
]


@pytest.mark.parametrize(("trouble", "code"), NEVER)
def test_what_is_final_is_not_sent_again(trouble: Trouble, code: Exit):
    """Only what may be otherwise the next time is."""
    assert (trouble.again, trouble.exit) == (False, code)


def test_what_never_left_cannot_be_stored():
    """Nobody answers, or the connection broke before any audio."""
    assert not trouble_of(Unreachable("u"), sent=False).doubtful
    assert not trouble_of(NoAnswer("1006", clients_fault=False), sent=False).doubtful


def test_a_receipt_about_nothing_ends_it():
    """Or a gateway could keep a client busy for ever."""
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

    def script(visit: Visit) -> None:
        visit.greet()
        visit.hear()
        visit.accept(audio_bytes=0, sha256=empty)

    with scripted(script) as (url, visits):
        sender, _ = say(url)
    assert (len(visits), sender.parts[0].trouble.exit) == (1, Exit.MISMATCH)


# Long recordings


def test_texts_come_in_order_while_the_next_utterance_is_sent(capsys: pytest.CaptureFixture[str]):
    """The text of the first is late, and is told first all the same."""
    late = threading.Event()
    count = iter(range(1, 4))

    def receipt_first(visit: Visit) -> None:
        number = next(count)
        visit.greet(max_audio_bytes=40_000)
        visit.hear()
        visit.say(**visit.receipt())
        if number == 1:
            assert late.wait(SECONDS)
        if number == 3:
            late.set()
        told = {"language": "en", "confidence": 0.5, "event_id": "e", "topic": "t"}
        visit.say(status="recognized", text=f"text {number}", partition=0, offset=0, **told)
        visit.connection.close(1000, "done")

    with scripted(receipt_first) as (url, visits):
        sender, _ = say(url, results=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert b"".join(chunk for visit in visits for chunk in visit.chunks) == SAID
    assert [each["text"] for each in told if "text" in each] == ["text 1", "text 2", "text 3"]
    assert [part.client_ref for part in sender.parts] == ["note", "note-2", "note-3"]


def test_a_part_that_is_given_up_ends_it_and_what_is_stored_is_said(tmp_path: Path):
    """The exit code says that some of it is stored."""
    second = threading.Event()

    def script(visit: Visit) -> None:
        visit.greet(max_audio_bytes=40_000)
        visit.hear()
        if second.is_set():
            visit.fail("internal_error", 1011, retryable=False, stored="no")
        else:
            second.set()
            visit.accept()

    with scripted(script) as (url, _):
        done = spoken("--fast", "--json", "--url", url)
    stored, failed = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 6
    assert (stored["part"], failed["part"], failed["may_be_stored"]) == (1, 2, False)
    begun = stored["audio_bytes"] / 32_000
    assert done.stderr == f"stream: only the first {begun:.1f} s are stored: internal_error: m\n"


# The process: pipes and Ctrl-C


def spoken(*options: str, stdin: bytes | None = None) -> "subprocess.CompletedProcess[str]":
    file = str(RAW) if stdin is None else "-"
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "speech_tools", "stream", file, *options],
        check=False,
        capture_output=True,
        input=stdin,
        timeout=SECONDS,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


WAV = (RAW.parent / "sense-and-sensibility-0870.wav").read_bytes()


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("piped", "samples"),
    [(SAID, SAID), (SAID + b"\1", SAID), (WAV, WAV[44:])],
    ids=["raw", "half a sample at the end", "wav"],
)
def test_a_pipe_is_said(piped: bytes, samples: bytes):
    """PCM16 as it is; a format with a header is read first."""
    with scripted(turns(accept)) as (url, visits):
        done = spoken("--fast", "--url", url, stdin=piped)
    assert (done.returncode, done.stderr) == (0, "")
    assert b"".join(visits[0].chunks) == samples


WEBM = (
    "-: WebM, M4A and AAC are not read here; convert it: "
    "ffmpeg -i FILE -f s16le -ac 1 -ar 16000 - | speech stream -"
)


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("piped", "line"),
    [
        (b"", "-: is empty, expected audio"),
        (b"\x1a\x45\xdf\xa3" + bytes(40), WEBM),
    ],
    ids=["nothing", "WebM"],
)
def test_a_pipe_without_audio_is_a_wrong_usage(piped: bytes, line: str):
    """One line, before anybody connects."""
    done = spoken("--url", "ws://127.0.0.1:1/", stdin=piped)
    assert (done.returncode, done.stderr) == (2, f"stream: {line}\n")


@pytest.mark.pipeline
def test_a_pipe_is_sent_as_it_comes_and_ctrl_c_ends_it():
    """The gateway has heard it while the pipe is open, and all of it is stored."""
    heard = threading.Event()

    def script(visit: Visit) -> None:
        visit.greet()
        while sum(map(len, visit.chunks)) < len(SAID):
            visit.chunks.append(visit.connection.recv(SECONDS))
        heard.set()
        accept(visit)

    reading, writing = os.pipe()
    with scripted(script) as (url, _), os.fdopen(writing, "wb", buffering=0) as pipe:
        command = [sys.executable, "-m", "speech_tools", "stream", "-", "--url", url]
        with subprocess.Popen(  # noqa: S603 - our own command
            ["env", "--default-signal=INT", *command],  # noqa: S607 - every system's own
            stdin=reading,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            os.close(reading)
            pipe.write(SAID)
            assert heard.wait(SECONDS)
            process.send_signal(signal.SIGINT)
            out, complaints = process.communicate(timeout=SECONDS)
    assert (process.returncode, complaints) == (0, "")
    assert out.startswith("  1  0.0 s to 2.8 s stored: ")


def test_a_part_says_where_it_lies():
    """For whoever joins them."""
    part = Part(2, "note-2", 64_000)
    part.receipt = {"audio_bytes": 32_000, "status": "accepted"}
    assert part.end == 96_000
    assert part.stored()["start_ms"] == 2_000
