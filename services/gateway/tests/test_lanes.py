"""Which partition takes what: recordings keep to the last one, live speech never meets them."""

import pytest
from speech_gateway import wav
from speech_gateway.lanes import Lanes
from speech_gateway.utterance import Utterance

PARTITIONS = 6
LAST = PARTITIONS - 1


def utterance(seconds, *, began, ended):
    """Return so many seconds of audio that came between two times."""
    pcm = bytes(round(seconds * wav.BYTES_PER_SECOND))
    return Utterance(
        wav=wav.wrap(pcm), ended_by="done", handshake_at=began, first_audio_at=began, ended_at=ended
    )


def sent_at_once(lanes, source, seconds, *, at, key=b"key"):
    sent = utterance(seconds, began=at - 0.1, ended=at)
    return lanes.partition(source, key, sent, partitions=PARTITIONS)


def test_keys_spread_over_all_partitions_but_the_last():
    """As long as an address sends no more than it speaks."""
    lanes = Lanes()
    spoken = utterance(3, began=0, ended=3.1)
    keys = [b"%d" % number for number in range(200)]
    used = {lanes.partition("a", key, spoken, partitions=PARTITIONS) for key in keys}
    assert used == {0, 1, 2, 3, 4}


def test_one_key_goes_to_one_partition():
    """Whoever reads records of one key reads them in their order."""
    used = {sent_at_once(Lanes(), "a", 1, at=0, key=b"same") for _ in range(5)}
    assert len(used) == 1


def test_whoever_sends_recordings_faster_than_speech_keeps_to_the_last():
    """Beyond a first minute, and no other address with it."""
    lanes = Lanes()
    used = [sent_at_once(lanes, "greedy", 49, at=number) for number in range(10)]
    assert [each == LAST for each in used] == [False] * 2 + [True] * 8
    assert sent_at_once(lanes, "other", 49, at=10) != LAST


def test_whoever_sends_many_short_ones_does_too():
    """It is the audio that counts, not the number."""
    lanes = Lanes()
    used = [sent_at_once(lanes, "greedy", 1, at=number / 20) for number in range(200)]
    assert [each == LAST for each in used[-120:]].count(False) <= 7  # one a second, as it refills
    assert LAST not in used[:60]


def test_ten_live_speakers_of_one_address_never_do():
    """However long they speak; nor do they pay for what another of their address sends."""
    lanes = Lanes()
    for number in range(10):
        sent_at_once(lanes, "a", 49, at=number)
    for minute in range(10):
        spoken = utterance(49, began=60.0 * minute, ended=60.0 * minute + 49.2)
        for _ in range(10):
            assert lanes.partition("a", b"key", spoken, partitions=PARTITIONS) != LAST


def test_it_is_over_soon_after_it_has_stopped():
    """What went to the last partition is not held against the address."""
    lanes = Lanes()
    for number in range(100):
        sent_at_once(lanes, "greedy", 49, at=number)
    assert sent_at_once(lanes, "greedy", 3, at=100 + 99) != LAST


@pytest.mark.parametrize("partitions", [0, 1, 3])
def test_a_small_topic_keeps_no_partition(partitions):
    """Nor one of which nothing is known yet: the key decides."""
    lanes = Lanes()
    sent = utterance(49, began=0, ended=0.1)
    used = {lanes.partition("a", b"key", sent, partitions=partitions) for _ in range(5)}
    assert used == {None}
