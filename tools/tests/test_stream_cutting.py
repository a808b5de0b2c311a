"""Where `speech stream` cuts what is longer than an utterance may be, and what that keeps."""

import asyncio

import numpy as np
import pytest
from speech_lib.events import BYTES_PER_SECOND
from speech_tools.protocol.messages import Limits
from speech_tools.stream import incoming
from speech_tools.stream.cutting import cut
from speech_tools.stream.incoming import Incoming, Stretch

RATE_HZ = 16_000
LIMITS = Limits(65_536, 1_572_820, 200, 10.0, 60.0)


def noise(seconds: float, loudness: float, seed: int = 1) -> bytes:
    samples = np.random.default_rng(seed).normal(0, loudness, int(seconds * RATE_HZ))
    return samples.astype("<i2").tobytes()


def speech(pauses: list[float], seconds: float) -> bytes:
    """Return loud noise with pauses of 0.3 s in soft noise, at these times."""
    samples = np.frombuffer(noise(seconds, 3_000), "<i2").copy()
    for at in pauses:
        begin = int(at * RATE_HZ)
        samples[begin : begin + 4_800] = np.frombuffer(noise(0.3, 60, seed=2), "<i2")
    return samples.tobytes()


def everything(pcm: bytes, limits: Limits = LIMITS, *, paced: bool = False) -> list[bytes]:
    """Return the utterances that a recording is cut into."""

    async def take() -> list[bytes]:
        source, said = Incoming(pcm, ended=True), []
        place = 0
        while await source.reaches(place):
            stretch = Stretch(source, place)
            stretch.begin(limits, paced=paced)
            said.append(b"")
            while chunk := await stretch.chunk(len(said[-1]), 65_536):
                said[-1] += chunk
            place += len(said[-1])
            source.forget(place)
        return said

    return asyncio.run(take())


@pytest.mark.parametrize("at", [0.0, 2.0, 5.5, 9.6])
def test_the_cut_lies_in_the_pause(at: float):
    """In the middle of its quietest 200 ms."""
    place = cut(speech([at], 10)) / BYTES_PER_SECOND
    assert place == pytest.approx(at + 0.15, abs=0.051)


def test_of_two_pauses_the_quieter_one_is_taken():
    """Whichever comes first."""
    samples = np.frombuffer(speech([2.0, 7.0], 10), "<i2").copy()
    samples[112_000:116_800] //= 4
    assert 7.0 < cut(samples.tobytes()) / BYTES_PER_SECOND < 7.3


def test_in_silence_the_utterance_is_as_long_as_can_be():
    """Every place is as quiet, so the last one is taken."""
    assert cut(bytes(320_000)) / BYTES_PER_SECOND == pytest.approx(9.9)


@pytest.mark.parametrize("pcm", [noise(10, 3_000), noise(0.1, 3_000), b""])
def test_where_nothing_is_quiet_the_cut_is_at_the_limit(pcm: bytes):
    """Nor where there is hardly anything."""
    assert cut(pcm) == len(pcm)


def test_a_long_recording_loses_no_sample_and_doubles_none():
    """Its utterances joined are it, each fits, and each cut lies in a pause."""
    pauses = [float(second) for second in range(3, 600, 7)]
    recording = speech(pauses, 600)
    said = everything(recording)
    assert b"".join(said) == recording
    assert max(map(len, said)) <= LIMITS.max_audio_bytes
    places = np.cumsum([len(each) for each in said[:-1]]) / BYTES_PER_SECOND
    assert all(min(abs(place - at - 0.15) for at in pauses) < 0.051 for place in places)


def test_what_just_fits_is_one_utterance():
    """And one sample more makes a second one."""
    just = noise(1_572_820 / BYTES_PER_SECOND, 3_000)
    assert [len(each) for each in everything(just)] == [1_572_820]
    assert [len(each) for each in everything(just + b"\1\0")] == [1_572_820, 2]


def test_at_the_pace_of_speech_the_session_is_a_limit_too():
    """An utterance ends 3 s before it."""
    limits = Limits(65_536, 1_572_820, 200, 10.0, 20.0)
    said = everything(noise(40, 3_000), limits, paced=True)
    assert [len(each) // BYTES_PER_SECOND for each in said] == [17, 17, 6]


# Live


def run_live(take):
    return asyncio.run(take(Incoming()))


def test_live_speech_is_sent_as_it_comes():
    """All of it, until the place where a cut may lie, which is held back until it is decided."""

    async def take(source: Incoming) -> tuple[list[int], bytes]:
        stretch, sent, there = Stretch(source, 0), b"", []
        stretch.begin(LIMITS, paced=False)
        for second in range(50):
            source.add(recording[second * BYTES_PER_SECOND : (second + 1) * BYTES_PER_SECOND])
            while len(sent) < stretch.start + 41 * BYTES_PER_SECOND and len(sent) < source.end:
                sent += await stretch.chunk(len(sent), 65_536)
                if len(sent) >= LIMITS.max_audio_bytes - 8 * BYTES_PER_SECOND:
                    break
            there.append(len(sent) // BYTES_PER_SECOND)
        while chunk := await stretch.chunk(len(sent), 65_536):
            sent += chunk
        return there, sent

    recording = speech([45.0], 50)
    there, sent = run_live(take)
    assert there[:41] == list(range(1, 42))
    assert set(there[41:]) == {41}
    assert recording.startswith(sent)
    assert 45.1 <= len(sent) / BYTES_PER_SECOND <= 45.2


def test_live_speech_ends_before_the_gateway_does():
    """Told that it has 5 s left, it goes on for 4 s at most."""

    async def take(source: Incoming) -> int:
        stretch, sent = Stretch(source, 0), 0
        stretch.begin(LIMITS, paced=False)
        source.add(noise(3, 3_000))
        stretch.end_within(5)
        source.add(noise(10, 3_000))
        while chunk := await stretch.chunk(sent, 65_536):
            sent += len(chunk)
        return sent

    assert run_live(take) == 7 * BYTES_PER_SECOND


def test_live_speech_that_stops_is_an_utterance():
    """A gateway that hears nothing any more would discard it."""

    async def take(source: Incoming) -> tuple[int, int | None]:
        stretch, sent = Stretch(source, 0), 0
        stretch.begin(Limits(65_536, 1_572_820, 200, 0.2, 60.0), paced=False)
        source.add(noise(1, 3_000))
        while chunk := await stretch.chunk(sent, 65_536):
            sent += len(chunk)
        return sent, stretch.end

    assert run_live(take) == (BYTES_PER_SECOND, BYTES_PER_SECOND)


def test_another_attempt_says_the_same():
    """Where an utterance ends stays, so that its name stands for the same samples."""

    async def take(source: Incoming) -> list[int | None]:
        stretch, ends = Stretch(source, 0), []
        source.add(noise(20, 3_000))
        for most in (320_000, 640_000, 160_000):
            stretch.begin(Limits(65_536, most, 200, 10.0, 60.0), paced=False)
            await stretch.chunk(0, 65_536)
            await stretch.chunk(150_000, 65_536)
            ends.append(stretch.end)
        return ends

    assert run_live(take) == [320_000, 320_000, 160_000]


def test_who_gives_samples_waits_when_too_many_are_kept(monkeypatch: pytest.MonkeyPatch):
    """Until some are stored; none is dropped."""
    monkeypatch.setattr(incoming, "MAX_KEPT_BYTES", 10)

    async def take(source: Incoming) -> tuple[bool, bool, int]:
        assert await source.put(bytes(10))
        refused = not source.add(bytes(2))
        waiting = asyncio.create_task(source.put(bytes(2)))
        await asyncio.sleep(0)
        waits = not waiting.done()
        source.forget(4)
        assert await waiting
        return refused, waits, source.end

    assert run_live(take) == (True, True, 12)
