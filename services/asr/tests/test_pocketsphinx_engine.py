"""The text is word for word what PocketSphinx says of the same samples; silence is empty."""

import math
import os
import random
import statistics
import struct
from dataclasses import dataclass

import pytest
from pocketsphinx import Decoder
from speech_asr.engine import Recognition
from speech_asr.pocketsphinx_engine import PocketSphinxEngine
from speech_asr.speech_parts import FRAME_BYTES

SECOND = 32_000
SILENCE = Recognition("", "en-US", 0.0)
DASHWOOD = (
    "and mr john guess would have been at leisure to consider how much there might be prickly in"
    " his power to do for"
)


@dataclass(frozen=True)
class Heard:
    """What PocketSphinx itself says: the text, and the word, posterior and samples of each part."""

    text: str
    segments: list[tuple[str, float, bytes]]

    def words(self):
        """Return the segments that are words of the text."""
        return [each for each in self.segments if not each[0].startswith(("<", "["))]


def direct(samples):
    """Return what a decoder that has heard nothing before says of these samples."""
    decoder = Decoder(logfn=os.devnull)
    decoder.start_utt()
    decoder.process_raw(samples, full_utt=True)
    decoder.end_utt()
    segments = [
        (each.word, each.prob, samples[each.start_frame * 320 : (each.end_frame + 1) * 320])
        for each in decoder.seg()
    ]
    return Heard(decoder.hyp().hypstr, segments)


@pytest.fixture(scope="module")
def meters_heard(meters):
    return direct(meters)


@pytest.fixture(scope="module")
def dashwood_heard(dashwood):
    return direct(dashwood)


@pytest.fixture(scope="module")
def engine():
    return PocketSphinxEngine()


def recognition(heard):
    """Return what the engine must say where PocketSphinx itself says this."""
    posteriors = [min(posterior, 1.0) for _, posterior, _ in heard.words()]
    return Recognition(heard.text, "en-US", pytest.approx(statistics.mean(posteriors)))


def noise(seconds, deviation, seed=1):
    source = random.Random(seed)  # noqa: S311 - noise, not a secret
    count = int(seconds * 16_000)
    return struct.pack(f"<{count}h", *(round(source.gauss(0, deviation)) for _ in range(count)))


def quieter(samples, factor):
    values = struct.unpack(f"<{len(samples) // 2}h", samples)
    return struct.pack(f"<{len(values)}h", *(round(value * factor) for value in values))


def dial_tone():
    """Return three seconds of 350 and 440 Hz, as a North American exchange plays them."""
    radians = [2 * math.pi * number / 16_000 for number in range(3 * 16_000)]
    levels = [math.sin(350 * at) + math.sin(440 * at) for at in radians]
    return struct.pack(f"<{len(levels)}h", *(round(4_900 * level) for level in levels))


@pytest.mark.pipeline
def test_each_utterance_is_heard_as_by_a_new_decoder(
    engine, meters, dashwood, meters_heard, dashwood_heard
):
    """Nothing of an utterance is left for the next one, neither in words nor in their scores."""
    heard = [engine.transcribe(samples) for samples in (meters, dashwood, meters, meters)]
    a, b = recognition(meters_heard), recognition(dashwood_heard)
    assert heard == [a, b, a, a]
    assert (a.text, b.text) == ("go forward ten meters", DASHWOOD)


def test_noise_and_silence_leave_nothing_behind(engine, meters, meters_heard):
    """What the noise estimate learns of one utterance does not change the next one."""
    for before in (bytes(SECOND), noise(1, 3000)):
        engine.transcribe(before)
        assert engine.transcribe(meters) == recognition(meters_heard)


def test_words_are_what_the_model_does_not_mark(dashwood_heard):
    """The confidence leaves out what the text leaves out: pauses, breaths, the sentence's ends."""
    names = [word for word, _, _ in dashwood_heard.segments]
    assert {name for name in names if not name[0].isalpha()} == {
        "<s>", "</s>", "<sil>", "[SPEECH]",
    }  # fmt: skip
    spoken = [name.split("(")[0] for name, _, _ in dashwood_heard.words()]
    assert spoken == dashwood_heard.text.split()


@pytest.mark.parametrize("seconds", [0, 0.5, 3, 20])
def test_digital_silence_has_no_text(engine, seconds):
    """A decoder given zeros makes a word of them, so it is not asked."""
    assert engine.transcribe(bytes(int(seconds * SECOND))) == SILENCE


def test_a_decoder_asked_directly_hears_a_word_in_silence():
    """This is why the detector comes first; if it stops being so, the rule may go."""
    assert direct(bytes(5 * SECOND)).text != ""


@pytest.mark.parametrize("deviation", [1, 10, 100])
def test_quiet_noise_has_no_text(engine, deviation):
    """A microphone in a silent room gives no words, whether the detector lets it through or not."""
    assert engine.transcribe(noise(1.5, deviation)) == SILENCE


@pytest.mark.parametrize("size", [0, 2, 320, 820, FRAME_BYTES - 2])
def test_less_than_a_frame_never_reaches_the_decoder(engine, meters, size):
    """It holds no sound that could be a word, however loud."""
    assert engine.transcribe(meters[80 * 320 :][:size]) == SILENCE


def test_speech_in_too_few_frames_for_the_decoder_has_no_text(engine, meters):
    """The decoder has no hypothesis at all for some frames; that is no error."""
    assert engine.transcribe(meters[80 * 320 :][:FRAME_BYTES]) == SILENCE


def test_a_decoder_asked_directly_hears_a_word_in_the_tone_of_a_telephone():
    """And is sure of it, so that no bound on the confidence would do."""
    heard = direct(dial_tone())
    assert [posterior for _, posterior, _ in heard.words()] == [1.0]
    assert heard.text != ""


def test_the_tone_of_a_telephone_has_no_text(engine):
    """Nobody speaks in it."""
    assert engine.transcribe(dial_tone()) == SILENCE


@pytest.mark.pipeline
@pytest.mark.parametrize("around", [0, 5 * SECOND])
@pytest.mark.parametrize("factor", [1, 0.1, 0.02])
def test_an_utterance_is_not_missed_however_quiet_or_late(engine, meters, dashwood, factor, around):
    """At a fiftieth of its level in long silence it is still speech."""
    for samples in (meters, dashwood):
        quiet = bytes(around) + quieter(samples, factor) + bytes(around)
        assert engine.transcribe(quiet).text != ""


@pytest.mark.pipeline
def test_a_word_in_long_silence_is_given_to_the_decoder_whole(engine, meters):
    """The detector decides whether, never which part: the decoder gets every sample."""
    samples = bytes(3 * SECOND) + meters + bytes(3 * SECOND)
    assert engine.transcribe(samples).text == direct(samples).text != ""
