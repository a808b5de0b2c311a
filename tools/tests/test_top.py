"""`speech top`: what it makes of the services' own pages, and how that is drawn."""

import re
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console
from speech_asr.metrics import Metrics as AsrMetrics
from speech_gateway.metrics import Metrics as GatewayMetrics
from speech_lib.kafka.producer import Queued
from speech_tools.operations import metrics_page
from speech_tools.operations.metrics_page import Page
from speech_tools.top.figures import (
    Gateway,
    History,
    Interval,
    Look,
    Process,
    Quantiles,
    Recogniser,
    State,
    gateway,
    recogniser,
)
from speech_tools.top.fleet import fleet_json, fleet_line
from speech_tools.top.screen import ASCII_BARS, Frame, Service, spark

SECONDS = 4.0
MINUTE = 60
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


FRAME = """\
03:04:05 UTC     the last 10 s                              the last minute

gateway  http://gateway:8001  0.3.0-dev  ready
sessions live    5 of 10                                                      ▁█
ended            accepted 2/s, broker_unavailable 0.50/s                       █
refused          at_capacity 10/s                                              █
audio stored     8 s a second, 256.0 kB/s                                      █
time to stored   P50 17.5 ms, P99 24.9 ms                                      █
not stored       3 in all, broker_unavailable 0.50/s                           █
producer queue   3 records, 1.9 kB                                            ██
loop lag         P50 0.5 ms, P99 1.0 ms                                        █
process          0.25 cores, 50.0 MB                                           █

recogniser  http://recogniser:8001  0.3.0-dev  not ready: broker _TRANSPORT
utterances       recognised 1/s, dead_letter 0.25/s                            █
speech           2 s a second                                                  █
waiting          30 not read, 4 in hand                                        █
recognition      P50 175.0 ms, P99 248.5 ms                                    █
real-time factor P50 0.25, P99 0.30                                            █
dead letters     1 in all, not_wav 0.25/s                                      █
workers replaced 2 in all                                                      █
loop lag         -
process          1.00 cores, 50.0 MB                                           █
"""


def page(registry: CollectorRegistry) -> Page:
    """Return what a service's own page says, but with figures of the process that are known."""
    read = metrics_page.read(generate_latest(registry).decode())
    own = {"process_resident_memory_bytes": 5e7, "process_start_time_seconds": 7.0}
    known = {name: (({}, value),) for name, value in own.items()}
    assert known.keys() <= read.samples.keys()
    return Page({**read.samples, **known})


def with_cpu(seen: Page, seconds: float) -> Page:
    assert "process_cpu_seconds_total" in seen.samples
    return Page({**seen.samples, "process_cpu_seconds_total": (({}, seconds),)})


def gateway_pages() -> tuple[Page, Page]:
    """Return a gateway's page before and after a few seconds of work."""
    metrics = GatewayMetrics()
    metrics.watch(lambda: True, lambda: Queued(3, 1920))
    metrics.delivery_errors.labels("broker_unavailable", "no").inc()
    before = with_cpu(page(metrics.registry), 2)
    metrics.sessions_live.set(5)
    metrics.sessions_limit.set(10)
    metrics.sessions.labels("done", "accepted").inc(6)
    metrics.sessions.labels("disconnect", "accepted").inc(2)
    metrics.sessions.labels("done", "broker_unavailable").inc(2)
    metrics.refusals.labels("at_capacity").inc(40)
    metrics.audio_seconds.inc(32)
    metrics.audio_bytes.inc(32 * 32_000)
    for stored in ("no", "unknown"):
        metrics.delivery_errors.labels("broker_unavailable", stored).inc()
    metrics.store_seconds.observe(0.02)
    metrics.loop_lag_seconds.observe(0.0005)
    return before, with_cpu(page(metrics.registry), 3)


def asr_pages() -> tuple[Page, Page]:
    """Return a recogniser's page before and after a few seconds of work."""
    metrics = AsrMetrics()
    metrics.watch(lambda: False)
    before = with_cpu(page(metrics.registry), 2)
    metrics.utterances.labels("recognised").inc(4)
    metrics.utterances.labels("dead_letter").inc(1)
    metrics.dead_letters.labels("not_wav").inc()
    metrics.workers_replaced.inc(2)
    metrics.audio_seconds.inc(8)
    metrics.in_hand.set(4)
    metrics.show_lag({("speech.audio.ingress", partition): 10 for partition in range(3)})
    metrics.recognition_seconds.observe(0.2)
    metrics.real_time_factor.observe(0.25)
    return before, with_cpu(page(metrics.registry), 6)


def looks(pages: tuple[Page, Page]) -> Interval:
    before, after = pages
    return Interval(Look(0.0, before, ready=True), Look(SECONDS, after, ready=True))


# What the pages say


def test_a_gateway_is_told_as_it_is():
    """Every figure comes from a metric that the gateway has, under its name and labels."""
    assert gateway(looks(gateway_pages())) == Gateway(
        state=State("0.3.0-dev", ready=True, reasons={}, problem=None),
        sessions_live=5,
        sessions_limit=10,
        sessions_per_second={"accepted": 2.0, "broker_unavailable": 0.5},
        refusals_per_second={"at_capacity": 10.0},
        audio_seconds_per_second=8.0,
        audio_bytes_per_second=256_000.0,
        store_seconds=Quantiles(0.0175, pytest.approx(0.02485)),
        delivery_errors=3,
        delivery_errors_per_second={"broker_unavailable": 0.5},
        producer_queued_records=3,
        producer_queued_bytes=1920,
        process=Process(5e7, 0.25, Quantiles(0.0005, 0.00099)),
    )


def test_a_recogniser_is_told_as_it_is():
    """Likewise; partitions are summed, and what was not observed is not known."""
    assert recogniser(looks(asr_pages())) == Recogniser(
        state=State("0.3.0-dev", ready=True, reasons={}, problem=None),
        utterances_per_second={"recognised": 1.0, "dead_letter": 0.25},
        audio_seconds_per_second=2.0,
        consumer_lag_records=30,
        utterances_in_hand=4,
        recognition_seconds=Quantiles(pytest.approx(0.175), pytest.approx(0.2485)),
        real_time_factor=Quantiles(0.25, pytest.approx(0.299)),
        dead_letters=1,
        dead_letters_per_second={"not_wav": 0.25},
        workers_replaced=2,
        workers_replaced_per_second=0.5,
        process=Process(5e7, 1.0, None),
    )


def test_one_look_tells_what_is_but_no_rates():
    """Rates need two looks: they are not known, which is not the same as 0."""
    look = Look(0.0, gateway_pages()[1], ready=True)
    found = gateway(Interval(look, look))
    assert (found.sessions_live, found.delivery_errors) == (5, 3)
    assert (
        found.sessions_per_second is found.audio_seconds_per_second is found.store_seconds is None
    )


def history(*seen: Look) -> History:
    history = History(gateway)
    for look in seen:
        history.add(look)
    return history


def test_rates_are_of_the_last_ten_seconds():
    """What was before has no part in them."""
    before, after = gateway_pages()
    seen = [*(Look(at, before) for at in range(20)), *(Look(at, after) for at in range(20, 40))]
    refused = [each.figures.refusals_per_second for each in history(*seen).moments]
    assert refused[:20] == [None, *[{}] * 19]
    assert refused[20:] == [*[{"at_capacity": 4.0}] * 10, *[{}] * 10]


def test_a_slow_look_is_compared_with_the_one_before():
    """Looks that are further apart than ten seconds are the last two."""
    before, after = gateway_pages()
    found = history(Look(0.0, before), Look(30.0, before), Look(70.0, after))
    assert found.newest.refusals_per_second == {"at_capacity": 1.0}
    assert [each.at for each in found.moments] == [30.0, 70.0]


@pytest.mark.parametrize(
    "between",
    [
        Look(1.0, problem="cannot be reached"),
        Look(1.0, Page({"process_start_time_seconds": (({}, 1.0),)})),
    ],
)
def test_a_service_that_went_away_begins_anew(between):
    """What a former process counted is not compared with what another one does."""
    before, after = gateway_pages()
    found = history(Look(0.0, after), between, Look(2.0, before), Look(3.0, after))
    rates = [each.figures.refusals_per_second for each in found.moments]
    assert rates == [None, None, None, {"at_capacity": 40.0}]


# How it is drawn


def test_bars_show_the_last_minute_to_the_scale_of_its_largest():
    """Twenty cells of three seconds, the newest at the right; a gap where nothing is known."""
    values = [(float(at), None if at in range(30, 36) else float(at)) for at in range(MINUTE)]
    assert spark(values) == "▁▂▂▂▃▃▃▄▄▄  ▆▆▆▇▇▇██"
    assert spark([(0.0, 9.0), (70.0, 0.0)]) == f"{'▁':>20}"
    assert spark([]) == " " * 20


def drawn(width: int = 80, encoding: str = "utf-8", *, problem: str | None = None) -> list[str]:
    pages = {"gateway": gateway_pages(), "recogniser": asr_pages()}
    histories = {"gateway": History(gateway), "recogniser": History(recogniser)}
    for name, (before, after) in pages.items():
        histories[name].add(Look(0.0, before, ready=True))
        reasons = {"broker": "_TRANSPORT"} if name == "recogniser" else {}
        newest = Look(SECONDS, after, not reasons, reasons)
        histories[name].add(Look(SECONDS, problem=problem) if problem else newest)
    services = [
        Service(name, f"http://{name}:8001", {f"http://{name}:8001": each})
        for name, each in histories.items()
    ]
    console = Console(width=width, force_terminal=False, color_system=None, legacy_windows=False)
    options = console.options.update(width=width)
    options.encoding = encoding
    frame = Frame(tuple(services), AT)
    lines = console.render_lines(frame, options, pad=False)
    return ["".join(part.text for part in line).rstrip() for line in lines]


def test_a_frame_fits_into_a_small_terminal():
    """All that it says, in 80 columns and 24 lines, without colours."""
    assert drawn() == FRAME.splitlines()


def test_a_frame_is_of_ascii_where_the_terminal_is():
    """The bars, too."""
    text = "\n".join(drawn(encoding="ascii"))
    assert text.isascii()
    assert set(ASCII_BARS) & set(text)


def test_a_service_that_is_away_is_shown_as_such():
    """It keeps its lines, so that nothing jumps when it is back."""
    expected = [
        re.sub(r"(http\S+).*", r"\1  cannot be reached", line)
        if "http" in line
        else re.sub(r"(?<=^.{16} ).*", "-", line)
        for line in FRAME.splitlines()[1:]
    ]
    found = [line[:59].rstrip() for line in drawn(problem="cannot be reached")[1:]]
    assert found == expected


def test_what_a_page_says_cannot_speak_to_the_terminal():
    """Anything may answer on a port."""
    before, after = gateway_pages()
    name = "speech_gateway_refusals_total"
    shown = History(gateway)
    shown.add(Look(0.0, Page({**before.samples, name: (({"code": "\x1b[2J"}, 1.0),)})))
    shown.add(Look(1.0, Page({**after.samples, name: (({"code": "\x1b[2J"}, 2.0),)})))
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(Frame((Service("gateway", "http://\x1b:1", {"": shown}),), datetime.now(UTC)))
    assert "\x1b" not in capture.get()
    assert "\ufffd[2J 1/s" in capture.get()


FLEET = """\
03:04:05 UTC     the last 10 s                              the last minute

gateway  http://gateway-service:8001  2 ready
all 3            10 of 20 live, ended 5/s, refused 20/s
10.0.0.2         5 of 10 live, ended 2.5/s, refused 10/s                      ▁█
10.0.0.3         5 of 10 live, ended 2.5/s, refused 10/s                      ▁█
10.0.0.4         cannot be reached
"""


def test_replicas_have_a_line_each_and_one_together():
    """What a replica that is away does not tell is left out of the sums."""
    before, after = gateway_pages()
    replicas = {f"http://10.0.0.{last}:8001": History(gateway) for last in (2, 3, 4)}
    *there, away = replicas.values()
    for each in there:
        each.add(Look(0.0, before, ready=True))
        each.add(Look(SECONDS, after, ready=True))
    away.add(Look(SECONDS, problem="cannot be reached"))
    service = Service("gateway", "http://gateway-service:8001", replicas)
    console = Console(width=80, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(Frame((service,), AT))
    assert [line.rstrip() for line in capture.get().splitlines()] == FLEET.splitlines()
    told = fleet_json(tuple(replicas), service.now)
    sums = {name: told[name] for name in ("ready", "sessions_live", "sessions_limit")}
    assert sums == {"ready": 2, "sessions_live": 10, "sessions_limit": 20}
    assert [each["url"] for each in told["replicas"]] == list(replicas)


def test_recognisers_are_summed_too():
    """By what is not read yet, and what they have in hand."""
    line = fleet_line([recogniser(looks(asr_pages()))] * 2)
    assert (line.title, line.text, line.bar) == (
        "all 2",
        "60 not read, 8 in hand, done 2.5/s",
        60,
    )
