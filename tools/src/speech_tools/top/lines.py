"""Put the figures of a service into lines for people: a title, a text, and what its bar shows.

Pure. Used by `top.screen`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.filesize import decimal

from speech_tools.terminal import printable
from speech_tools.top.figures import Gateway, Process, Quantiles, Recogniser

NOT_KNOWN = "-"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a service at one moment.

    Attributes:
        title: what it is about.
        text: what is now.
        bar: how high its bar is; none where that is not known.
        bad: whether somebody should look.
    """

    title: str
    text: str
    bar: float | None
    bad: bool = False


def lines(now: Gateway | Recogniser) -> tuple[Line, ...]:
    """Return the lines of a service, always the same ones."""
    own = _of_gateway(now) if isinstance(now, Gateway) else _of_recogniser(now)
    found = (*own, *_of_process(now.process))
    if now.state.problem:
        return tuple(Line(line.title, NOT_KNOWN, None) for line in found)
    return found


def _of_gateway(now: Gateway) -> tuple[Line, ...]:
    audio = f"{_audio(now.audio_seconds_per_second)}, {_bytes(now.audio_bytes_per_second)}/s"
    queue = f"{number(now.producer_queued_records)} records, {_bytes(now.producer_queued_bytes)}"
    return (
        Line("sessions live", sessions(now.sessions_live, now.sessions_limit), now.sessions_live),
        _rates("ended", now.sessions_per_second),
        _rates("refused", now.refusals_per_second, bad=bool(now.refusals_per_second)),
        Line("audio stored", audio, now.audio_seconds_per_second),
        _times("time to stored", now.store_seconds),
        _in_all("not stored", now.delivery_errors, now.delivery_errors_per_second),
        Line("producer queue", queue, now.producer_queued_bytes),
    )


def _of_recogniser(now: Recogniser) -> tuple[Line, ...]:
    waiting = (
        f"{number(now.consumer_lag_records)} not read, {number(now.utterances_in_hand)} in hand"
    )
    factor = now.real_time_factor
    return (
        _rates("utterances", now.utterances_per_second),
        Line("speech", _audio(now.audio_seconds_per_second), now.audio_seconds_per_second),
        Line("waiting", waiting, now.consumer_lag_records),
        _times("recognition", now.recognition_seconds),
        Line("real-time factor", _quantiles(factor), factor.p99 if factor else None),
        _in_all("dead letters", now.dead_letters, now.dead_letters_per_second),
        Line(
            "workers replaced",
            f"{number(now.workers_replaced)} in all",
            now.workers_replaced_per_second,
            bool(now.workers_replaced_per_second),
        ),
    )


def sessions(live: float | None, limit: float | None) -> str:
    """Write how many sessions there are, and may be. An older gateway does not tell the latter."""
    return number(live) if limit is None else f"{number(live)} of {number(limit)}"


def _of_process(now: Process) -> tuple[Line, ...]:
    cores = NOT_KNOWN if now.cpu_cores is None else f"{now.cpu_cores:.2f}"
    used = f"{cores} cores, {_bytes(now.memory_bytes)}"
    return _times("loop lag", now.loop_lag_seconds), Line("process", used, now.cpu_cores)


def _rates(title: str, known: Mapping[str, float] | None, *, bad: bool = False) -> Line:
    if known is None:
        return Line(title, NOT_KNOWN, None)
    largest_first = sorted(known.items(), key=lambda item: -item[1])
    text = ", ".join(f"{printable(label)} {number(rate)}/s" for label, rate in largest_first)
    return Line(title, text or "0/s", sum(known.values()), bad)


def _in_all(title: str, total: float | None, known: Mapping[str, float] | None) -> Line:
    line = _rates(title, known, bad=bool(known))
    now = f", {line.text}" if known else ""
    return Line(title, f"{number(total)} in all{now}", line.bar, line.bad)


def _times(title: str, seconds: Quantiles | None) -> Line:
    if seconds is None:
        return Line(title, NOT_KNOWN, None)
    text = f"P50 {_duration(seconds.p50)}, P99 {_duration(seconds.p99)}"
    return Line(title, text, seconds.p99)


def _quantiles(found: Quantiles | None) -> str:
    return f"P50 {found.p50:.2f}, P99 {found.p99:.2f}" if found else NOT_KNOWN


def _audio(seconds_per_second: float | None) -> str:
    return f"{number(seconds_per_second)} s a second"


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def number(value: float | None) -> str:
    """Write a number with what matters of it: 0, 0.04, 2.5, 1234."""
    if value is None:
        return NOT_KNOWN
    digits = 0 if value.is_integer() or value >= 100 else 1 if value >= 1 else 2  # noqa: PLR2004
    return f"{value:.{digits}f}"


def _bytes(value: float | None) -> str:
    return NOT_KNOWN if value is None else decimal(round(value))
