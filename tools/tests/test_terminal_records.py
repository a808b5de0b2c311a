"""Nothing that speaks to a terminal reaches it out of a record, a report, or an operations port."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from speech_lib.events import TextRecognized, TextRecognizedEvent
from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord
from speech_tools.latency import command as latency
from speech_tools.latency import screen as latency_screen
from speech_tools.latency.report import Lost, Report, Slow
from speech_tools.load.metrics import Watch
from speech_tools.load.report import Spread
from speech_tools.top import command as top
from speech_tools.topics import Topics
from speech_tools.trace import command as trace_command
from speech_tools.trace import tracer, tracing
from speech_tools.trace.screen import Screen
from support.invoke import invoke
from support.scripted_gateway import CORRELATION_ID
from support.sequences import ANY, SAID, raw


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

TOPICS = Topics("audio", "text", "dead")
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
    done = invoke(top.app, *options)
    assert (raw(done.stdout), done.stderr) == (set(), "")
    told = invoke(top.app, *options, "--json").stdout
    assert raw(told) == set()
    assert set(json.loads(told, parse_constant=pytest.fail)) == {
        *("at", "fleet", "gateway", "recogniser")
    }


@pytest.mark.anyio
async def test_load_reads_a_strange_page(ops_url: str):
    """What it cannot make sense of is not available."""
    watch = Watch(ops_url)
    await watch.look()
    await watch.look()
    assert (Spread.of_histogram(watch.lag), watch.memory) == (None, None)
