"""The recogniser's metrics, in Prometheus' conventions. Read on `/metrics`.

`handler`, `pool` and `pipeline` report here, `__main__` the lag of the event loop and whether the
service is ready. Memory, processor time and open files of the process (without its workers) are
told by the library's own collector.

Every label value comes from a closed list of ours, or is the number of a partition. Those of the
lists are there from the start, at 0, so that the first one of a kind shows as an increase.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from speech_lib.kafka.records import Partition
from speech_lib.telemetry.process_metrics import process_metrics

from speech_asr import __version__
from speech_asr.errors import Reason

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)
_FACTORS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.5, 2, 5)


class Outcome(StrEnum):
    """What became of an utterance."""

    RECOGNISED = "recognised"
    SILENT = "silent"
    DEAD_LETTER = "dead_letter"


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._tell_utterances(self.registry)
        self._tell_work(self.registry)
        process = process_metrics("speech_asr", "recogniser", __version__, self.registry)
        self.loop_lag_seconds, self.ready = process.loop_lag_seconds, process.ready
        self._begin_at_zero()

    def watch(self, ready: Callable[[], bool]) -> None:
        """Ask whether the service is ready when the page is read."""
        self.ready.set_function(ready)

    def show_lag(self, lags: Mapping[Partition, int]) -> None:
        """Tell how far behind each partition is; those that are not named any more go away."""
        self.consumer_lag.clear()
        for (_, partition), records in lags.items():
            self.consumer_lag.labels(partition).set(records)

    def _tell_utterances(self, registry: CollectorRegistry) -> None:
        self.utterances = Counter(
            "speech_asr_utterances",
            "Utterances done, by outcome: recognised, silent, dead_letter.",
            ["outcome"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "speech_asr_dead_letters",
            "Records given to the dead-letter topic, by reason.",
            ["reason"],
            registry=registry,
        )
        self.recognition_seconds = Histogram(
            "speech_asr_recognition_seconds",
            "Time that the engine took for one utterance.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.real_time_factor = Histogram(
            "speech_asr_real_time_factor",
            "Time that the engine took for one utterance, divided by its length.",
            buckets=_FACTORS,
            registry=registry,
        )
        self.audio_seconds = Counter(
            "speech_asr_audio_seconds", "Seconds of speech recognised.", registry=registry
        )

    def _tell_work(self, registry: CollectorRegistry) -> None:
        self.in_hand = Gauge(
            "speech_asr_utterances_in_hand",
            "Utterances read and not done yet.",
            registry=registry,
        )
        self.waiting = Gauge(
            "speech_asr_utterances_waiting",
            "Utterances read and without a worker yet.",
            registry=registry,
        )
        self.workers_replaced = Counter(
            "speech_asr_workers_replaced",
            "Worker processes that failed and were replaced.",
            registry=registry,
        )
        self.consumer_lag = Gauge(
            "speech_asr_consumer_lag_records",
            "Utterances on a partition of this member that it has not read yet.",
            ["partition"],
            registry=registry,
        )

    def _begin_at_zero(self) -> None:
        for outcome in Outcome:
            self.utterances.labels(outcome.value)
        for reason in Reason:
            self.dead_letters.labels(reason.value)
