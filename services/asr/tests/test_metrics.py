"""The recogniser's metrics, as Prometheus reads them."""

from prometheus_client import generate_latest
from speech_asr import __version__
from speech_asr.errors import Reason
from speech_asr.metrics import Metrics


def labels(metrics: Metrics, name: str) -> dict[str, float]:
    """Return the samples of a name by the value of their one label."""
    return {
        next(iter(each.labels.values())): each.value
        for family in metrics.registry.collect()
        for each in family.samples
        if each.name == name
    }


def test_what_is_exposed():
    """Metrics of the recogniser and of its process; what the interpreter is, is nobody's affair."""
    names = {
        line.split()[2]
        for line in generate_latest(Metrics().registry).decode().splitlines()
        if line.startswith("# TYPE")
    }
    assert {"speech_asr_loop_lag_seconds", "process_resident_memory_bytes"} <= names
    assert all(name.startswith(("speech_asr_", "process_")) for name in names)


def test_every_outcome_is_there_before_it_happens():
    """A rate shows the first one of a kind."""
    metrics = Metrics()
    outcomes = dict.fromkeys(("recognised", "silent", "dead_letter"), 0)
    assert labels(metrics, "speech_asr_utterances_total") == outcomes
    reasons = dict.fromkeys((reason.value for reason in Reason), 0)
    assert labels(metrics, "speech_asr_dead_letters_total") == reasons
    assert metrics.registry.get_sample_value("speech_asr_info", {"version": __version__}) == 1


def test_a_partition_that_is_no_longer_this_members_is_not_shown():
    """Another member tells its lag now: two would be added up."""
    metrics = Metrics()
    metrics.show_lag({("audio", 0): 5, ("audio", 1): 7})
    metrics.show_lag({("audio", 1): 6})
    assert labels(metrics, "speech_asr_consumer_lag_records") == {"1": 6}


def test_readiness_is_asked_for_when_the_page_is_read():
    """It needs nobody who reports it."""
    metrics, answers = Metrics(), iter((True, False))
    metrics.watch(lambda: next(answers))
    seen = [metrics.registry.get_sample_value("speech_asr_ready") for _ in range(2)]
    assert seen == [1, 0]
