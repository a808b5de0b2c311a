"""Make figures of looks at the services: what is now, rates per second, quantiles.

Pure. Used by `top.command`: `asdict` of a figure is what `--json` prints. Rates and quantiles are
of the last ten seconds, from the difference of two looks. What is not known is `None`.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from speech_tools.operations.metrics_page import Page

WINDOW_SECONDS = 10.0
HISTORY_SECONDS = 60.0
_STARTED = "process_start_time_seconds"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look has shown.

    Attributes:
        at: when, by a clock that only goes forward, in seconds.
        page: the metrics; none if the service could not be asked.
        ready: what `/readyz` says.
        reasons: why it is not ready, by condition.
        problem: why the service could not be asked, in a few words.
    """

    at: float
    page: Page | None = None
    ready: bool | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Quantiles:
    """The median of a histogram, and what 99 of 100 do not exceed."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class State:
    """Whether a service is there and ready."""

    version: str | None
    ready: bool | None
    reasons: Mapping[str, str]
    problem: str | None


@dataclass(frozen=True, slots=True)
class Process:
    """What a service's process uses."""

    memory_bytes: float | None
    cpu_cores: float | None
    loop_lag_seconds: Quantiles | None


@dataclass(frozen=True, slots=True)
class Gateway:
    """What a gateway does."""

    state: State
    sessions_live: float | None
    sessions_limit: float | None
    sessions_per_second: Mapping[str, float] | None
    refusals_per_second: Mapping[str, float] | None
    audio_seconds_per_second: float | None
    audio_bytes_per_second: float | None
    store_seconds: Quantiles | None
    delivery_errors: float | None
    delivery_errors_per_second: Mapping[str, float] | None
    producer_queued_records: float | None
    producer_queued_bytes: float | None
    process: Process


@dataclass(frozen=True, slots=True)
class Recogniser:
    """What a recogniser does."""

    state: State
    utterances_per_second: Mapping[str, float] | None
    audio_seconds_per_second: float | None
    consumer_lag_records: float | None
    utterances_in_hand: float | None
    recognition_seconds: Quantiles | None
    real_time_factor: Quantiles | None
    dead_letters: float | None
    dead_letters_per_second: Mapping[str, float] | None
    workers_replaced: float | None
    workers_replaced_per_second: float | None
    process: Process


@dataclass(frozen=True, slots=True)
class Interval:
    """The newest look, and the one that it is compared with: the same where there is no other."""

    then: Look
    now: Look

    def value(self, name: str) -> float | None:
        """Return what is now, all labels together."""
        return self.now.page.value(name) if self.now.page else None

    def rate(self, name: str) -> float | None:
        """Return by how much a counter has grown a second, all labels together."""
        was, now = (page.value(name) if page else None for page in self._pages)
        return None if was is None or now is None or not self._seconds else self._a_second(was, now)

    def rates(self, name: str, label: str) -> dict[str, float] | None:
        """Return the same by the value of a label, without those that have not grown."""
        if self.rate(name) is None:
            return None
        was, now = (page.by(name, label) if page else {} for page in self._pages)
        grown = {key: (was.get(key, 0), value) for key, value in now.items()}
        return {key: self._a_second(*pair) for key, pair in grown.items() if pair[1] > pair[0]}

    @property
    def _pages(self) -> tuple[Page | None, Page | None]:
        return self.then.page, self.now.page

    @property
    def _seconds(self) -> float:
        return self.now.at - self.then.at

    def _a_second(self, was: float, now: float) -> float:
        return (now - was) / self._seconds

    def quantiles(self, name: str) -> Quantiles | None:
        """Return what a histogram tells of the observations between the two looks."""
        was, now = (page.histogram(name) if page else None for page in self._pages)
        between = now.since(was) if was and now else None
        p50, p99 = (between.quantile(part) if between else None for part in (0.5, 0.99))
        return None if p50 is None or p99 is None else Quantiles(p50, p99)


def gateway(over: Interval) -> Gateway:
    """Return what a gateway's looks say."""
    name = "speech_gateway_{}".format
    return Gateway(
        state=_state(over, name("info")),
        sessions_live=over.value(name("sessions_live")),
        sessions_limit=over.value(name("sessions_limit")),
        sessions_per_second=over.rates(name("sessions_total"), "outcome"),
        refusals_per_second=over.rates(name("refusals_total"), "code"),
        audio_seconds_per_second=over.rate(name("stored_audio_seconds_total")),
        audio_bytes_per_second=over.rate(name("stored_audio_bytes_total")),
        store_seconds=over.quantiles(name("store_seconds")),
        delivery_errors=over.value(name("delivery_errors_total")),
        delivery_errors_per_second=over.rates(name("delivery_errors_total"), "code"),
        producer_queued_records=over.value(name("producer_queued_records")),
        producer_queued_bytes=over.value(name("producer_queued_bytes")),
        process=_process(over, name("loop_lag_seconds")),
    )


def recogniser(over: Interval) -> Recogniser:
    """Return what a recogniser's looks say."""
    name = "speech_asr_{}".format
    return Recogniser(
        state=_state(over, name("info")),
        utterances_per_second=over.rates(name("utterances_total"), "outcome"),
        audio_seconds_per_second=over.rate(name("audio_seconds_total")),
        consumer_lag_records=over.value(name("consumer_lag_records")),
        utterances_in_hand=over.value(name("utterances_in_hand")),
        recognition_seconds=over.quantiles(name("recognition_seconds")),
        real_time_factor=over.quantiles(name("real_time_factor")),
        dead_letters=over.value(name("dead_letters_total")),
        dead_letters_per_second=over.rates(name("dead_letters_total"), "reason"),
        workers_replaced=over.value(name("workers_replaced_total")),
        workers_replaced_per_second=over.rate(name("workers_replaced_total")),
        process=_process(over, name("loop_lag_seconds")),
    )


def _state(over: Interval, info: str) -> State:
    look = over.now
    version = look.page.label(info, "version") if look.page else None
    return State(version, look.ready, look.reasons, look.problem)


def _process(over: Interval, lag: str) -> Process:
    return Process(
        memory_bytes=over.value("process_resident_memory_bytes"),
        cpu_cores=over.rate("process_cpu_seconds_total"),
        loop_lag_seconds=over.quantiles(lag),
    )


Figures = Gateway | Recogniser
Measure = Callable[[Interval], Figures]


@dataclass(frozen=True, slots=True)
class Moment:
    """Figures, and when they were so."""

    at: float
    figures: Figures


class History:
    """One service in the course of a minute; `measure` is `gateway` or `recogniser`."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._looks: deque[Look] = deque()
        self.moments: deque[Moment] = deque()

    def add(self, look: Look) -> None:
        """Take the newest look; what is compared with it is the same process, not too long ago."""
        looks = self._looks
        if looks and not _same_process(looks[-1].page, look.page):
            looks.clear()
        looks.append(look)
        while len(looks) > 2 and look.at - looks[1].at >= WINDOW_SECONDS:  # noqa: PLR2004 - of a pair
            looks.popleft()
        self.moments.append(Moment(look.at, self._measure(Interval(looks[0], look))))
        while look.at - self.moments[0].at > HISTORY_SECONDS:
            self.moments.popleft()

    @property
    def newest(self) -> Figures:
        """What is now; there must have been a look."""
        return self.moments[-1].figures


def _same_process(one: Page | None, other: Page | None) -> bool:
    return one is not None and other is not None and one.value(_STARTED) == other.value(_STARTED)
