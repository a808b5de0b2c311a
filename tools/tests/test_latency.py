"""`speech latency`: its arithmetic, what it makes of lost utterances, and whole runs."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from speech_lib.errors import EventError
from speech_lib.events import TextRecognized, TextRecognizedEvent
from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.testing.pipeline import Pipeline
from speech_tools import stack
from speech_tools.latency import compare as latency_compare
from speech_tools.latency import report as latency_report
from speech_tools.latency.command import app, judged
from speech_tools.latency.compare import Change, Rule
from speech_tools.latency.hops import AFTER_THE_AUDIO, END_TO_END, HOPS, POINTS, traced, waits
from speech_tools.latency.report import Figures, Lost, Report, ReportError, Settings, Slow
from speech_tools.latency.result import Result, result
from speech_tools.latency.run import Utterance
from speech_tools.machine import Machine, this_machine
from speech_tools.percentiles import percentiles
from speech_tools.trace import tracing
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
BASELINE = ROOT / "docs" / "baselines" / "v0.2.1.json"
MAX_PNG_BYTES = 150_000
START_MS = 1_700_000_000_000
TOPICS = tracing.Topics("audio", "text", "dead")
SETTINGS = Settings(
    stack="embedded",
    engine="pocketsphinx",
    speech="samples",
    seconds=1.0,
    pace="realtime",
    count=2,
    warm_up=1,
    clients=1,
    limits={"max_chunk_bytes": 65_536, "max_session_seconds": 60.0},
)
MACHINE = Machine("a processor", 2, 2**30, "3.11.7", "Linux 6.1", 0.25)
TIMES = dict(
    zip(POINTS, (0, 3, 1, 51, 1_051, 1_060, 1_052, 1_060, 1_300, 1_299, 1_303), strict=True)
)
WAITS = {
    "connecting": 3,
    "first audio": 50,
    "speaking": 1_000,
    "receipt": 9,
    "handing over": 1,
    "queueing": 8,
    "recognising": 240,
    "storing the text": -1,  # the clocks of two machines
    "reading the text": 4,
    "end to end": 248,
    "in all": 1_298,
}

# Figures


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (range(100, 0, -1), [50, 90, 95, 99]),
        ([7], [7, 7, 7, 7]),
        ([1, 2, 3, 1_000], [2, 1_000, 1_000, 1_000]),
        ([-3, -1, 4], [-1, 4, 4, 4]),
    ],
    ids=["a hundred", "one", "a few", "negative"],
)
def test_every_percentile_is_one_of_the_values(values, expected):
    """The smallest value that so many of them do not exceed, never something in between."""
    assert percentiles(list(values), (0.5, 0.9, 0.95, 0.99)) == expected


def test_the_figures_of_a_hundred_waits():
    """Extremes, mean and percentiles, in milliseconds."""
    assert Figures.of(list(range(1, 101))) == Figures(1, 50.5, 50, 90, 95, 99, 100)


def test_each_hop_is_the_time_between_its_points():
    """A negative one is told as it is."""
    assert waits(TIMES) == WAITS


def test_the_hops_after_the_audio_add_up():
    """Each begins where the one before has ended, so that a stack of them is the whole."""
    ends = [END_TO_END.begin, *(hop.end for hop in AFTER_THE_AUDIO)]
    assert ends == [*(hop.begin for hop in AFTER_THE_AUDIO), END_TO_END.end]
    assert sum(WAITS[hop.name] for hop in AFTER_THE_AUDIO) == WAITS[END_TO_END.name]


def test_the_first_of_several_texts_counts():
    """A result that was stored again is no slower; a time that is not told is left out."""
    hops = (
        tracing.Hop("handshake", None),
        tracing.Hop("fetched", 5),
        tracing.Hop("text stored", 9),
        tracing.Hop("fetched", 105),
        tracing.Hop("text stored", 109),
    )
    trace = tracing.Trace("id", "done", hops, (), None, None)
    assert traced(trace) == {"fetched": 5, "text stored": 9}


# What became of the utterances


def name_of(number: int) -> str:
    return str(uuid.UUID(int=number, version=4))


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


# The report


def report(p50: float = 248, **changed: object) -> Report:
    """Return the report of a small run."""
    made = Report(
        format="speech-latency/1",
        measured_at="2026-01-02T03:04:05+00:00",
        note="",
        machine=MACHINE,
        settings=SETTINGS,
        measured=2,
        hops={"queueing": Figures(-1, 2.5, 1, 6, 6, 6, 6), "end to end": Figures(p50=p50, p99=300)},
        slowest=(Slow(name_of(1), 300.0),),
        lost=(Lost(None, "connected", "refused"),),
    )
    return replace(made, **changed)


def test_a_report_reads_back_as_it_was_written(tmp_path):
    """Whatever a field holds, and where nothing is known of it."""
    for each in (report(), report(settings=None, machine=None, measured_at=None)):
        (tmp_path / "r.json").write_text(each.json(), encoding="utf-8")
        assert latency_report.read(tmp_path / "r.json") == each


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "not a report of latency.py: the file: Invalid JSON"),
        ("[]", "not a report of latency.py: the file: Input should be an object"),
        ('{"format": "2"}', "not a report of latency.py: format: Input should be"),
        (
            report().json().replace("248.0", "NaN"),
            "not a report of latency.py: hops.end to end.p50",
        ),
        (report().json().replace('"note"', '"notes"'), "not a report of latency.py: note: Field"),
        (report().json().replace('"note"', '"x": 1, "note"'), "not a report of latency.py: x: "),
        (report(hops={"other": Figures(p50=1)}).json(), "holds no figure of a hop"),
    ],
    ids=[
        "empty",
        "a list",
        "another format",
        "no number",
        "a field less",
        "a field more",
        "no known hop",
    ],
)
def test_what_is_no_report_is_told_in_one_line(tmp_path, text, line):
    """The line names the file and what is wrong in it."""
    file = tmp_path / "r.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ReportError) as raised:
        latency_report.read(file)
    assert str(raised.value).startswith(f"{file}: {line}")
    assert "\n" not in str(raised.value)


def test_the_slowest_utterances_are_named():
    """Three of them, the slowest first, for a look at their traces."""
    every = {name_of(each): {"end to end": each} for each in (5, 1, 9, 7)}
    assert latency_report.slowest(every) == (
        Slow(name_of(9), 9),
        Slow(name_of(7), 7),
        Slow(name_of(5), 5),
    )


def test_the_figures_are_made_hop_by_hop():
    """Of every utterance that was measured, and of none if there is none."""
    figures = latency_report.figures([WAITS, {**WAITS, "queueing": 10}])
    assert list(figures) == [hop.name for hop in HOPS]
    assert figures["queueing"] == Figures(8, 9.0, 8, 10, 10, 10, 10)
    assert latency_report.figures([]) == {}


def test_the_machine_is_told_without_its_name():
    """What explains figures is known here, too."""
    here = this_machine()
    assert here.processor
    assert here.cores >= 1
    assert here.memory_bytes > 2**28
    assert here.python == ".".join(map(str, sys.version_info[:3]))


def test_the_baseline_holds_what_is_known_of_the_earlier_pipeline():
    """Three figures, end to end, and a note on what they are."""
    baseline = latency_report.read(BASELINE)
    assert baseline.hops == {"end to end": Figures(p50=1_045, p90=1_156, p99=1_403)}
    assert (baseline.measured, baseline.machine, baseline.settings) == (100, None, None)
    assert "longer path, with translation" in baseline.note


# Comparing


@pytest.mark.parametrize(
    ("figure", "old", "new", "is_beyond"),
    [
        ("p50", 1_000, 1_100, False),
        ("p50", 1_000, 1_101, True),
        ("p50", 1_000, 500, False),
        ("p99", 5, 25, False),
        ("p99", 5, 26, True),
        ("p99", 0, 21, True),
        ("p99", -30, -5, True),
        ("p99", -300, -275, False),
        ("max", 1_000, 9_000, False),
        ("mean", 1_000, 9_000, False),
    ],
)
def test_too_slow_is_beyond_threshold_and_floor(figure, old, new, is_beyond):
    """A tenth more is permitted, and twenty milliseconds always; single extremes do not count."""
    change = Change("queueing", figure, old, new)
    assert Rule(threshold=0.1, floor_ms=20).is_beyond(change) is is_beyond


def test_what_both_reports_have_is_compared():
    """Nothing is made up for what the older one did not tell."""
    old = report(hops={"end to end": Figures(p50=1_045, p90=1_156, p99=1_403)})
    assert latency_compare.changes(old, report()) == [
        Change("end to end", "p50", 1_045, 248),
        Change("end to end", "p99", 1_403, 300),
    ]


def test_a_figure_that_has_become_too_slow_is_named(capsys):
    """A line for each, with both figures; the table shows all."""
    lines = judged(report(), report(p50=300), Rule(0.1, 20))
    assert lines == ["too slow: end to end, P50: 248 ms before, 300 ms now (+52 ms, +21%)"]
    assert "│ +52 +21% ! │" in capsys.readouterr().out
    assert judged(report(), report(), Rule(0.1, 20)) == []


def test_what_was_not_alike_is_told():
    """Settings and machine, as far as both reports tell; and the older one's note."""
    old = report(note="of another day", settings=replace(SETTINGS, seconds=5.0))
    assert list(latency_compare.notes(old, report(machine=replace(MACHINE, cores=8)))) == [
        "before: of another day",
        "not alike: seconds was 5.0, now 1.0",
        "not alike: cores was 2, now 8",
    ]
    unknown = report(settings=None, machine=None)
    assert list(latency_compare.notes(unknown, report())) == []
    assert list(latency_compare.notes(report(), unknown)) == []


# The command line


def latency(*arguments: object) -> tuple[int, str, str]:
    """Run the script to its end in this process; return exit code, output and complaints."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


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


def test_without_what_draws_the_picture_one_line_says_so(tmp_path):
    """The demo's environment has no matplotlib: that is said before anything is measured."""
    without = (
        "import sys; sys.modules['matplotlib'] = None; "
        "sys.argv = ['speech', 'latency', '--out', sys.argv[1]]; "
        "from speech_tools.cli import main; main()"
    )
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", without, str(tmp_path / "out")],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    said = "latency: the picture needs matplotlib: `uv run --group plots` installs it\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


@pytest.mark.pipeline
@pytest.mark.timeout(180)
def test_an_embedded_run_gives_table_json_and_picture(tmp_path):
    """One command starts a pipeline, measures it, compares it, and leaves nothing running."""
    from matplotlib.image import imread  # noqa: PLC0415  # takes its time to load

    done = subprocess.run(  # noqa: S603 - our own script
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
