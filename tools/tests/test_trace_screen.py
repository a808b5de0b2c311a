"""What people see of traces."""

import itertools
from dataclasses import replace
from io import StringIO

import pytest
from speech_lib.kafka import headers
from speech_tools.terminal import Terminal
from speech_tools.trace import follow as trace_follow
from speech_tools.trace import screen as trace_screen
from speech_tools.trace import tracing
from speech_tools.trace.screen import Screen
from speech_tools.trace.tracing import Hop, Missing, Place, Result, Trace
from support.trace_record import AUDIO, ID, START_MS

RECOGNISED = Trace(
    correlation_id=ID,
    ended_by="done",
    client_ref=None,
    hops=(
        Hop("handshake", START_MS),
        Hop("first audio", START_MS + 100, None, 100),
        Hop("end of audio", START_MS + 2_000, None, 1_900),
        Hop("stored", START_MS + 2_010, Place("audio", 3, 42), 10),
        Hop("fetched", START_MS + 3_000, None, 990),
        Hop("recognised", START_MS + 3_900, None, 900),
        Hop("text stored", START_MS + 4_000, Place("text", 3, 40), 100),
    ),
    results=(Result("go forward ten meters", "en-US", 0.5, 0),),
    refusal=None,
    missing=None,
)


def screen(width: int, encoding: str = "utf-8") -> tuple[Screen, StringIO]:
    """Return a screen without colours, and what is printed on it."""
    printed = type("Printed", (StringIO,), {"encoding": encoding})()
    console = Terminal(file=printed, width=width)
    return Screen(console), printed


def lines(printed: StringIO) -> list[str]:
    return [line.rstrip() for line in printed.getvalue().splitlines()]


def test_every_hop_has_a_bar_on_the_scale_of_the_whole():
    """In 80 columns and without colours it is seen where the time went."""
    shown, printed = screen(80)
    shown.whole(RECOGNISED)
    assert lines(printed) == [
        f"utterance {ID}",
        "2023-11-14, ended by done",
        "hop           UTC                wait  part.  offset",
        "handshake     22:13:20.000",
        "first audio   22:13:20.100    0.100 s                 ▏",
        "end of audio  22:13:22.000    1.900 s                 ░░░░░░░░░░",
        "stored        22:13:22.010    0.010 s      3      42            ▏",
        "fetched       22:13:23.000  0.990 s *                           ▒▒▒▒",
        "recognised    22:13:23.900    0.900 s                               █████",
        "text stored   22:13:24.000    0.100 s      3      40                     ▏",
        "* the longest wait after the end of audio",
        "text: go forward ten meters",
        "language en-US, confidence 0.50",
    ]


def test_a_hop_that_is_missing_has_a_row():
    """The table ends with what did not happen; the line below it is the caller's."""
    shown, printed = screen(80)
    missing = Missing("fetched", "…", before=3, members=0)
    shown.whole(replace(RECOGNISED, hops=RECOGNISED.hops[:4], results=(), missing=missing))
    assert lines(printed)[-3:] == [
        "stored        22:13:22.010  0.010 s *      3      42                     ▏",
        "fetched       missing",
        "* the longest wait after the end of audio",
    ]


def test_many_have_a_line_each_on_one_scale():
    """The longest fills the bar; what waits has no time to its text; long texts are cut."""
    shown, printed = screen(80)
    quick = (
        *RECOGNISED.hops[:4],
        Hop("fetched", START_MS + 2_020),
        Hop("text stored", START_MS + 2_030),
    )
    missing = Missing("fetched", "…", before=3, members=0)
    shown.head()
    shown.lines(
        [
            RECOGNISED,
            replace(RECOGNISED, hops=quick, results=(Result("", "en-US", 0, 0),)),
            replace(RECOGNISED, hops=RECOGNISED.hops[:4], results=(), missing=missing),
        ]
    )
    assert lines(printed) == [
        "bars: ░ speaking  ▒ waiting  █ recognising",
        "UTC      utterance                              to text",
        f"22:13:20 {ID}   2.000 s ░░░░░▒▒▒███ go forward …",
        f"22:13:20 {ID}   0.030 s ░░░░░▒█     (no speech)",
        f"22:13:20 {ID}           ░░░░░       waits, 3 be…",
    ]


def test_a_terminal_that_knows_ascii_only_gets_bars_too():
    """Other shapes, the same widths."""
    shown, printed = screen(80, encoding="ascii")
    shown.whole(RECOGNISED)
    text = printed.getvalue()
    assert text.isascii()
    assert [line.split()[-1] for line in lines(printed)[4:10]] == [
        "|",
        "..........",
        "|",
        "----",
        "#####",
        "|",
    ]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"results": (Result("go", "en-US", 1, 0), Result("", "", 0, 0))}, "go / (no speech)"),
        ({"missing": Missing("fetched", "…", 2, 0)}, "waits, 2 before it, no ASR"),
        ({"missing": Missing("recognised", "…", 0, 1)}, "waits"),
        ({"missing": Missing("text stored", "…")}, "no text"),
        ({"missing": Missing("stored", "…")}, "not stored"),
        ({"refusal": tracing.Refusal("not_wav", Place("dead", 0, 0))}, "dead letter: not_wav"),
    ],
)
def test_what_became_of_an_utterance_fits_in_a_few_words(changed, words):
    """The end of an utterance's line."""
    assert trace_screen.outcome(replace(RECOGNISED, **{"results": (), **changed})) == words


def test_each_record_updates_its_utterance():
    """Whoever follows sees all that is known by then; what has no id is nobody's."""
    text = replace(AUDIO, topic="text", offset=1)
    stray = replace(AUDIO, headers={})
    other = replace(AUDIO, headers={headers.CORRELATION_ID: "other"})
    assert list(trace_follow.updates([AUDIO, stray, other, text])) == [
        (ID, (AUDIO,)),
        ("other", (other,)),
        (ID, (AUDIO, text)),
    ]


def test_following_forgets_what_is_old():
    """An utterance that was quiet while a thousand others spoke begins anew."""
    others = (
        replace(AUDIO, headers={headers.CORRELATION_ID: str(number)})
        for number in range(trace_follow.KEPT)
    )
    *_, last = trace_follow.updates(itertools.chain([AUDIO], others, [AUDIO]))
    assert last == (ID, (AUDIO,))
