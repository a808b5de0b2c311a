"""What a neural engine is given of an utterance: speech, with margins, in pieces it can hold."""

import pytest
from speech_asr.speech_parts import FRAME_BYTES, cut, pieces

SECOND = 31  # frames
MARGIN = 12


def utterance(*parts):
    """Return samples whose every frame holds its number, and the probabilities of its parts."""
    probabilities = [p for seconds, p in parts for _ in range(round(seconds * SECOND))]
    numbers = (n.to_bytes(2, "little") * (FRAME_BYTES // 2) for n in range(len(probabilities)))
    return b"".join(numbers), probabilities


def frames(piece):
    """Return the numbers of the frames in a piece."""
    starts = range(0, len(piece), FRAME_BYTES)
    return [int.from_bytes(piece[at : at + 2], "little") for at in starts]


def heard(parts, longest=24.0):
    samples, probabilities = utterance(*parts)
    return [frames(piece) for piece in pieces(samples, probabilities, longest)]


@pytest.mark.parametrize("probability", [0.0, 0.21, 0.49])
def test_without_speech_there_is_nothing(probability):
    """0.21 is the highest that the detector said of fifteen kinds of noise."""
    assert heard([(20, probability)]) == []
    assert heard([]) == []


def test_one_frame_of_speech_is_kept_with_its_margins():
    """A short word is never lost, nor the breath before it."""
    assert heard([(2, 0), (1 / SECOND, 0.5), (2, 0)]) == [
        list(range(62 - MARGIN, 63 + MARGIN)),
    ]


def test_speech_goes_on_until_it_is_unlikely():
    """Between the two bounds nothing begins and nothing ends."""
    parts = [(2, 0.4), (1, 0.9), (1, 0.4), (3, 0.1)]
    assert heard(parts) == [list(range(62 - MARGIN, 124 + MARGIN))]


def test_at_the_edges_the_margin_ends_with_the_utterance():
    """There is nothing before the first frame, and nothing behind the last."""
    assert heard([(1, 0.9)]) == [list(range(31))]


def test_a_pause_is_kept_and_silence_is_not():
    """A pause tells an engine where a sentence ends; long silence makes it say things."""
    short = heard([(1, 0.9), (1.5, 0), (1, 0.9)])
    assert short == [list(range(31 + 46 + 31))]
    long = heard([(1, 0.9), (5, 0), (1, 0.9)])
    assert long == [[*range(31 + MARGIN), *range(31 + 155 - MARGIN, 31 + 155 + 31)]]


def test_no_piece_is_longer_than_the_engine_can_hold():
    """All that is spoken is in one of them, in order, and once."""
    found = heard([(50, 0.9)], longest=24)
    assert [frame for piece in found for frame in piece] == list(range(50 * SECOND))
    assert max(map(len, found)) <= 24 * 31.25


def test_a_cut_is_made_where_speech_is_least_likely():
    """A breath between two sentences, rather than the middle of a word."""
    probabilities = [0.9] * 600 + [0.5] * 10 + [0.9] * 400
    ((first, at), (begin, end)) = cut(probabilities, (0, 1010), 750)
    assert (first, begin, end) == (0, at, 1010)
    assert 601 <= at <= 609


def test_no_piece_is_a_scrap():
    """Of what an engine can hold at least half is used, wherever the quietest place is."""
    probabilities = [0.5] * 100 + [0.9] * 900
    spans = list(cut(probabilities, (0, 1000), 400))
    assert all(200 <= end - begin <= 400 for begin, end in spans[:-1])


def test_what_fits_together_is_one_piece():
    """Each piece costs an engine as much as its longest, so there are as few as can be."""
    found = heard([(8, 0.9), (4, 0), (8, 0.9), (4, 0), (8, 0.9)], longest=20)
    assert [round(len(piece) / SECOND) for piece in found] == [17, 8]


def test_samples_that_do_not_fill_the_last_frame_are_kept():
    """The detector fills the frame up; the engine gets what there is."""
    samples, probabilities = utterance((1, 0.9))
    (piece,) = pieces(samples[:-100], probabilities, 24)
    assert piece == samples[:-100]
