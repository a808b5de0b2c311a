"""`speech load`: its arithmetic, what it makes of every answer, and how a gateway holds."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, astuple
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Consumer, TopicPartition
from prometheus_client import generate_latest
from speech_gateway.metrics import Metrics
from speech_tools import stack
from speech_tools.load.command import app
from speech_tools.load.metrics import Memory, Reading
from speech_tools.load.report import Report, Spread
from speech_tools.load.run import Answer, Load, Plan, Tally
from speech_tools.operations.metrics_page import Histogram, read
from speech_tools.protocol import audio
from speech_tools.speakers import Kind, Tape
from support.invoke import invoke

SAMPLES = Path(__file__).parents[2] / "samples"
MIB = 1024 * 1024
A_BUSY_MACHINE = 5
"""How much longer things may take where the machine has other work."""
TIMEOUT_SECONDS = 20.0
INF = math.inf

# What the gateway's page tells


def test_a_page_of_the_gateway_is_read():
    """The names are those that the gateway exposes, bucket by bucket."""
    metrics = Metrics()
    for seconds in (0.0005, 0.004, 5.0):
        metrics.loop_lag_seconds.observe(seconds)
    reading = Reading.of(read(generate_latest(metrics.registry).decode()))
    assert reading.lag is not None
    assert reading.lag.counts == (1, 1, 1, *[2] * 15, 3)
    assert (reading.lag.bounds[0], reading.lag.bounds[-2:]) == (0.001, (1.0, INF))
    assert reading.memory_bytes is not None
    assert reading.memory_bytes > MIB


def test_a_page_of_something_else_tells_nothing():
    """A process without these metrics is not a gateway that is well."""
    assert Reading.of(read("# TYPE other counter\nother_total 1.0\n")) == Reading(None, None)


def test_memory_is_judged_after_the_warm_up():
    """The first tenth counts for the highest, not for the growth; thirds are compared."""
    seen = [10.0, *[50.0] * 3, *[70.0] * 3, *[56.0] * 2, 62.0]
    assert Memory.of(seen) == Memory(start=10, end=62, highest=70, growth=8)
    assert Memory.of([7.0]) == Memory(start=7, end=7, highest=7, growth=0)


def test_figures_of_single_values_are_some_of_them():
    """Of a hundred values P99 is the ninety-ninth, not a mean that nobody met."""
    hundred = [number / 1000 for number in range(1, 101)]
    assert Spread.of_values(hundred) == Spread(50.0, 90.0, 99.0, 100.0)
    assert Spread.of_values([]) is None


def test_figures_of_a_histogram_have_no_largest_value():
    """A histogram does not know it."""
    whole = Histogram((0.001, 0.01, INF), (100, 100, 100))
    assert Spread.of_histogram(whole) == Spread(0.5, 0.9, 0.99, None)
    assert Spread.of_histogram(None) is Spread.of_histogram(Histogram((INF,), (0,))) is None


# What became of it all


def test_answers_are_counted_by_kind_and_code():
    """Each refusal and failure by its code, each wait of an accepted one."""
    answers = [
        Answer(Kind.ACCEPTED, wait_seconds=0.1),
        Answer(Kind.ACCEPTED, wait_seconds=0.2),
        Answer(Kind.REFUSED, "at_capacity"),
        Answer(Kind.REFUSED, "at_capacity"),
        Answer(Kind.FAILED, "no_answer"),
    ]
    assert Tally.of(answers) == Tally(2, {"at_capacity": 2}, {"no_answer": 1}, (0.1, 0.2))


REPORT = Report(
    clients=2,
    seconds=10,
    utterance_seconds=5,
    accepted=3,
    refused={"at_capacity": 1},
    failed={},
    accepted_after_ms=Spread(10.0, 20.0, 30.0, 31.5),
    loop_lag_ms=Spread(1.0, 2.0, 3.0),
    own_loop_lag_ms=None,
    memory_bytes=None,
)


def test_the_json_has_every_figure_and_null_for_what_is_not_available():
    """Programs read the same report as people."""
    assert json.loads(REPORT.json()) == asdict(REPORT) | {
        "accepted_after_ms": {"p50": 10.0, "p90": 20.0, "p99": 30.0, "max": 31.5},
        "loop_lag_ms": {"p50": 1.0, "p90": 2.0, "p99": 3.0, "max": None},
    }


def test_the_table_says_what_is_not_available():
    """A figure that could not be measured is not left out silently."""
    names, values = (list(column.cells) for column in REPORT.table().columns)
    rows = dict(zip(names, values, strict=True))
    assert rows["refused: at_capacity"] == "1"
    assert rows["end of audio to accepted, P99"] == "30.0 ms"
    assert rows["gateway's memory"] == rows["this tool's loop lag"] == "not available"


@pytest.mark.parametrize(
    ("accepted", "refused", "failed", "all_accepted"),
    [(1, {}, {}, True), (0, {}, {}, False), (1, {"a": 1}, {}, False), (1, {}, {"a": 1}, False)],
)
def test_all_is_accepted_if_something_was_and_nothing_was_not(
    accepted, refused, failed, all_accepted
):
    """A run without a single utterance has shown nothing."""
    report = Report(1, 1, 1, accepted, refused, failed, None, None, None, None)
    assert report.all_accepted is all_accepted


# The command line


def load(*arguments: object) -> tuple[int, str, str]:
    """Run it; return exit code, output and complaints."""
    return astuple(invoke(app, *arguments))


@pytest.mark.parametrize(
    "options",
    [["--clients", "0"], ["--seconds", "nan"], ["--seconds", "inf"], ["--utterance-seconds", "61"]],
    ids=" ".join,
)
def test_a_number_out_of_bounds_is_a_wrong_usage(options):
    """The line names the option."""
    code, _, complaint = load(*options)
    assert code == 2
    assert options[0] in complaint


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (["--url", "http://localhost/"], 2, "http://localhost/: expected ws://HOST:PORT/ws/audio"),
        (["--url", "ws://localhost:1/"], 3, "cannot connect to localhost:1: connection refused"),
        (["--json", "no/such/folder"], 2, "[Errno 2] No such file or directory: 'no/such/folder'"),
    ],
    ids=["no gateway's URL", "nobody there", "no place for the report"],
)
def test_what_cannot_begin_gets_one_line(options, code, line):
    """Not ten minutes of failures, and no traceback."""
    found, _, complaint = load("--clients", 3, *options)
    assert (found, complaint.startswith(f"load: {line}"), complaint.count("\n")) == (code, True, 1)


# A real gateway


class Running(NamedTuple):
    """A gateway that runs, its operations port and its topic."""

    url: str
    ops: str
    topic: str


@pytest.fixture
def gateway(pipeline, tmp_path, request) -> Iterator[Running]:
    """Run a gateway; a test may ask for further settings."""
    topic = pipeline.make_topic("load", 6)
    settings = (
        {"TOPIC_AUDIO_INGRESS": topic} | stack.MANY_FROM_ONE_ADDRESS | getattr(request, "param", {})
    )
    with stack.gateway(pipeline, tmp_path, settings) as running:
        yield Running(running.url, operations(tmp_path / "gateway.log"), topic)


def operations(log: Path) -> str:
    lines = map(json.loads, log.read_text(encoding="utf-8").splitlines())
    port = next(line["ops_port"] for line in lines if line["event"] == "listening")
    return f"http://127.0.0.1:{port}"


def measured(folder: Path, *arguments: object) -> tuple[int, dict]:
    """Run it and return its exit code and its report."""
    report = folder / "report.json"
    code, _, complaint = load(*arguments, "--json", report)
    assert complaint == ""
    return code, json.loads(report.read_text(encoding="utf-8"))


@pytest.mark.pipeline
def test_three_clients_are_all_accepted(gateway, tmp_path):
    """A short run: everything is stored, and both sides are measured."""
    options = ("--clients", 3, "--seconds", 4, "--utterance-seconds", 2)
    code, report = measured(tmp_path, *options, "--url", gateway.url, "--ops", gateway.ops)
    assert (code, report["refused"], report["failed"]) == (0, {}, {})
    assert report["accepted"] in {6, 9}  # whoever was done in time begins a third
    assert 0 < report["accepted_after_ms"]["p50"] <= report["accepted_after_ms"]["max"]
    assert 0 < report["loop_lag_ms"]["p50"] <= report["loop_lag_ms"]["p99"]
    assert report["memory_bytes"]["start"] > MIB


@pytest.mark.pipeline
@pytest.mark.parametrize("gateway", [{"MAX_CONNECTIONS": "1"}], indirect=True)
def test_who_is_refused_is_counted_by_code(gateway, tmp_path):
    """With room for one of two clients the run goes on, and ends with 1."""
    options = ("--clients", 2, "--seconds", 1, "--utterance-seconds", 1)
    code, report = measured(tmp_path, *options, "--url", gateway.url, "--ops", "http://localhost:1")
    assert (code, report["accepted"] > 0, list(report["refused"])) == (1, True, ["at_capacity"])
    assert (report["loop_lag_ms"], report["memory_bytes"]) == (None, None)


class Torn(Tape):
    """Cannot be read at its second utterance."""

    def cut(self, number: int, seconds: float) -> bytes:
        if number == 1:
            raise OSError("torn")
        return super().cut(number, seconds)


@pytest.mark.pipeline
@pytest.mark.anyio
async def test_a_defect_of_one_client_is_counted_and_ends_no_other(gateway):
    """The one utterance is lost; that client's next one, and all of the others, are spoken."""
    plan = Plan(clients=2, seconds=1, utterance_seconds=0.5)
    answers: list[Answer] = []
    torn = Torn(audio.load(SAMPLES / "go-forward-ten-meters.raw").pcm)
    tally = await Load(gateway.url, plan, torn, answers.append).run()
    assert (tally.refused, tally.failed) == ({}, {"defect: OSError": 1})
    assert tally.accepted == len(tally.waits) == len(answers) - 1 >= 3


@pytest.mark.pipeline
def test_an_utterance_that_the_gateway_does_not_take_is_a_wrong_usage(gateway):
    """The greeting says so before anything is spoken."""
    code, _, complaint = load("--utterance-seconds", 55, "--seconds", 1, "--url", gateway.url)
    assert code == 2
    assert complaint.startswith("load: the recording lasts 55.0 s (1760000 bytes), the gateway")


def stored(pipeline, topic: str) -> int:
    """Return how many records a topic holds."""
    client = Consumer({"bootstrap.servers": pipeline.bootstrap_servers, "group.id": "unused"})
    try:
        partitions = client.list_topics(topic, TIMEOUT_SECONDS).topics[topic].partitions
        ends = (
            client.get_watermark_offsets(TopicPartition(topic, number), TIMEOUT_SECONDS)
            for number in partitions
        )
        return sum(end - begin for begin, end in ends)
    finally:
        client.close()


@pytest.mark.timeout(720)
@pytest.mark.parametrize(
    ("seconds", "growth", "longer"),
    [
        pytest.param(20, 32 * MIB, A_BUSY_MACHINE, id="20 s"),
        pytest.param(600, 4 * MIB, 1, id="10 min", marks=pytest.mark.full),
    ],
)
def test_ten_clients_at_the_pace_of_speech(gateway, pipeline, tmp_path, seconds, growth, longer):
    """None is refused, `accepted` comes at once, the loop turns, and memory stays flat."""
    if not pipeline.real:
        pytest.skip("needs Apache Kafka (scripts/with-kafka): the embedded broker stores little")
    options = ("--clients", 10, "--seconds", seconds, "--utterance-seconds", 5)
    code, report = measured(tmp_path, *options, "--url", gateway.url, "--ops", gateway.ops)
    print(json.dumps(report))  # noqa: T201 - the figures, shown by pytest's -rP
    assert (code, report["refused"], report["failed"]) == (0, {}, {})
    assert report["accepted"] >= 0.95 * 10 * seconds / 5
    assert stored(pipeline, gateway.topic) == report["accepted"]
    assert report["accepted_after_ms"]["p99"] < 250 * longer
    assert report["loop_lag_ms"]["p99"] < 50 * longer
    assert report["memory_bytes"]["growth"] < growth
