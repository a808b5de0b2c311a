"""Checks of how utterances end that break a rule, or that nobody ends."""

import asyncio

from speech_tools.conformance.checks import check, expect, expect_close, expect_only
from speech_tools.conformance.exchange import ANSWER_SECONDS, Ended, Gateway, NotTestable
from speech_tools.conformance.utterances import (
    DONE,
    MESSAGE_BYTES,
    TEXT_BYTES,
    done_of,
    expect_accepted,
    pieces,
    stored,
    tone,
)

_CONTAINERS = (
    b"RIFF\x24\x08\x00\x00WAVEfmt ",
    b"OggS\0\2",
    b"fLaC\0\0\0\x22",
    b"\x1a\x45\xdf\xa3\x9f\x42",
    b"ID3\4\0",
)
"""How WAV, Ogg, FLAC, WebM and MP3 begin."""
_UNMASKED = bytes(4)
"""The masking key of these frames; it changes nothing."""
_FLOOD = 50
"""A few more than are taken in a burst. What is unread when the gateway cuts could take its last
message with it, on the way through a proxy."""


def expect_error(ended: Ended, code: str, close: int, *, retryable: bool = False) -> None:
    """Expect one `error` of which nothing is stored, and its close."""
    expect_only(ended, "error")
    (error,) = ended.messages
    told = error["code"], error["retryable"], error["stored"]
    expected = code, retryable, "no"
    expect(told == expected, f"the error says {told}, expected {expected}")
    expect_close(ended, close, code)


def expect_passed_limit(ended: Ended, limit: int, observed: int) -> None:
    """Expect an error that names the limit, and what passed it."""
    told = [ended.messages[0].get(name) for name in ("limit", "observed")]
    expect(told == [limit, observed], f"limit and observed are {told}, not {[limit, observed]}")


@check("how-an-utterance-ends/invalid_message")
async def invalid_message(gateway: Gateway) -> None:
    """Text that is no JSON object with a known `event` ends it with 1003."""
    deep = "[" * 500 + "]" * 500
    for text in ("done", '"done"', "[]", "{}", '{"event": "stop"}', f'{{"event": {deep}}}'):
        ended = await stored(gateway, tone(MESSAGE_BYTES), text)
        expect_error(ended, "invalid_message", 1003)


@check("what-the-gateway-sends/error")
async def error(gateway: Gateway) -> None:
    """An error names the limit that was passed: text of one byte more than 4 KiB."""
    ended = await stored(gateway, tone(MESSAGE_BYTES), done_of(TEXT_BYTES + 1))
    expect_error(ended, "invalid_message", 1003)
    expect_passed_limit(ended, TEXT_BYTES, TEXT_BYTES + 1)


@check("how-an-utterance-ends/unsupported_audio")
async def unsupported_audio(gateway: Gateway) -> None:
    """A container, and `done` on half a sample, end it with 1003."""
    for head in _CONTAINERS:
        expect_error(await stored(gateway, head.ljust(32, b"\0"), DONE), "unsupported_audio", 1003)
    half = await stored(gateway, tone(MESSAGE_BYTES)[:-1], DONE)
    expect_error(half, "unsupported_audio", 1003)


@check("how-an-utterance-ends/empty_audio")
async def empty_audio(gateway: Gateway) -> None:
    """`done` without any audio ends it with 1008."""
    expect_error(await stored(gateway, DONE), "empty_audio", 1008)


@check("how-an-utterance-ends/chunk_too_large")
async def chunk_too_large(gateway: Gateway) -> None:
    """A message over `max_chunk_bytes` is closed with 1009, without a final message."""
    async with gateway.open() as exchange:
        size = exchange.greeting["limits"]["max_chunk_bytes"]
        await exchange.say(tone(MESSAGE_BYTES), bytes(size + 1))
        ended = await exchange.end()
    expect_only(ended)
    expect(ended.code == 1009, f"expected the close 1009, got {ended.code}")  # noqa: PLR2004


@check("how-an-utterance-ends/protocol_error")
async def protocol_error(gateway: Gateway) -> None:
    """A reserved bit is closed with 1002, invalid UTF-8 with 1007, without a final message."""
    for frame, code in (
        (b"\xc2\x82" + _UNMASKED + b"\0\0", 1002),
        (b"\x81\x81" + _UNMASKED + b"\xff", 1007),
    ):
        async with gateway.open() as exchange:
            await exchange.say(tone(MESSAGE_BYTES))
            exchange.send_raw(frame)
            ended = await exchange.end()
        expect_only(ended)
        expect(ended.code == code, f"expected the close {code}, got {ended.code}")


@check("how-an-utterance-ends/rate_limited")
async def rate_limited(gateway: Gateway) -> None:
    """Fifty empty messages at once end it with 1008."""
    ended = await stored(gateway, tone(MESSAGE_BYTES), *[b""] * _FLOOD)
    expect_error(ended, "rate_limited", 1008)


@check("how-an-utterance-ends/audio_too_long", slow=True)
async def audio_too_long(gateway: Gateway) -> None:
    """More than `max_audio_bytes` ends it with 1009: discarded, or cut exactly there."""
    async with gateway.open() as exchange:
        limits = exchange.greeting["limits"]
        most, size = limits["max_audio_bytes"], limits["max_chunk_bytes"]
        pcm = tone((most + size) // 2 * 2)
        await exchange.say(*pieces(pcm, size))
        ended = await exchange.end(limits["max_session_seconds"] + ANSWER_SECONDS)
    if ended.statuses == ["accepted"]:
        expect_accepted(ended, pcm[: most // 2 * 2], "audio_too_long")
        expect_close(ended, 1009, "audio_too_long")
        return
    expect_error(ended, "audio_too_long", 1009)
    expect(ended.messages[0].get("limit") == most, f"limit is not {most}")


@check("how-an-utterance-ends/idle_timeout", slow=True)
async def idle_timeout(gateway: Gateway) -> None:
    """Silence on the line stores what was sent; without audio it is an error."""
    spoken, silent = await asyncio.gather(_fall_silent(gateway), _fall_silent(gateway, said=b""))
    expect_accepted(spoken, tone(MESSAGE_BYTES), "idle_timeout")
    expect_close(spoken, 1001, "idle_timeout")
    expect_error(silent, "idle_timeout", 1001, retryable=True)


@check("saying-it-again/idle_timeout", slow=True)
async def discarded_silence(gateway: Gateway) -> None:
    """With `on_disconnect=discard` silence on the line stores nothing."""
    ended = await _fall_silent(gateway, "on_disconnect=discard")
    expect_error(ended, "idle_timeout", 1001, retryable=True)


async def _fall_silent(
    gateway: Gateway, query: str = "", said: bytes = tone(MESSAGE_BYTES)
) -> Ended:
    async with gateway.open(query) as exchange:
        limits = exchange.greeting["limits"]
        idle = limits["idle_timeout_seconds"]
        if idle >= limits["max_session_seconds"]:
            raise NotTestable("here a session ends before it can be idle for long enough")
        if said:
            await exchange.say(said)
        return await exchange.end(idle + ANSWER_SECONDS)


@check("how-an-utterance-ends/session_expired", slow=True)
async def session_expired(gateway: Gateway) -> None:
    """A session that lasts too long is stored, and closed with 1008."""
    async with gateway.open() as exchange:
        limits = exchange.greeting["limits"]
        every = limits["idle_timeout_seconds"] / 3
        speaking = asyncio.create_task(exchange.repeat(tone(MESSAGE_BYTES), every))
        try:
            ended = await exchange.end(limits["max_session_seconds"] + ANSWER_SECONDS)
        finally:
            speaking.cancel()
    count = sum(each.get("audio_bytes", 0) for each in ended.messages) // MESSAGE_BYTES
    expect_accepted(ended, tone(MESSAGE_BYTES) * count, "session_expired")
    expect_close(ended, 1008, "session_expired")
