"""What the service counts, for Prometheus; labels are bounded.

`handler`, `pool` and `pipeline` report here, `__main__` the lag of the event loop; the operations
port shows it.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from speech_lib.looplag import LAG_SECONDS

from speech_asr.errors import Reason

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.utterances = Counter(
            "asr_utterances",
            "Utterances done, by outcome: recognised, silent, dead_letter.",
            ["outcome"],
            registry=self.registry,
        )
        self.dead_letters = Counter(
            "asr_dead_letters",
            "Records given to the dead-letter topic, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.recognition_seconds = Histogram(
            "asr_recognition_seconds",
            "Time that the engine took for one utterance.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.audio_seconds = Counter(
            "asr_audio_seconds", "Seconds of speech recognised.", registry=self.registry
        )
        self.in_hand = Gauge(
            "asr_utterances_in_hand", "Utterances read and not done yet.", registry=self.registry
        )
        self.workers_replaced = Counter(
            "asr_workers_replaced",
            "Worker processes that failed and were replaced.",
            registry=self.registry,
        )
        self.loop_lag_seconds = Histogram(
            "asr_loop_lag_seconds",
            "How late the event loop ran a timer, of ten a second.",
            buckets=LAG_SECONDS,
            registry=self.registry,
        )
        for reason in Reason:  # so that a rate can be seen from the first one on
            self.dead_letters.labels(reason.value)
