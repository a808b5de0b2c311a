"""The figures of `speech latency`: how they are made, written, read and compared."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from speech_tools.latency import compare as latency_compare
from speech_tools.latency import report as latency_report
from speech_tools.latency.command import judged
from speech_tools.latency.compare import Change, Rule
from speech_tools.latency.hops import AFTER_THE_AUDIO, END_TO_END, HOPS, waits
from speech_tools.latency.report import Figures, ReportError, Slow
from speech_tools.machine import this_machine
from speech_tools.percentiles import percentiles
from support.latency_report import MACHINE, SETTINGS, TIMES, WAITS, name_of, report

ROOT = Path(__file__).parents[2]
BASELINE = ROOT / "docs" / "baselines" / "v0.2.1.json"


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


def test_a_report_reads_back_as_it_was_written(tmp_path):
    """Whatever a field holds, and where nothing is known of it."""
    for each in (report(), report(settings=None, machine=None, measured_at=None)):
        (tmp_path / "r.json").write_text(each.json(), encoding="utf-8")
        assert latency_report.read(tmp_path / "r.json") == each


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "not a latency report: the file: Invalid JSON"),
        ("[]", "not a latency report: the file: Input should be an object"),
        ('{"format": "2"}', "not a latency report: format: Input should be"),
        (
            report().json().replace("248.0", "NaN"),
            "not a latency report: hops.end to end.p50",
        ),
        (
            report().json().replace('"note"', '"notes"'),
            "not a latency report: note: Field",
        ),
        (
            report().json().replace('"note"', '"x": 1, "note"'),
            "not a latency report: x: ",
        ),
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
