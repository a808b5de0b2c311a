"""The gateway's metrics, in Prometheus' conventions. Read on `/metrics`.

`session_report` writes them at the end of each session, and the server at each refusal. States (is
it ready, what is queued) are read when the page is read: `__main__` connects them by `watch`. The
Prometheus library itself reports memory, processor time and open files of the process.

Every label value comes from a closed list of ours, never from a client. All exist from the start,
at 0, so that the first one of a kind shows as an increase.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from speech_lib.kafka.producer import Queued
from speech_lib.telemetry.process_metrics import process_metrics

from speech_gateway import __version__
from speech_gateway.errors import DISCARDING, Ending, Failure, NoText, Stored
from speech_gateway.handshake import Refusal
from speech_gateway.session import DISCARDED
from speech_gateway.text_wait import LEFT, RECOGNIZED

_STORE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_RESULT_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0)

ACCEPTED = "accepted"
RESULT_OUTCOMES = (RECOGNIZED, LEFT, *(why.value.code for why in NoText))
_NEVER_WITHOUT_AUDIO = frozenset({Ending.DONE, Ending.AUDIO_FILLED})
"""Endings that always have audio: a `done` without is `empty_audio`."""
_POSSIBLY_STORED: dict[Failure, tuple[Stored, ...]] = {
    Failure.BROKER_UNAVAILABLE: ("no", "unknown"),
    Failure.REJECTED_BY_BROKER: ("no",),
    Failure.INTERNAL_ERROR: ("no", "unknown"),
}


class Metrics:
    """What the gateway counts, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._add_sessions(self.registry)
        self._add_storing(self.registry)
        self._add_results(self.registry)
        process = process_metrics("speech_gateway", "gateway", __version__, self.registry)
        self.loop_lag_seconds, self.ready = process.loop_lag_seconds, process.ready
        self._begin_at_zero()

    def watch(self, ready: Callable[[], bool], queued: Callable[[], Queued]) -> None:
        """Take the gauges of readiness and of the producer's queue from these functions."""
        self.ready.set_function(ready)
        self.producer_queued_records.set_function(lambda: queued().records)
        self.producer_queued_bytes.set_function(lambda: queued().bytes)

    def session_ended(self, ended_by: str, outcome: str) -> None:
        """Count a session."""
        end = ended_by, outcome  # looking labels up is most of the cost of counting
        (self._ended.get(end) or self.sessions.labels(*end)).inc()

    def _add_sessions(self, registry: CollectorRegistry) -> None:
        self.sessions_live = Gauge(
            "speech_gateway_sessions_live", "Sessions that have not ended yet.", registry=registry
        )
        self.sessions_limit = Gauge(
            "speech_gateway_sessions_limit",
            "Sessions that there may be at once, MAX_CONNECTIONS.",
            registry=registry,
        )
        self.sessions = Counter(
            "speech_gateway_sessions",
            "Sessions that have ended, by how the utterance ended and by what became of it.",
            ["ended_by", "outcome"],
            registry=registry,
        )
        self.refusals = Counter(
            "speech_gateway_refusals",
            "Handshakes refused before the upgrade, by code.",
            ["code"],
            registry=registry,
        )

    def _add_storing(self, registry: CollectorRegistry) -> None:
        self.audio_bytes = Counter(
            "speech_gateway_stored_audio_bytes", "PCM bytes stored on the topic.", registry=registry
        )
        self.audio_seconds = Counter(
            "speech_gateway_stored_audio_seconds",
            "Seconds of audio stored on the topic.",
            registry=registry,
        )
        self.store_seconds = Histogram(
            "speech_gateway_store_seconds",
            "Time from the end of an utterance to the broker's answer.",
            buckets=_STORE_SECONDS,
            registry=registry,
        )
        self.delivery_errors = Counter(
            "speech_gateway_delivery_errors",
            "Utterances with audio that are not known to be stored: why, and what is known.",
            ["code", "stored"],
            registry=registry,
        )
        self.producer_queued_records = Gauge(
            "speech_gateway_producer_queued_records",
            "Records handed to the producer that the broker has not answered.",
            registry=registry,
        )
        self.producer_queued_bytes = Gauge(
            "speech_gateway_producer_queued_bytes",
            "Bytes of keys and values of those records.",
            registry=registry,
        )

    def _add_results(self, registry: CollectorRegistry) -> None:
        self.results_waiting = Gauge(
            "speech_gateway_results_waiting",
            "Sessions whose utterance is stored, and that wait for its text.",
            registry=registry,
        )
        self.results = Counter(
            "speech_gateway_results",
            "Stored utterances whose client wanted the text, by what became of that.",
            ["outcome"],
            registry=registry,
        )
        self.result_seconds = Histogram(
            "speech_gateway_result_seconds",
            "Time from `accepted` to the text.",
            buckets=_RESULT_SECONDS,
            registry=registry,
        )

    def _begin_at_zero(self) -> None:
        for refusal in Refusal:
            self.refusals.labels(refusal.value.code)
        for outcome in RESULT_OUTCOMES:
            self.results.labels(outcome)
        for failure, stored in _POSSIBLY_STORED.items():
            for certainty in stored:
                self.delivery_errors.labels(failure.value.code, certainty)
        self._ended = {end: self.sessions.labels(*end) for end in possible_ends()}


def possible_ends() -> Iterator[tuple[str, str]]:
    """Yield each `ended_by` with each outcome that it can have (`errors`)."""
    for ending in Ending:
        code = ending.value.code
        if ending.value.keeps_audio:
            yield code, ACCEPTED
            yield from ((code, failure.value.code) for failure in Failure)
        if ending in DISCARDING.values():
            yield code, DISCARDED
        elif ending not in _NEVER_WITHOUT_AUDIO:
            yield code, code
