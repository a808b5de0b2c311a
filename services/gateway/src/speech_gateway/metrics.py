"""The gateway's metrics, in Prometheus' conventions. Read on `/metrics`.

Written by the server, the lag of its loop by what `__main__` runs beside it, and memory,
processor time and open files of the process by the library's own collector.

Every label value comes from a closed list of ours, never from a client.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from speech_lib.looplag import LAG_SECONDS

_STORE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """What the gateway counts, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.sessions_live = Gauge(
            "speech_gateway_sessions_live", "Sessions that have not ended yet.", registry=registry
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
        self.audio_bytes = Counter(
            "speech_gateway_stored_audio_bytes", "PCM bytes stored on the topic.", registry=registry
        )
        self.store_seconds = Histogram(
            "speech_gateway_store_seconds",
            "Time from the end of an utterance to the broker's answer.",
            buckets=_STORE_SECONDS,
            registry=registry,
        )
        self.loop_lag_seconds = Histogram(
            "speech_gateway_loop_lag_seconds",
            "How late the event loop ran a timer, of ten a second.",
            buckets=LAG_SECONDS,
            registry=registry,
        )
        ProcessCollector(registry=registry)
