"""Clients who speak: what is noted of each utterance, and when there is no hope for any."""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from speech_tools.protocol import audio, client
from speech_tools.speakers import Kind, Speakers, Tape, say
from support.ports import free_ports
from support.scripted_gateway import CORRELATION_ID, Script, Visit, scripted

pytestmark = pytest.mark.anyio

SAMPLES = Path(__file__).parents[2] / "samples"
PCM = bytes(range(256)) * 25
"""A fifth of a second."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def nobody() -> str:
    """Return a URL at which nobody listens."""
    (port,) = free_ports(["port"]).values()
    return f"ws://127.0.0.1:{port}/ws/audio"


# What is spoken


def recordings() -> Iterator[str]:
    return (file.name for file in SAMPLES.iterdir() if file.suffix in {".raw", ".wav"})


def test_every_utterance_is_another_stretch_of_the_tape():
    """All have the length asked for, in whole samples, and no two are the same."""
    pcm = b"".join(audio.load(SAMPLES / name).pcm for name in sorted(recordings()))
    tape = Tape.of(SAMPLES)
    cuts = [tape.cut(number, 0.5) for number in range(1000)]
    assert {len(cut) for cut in cuts} == {16_000}
    assert len(set(cuts)) == 1000
    assert cuts[0] == pcm[:16_000]
    assert cuts[1] == pcm[2 * 7919 :][:16_000]
    assert tape.cut(0, 2.5 * len(pcm) / 32_000) == (pcm * 3)[: len(pcm) * 5 // 4 * 2]


def test_a_folder_without_recordings_is_no_tape(tmp_path):
    """There is nothing to speak."""
    with pytest.raises(audio.AudioError, match="holds no recording"):
        Tape.of(tmp_path)


# What comes of an utterance


def hears(end: Script, chunks: int | None = None) -> Script:
    """Return a script that greets, takes audio, and ends in its own way."""

    def script(visit: Visit) -> None:
        visit.greet()
        visit.hear(chunks)
        end(visit)

    return script


ENDS: dict[str, tuple[Script, Kind, str]] = {
    "accepted": (hears(Visit.accept), Kind.ACCEPTED, ""),
    "other samples": (
        hears(lambda visit: visit.accept(sha256="0" * 64)),
        Kind.FAILED,
        "receipt_mismatch",
    ),
    "cut short": (hears(Visit.accept, chunks=1), Kind.FAILED, "cut_short"),
    "error": (
        hears(lambda visit: visit.fail("internal_error", 1011, retryable=False, stored="no")),
        Kind.FAILED,
        "internal_error",
    ),
    "no answer": (hears(lambda visit: visit.connection.close(1011)), Kind.FAILED, "no_answer"),
    "no gateway": (lambda visit: visit.connection.send("hello"), Kind.FAILED, "not_a_gateway"),
}


@pytest.mark.parametrize(("script", "kind", "code"), ENDS.values(), ids=ENDS)
async def test_it_is_accepted_if_the_receipt_is_about_the_very_samples(script, kind, code):
    """A receipt for other samples, or for some of them, is a failure with its own code."""
    with scripted(script) as (url, _):
        spoken = await say(url, PCM, paced=True)
    assert (spoken.kind, spoken.code) == (kind, code)
    assert (spoken.outcome is None) == (spoken.error is not None)


async def test_a_refusal_has_the_gateways_code():
    """It is told from what fails later."""

    def refuse(connection, _request):
        return connection.respond(503, '{"code": "at_capacity", "message": "m"}')

    with scripted(lambda _: None, process_request=refuse) as (url, _):
        spoken = await say(url, PCM, paced=False)
    assert (spoken.kind, spoken.code, spoken.greeting) == (Kind.REFUSED, "at_capacity", {})


async def test_each_moment_is_noted_by_the_callers_clock():
    """Connecting, the greeting, the last audio, the answer and the close, in this order."""
    ticks = itertools.count()
    with scripted(hears(Visit.accept)) as (url, _):
        spoken = await say(url, PCM, paced=True, clock=lambda: next(ticks))
    (greeting, greeted), (_, accepted) = spoken.frames
    assert spoken.greeting == greeting
    assert greeting["correlation_id"] == CORRELATION_ID
    assert (spoken.began, greeted, spoken.answered) == (0, 1, accepted)
    assert greeted < spoken.said < accepted < spoken.ended


async def test_the_address_to_speak_from_can_be_chosen():
    """The gateway sees that one."""
    seen = []

    def script(visit: Visit) -> None:
        seen.append(visit.connection.remote_address[0])
        hears(Visit.accept)(visit)

    with scripted(script) as (url, _):
        spoken = await say(url, PCM, paced=False, source="127.0.6.7")
    assert (spoken.kind, seen) == (Kind.ACCEPTED, ["127.0.6.7"])


@pytest.mark.parametrize("live", [False, True])
async def test_who_is_live_does_not_hurry_in_a_drain(*, live: bool):
    """The rest of a recording is sent at once. A microphone has no rest yet."""

    def script(visit: Visit) -> None:
        visit.greet()
        visit.say(status="draining", deadline_ms=20_000)
        visit.hear()
        visit.accept()

    with scripted(script) as (url, visits):
        spoken = await say(url, PCM * 5, paced=True, live=live)
    assert spoken.kind is Kind.ACCEPTED
    assert (len(visits[0].chunks) == 20) == live  # at the pace of speech


# Several clients


async def test_clients_speak_at_once():
    """None waits for another one's end."""
    all_there = asyncio.Barrier(3)
    spoken = []

    async def speak() -> None:
        await all_there.wait()
        spoken.append((await speakers.say(PCM)).kind)

    with scripted(hears(Visit.accept)) as (url, visits):
        speakers = Speakers(url, 3, paced=False)
        await speakers.run(speak)
    assert (spoken, len(visits)) == ([Kind.ACCEPTED] * 3, 3)


async def test_where_all_have_tried_in_vain_it_ends(nobody):
    """As soon as each of three clients has met nobody."""
    speakers = Speakers(nobody, 3)
    assert [(await speakers.say(PCM)).code for _ in range(2)] == ["unreachable"] * 2
    with pytest.raises(client.Unreachable):
        await speakers.say(PCM)


async def test_a_gateway_that_was_met_may_come_again(nobody):
    """Then nobody gives up while it is away."""
    with scripted(hears(Visit.accept)) as (url, _):
        speakers = Speakers(url, 1, paced=False)
        assert (await speakers.say(PCM)).kind is Kind.ACCEPTED
    assert [(await speakers.say(PCM)).code for _ in range(3)] == ["unreachable"] * 3


async def test_what_is_too_long_is_so_for_all():
    """The first who learns it ends the others."""

    def script(visit: Visit) -> None:
        visit.greet(max_audio_bytes=1_000)
        visit.hear()

    async def speak() -> None:
        while True:
            await speakers.say(PCM)

    with scripted(script) as (url, _):
        speakers = Speakers(url, 3)
        with pytest.raises(client.TooLong):
            await speakers.run(speak)
