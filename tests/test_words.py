"""The words are worth reading: how many are wrong, and that there are none where nobody speaks.

`tests/support/words.py` measures, and prints the table of docs/models.md.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from speech_asr.engine import Recognition
from speech_asr.errors import EngineUnavailable
from structlog.testing import capture_logs
from support.recordings import clips, in_noise, long_clips
from support.words import NOISE_DECIBELS, POCKETSPHINX, Heard, choice, hear, no_words

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(600)]

MOST_WRONG = {"tiny.en": 5.0, "moonshine-tiny-en": 10.0}
"""Percent of the words, by model."""


@pytest.fixture(scope="module")
def heard(request) -> Heard:
    """What the model of the test heard in all recordings."""
    return hear(choice(request.param), clips())


@pytest.mark.parametrize(
    ("heard", "most"), MOST_WRONG.items(), indirect=["heard"], ids=list(MOST_WRONG)
)
def test_few_words_are_wrong(heard: Heard, most: float) -> None:
    """And nearly all are sentences, with a capital or a number, and a full stop."""
    assert heard.wrong() <= most
    sentences = [r.text for r in heard.said if not r.text[0].islower() and r.text[-1] in ".,?!"]
    assert len(sentences) >= 0.9 * len(heard.said)


def test_the_default_is_much_better_than_the_engine_without_a_model() -> None:
    """Which hears a reader and a professional voice, and is lost where people mumble.

    It takes less of a processor, too, as it encodes only what is said.
    """
    some = [clip for clip in clips() if clip.kind != "commands"]
    own, default = hear(choice(POCKETSPHINX), some), hear(choice("tiny.en"), some)
    assert own.wrong() > 4 * default.wrong()
    assert own.wrong() < 30
    assert default.cpu_seconds < 0.6 * own.cpu_seconds


def test_the_default_is_sure_of_what_it_gets_right() -> None:
    """The confidence says something: it falls where words are lost in noise."""
    engine = choice("tiny.en")
    some = [clip for clip in clips() if clip.kind == "readings"]
    quiet, loud = hear(engine, some), hear(engine, [in_noise(clip, -5) for clip in some])
    assert sum(r.confidence for r in quiet.said) > sum(r.confidence for r in loud.said)
    assert all(0.0 < r.confidence <= 1.0 for r in quiet.said)


def test_noise_costs_the_default_few_words() -> None:
    """A tenth of the speech's power."""
    heard = hear(choice("tiny.en"), [in_noise(clip, NOISE_DECIBELS) for clip in clips()])
    assert heard.wrong() <= 10.0


@pytest.mark.parametrize(("model", "most"), [("tiny.en", 9.0), ("moonshine-tiny-en", 20.0)])
def test_the_longest_utterances_are_heard_to_their_end(model: str, most: float) -> None:
    """Moonshine alone would lose itself in them, and say one phrase again and again."""
    heard = hear(choice(model), long_clips())
    assert len(heard.clips) >= 3
    each = [Heard([clip], [r], 0, 0) for clip, r in zip(heard.clips, heard.said, strict=True)]
    assert [one.wrong() for one in each if one.wrong() > most] == []


@pytest.mark.parametrize(
    ("model", "language"),
    [("tiny.en", "en"), ("moonshine-tiny-en", "en"), (POCKETSPHINX, "en-US")],
)
def test_where_nobody_speaks_there_are_no_words(model: str, language: str) -> None:
    """Fifteen kinds of sound, from digital silence to a telephone that rings."""
    said = no_words(choice(model))
    assert said == dict.fromkeys(said, Recognition("", language, 0.0))
    assert len(said) == 15


@pytest.mark.parametrize(
    ("language", "hint", "heard_in"),
    [(None, None, "en"), (None, "de-CH", "de"), (None, "tlh", "en"), ("en", "de", "en")],
    ids=["none", "known", "unknown", "the operator decides"],
)
def test_a_hint_says_in_which_language_to_listen(
    language: str | None, hint: str | None, heard_in: str
) -> None:
    """A model of many languages, and nobody has set one; what it does not know it finds out."""
    some = [clip for clip in clips() if clip.kind == "readings"][:1]
    engine = replace(choice("base"), language=language)
    assert [each.language for each in hear(engine, some, hint).said] == [heard_in]


def test_a_hint_means_nothing_to_a_model_of_one_language() -> None:
    """The words are the same."""
    some = [clip for clip in clips() if clip.kind == "commands"][:2]
    engine = replace(choice("tiny.en"), language=None)
    assert hear(engine, some, "de").said == hear(engine, some).said


def test_a_file_that_ends_the_process_is_told_of(tmp_path: Path) -> None:
    """The library raises nothing; the line names the variable all the same."""
    shutil.copytree(choice("moonshine-tiny-en").model, tmp_path / "wrong")
    (tmp_path / "wrong/SHA256SUMS").unlink()
    (tmp_path / "wrong/tokens.txt").write_text("these are no tokens\n")
    wrong = replace(choice("moonshine-tiny-en"), model=str(tmp_path / "wrong"))
    with capture_logs() as lines, pytest.raises(EngineUnavailable) as caught:
        hear(wrong, [])
    assert str(caught.value).startswith("ASR_MODEL: a recogniser ended while it was loading: ")
    assert "these are no tokens" in " ".join(line.get("line", "") for line in lines)
