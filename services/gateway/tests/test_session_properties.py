"""How an utterance is cut into messages changes nothing, tried on random cuttings.

Random sequences of everything else that can happen are in `test_session_stateful.py`.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from speech_gateway.actions import Actions, Publish
from speech_gateway.errors import Ending
from speech_gateway.messages import Limits
from speech_gateway.session import Session
from speech_gateway.wav import HEADER_BYTES

MAX_AUDIO = 64
LIMITS = Limits(
    max_chunk_bytes=65_536,
    max_audio_bytes=MAX_AUDIO,
    max_messages_per_second=100_000,  # time stands still here, so nobody may be slowed
    idle_timeout_seconds=3,
    max_session_seconds=9,
)
DONE = '{"event":"done"}'

heads = st.sampled_from([b"", b"RIFF\0\0\0\0WAVE", b"RIFF\0\0\0\0WAVX", b"OggS", b"ID3\x03\x00"])
short = st.binary(max_size=24)
about_the_limit = st.binary(min_size=MAX_AUDIO - 16, max_size=MAX_AUDIO + 8)
recordings = st.builds(lambda head, rest: head + rest, heads, short | about_the_limit)
endings = st.sampled_from(
    [
        lambda session: session.receive_text(DONE, 2.0),
        lambda session: session.disconnect(2.0),
        lambda session: session.tick(9.0),
    ]
)


def cut(data: bytes, points: Sequence[int]) -> list[bytes]:
    """Cut at the given points, of which some may be equal, so that a piece is empty."""
    at = [0, *sorted(min(point, len(data)) for point in points), len(data)]
    return [data[start:end] for start, end in pairwise(at)]


def is_prefix(file: bytes, sent: bytes) -> bool:
    """Tell whether a WAV file holds what was sent, as far as it fits, in whole samples."""
    fits = sent[:MAX_AUDIO]
    return file[HEADER_BYTES:] == fits[: len(fits) // 2 * 2]


def published(
    pieces: Sequence[bytes], end: Callable[[Session], Actions], *, fill: bool
) -> tuple[Ending | None, list[Publish]]:
    """Return how the pieces end, and what is to be stored of them."""
    session = Session("id", LIMITS, 0.0, fill_at_limit=fill)
    actions = [action for piece in pieces for action in session.receive_audio(piece, 1.0)]
    actions += end(session)
    return session.ending, [action for action in actions if isinstance(action, Publish)]


# The machine may be busy: how long an example takes says nothing.
@settings(deadline=None, max_examples=1000)
@given(recordings, st.lists(st.integers(0, MAX_AUDIO + 20)), endings, st.booleans())
def test_how_an_utterance_is_cut_changes_nothing(data, points, end, fill) -> None:
    """The same bytes end the same way and publish the same samples, whatever the messages were."""
    whole = published([data], end, fill=fill)
    assert all(is_prefix(item.utterance.wav, data) for item in whole[1])
    assert published(cut(data, points), end, fill=fill) == whole
    assert published([bytes([byte]) for byte in data], end, fill=fill) == whole
