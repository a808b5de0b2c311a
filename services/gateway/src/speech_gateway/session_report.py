"""Report a session that has ended: one line in the log, its counts, and its span.

The server calls it once for each session, and for each handshake that it refuses.
`docs/operations.md` explains the fields of the lines.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address

import structlog
from speech_lib.telemetry import spans
from speech_lib.telemetry.spans import Span, SpanKind, SpanSink

from speech_gateway import wav
from speech_gateway.driver import SessionDriver
from speech_gateway.errors import Ending
from speech_gateway.handshake import PATH
from speech_gateway.metrics import ACCEPTED, Metrics
from speech_gateway.rates import TokenBucket
from speech_gateway.text_wait import LEFT, RECOGNIZED, TextWait
from speech_gateway.utterance import Context

log = structlog.get_logger()

AWAIT_TEXT = "await text"
"""The span of the wait for a text."""
CANCELLED = "cancelled"
"""The `ended_by` of a session whose process ended before the utterance did."""
_STORED_PER_SECOND, _STORED_AT_ONCE = 20, 1_000
_KEPT_BITS = {4: 24, 6: 48}
_UNKNOWN_CLIENT = "unknown"


class LineBudget:
    """Allows some lines a second, and as many in a burst; counts those that it omits.

    A client that comes back in a loop must not fill the log, nor push older lines out of it. Lines
    about stored utterances have a budget of their own, which only a crowd or such a loop can use
    up. Time is any clock in seconds that does not run backwards.
    """

    def __init__(self, now: float, per_second: float = 10) -> None:
        self._bucket = TokenBucket(per_second, per_second, now)
        self._stored = TokenBucket(_STORED_AT_ONCE, _STORED_PER_SECOND, now)
        self._omitted = 0

    def take(self, now: float, *, stored: bool = False) -> int | None:
        """Return how many lines were omitted before this one; None where this one is too."""
        bucket = self._stored if stored else self._bucket
        if not bucket.take(now):
            self._omitted += 1
            return None
        omitted, self._omitted = self._omitted, 0
        return omitted


def count(driver: SessionDriver, metrics: Metrics) -> None:
    """Add a session that has ended to the metrics."""
    session = driver.session
    metrics.session_ended(ended_by(session.ending), session.outcome)
    if driver.ack_seconds is not None:
        metrics.store_seconds.observe(driver.ack_seconds)
    if session.receipt:
        metrics.audio_bytes.inc(session.audio_bytes)
        metrics.audio_seconds.inc(wav.duration_ms(session.audio_bytes) / 1000)
    if session.text.outcome:
        metrics.results.labels(session.text.outcome).inc()
    if session.text.outcome == RECOGNIZED and session.text.seconds is not None:
        metrics.result_seconds.observe(session.text.seconds)
    if session.failure and driver.stored:
        metrics.delivery_errors.labels(session.failure.value.code, driver.stored).inc()


def write_line_within(budget: LineBudget, now: float, driver: SessionDriver, client: str) -> None:
    """Write the line about a session, unless the budget for its kind is used up."""
    omitted = budget.take(now, stored=driver.session.outcome == ACCEPTED)
    if omitted is not None:
        write_line(driver, client, omitted)


def write_line(driver: SessionDriver, client: str, omitted: int = 0) -> None:
    """Write the one line about a session.

    Args:
        driver: The driver of the session, after its end.
        client: The address that the client was counted by; it is cut here.
        omitted: How many sessions before this one got no line.
    """
    session, ack = driver.session, driver.ack_seconds
    log.info(
        "session",
        correlation_id=session.correlation_id,
        client=cut(client),
        ended_by=ended_by(session.ending),
        outcome=session.outcome,
        code=driver.close_code,
        audio_bytes=session.audio_bytes,
        duration_ms=wav.duration_ms(session.audio_bytes),
        session_ms=_milliseconds(driver.age()),
        messages=session.messages,
        partition=session.receipt.partition if session.receipt else None,
        offset=session.receipt.offset if session.receipt else None,
        ack_ms=None if ack is None else _milliseconds(ack),
        **_result(session.text),
        trace_id=driver.context.trace.trace_id,
        **_omitted(omitted),
    )


def write_refusal_within(budget: LineBudget, now: float, code: str) -> None:
    """Write the line about a refused handshake, unless the budget is used up."""
    omitted = budget.take(now)
    if omitted is not None:
        log.info("refused", code=code, **_omitted(omitted))


def _result(text: TextWait) -> dict[str, str | float]:
    """Return what became of the text, of those who wanted it."""
    if text.outcome is None:
        return {}
    waited = {} if text.seconds is None else {"result_ms": _milliseconds(text.seconds)}
    return {"result": text.outcome, **waited}


def _omitted(lines: int) -> dict[str, int]:
    return {"omitted": lines} if lines else {}


def record_spans(driver: SessionDriver, sink: SpanSink, port: int) -> None:
    """Record the span of a session until now, and below it that of the wait for its text."""
    if not sink.wants(driver.context.trace):
        return
    end_ns = driver.context.nanoseconds(driver.began_at + driver.age())
    sink.record(_span_of_session(driver, end_ns, port))
    text = driver.session.text
    if text.began_at is not None and text.outcome is not None:
        sink.record(_span_of_wait(driver.context, text.began_at, end_ns, text.outcome))


def _span_of_session(driver: SessionDriver, end_ns: int, port: int) -> Span:
    """Describe a session from its handshake on, by HTTP's conventions."""
    session, context = driver.session, driver.context
    return Span(
        name=f"GET {PATH}",
        kind=SpanKind.SERVER,
        context=context.trace,
        parent=context.parent,
        start_ns=context.nanoseconds(driver.began_at),
        end_ns=end_ns,
        attributes={
            "http.request.method": "GET",
            "http.response.status_code": 101,
            "http.route": PATH,
            "network.protocol.name": "websocket",
            "server.port": port,
            "url.path": PATH,
            "url.scheme": "http",
            spans.CORRELATION_ID: session.correlation_id,
            "speech.ended_by": ended_by(session.ending),
            "speech.outcome": session.outcome,
            "speech.audio.bytes": session.audio_bytes,
            "speech.audio.messages": session.messages,
        },
        # What the client did wrong is no error of the server's.
        error=session.failure.value.code if session.failure else None,
    )


def _span_of_wait(context: Context, began_at: float, end_ns: int, outcome: str) -> Span:
    """Describe the wait for the text, from `accepted` until its end."""
    return Span(
        name=AWAIT_TEXT,
        kind=SpanKind.INTERNAL,
        context=context.trace.child(),
        parent=context.trace,
        start_ns=context.nanoseconds(began_at),
        end_ns=end_ns,
        attributes={spans.CORRELATION_ID: context.correlation_id, "speech.result": outcome},
        error=None if outcome in {RECOGNIZED, LEFT} else outcome,
    )


def ended_by(ending: Ending | None) -> str:
    """Return the name of an ending in the log, the metrics and the span."""
    return ending.value.code if ending else CANCELLED


@lru_cache(maxsize=1024)  # without it, a quarter of the cost of a line
def cut(address: str) -> str:
    """Return the network of a client, so that no line names a person: /24, or /48 of IPv6.

    Args:
        address: As `client_address` returns it: an IPv4 address, or the /64 of an IPv6 one.
    """
    try:
        whole = ip_address(address.partition("/")[0])
    except ValueError:
        return _UNKNOWN_CLIENT
    kept = _KEPT_BITS[whole.version]
    dropped = whole.max_prefixlen - kept
    return f"{type(whole)(int(whole) >> dropped << dropped)}/{kept}"


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
