"""A text that no speaker can have said is told from those that somebody may have."""

import pytest
from speech_asr.loops import is_loop

SENTENCE = "He was not an ill-disposed young man, unless to be rather cold-hearted is to be so."


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 0.1),
        ("Yes.", 0.1),
        ("No, no, no, no, no!", 1.5),
        (SENTENCE, 3.0),
        ("Two, nine, three, four, zero, one, one, one.", 3.0),
        ("我们今天去北京看看长城和故宫。", 3.0),
    ],
)
def test_what_people_say_is_none(text, seconds):
    """Also what is fast, short, or said again for emphasis."""
    assert not is_loop(text, seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (SENTENCE, 1.0),
        ("The first is " * 12, 24.0),
        ("♪ " * 100, 24.0),
        ("a" * 700, 24.0),
        ("谢谢观看" * 30, 24.0),
    ],
    ids=["too fast", "a phrase", "notes", "a letter", "without spaces"],
)
def test_what_a_model_loses_itself_in_is_one(text, seconds):
    """Too much for the time, or the same again and again."""
    assert is_loop(text, seconds)
