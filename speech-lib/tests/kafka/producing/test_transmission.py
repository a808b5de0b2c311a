"""The answer on a failed record: `no` only where surely nothing was sent."""

import json

import pytest
from speech_lib.kafka.producing.transmission import PATIENCE_SECONDS, Transmissions

NOW = 100.0


def statistics(**topics: dict[int, int]) -> str:
    """Return what librdkafka says of the messages written into requests, by partition."""
    return json.dumps(
        {
            "txmsgs": sum(sum(counts.values()) for counts in topics.values()),
            "topics": {
                topic: {
                    "partitions": {
                        str(partition): {"txmsgs": count, "msgs": 99}
                        for partition, count in counts.items()
                    }
                }
                for topic, counts in topics.items()
            },
        }
    )


def answers(before: list[str], after: list[str]) -> list[str]:
    """Return the answer, if any, on a record handed over and failed between two series."""
    transmissions, said = Transmissions(), []
    for text in before:
        transmissions.update(text)
    transmissions.ask(transmissions.snapshot(), NOW, said.append)
    for text in after:
        transmissions.update(text)
    return said


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([statistics(t={0: 5})], statistics(t={0: 5})),
        ([statistics(t={0: 4}), statistics(t={0: 5, 1: 2})], statistics(t={1: 2, 0: 5})),
        ([], statistics()),
        ([], statistics(t={-1: 0, 0: 0})),
        ([statistics()], statistics(t={0: 0})),
    ],
    ids=["idle", "idle after work", "new", "new, and the topic is learned", "learned meanwhile"],
)
def test_nothing_sent_is_surely_not_stored(before, after):
    """Where no count has moved, no message was written into a request."""
    assert answers(before, [after, after]) == ["no"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([statistics(t={0: 5})], statistics(t={0: 6})),
        ([], statistics(t={0: 1})),
        ([statistics(t={0: 5})], statistics(t={0: 5, 1: 1})),
        ([statistics(t={0: 5})], statistics(t={0: 5}, other={0: 1})),
        ([statistics(t={0: 5, 1: 1})], statistics(t={0: 6})),
        ([statistics(t={0: 5})], statistics()),
        ([statistics(t={0: 5})], statistics(t={0: 1})),
    ],
    ids=[
        "its partition",
        "the first ever",
        "another partition",
        "another topic",
        "the same sum",
        "a topic has gone",
        "counting began anew",
    ],
)
def test_anything_sent_may_have_been_the_record(before, after):
    """Whatever has moved, also what is counted for others, leaves nothing certain."""
    assert answers(before, [after, after]) == ["unknown"]


def asked(brokers: dict[str, int], **topics: dict[int, int]) -> str:
    """Return statistics with the Produce requests that brokers were sent."""
    told = json.loads(statistics(**topics))
    told["brokers"] = {name: {"req": {"Produce": count}} for name, count in brokers.items()}
    return json.dumps(told)


@pytest.mark.parametrize(
    ("before", "after", "answer"),
    [
        (asked({"1": 3}, t={0: 5}), asked({"1": 3}, t={0: 5}), "no"),
        (asked({"1": 3}), asked({"1": 4}), "unknown"),
        (asked({"1": 3}), asked({"1": 3, "2": 1}), "unknown"),
        (asked({"1": 3}), asked({"2": 0}), "no"),
        (statistics(), asked({"1": 0}), "no"),
        (statistics(), asked({"1": 1}), "unknown"),
    ],
    ids=["idle", "asked", "another asked", "one has gone", "new", "new, and asked"],
)
def test_a_request_of_which_no_partition_tells_leaves_nothing_certain(before, after, answer):
    """A partition that was gone for a moment counts anew; what brokers were asked stays."""
    assert answers([before], [after, after]) == [answer]


@pytest.mark.parametrize(
    ("text", "connected"),
    [
        ('{"brokers": {"1": {"state": "UP"}, "2": {"state": "DOWN"}}}', True),
        ('{"brokers": {"1": {"state": "CONNECT"}}}', False),
        ('{"brokers": {}}', False),
        ("{}", False),
        ("[", False),
    ],
)
def test_a_broker_that_is_connected_is_known(text, connected):
    """One is enough; what cannot be read knows of none."""
    transmissions = Transmissions()
    assert not transmissions.connected()
    transmissions.update(text)
    assert transmissions.connected() is connected


def test_statistics_begun_before_the_failure_do_not_decide():
    """The first to arrive may have been read while the record was being sent."""
    idle, sent = statistics(t={0: 5}), statistics(t={0: 6})
    assert answers([idle], [idle]) == []
    assert answers([idle], [idle, sent]) == ["unknown"]


def test_the_snapshot_is_what_was_known_before_the_hand_over():
    """What is sent between the snapshot and the failure counts, however much comes in between."""
    transmissions, said = Transmissions(), []
    snapshot = transmissions.snapshot()
    for count in (1, 1, 1):
        transmissions.update(statistics(t={0: count}))
    transmissions.ask(snapshot, NOW, said.append)
    for _ in range(2):
        transmissions.update(statistics(t={0: 1}))
    assert said == ["unknown"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"topics": 1}', '{"topics": {"t": {}}}', "{"])
def test_statistics_that_cannot_be_read_leave_nothing_certain(text):
    """A library that says it otherwise one day must not turn doubt into certainty."""
    assert answers([text], [text, text]) == ["unknown"]


def test_without_statistics_nothing_is_certain():
    """A answer is never waited for longer than announced, and given once."""
    transmissions, said = Transmissions(), []
    transmissions.ask(transmissions.snapshot(), NOW, said.append)
    transmissions.expire(NOW + PATIENCE_SECONDS - 0.001)
    assert said == []
    transmissions.expire(NOW + PATIENCE_SECONDS)
    assert said == ["unknown"]
    for _ in range(2):
        transmissions.update(statistics())
    transmissions.expire(NOW + 2 * PATIENCE_SECONDS)
    assert said == ["unknown"]


def test_each_record_is_answered_by_its_own_snapshot():
    """One that was there when something was sent is in doubt, a later one is not."""
    transmissions, said = Transmissions(), []
    early = transmissions.snapshot()
    transmissions.update(statistics(t={0: 1}))
    late = transmissions.snapshot()
    transmissions.ask(early, NOW, lambda answer: said.append(("early", answer)))
    transmissions.ask(late, NOW, lambda answer: said.append(("late", answer)))
    for _ in range(2):
        transmissions.update(statistics(t={0: 1}))
    assert said == [("early", "unknown"), ("late", "no")]
