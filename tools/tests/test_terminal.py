"""Nothing that speaks to a terminal reaches it: 40 sequences through every tool and every field."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.progress import Progress, TextColumn
from rich.table import Table
from speech_lib.events import TextRecognized, TextRecognizedEvent
from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord
from speech_tools import demo, stream
from speech_tools.latency import command as latency
from speech_tools.latency import screen as latency_screen
from speech_tools.latency.report import Lost, Report, Slow
from speech_tools.load import command as load
from speech_tools.load.metrics import Watch
from speech_tools.load.report import Spread
from speech_tools.terminal import MAX_LINE, Terminal, complain, json_text, printable, say_lines
from speech_tools.top import command as top
from speech_tools.trace import command as trace_command
from speech_tools.trace import tracer, tracing
from speech_tools.trace.screen import Screen
from support.scripted_gateway import CORRELATION_ID, Script, Visit, scripted
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
RAW = ROOT / "samples" / "go-forward-ten-meters.raw"
ESC, C1_CSI, ST = "\x1b", "\x9b", "\x1b\\"
SEQUENCES = [
    f"{ESC}[2J",  # clear the screen
    f"{ESC}[H",  # go to its corner
    f"{ESC}[1A{ESC}[2K",  # overwrite the line before
    f"{ESC}[31m",  # colours
    f"{ESC}[8m",  # hide
    f"{ESC}[?25l",  # hide the cursor
    f"{ESC}[?1049h",  # another screen
    f"{ESC}[?1000h",  # report the mouse
    f"{ESC}[?2004h",  # bracketed paste
    f"{ESC}[6n",  # have the terminal type where the cursor is
    f"{ESC}[c",  # and what it is
    f"{ESC}[21t",  # and its title
    f"{ESC}[5i",  # print
    f"{ESC}[20l",
    f"{ESC}]0;title\x07",
    f"{ESC}]2;title{ST}",
    f"{ESC}]4;1;?\x07",
    f"{ESC}]8;;http://example.org\x07link{ESC}]8;;\x07",
    f"{ESC}]9;notify\x07",
    f"{ESC}]52;c;ZXZpbA==\x07",  # the clipboard
    f"{ESC}]1337;File=inline=1:AAAA\x07",
    f'{ESC}P$q"p{ST}',
    f"{ESC}P+q544e{ST}",
    f"{ESC}_Gi=1{ST}",
    f"{ESC}^private{ST}",
    f"{ESC}Xstring{ST}",
    f"{ESC}c",  # reset
    f"{ESC}(0",  # line drawing in place of letters
    f"{ESC}#8",
    f"{ESC}7{ESC}8",
    f"{C1_CSI}2J",
    "\x9d0;title\x9c",
    "\x90q\x9c",
    "\x07",
    "\b\b\b\x7f",
    "\rstored; the receipt matches what was sent",
    "\x0b\x0c\x85\u2028\u2029",
    "\x0e\x0f\x05\x00",
    "\u202egnol\u202c\u2066\u2069",
    "\u200b\u200d\ufeff\U000e0041\ud800",
]
ALL = "".join(SEQUENCES)
ANY = f"{ALL} \n[bold]x[/] [/nothing] :smile:"
SAID = ANY.replace("\ud800", "")
"""As far as UTF-8 can hold it."""


def raw(text: str) -> set[str]:
    """Return what is in a text that is neither printable nor the end of a line, in ASCII."""
    return {ascii(each) for each in text if not each.isprintable() and each != "\n"}


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
    done = CliRunner().invoke(app, list(map(str, arguments)))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
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
    printed, complaint = ran(stream.app, short, "--fast", "--url", hostile)
    assert (raw(printed), raw(complaint), complaint.count("\n")) == (set(), set(), 1) or (
        raw(printed + complaint) == set() and "stored; the receipt" in printed
    )
    told, complaint = ran(stream.app, short, "--fast", "--json", "--url", hostile)
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
    def pipeline(_: Path) -> Iterator[tuple[None, str]]:
        yield None, hostile

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


def report(**changed: Any) -> Report:
    made = Report("speech-latency/1", None, "", None, None, 0, {})
    return replace(made, **changed)


def test_latency_prints_none(capsys: pytest.CaptureFixture[str]):
    """Of what it was told of each utterance, and of a report to compare with."""
    found = report(note=ANY, slowest=(Slow(ANY, 1.0),), lost=(Lost(ANY, ANY, ANY),))
    latency_screen.show(found)
    for line in (*(each.line() for each in found.lost), ANY):
        latency_screen.say(line)
        latency._complain(latency.Exit.USAGE, line)
    shown = capsys.readouterr()
    assert raw(shown.out + shown.err + found.json()) == set()
    assert shown.err.count("\n") == 2
    assert ascii(json.loads(found.json())["note"]) == ascii(ANY)


# What a record tells

AT_MS = "1700000000000"
TOPICS = tracing.Topics("audio", "text", "dead")
TOLD = (
    *(headers.CORRELATION_ID, headers.ENDED_BY, headers.TRACEPARENT, headers.EVENT_TYPE),
    *(headers.HANDSHAKE_MS, headers.FIRST_AUDIO_MS, headers.ENDED_MS, headers.INPUT_EVENT_ID),
    *(headers.FETCHED_MS, headers.RECOGNISED_MS, headers.DLQ_REASON, headers.DLQ_PARTITION),
)


def event(_: bytes) -> TextRecognizedEvent:
    payload = TextRecognized(SAID, SAID, 0.5)
    return TextRecognizedEvent.new(
        correlation_id=CORRELATION_ID, source_service="asr", payload=payload
    )


@pytest.mark.parametrize("topics", [("audio",), ("audio", "text"), ("audio", "dead"), ("dead",)])
@pytest.mark.parametrize("at_ms", [0, 2**62], ids=["old", "far off"])
def test_trace_prints_none(topics: tuple[str, ...], at_ms: int, capsys: pytest.CaptureFixture[str]):
    """Of any header, nor of the text; for programs it is JSON."""
    told = dict.fromkeys(TOLD, ANY)
    records = [ReceivedRecord(name, 0, 0, b"", b"", told, at_ms) for name in topics]
    found = tracing.trace(ANY, records, TOPICS, event, tracing.Recogniser(ANY, {0: 0}, None))
    screen = Screen()
    screen.whole(found)
    screen.head()
    screen.lines([found, found])
    if found.missing:
        trace_command._complain(1, found.missing.line)
    tracer._print_json(found)
    shown = capsys.readouterr()
    assert raw(shown.out + shown.err) == set()
    assert shown.err.count("\n") == bool(found.missing)
    assert json.loads(shown.out.splitlines()[-1])["ended_by"] in {ANY, None}


# What an operations port tells


def label(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


METRICS = f"""\
speech_gateway_info{{version="{label(SAID)}"}} 1
speech_asr_info{{version="{label(SAID)}"}} 1
speech_gateway_sessions_total{{outcome="{label(SAID)}"}} 5
speech_gateway_refusals_total{{code="{label(SAID)}"}} 5
speech_gateway_delivery_errors_total{{code="{label(SAID)}"}} 5
speech_asr_utterances_total{{outcome="{label(SAID)}"}} 5
speech_asr_dead_letters_total{{reason="{label(SAID)}"}} 3
"""
STRANGE = """\
speech_gateway_sessions_live NaN
speech_gateway_stored_audio_seconds_total +Inf
speech_gateway_producer_queued_bytes 1e308
process_resident_memory_bytes NaN
speech_gateway_store_seconds_bucket{le="x"} 1
speech_gateway_loop_lag_seconds_bucket{le="0.1"} 9
speech_gateway_loop_lag_seconds_bucket{le="+Inf"} -3
speech_asr_recognition_seconds_bucket{le="0.1"} NaN
speech_asr_consumer_lag_records -5
"""
PAGES = {
    "sequences": (METRICS, json.dumps({"reasons": {"broker": ANY, ANY: "x"}})),
    "strange numbers": (STRANGE, '{"reasons": {}}'),
    "reasons are a list": (METRICS, '{"reasons": []}'),
    "900 kB of [": (METRICS, "[" * 900_000),
    "no metrics": ("{{{" * 1000, "{}"),
    "a brace": ('x{a="', "{}"),
    "a lone value": ("x{} \n y{=} 1\n", "{}"),
}


@contextmanager
def operations_port(metrics: str, ready: str) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 503)
            self.end_headers()
            self.wfile.write((metrics if self.path == "/metrics" else ready).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(params=PAGES.values(), ids=PAGES)
def ops_url(request: pytest.FixtureRequest) -> Iterator[str]:
    with operations_port(*request.param) as url:
        yield url


def test_top_prints_none(ops_url: str):
    """Nor does a page that nobody expects end it."""
    options = ("--once", "--interval", 0.1, "--gateway", ops_url, "--asr", ops_url)
    printed, complaint = ran(top.app, *options)
    assert (raw(printed), complaint) == (set(), "")
    told, _ = ran(top.app, *options, "--json")
    assert raw(told) == set()
    assert set(json.loads(told, parse_constant=pytest.fail)) == {"at", "gateway", "recogniser"}


@pytest.mark.anyio
async def test_load_reads_a_strange_page(ops_url: str):
    """What it cannot make sense of is not available."""
    watch = Watch(ops_url)
    await watch.look()
    await watch.look()
    assert (Spread.of_histogram(watch.lag), watch.memory) == (None, None)
