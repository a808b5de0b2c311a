"""Where in an utterance somebody speaks, and where to cut what is too long. Pure.

Used by `neural`: a neural engine makes words of silence and noise, and some lose themselves in long
audio, so each is given speech alone, in pieces that it can hold.
"""

from collections.abc import Iterator, Sequence

from speech_lib.events import SAMPLE_BYTES, SAMPLE_RATE_HZ

FRAME_SAMPLES = 512
"""A frame of the detector: 32 ms."""
FRAME_BYTES = FRAME_SAMPLES * SAMPLE_BYTES
_FRAMES_A_SECOND = SAMPLE_RATE_HZ / FRAME_SAMPLES

SPEECH_BEGINS = 0.5
SPEECH_ENDS = 0.35
"""Probabilities: speech goes on until it is as unlikely as this (Silero VAD's own defaults)."""
_MARGIN_SECONDS = 0.4
"""Kept before and behind speech, so that no engine misses the breath of a first consonant."""
_LONGEST_PAUSE_SECONDS = 2.0
"""Longer ones are left out: there is where words are made up."""
_SMOOTHED_FRAMES = 8
"""A cut is made in the middle of a quarter of a second that is least like speech."""

Span = tuple[int, int]
"""From a frame to another, which is not part of it."""


def pieces(
    samples: bytes, probabilities: Sequence[float], longest_seconds: float
) -> Iterator[bytes]:
    """Yield what is spoken in an utterance, none of it longer than `longest_seconds`.

    Args:
        samples: whole samples, PCM16 little-endian, 16 kHz, mono.
        probabilities: of speech, one for each frame of `FRAME_BYTES`, the last one filled up.
        longest_seconds: what the engine can hold at once, 2 s or more.
    """
    longest = _frames(longest_seconds)
    held: list[Span] = []
    for begin, end in _spoken(probabilities):
        for span in cut(probabilities, (begin, end), longest):
            if held and _length(held) + _length([span]) > longest:
                yield _joined(samples, held)
                held = []
            held.append(span)
    if held:
        yield _joined(samples, held)


def cut(probabilities: Sequence[float], span: Span, longest: int) -> Iterator[Span]:
    """Cut a span where speech is least likely, into spans of at most `longest` frames.

    Of what may still be held the second half is searched, so that no piece is shorter than half.
    """
    begin, end = span
    while end - begin > longest:
        places = range(begin + longest // 2, begin + longest + 1)
        at = min(places, key=lambda place: _around(probabilities, place))
        yield begin, at
        begin = at
    yield begin, end


def _spoken(probabilities: Sequence[float]) -> Iterator[Span]:
    """Yield where speech is, with its margins; a pause that is not too long belongs to it."""
    margin, pause = _frames(_MARGIN_SECONDS), _frames(_LONGEST_PAUSE_SECONDS)
    found: Span | None = None
    for begin, end in _heard(probabilities):
        wide = max(begin - margin, 0), min(end + margin, len(probabilities))
        if found and begin - (found[1] - margin) <= pause:
            found = found[0], wide[1]
            continue
        if found:
            yield found
        found = wide
    if found:
        yield found


def _heard(probabilities: Sequence[float]) -> Iterator[Span]:
    """Yield the runs of frames in which the detector hears speech."""
    begin: int | None = None
    for number, probability in enumerate(probabilities):
        if begin is None and probability >= SPEECH_BEGINS:
            begin = number
        elif begin is not None and probability < SPEECH_ENDS:
            yield begin, number
            begin = None
    if begin is not None:
        yield begin, len(probabilities)


def _around(probabilities: Sequence[float], place: int) -> float:
    near = probabilities[max(place - _SMOOTHED_FRAMES // 2, 0) : place + _SMOOTHED_FRAMES // 2]
    return sum(near) / max(len(near), 1)


def _length(spans: Sequence[Span]) -> int:
    return sum(end - begin for begin, end in spans)


def _joined(samples: bytes, spans: Sequence[Span]) -> bytes:
    return b"".join(samples[begin * FRAME_BYTES : end * FRAME_BYTES] for begin, end in spans)


def _frames(seconds: float) -> int:
    return int(seconds * _FRAMES_A_SECOND)
