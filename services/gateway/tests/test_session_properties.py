"""What holds of every session, tried on random cuttings and random sequences of inputs."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from speech_gateway.errors import Ending, Failure
from speech_gateway.messages import Accepted, Failed, Limits
from speech_gateway.session import Actions, Close, Publish, Receipt, Reply, Session, State
from speech_gateway.wav import HEADER_BYTES

MAX_AUDIO = 64
LIMITS = Limits(
    max_chunk_bytes=65_536,
    max_audio_bytes=MAX_AUDIO,
    max_messages_per_second=100_000,  # time stands still here, so nobody may be slowed
    idle_timeout_seconds=3,
    max_session_seconds=9,
)
RECEIPT = Receipt("0b0f6d2c-5a5e-4bb1-8f0c-5d1f7a1b9e11", "t", 0, 0)
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


times = st.floats(0, 2)
inputs = st.one_of(
    st.tuples(st.just("audio"), times, short | about_the_limit),
    st.tuples(st.just("text"), times, st.sampled_from([DONE, "{}", "[" * 4000, "\0", "NaN", ""])),
    st.tuples(st.just("text"), times, st.text(max_size=20)),
    st.tuples(st.just("disconnect"), times, st.none()),
    st.tuples(
        st.just("fail"),
        times,
        st.sampled_from(
            [
                Ending.CHUNK_TOO_LARGE,
                Ending.PROTOCOL_ERROR,
                Ending.RATE_LIMITED,
                Ending.INTERNAL_ERROR,
            ]
        ),
    ),
    st.tuples(st.just("drain"), times, st.floats(-1, 5)),
    st.tuples(st.just("tick"), times, st.none()),
    st.tuples(st.just("answer"), times, st.sampled_from([None, *Failure])),
)
Input = tuple[str, float, object]


def give(session: Session, kind: str, now: float, value) -> Actions:
    """Give one input to the session; the broker answers only what it was given."""
    match kind:
        case "audio":
            return session.receive_audio(value, now)
        case "text":
            return session.receive_text(value, now)
        case "disconnect":
            return session.disconnect(now)
        case "fail":
            return session.fail(value, now)
        case "drain":
            return session.drain(now, now + value)
        case "tick":
            return session.tick(now)
    if session.state is not State.STORING:
        return ()
    return session.stored(RECEIPT) if value is None else session.not_stored(value, "unknown")


def is_final(action: object) -> bool:
    return isinstance(action, Reply) and isinstance(action.message, Accepted | Failed)


@settings(deadline=None, max_examples=200)
@given(st.lists(inputs, max_size=20), st.booleans())
def test_no_sequence_of_inputs_breaks_the_contract(sequence: list[Input], fill) -> None:
    """Nothing raises; one publish and one final message at most; a deadline while listening."""
    session = Session("id", LIMITS, 0.0, fill_at_limit=fill)
    actions: list[object] = []
    now, left, sent = 0.0, False, b""
    for kind, pause, value in sequence:
        now += pause
        was = session.state
        if kind == "audio" and was is State.LISTENING:
            sent += value
        given_back = give(session, kind, now, value)
        actions += given_back
        left = left or kind == "disconnect"
        assert (session.deadline is None) is (session.state is not State.LISTENING)
        assert (session.ending is None) is (session.state is State.LISTENING)
        assert was is not State.ENDED or given_back == ()
        assert not left or not any(isinstance(action, Reply | Close) for action in given_back)

    published_wavs = [action.utterance.wav for action in actions if isinstance(action, Publish)]
    finals = [is_final(action) for action in actions].count(True)
    closes = [action for action in actions if isinstance(action, Close)]
    assert len(published_wavs) <= 1
    assert all(is_prefix(file, sent) and len(file) > HEADER_BYTES for file in published_wavs)
    assert finals == len(closes) <= 1
    assert not closes or (is_final(actions[-2]) and actions[-1] is closes[0])
