"""Nothing that speaks to a terminal reaches it: 40 sequences through every tool and every field."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.progress import Progress, TextColumn
from rich.table import Table
from speech_tools import demo
from speech_tools.load import command as load
from speech_tools.stream import command as stream
from speech_tools.terminal import MAX_LINE, Terminal, complain, json_text, printable, say_lines
from support.invoke import invoke
from support.scripted_gateway import Script, Visit, scripted
from support.sequences import ALL, ANY, ESC, SEQUENCES, raw

ROOT = Path(__file__).parents[2]
RAW = ROOT / "samples" / "go-forward-ten-meters.raw"


def test_there_are_forty_and_each_would_speak():
    """So that what follows tries something."""
    assert len(set(SEQUENCES)) == 40
    assert all(map(raw, SEQUENCES))


# The way out


@pytest.mark.parametrize("sequence", SEQUENCES, ids=ascii)
def test_what_is_printable_is_one_line(sequence: str):
    """With a sign for each character that is not, and nothing lost beside it."""
    made = printable(f"a{sequence}b\nc")
    assert (raw(made), "\n" in made, len(made)) == (set(), False, len(sequence) + 4)


@pytest.mark.parametrize("sequence", SEQUENCES, ids=ascii)
@pytest.mark.parametrize("coloured", [False, True])
def test_a_terminal_lets_none_through(sequence: str, *, coloured: bool):
    """Not in a text, a line, a cell, a title or a bar, whatever forgot to make it printable."""
    out = StringIO()
    colours = {"force_terminal": True, "color_system": "truecolor"} if coloured else {}
    terminal = Terminal(file=out, width=400, **colours)
    evil = f"{sequence}EVIL"
    table = Table(evil, title=evil)
    table.add_row(evil)
    progress = Progress(TextColumn("{task.description}", markup=False), console=terminal)
    progress.add_task(evil)
    for each in (evil, table, progress.get_renderable()):
        terminal.print(each)
    terminal.say(evil, style="bold")
    shown = out.getvalue()
    assert shown.count("EVIL") >= 3  # a table's columns may be too narrow for what is nothing wide
    assert evil not in shown
    own = re.compile(r"\x1b\[[0-9;]*m") if coloured else re.compile("(?!)")
    assert raw(own.sub("", shown)) == set()


def test_a_complaint_is_one_line_of_bounded_length(capsys: pytest.CaptureFixture[str]):
    """However much was said, and in however many lines."""
    complain("tool", f"{ANY}\n" * 100)
    complaint = capsys.readouterr().err
    assert (raw(complaint), complaint.count("\n"), len(complaint)) == (set(), 1, MAX_LINE + 7)
    say_lines(f"first {ESC}[2J\nsecond")
    assert capsys.readouterr().err == "first \ufffd[2J\nsecond\n"


def test_json_stays_json():
    """It is ASCII without control characters, and reads back; what is no number is null."""
    value = {ANY: [ANY, float("nan"), float("inf"), 1.5, {"a": (float("-inf"), None, True)}]}
    made = json_text(value)
    assert (raw(made), made.isascii(), made.count("\n")) == (set(), True, 0)
    assert json.loads(made) == {ANY: [ANY, None, None, 1.5, {"a": [None, None, True]}]}


# The tools


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """Return a recording of a tenth of a second."""
    path = tmp_path / "short.raw"
    path.write_bytes(RAW.read_bytes()[:3200])
    return path


def ran(app: Any, *arguments: object) -> tuple[str, str]:
    """Run a tool in this process; return what it printed on both ways."""
    done = invoke(app, *arguments)
    return done.stdout, done.stderr


def ends_with(**final: Any) -> Script:
    """Return a script that puts sequences into every text of a valid stream."""

    def script(visit: Visit) -> None:
        visit.greet(**{ALL: ANY})
        visit.say(status=ANY, note=ANY, **{ALL: ANY})
        visit.hear()
        visit.say(**{**visit.receipt(), ALL: ANY, **final})
        visit.connection.close(1000, f"{ESC}]0;x\x07{ESC}[2J\u202e")

    return script


ERROR = {"status": "error", "retryable": False, "stored": "no", "code": "c", "message": "m"}
SCRIPTS = {
    "receipt": ends_with(event_id=ANY, topic=ANY),
    "cut off": ends_with(ended_by=ANY, audio_bytes=2),
    "code": ends_with(**{**ERROR, "code": ANY}),
    "message": ends_with(**{**ERROR, "message": ANY}),
    "unknown": ends_with(**{**ERROR, "code": ANY, "message": ANY, "stored": "unknown"}),
    "nothing": lambda visit: visit.connection.close(1011, f"{ESC}]0;x\x07{ESC}[2J\x9b\u202e"),
    "no greeting": lambda visit: visit.say(status=ANY, protocol=ANY),
}


@contextmanager
def refusing(head: bytes) -> Iterator[str]:
    """Answer every request with these bytes."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65_536)
                connection.sendall(head)

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


BODY = json.dumps({"code": ANY, "message": ANY}).encode()
REFUSALS = {
    "body": b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY),
    "phrase": b"HTTP/1.1 403 \x9b2J\x9d0;x\x9c\r\nContent-Length: 0\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 Go\r\nConnection: \x1b[2J\r\nUpgrade: \x1b[2J\r\n\r\n",
    "accept": b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: \x9b2J\r\n\r\n",
    "no HTTP": b"\x1b[2J\x9b\r\n\r\n",
}


@pytest.fixture(params=[*SCRIPTS, *REFUSALS])
def hostile(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the URL of something that puts sequences wherever it may."""
    if request.param in SCRIPTS:
        with scripted(SCRIPTS[request.param]) as (url, _):
            yield url
    else:
        with refusing(REFUSALS[request.param]) as url:
            yield url


def test_stream_prints_none(hostile: str, short: Path):
    """For people; for programs it is JSON."""
    options = ("--fast", "--attempts", 1, "--url", hostile)
    printed, complaint = ran(stream.app, short, *options)
    assert (raw(printed), raw(complaint), complaint.count("\n")) == (set(), set(), 1) or (
        raw(printed + complaint) == set() and "0.1 s stored: " in printed
    )
    told, complaint = ran(stream.app, short, "--json", "--verbose", *options)
    assert raw(told + complaint) == set()
    assert all(isinstance(json.loads(line), dict) for line in told.splitlines())


@pytest.mark.parametrize("hostile", ["code", "body", "no greeting"], indirect=True)
def test_load_prints_none(hostile: str, tmp_path: Path):
    """Neither in its table nor in its complaint; the report is JSON."""
    options = ("--clients", 1, "--seconds", 1, "--utterance-seconds", 1, "--url", hostile)
    report = tmp_path / "report.json"
    printed, complaint = ran(load.app, *options, "--ops", "http://127.0.0.1:1", "--json", report)
    assert raw(printed + complaint + report.read_text()) == set()
    assert printed or complaint.count("\n") == 1


def test_the_demo_prints_none(hostile: str, short: Path, monkeypatch: pytest.MonkeyPatch):
    """Nor takes the name of a file for markup."""

    @contextmanager
    def pipeline(*_: object) -> Iterator[tuple[None, str]]:
        yield None, hostile

    monkeypatch.setattr(demo, "engine", dict)
    monkeypatch.setattr(demo, "pipeline", pipeline)
    monkeypatch.setattr(demo, "records_of", records_of)
    app = typer.Typer()
    app.command()(demo.main)
    file = short.rename(short.with_name("[bold]x[_nothing] \x1b[2J.raw"))
    printed, complaint = ran(app, file)
    assert raw(printed + complaint) == set()
    assert "speaking [bold]x[_nothing] \ufffd[2J.raw" in printed


def records_of(_kafka: None, _correlation_id: str) -> Any:
    raise demo.DemoError(ANY)
