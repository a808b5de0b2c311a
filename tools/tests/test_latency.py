"""`speech latency`: what it makes of lost utterances, its command line, and whole runs."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path

import pytest
from speech_lib.errors import EventError
from speech_lib.events import TextRecognized, TextRecognizedEvent
from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.testing.pipeline import Pipeline
from speech_tools import stack
from speech_tools.latency import report as latency_report
from speech_tools.latency.command import app
from speech_tools.latency.hops import HOPS, traced
from speech_tools.latency.report import Figures, Lost
from speech_tools.latency.result import Result, result
from speech_tools.latency.run import Utterance
from speech_tools.topics import Topics
from speech_tools.trace import tracing
from support.invoke import invoke
from support.latency_report import SETTINGS, WAITS, name_of, report

ROOT = Path(__file__).parents[2]
BASELINE = ROOT / "docs" / "baselines" / "v0.2.1.json"
MAX_PNG_BYTES = 150_000
START_MS = 1_700_000_000_000
TOPICS = Topics("audio", "text", "dead")


def test_the_first_of_several_texts_counts():
    """A result that was stored again is no slower; a time that is not told is left out."""
    hops = (
        tracing.Hop("handshake", None),
        tracing.Hop("fetched", 5),
        tracing.Hop("text stored", 9),
        tracing.Hop("fetched", 105),
        tracing.Hop("text stored", 109),
    )
    trace = tracing.Trace("id", "done", None, hops, (), None, None)
    assert traced(trace) == {"fetched": 5, "text stored": 9}


# What became of the utterances


def heard(number: int, problem: str = "", texts: int = 1, **changed: str) -> Utterance:
    """Return an utterance with the records that the services write."""
    event = text_of(number)
    audio = headers.for_audio_ingress(
        event,
        traceparent="",
        ended_by="done",
        handshake_ms=1,
        first_audio_ms=51,
        ended_ms=1_051,
        source="",
    )
    text = headers.for_asr_text(
        event, traceparent="", input_event_id="a", fetched_ms=1_060, recognised_ms=1_300
    )
    records = (
        ReceivedRecord("audio", 0, 0, b"", b"", audio | changed, 1_052),
        *[ReceivedRecord("text", 0, 0, b"", b"text", text, 1_299)] * texts,
    )
    times = {"opening": 0, "connected": 3, "accepted": 1_060, "text read": 1_303}
    return Utterance(number, {"correlation_id": event.correlation_id}, times, records, problem)


def text_of(number: int) -> TextRecognizedEvent:
    return TextRecognizedEvent.new(
        correlation_id=name_of(number),
        source_service="asr",
        payload=TextRecognized("go", "en-US", 0.5),
    )


def judge(*utterances: Utterance, warm_up: int = 0) -> Result:
    return result(utterances, warm_up, TOPICS, lambda _: text_of(0))


def test_the_warm_up_does_not_count():
    """The first utterances are left out of the figures."""
    assert judge(heard(0), heard(1), heard(2), warm_up=2) == Result({name_of(2): WAITS}, ())


@pytest.mark.parametrize(
    ("utterance", "lost"),
    [
        (Utterance(0, {}, {}, (), "refused"), Lost(None, "connected", "refused")),
        (
            replace(heard(1, "broker_unavailable"), records=()),
            Lost(name_of(1), "stored", "broker_unavailable"),
        ),
        (heard(1, "cut_short"), Lost(name_of(1), "accepted", "cut_short")),
        (
            heard(1, texts=0),
            Lost(name_of(1), "fetched", "stored but not fetched: is the ASR service running?"),
        ),
        (
            heard(1, first_audio_ms="soon"),
            Lost(name_of(1), "first audio", "its record does not tell the time"),
        ),
    ],
    ids=["not greeted", "not stored", "no receipt", "no text", "no time"],
)
def test_a_lost_utterance_is_named_with_its_hop(utterance, lost):
    """Also in the warm-up; the others are measured."""
    assert judge(utterance, heard(9), warm_up=2) == Result({name_of(9): WAITS}, (lost,))


def test_a_dead_letter_is_lost_with_its_reason():
    """The recogniser could not do it."""
    utterance = heard(1, texts=0)
    dead = ReceivedRecord("dead", 0, 0, b"", b"", {headers.DLQ_REASON: "not_wav"}, 1_100)
    found = judge(replace(utterance, records=(*utterance.records, dead)))
    why = "not recognised: it is a dead letter (not_wav)"
    assert found == Result({}, (Lost(name_of(1), "recognised", why),))


def test_a_text_that_cannot_be_read_is_lost():
    """An event of another system is no text of ours."""

    def decode(_: bytes) -> TextRecognizedEvent:
        raise EventError("no Avro")

    (lost,) = result([heard(1)], 0, TOPICS, decode).lost
    assert (lost.correlation_id, lost.missing) == (name_of(1), "text stored")


# The command line


def latency(*arguments: object) -> tuple[int, str, str]:
    """Run it; return exit code, output and complaints."""
    return astuple(invoke(app, *arguments))


@pytest.mark.parametrize(
    "options",
    [
        ["--count", "0"],
        ["--seconds", "nan"],
        ["--seconds", "61"],
        ["--threshold", "10"],
        ["--threshold=-1%"],
        ["--floor", "nan"],
        ["--pace", "slow"],
    ],
    ids=" ".join,
)
def test_an_option_out_of_bounds_is_a_wrong_usage(options):
    """The line names the option."""
    code, _, complaint = latency(*options)
    assert (code, options[0].partition("=")[0] in complaint) == (2, True)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--url", "http://localhost/"], "http://localhost/: expected ws://HOST:PORT/ws/audio"),
        (["--bootstrap-servers", "x"], "KAFKA_BOOTSTRAP_SERVERS: expected host:port"),
        (["--registry", "x"], "SCHEMA_REGISTRY_URL: "),
        (["--compare", "none.json"], "none.json: cannot be read: No such file"),
        (["--audio", "none.wav"], "none.wav: no such file"),
    ],
    ids=["no gateway's URL", "no broker", "no registry", "nothing to compare", "no audio"],
)
def test_what_cannot_begin_gets_one_line(options, line):
    """Exit code 2, before anyone is asked."""
    code, printed, complaint = latency(*options)
    assert (code, printed, complaint.count("\n")) == (2, "", 1)
    assert complaint.startswith(f"latency: {line}")


# Whole runs


def options_for(pipeline: Pipeline, url: str) -> tuple[str, ...]:
    return (
        *("--bootstrap-servers", pipeline.bootstrap_servers),
        *("--registry", pipeline.registry_url, "--url", url),
        *("--pace", "fast", "--seconds", "0.5", "--count", "3", "--warm-up", "1"),
    )


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def running(pipeline, topics, logs) -> Iterator[tuple[str, ...]]:
    """Run gateway and recogniser; return the options that name them."""
    with (
        environment(topics.names),
        stack.gateway(pipeline, logs, topics.names) as gateway,
        stack.recogniser(pipeline, logs, topics.names),
    ):
        yield options_for(pipeline, gateway.url)


def test_a_running_pipeline_is_measured(running, tmp_path):
    """What is in the report is what was asked for; nothing is lost."""
    out = tmp_path / "new" / "folder"
    code, printed, complaint = latency(*running, "--engine", "a new one", "--out", out)
    assert (code, complaint) == (0, "")
    found = latency_report.read(out / "latency.json")
    assert (found.measured, found.lost, list(found.hops)) == (3, (), [hop.name for hop in HOPS])
    assert found.settings is not None
    assert dict(found.settings.limits)["max_audio_bytes"] == 1_572_820
    assert replace(found.settings, limits={}) == replace(
        SETTINGS,
        stack="running",
        engine="a new one",
        seconds=0.5,
        pace="fast",
        count=3,
        limits={},
    )
    assert "3 utterances, in ms" in printed


def test_several_clients_share_the_utterances(running):
    """As many are measured as with one."""
    code, printed, complaint = latency(*running, "--clients", 3)
    assert (code, complaint) == (0, "")
    assert "3 utterances, in ms" in printed


def test_a_run_that_is_too_slow_ends_with_1(running, tmp_path):
    """Each figure that is beyond the threshold is a line."""
    old = report(hops={"end to end": Figures(p50=1, p90=100_000)})
    (tmp_path / "old.json").write_text(old.json(), encoding="utf-8")
    options = ("--compare", tmp_path / "old.json", "--floor", 5)
    code, printed, complaint = latency(*running, *options)
    assert (code, complaint.count("\n")) == (1, 1)
    assert complaint.startswith("latency: too slow: end to end, P50: 1 ms before, ")
    assert "not alike: stack was embedded, now running" in printed


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (("--url", "ws://localhost:1/"), "cannot connect to localhost:1: connection refused"),
        (("--bootstrap-servers", "localhost:1"), "the broker is not available: _TRANSPORT"),
        (("--registry", "http://localhost:1"), "the registry cannot be reached: "),
        (("--seconds", "55", "--count", "1"), "the recording lasts 55.0 s (1760000 bytes)"),
    ],
    ids=["no gateway", "no broker", "no registry", "too long"],
)
def test_a_pipeline_that_cannot_be_used_gets_one_line(running, option, line):
    """Exit code 2, not a list of lost utterances."""
    code, printed, complaint = latency(*running, *option)
    assert (code, printed, complaint.count("\n")) == (2, "", 1)
    assert complaint.startswith(f"latency: {line}")


def test_without_a_recogniser_the_missing_hop_is_named(pipeline, make_topic, tmp_path):
    """The run ends after three; each is named by its id, in the report too."""
    variables = ("TOPIC_AUDIO_INGRESS", "TOPIC_ASR_TEXT", "TOPIC_DEAD_LETTER")
    names = {name: make_topic(name.lower()) for name in variables}
    with environment(names), stack.gateway(pipeline, tmp_path, names) as gateway:
        options = options_for(pipeline, gateway.url)
        code, printed, complaint = latency(*options, "--patience", 1, "--out", tmp_path)
    found = json.loads((tmp_path / "latency.json").read_text(encoding="utf-8"))
    assert (code, found["measured"], found["hops"]) == (1, 0, {})
    assert [each["missing"] for each in found["lost"]] == ["fetched"] * 3
    assert complaint.splitlines() == [
        f"latency: lost: {each['correlation_id']}: fetched is missing: {each['why']}"
        for each in found["lost"]
    ]
    assert "in ms" not in printed
    assert not (tmp_path / "latency.png").exists()


@pytest.mark.pipeline
@pytest.mark.timeout(180)
def test_an_embedded_run_gives_table_json_and_picture(tmp_path):
    """One command starts a pipeline, measures it, compares it, and leaves nothing running."""
    from matplotlib.image import imread  # noqa: PLC0415  # takes its time to load

    done = subprocess.run(  # noqa: S603 - our own command
        [
            *(sys.executable, "-m", "speech_tools", "latency", "--embedded"),
            *("--count", "6", "--seconds", "1", "--warm-up", "2"),
            *("--out", str(tmp_path), "--compare", str(BASELINE), "--threshold", "900%"),
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=150,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = latency_report.read(tmp_path / "latency.json")
    assert (found.measured, found.lost) == (6, ())
    assert found.hops["speaking"].min >= 900  # at the pace of speech
    for hop in HOPS:
        assert f"│ {hop.name} " in done.stdout
    assert "before: v0.2.1: a longer path" in done.stdout
    picture = tmp_path / "latency.png"
    height, width, _ = imread(picture).shape
    assert (width, height) == (1_260, 936)
    assert picture.stat().st_size < MAX_PNG_BYTES
