"""A neural engine is asked for what is spoken, and for nothing else; its loops are not believed."""

import pytest
from speech_asr.engine import Recognition
from speech_asr.neural import NeuralEngine
from speech_asr.silero import SileroDetector
from speech_asr.speech_parts import FRAME_BYTES

SECOND = 32_000


class Listener:
    """Says what it is told to, and remembers the seconds that it was given."""

    language = "und"
    longest_seconds = 24.0

    def __init__(self, *answers):
        self.answers = list(answers)
        self.given = []
        self.hints = []

    def hear(self, samples, hint):
        self.given.append(len(samples) / SECOND)
        self.hints.append(hint)
        return self.answers.pop(0)


class Detector:
    """Hears speech in every frame, or in none."""

    def __init__(self, probability):
        self.probability = probability

    def probabilities(self, samples):
        return [self.probability] * -(-len(samples) // FRAME_BYTES)


def said(text, confidence=0.5, language="en"):
    return Recognition(text, language, confidence)


def transcribe(listener, seconds, probability=0.9, hint=None):
    engine = NeuralEngine(listener, Detector(probability))
    return engine.transcribe(bytes(int(seconds * SECOND)), hint)


@pytest.mark.parametrize("seconds", [0, 0.01, 1, 30])
def test_where_nobody_speaks_the_model_is_not_asked(seconds):
    """It would say something."""
    listener = Listener()
    assert transcribe(listener, seconds, probability=0.2) == Recognition("", "und", 0.0)
    assert listener.given == []


def test_less_than_a_frame_is_no_speech():
    """The detector has heard nothing by then."""
    assert transcribe(Listener(), 0.03) == Recognition("", "und", 0.0)


def test_the_texts_of_the_pieces_are_one():
    """The longer text counts for more; its language is the utterance's."""
    listener = Listener(said("abc", 0.2, "de"), said("", 0.9, "fr"), said("abcdef", 0.8, "en"))
    assert transcribe(listener, 60) == Recognition("abc abcdef", "en", pytest.approx(0.6))
    assert sum(listener.given) == 60
    assert max(listener.given) <= 24


def test_a_model_that_hears_nothing_is_believed():
    """Empty text has no confidence, whatever the model thinks."""
    assert transcribe(Listener(said("", 0.9)), 3) == Recognition("", "und", 0.0)


def test_a_loop_is_heard_again_in_halves():
    """What made the model lose itself may be too long for it."""
    listener = Listener(said("again " * 90), said("the first half"), said("the second"))
    assert transcribe(listener, 20).text == "the first half the second"
    assert listener.given == [20, 10, 10]


def test_every_piece_is_heard_with_the_hint():
    """Also the halves of one in which the model lost itself."""
    listener = Listener(said("again " * 90), said("one"), said("two"), said("three"))
    transcribe(listener, 40, hint="de")
    assert listener.hints == ["de"] * 4


def test_a_loop_in_a_short_piece_is_no_text():
    """Better nothing than what nobody has said."""
    listener = Listener(said("again " * 90))
    assert transcribe(listener, 5) == Recognition("", "und", 0.0)
    assert listener.given == [5]


def test_the_real_detector_hears_speech_and_not_silence(meters, dashwood):
    """Each utterance as a new detector would hear it."""
    detector = SileroDetector()
    alone = SileroDetector().probabilities(meters)
    assert max(detector.probabilities(dashwood)) > 0.9
    assert max(detector.probabilities(bytes(SECOND))) < 0.25
    assert detector.probabilities(meters) == alone
    assert (len(alone), max(alone) > 0.9) == (-(-len(meters) // FRAME_BYTES), True)
