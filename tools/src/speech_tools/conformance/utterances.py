"""Checks of audio that is stored, of its receipt, and of its text."""

import hashlib
import json
import math
import struct
from collections.abc import Iterator
from functools import cache

from speech_tools.conformance.checks import (
    check,
    expect,
    expect_close,
    expect_only,
    not_testable,
)
from speech_tools.conformance.exchange import ANSWER_SECONDS, Ended, Gateway, NotTestable

DONE = '{"event": "done"}'
MESSAGE_BYTES = 640
"""20 ms of speech, the smallest message that the document recommends."""
TEXT_BYTES = 4_096


@cache
def tone(size: int) -> bytes:
    """Return so many bytes of a quiet tone, in which no recogniser hears a word."""
    samples = (round(500 * math.sin(number / 8)) for number in range(size // 2))
    return struct.pack(f"<{size // 2}h", *samples)


def pieces(pcm: bytes, size: int) -> Iterator[bytes]:
    """Cut audio into messages."""
    return (pcm[at : at + size] for at in range(0, len(pcm), size))


def done_of(size: int) -> str:
    """Return a `done` of so many bytes."""
    empty = json.dumps({"event": "done", "x": ""})
    return json.dumps({"event": "done", "x": "a" * (size - len(empty))})


def expect_accepted(ended: Ended, pcm: bytes, ended_by: str = "done") -> None:
    """Expect one `accepted` and no more, which is about the audio that was sent."""
    expect_only(ended, "accepted")
    (receipt,) = ended.messages
    for name, value in {
        "audio_bytes": len(pcm),
        "duration_ms": round(len(pcm) / 32),
        "sha256": hashlib.sha256(pcm).hexdigest(),
        "ended_by": ended_by,
    }.items():
        expect(receipt[name] == value, f"{name} is {receipt[name]!r}, expected {value!r}")


async def stored(gateway: Gateway, *messages: str | bytes) -> Ended:
    """Say messages, which end the utterance; return what came until the close."""
    async with gateway.open() as exchange:
        await exchange.say(*messages)
        return await exchange.end()


@check("how-an-utterance-ends/done")
async def done(gateway: Gateway) -> None:
    """After `done` there is one `accepted`, and the close 1000 `done`."""
    ended = await stored(gateway, tone(MESSAGE_BYTES), DONE)
    expect_only(ended, "accepted")
    expect_close(ended, 1000, "done")


@check("what-the-gateway-sends/accepted")
async def accepted(gateway: Gateway) -> None:
    """The receipt has the number of bytes, how long they last, and their SHA-256."""
    pcm = tone(10 * MESSAGE_BYTES)
    ended = await stored(gateway, *pieces(pcm, MESSAGE_BYTES), DONE)
    expect_accepted(ended, pcm)


@check("audio/cut-anywhere")
async def cut_anywhere(gateway: Gateway) -> None:
    """Audio that is cut inside of samples is joined bit for bit."""
    pcm = tone(MESSAGE_BYTES)
    ended = await stored(gateway, pcm[:201], pcm[201:333], pcm[333:], DONE)
    expect_accepted(ended, pcm)


@check("what-the-client-sends/done")
async def done_is_json(gateway: Gateway) -> None:
    """Spaces, the order of keys, and keys that are not known do not matter."""
    pcm = tone(MESSAGE_BYTES)
    ended = await stored(gateway, pcm, ' {"by" : ["x", 1],\n "event":"done" } ')
    expect_accepted(ended, pcm)


@check("what-the-client-sends/after-the-end")
async def after_the_end(gateway: Gateway) -> None:
    """What comes after `done` is ignored, and the final message still comes."""
    pcm = tone(MESSAGE_BYTES)
    ended = await stored(gateway, pcm, DONE, pcm, "nonsense", DONE)
    expect_accepted(ended, pcm)
    expect_close(ended, 1000, "done")


@check("what-the-client-sends/pings")
async def pings(gateway: Gateway) -> None:
    """A ping is answered."""
    async with gateway.open() as exchange:
        expect(await exchange.is_ponged(), f"a ping had no pong within {ANSWER_SECONDS:g} s")


@check("limits-and-rates/one-message")
async def one_message(gateway: Gateway) -> None:
    """A message of exactly `max_chunk_bytes` is taken."""
    async with gateway.open() as exchange:
        pcm = tone(exchange.greeting["limits"]["max_chunk_bytes"] // 2 * 2)
        await exchange.say(pcm, DONE)
        ended = await exchange.end()
    expect_accepted(ended, pcm)


@check("limits-and-rates/text-message")
async def text_message(gateway: Gateway) -> None:
    """Text of exactly 4 KiB is read."""
    pcm = tone(MESSAGE_BYTES)
    ended = await stored(gateway, pcm, done_of(TEXT_BYTES))
    expect_accepted(ended, pcm)


@check("limits-and-rates/audio-messages")
async def audio_messages(gateway: Gateway) -> None:
    """Twice as many messages as are read in a second, at once, are read later and never cut."""
    async with gateway.open() as exchange:
        count = 2 * exchange.greeting["limits"]["max_messages_per_second"]
        most = exchange.greeting["limits"]["max_audio_bytes"]
        piece = tone(min(MESSAGE_BYTES, most // count // 2 * 2))
        await exchange.say(*[piece] * count, DONE)
        ended = await exchange.end()
    expect_accepted(ended, piece * count)


@check("limits-and-rates/audio-an-utterance", slow=True)
async def longest_utterance(gateway: Gateway) -> None:
    """An utterance of exactly `max_audio_bytes` is stored."""
    async with gateway.open() as exchange:
        limits = exchange.greeting["limits"]
        pcm = tone(limits["max_audio_bytes"] // 2 * 2)
        await exchange.say(*pieces(pcm, limits["max_chunk_bytes"]), DONE)
        ended = await exchange.end(limits["max_session_seconds"] + ANSWER_SECONDS)
    expect_accepted(ended, pcm)


@check("the-text/unasked")
async def unasked(gateway: Gateway) -> None:
    """Who has not asked for the text gets the close after the receipt, and no text."""
    ended = await stored(gateway, tone(MESSAGE_BYTES), DONE)
    expect_only(ended, "accepted")


async def _text(gateway: Gateway) -> tuple[Ended, float]:
    if (await gateway.ask(f"{gateway.path}?results=text")).told == (400, "results_not_offered"):
        raise NotTestable("this deployment sends no texts (RESULTS=off)")
    async with gateway.open("results=text") as exchange:
        seconds = exchange.greeting.get("results", {}).get("timeout_seconds", 0.0)
        await exchange.say(tone(50 * MESSAGE_BYTES), DONE)
        return await exchange.end(seconds + ANSWER_SECONDS), seconds


@check("what-the-gateway-sends/recognized")
async def recognized(gateway: Gateway) -> None:
    """With `results=text`, the greeting says how long it is waited for, and it follows."""
    ended, seconds = await _text(gateway)
    expect(seconds > 0, "the greeting has no results.timeout_seconds")
    expect(ended.statuses[:1] == ["accepted"], f"got {ended.statuses}, expected accepted first")
    expect(len(ended.messages) == 2, f"got {ended.statuses}")  # noqa: PLR2004
    if ended.messages[1]["status"] == "error":
        code = ended.messages[1]["code"]
        raise NotTestable(f"it has no text of a tone ({code}): does a recogniser run?")
    expect_close(ended, 1000, "done")


_OPERATOR = "only the operator can stop a gateway"
_BROKER = "only a broker that fails shows it"
_TOPIC = "what is stored of a client that has left shows on the topic alone"
_RECOGNISER = "only a recogniser that fails shows it"
for _name, _says, _why in (
    ("how-an-utterance-ends/disconnect", "What a client has sent that leaves is stored.", _TOPIC),
    (
        "how-an-utterance-ends/shutting_down",
        "A drain's deadline stores what was sent.",
        _OPERATOR,
    ),
    ("how-an-utterance-ends/broker_unavailable", "It says whether it is stored.", _BROKER),
    ("how-an-utterance-ends/rejected_by_broker", "It says that it is not stored.", _BROKER),
    (
        "how-an-utterance-ends/internal_error",
        "It says so without details.",
        "only a defect of the gateway shows it",
    ),
    ("how-an-utterance-ends/not_recognized", "It says that no text will come.", _RECOGNISER),
    ("how-an-utterance-ends/result_timeout", "It says that the text is late.", _RECOGNISER),
    (
        "what-the-gateway-sends/draining",
        "Who speaks is told of a stop.",
        _OPERATOR,
    ),
):
    not_testable(_name, _says, _why)
