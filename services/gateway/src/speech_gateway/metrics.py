"""The gateway's metrics, in Prometheus' conventions. Written by the server, read on `/metrics`.

Every label value comes from a closed list of ours, never from a client.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_STORE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """What the server counts, on a registry of its own."""

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
