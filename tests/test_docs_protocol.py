"""The tables and examples of `docs/protocol.md` are those of the gateway."""

import hashlib
import json
import re
from collections.abc import Iterator
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

import pytest
from speech_gateway.errors import Ending, Failure, NoText
from speech_gateway.handshake import Refusal
from speech_gateway.messages import (
    Accepted,
    Connected,
    Draining,
    Failed,
    Limits,
    Recognized,
    ServerMessage,
)
from speech_gateway.utterance import Text
from support.documents import parse

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs" / "protocol.md").read_text()
SAMPLES = (ROOT / "samples" / "go-forward-ten-meters.raw").read_bytes()
IDENTITY = "7d5a1c3e-7a51-4f0a-9f0e-0c6f3d6f1b52"
RULES = [ending.value for ending in (*Ending, *Failure, *NoText)]
MESSAGES: list[ServerMessage] = [
    Connected(IDENTITY, Limits(65536, 1572820, 200, 10, 60), "note-17", 30),
    Draining(IDENTITY, 20000),
    Accepted(
        IDENTITY,
        "0b0f6d2c-5a5e-4bb1-8f0c-5d1f7a1b9e11",
        "speech.audio.ingress",
        0,
        41,
        len(SAMPLES),
        2786,
        hashlib.sha256(SAMPLES).hexdigest(),
        "done",
    ),
    Recognized(
        IDENTITY,
        Text(
            "Go forward ten meters.",
            "en",
            0.8125,
            "5b3a6f0e-2f7e-4c0b-9a55-0d4f3a0f7c21",
            "speech.asr.text",
            0,
            17,
        ),
    ),
    Failed(
        IDENTITY,
        "audio_too_long",
        Ending.AUDIO_TOO_LONG.value.message,
        retryable=False,
        stored="no",
        limit=1572820,
        observed=1576000,
    ),
]
TYPES = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}
NUMBERS = {
    "limits.idle_timeout_seconds",
    "limits.max_session_seconds",
    "results.timeout_seconds",
}
"""May have a fraction, which the values above do not show."""


def rows(place: str) -> list[list[str]]:
    """Return the cells of the first table behind a place in the document, which is there once."""
    (_, behind) = DOCUMENT.split(place)
    lines = dropwhile(lambda line: not line.startswith("| "), behind.splitlines())
    lines = list(takewhile(lambda line: line.startswith("| "), lines))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def endings() -> list[list[str]]:
    return rows("\n## How an utterance ends\n")


def flat(message: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each field with its value, `a.b` for one inside another."""
    for name, value in message.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def type_of(field: str, value: object) -> str:
    return next(
        name
        for name, types in TYPES.items()
        if type(value) in types and (name != "integer" or field not in NUMBERS)
    )


def test_refusals_are_those_of_the_gateway_in_its_order():
    """The table of refusals names every status and code in the order of the checks."""
    documented = [(int(row[0]), row[1].strip("`")) for row in rows("\n## Refusals\n")]
    assert documented == [(refusal.value.status, refusal.value.code) for refusal in Refusal]


def test_endings_are_those_of_the_gateway_with_their_close_codes():
    """The table of endings names every code of the gateway, and its close code."""
    documented = {
        row[0].strip("`"): set(map(int, re.findall(r"\b1\d{3}\b", row[4]))) for row in endings()
    }
    assert documented.keys() == {rule.code for rule in RULES}
    seen_by_client = [rule for rule in RULES if rule.code != "disconnect"]
    assert [
        rule.code for rule in seen_by_client if rule.close_code not in documented[rule.code]
    ] == []


def test_endings_with_an_error_say_whether_it_is_retryable():
    """The last column says what the field of the `error` says, and nothing where there is none."""
    retryable = {rule.code: rule.retryable for rule in RULES}
    expected = {
        row[0]: ("yes" if retryable[row[0].strip("`")] else "no") if "`error`" in row[3] else ""
        for row in endings()
    }
    assert {row[0]: row[5] for row in endings()} == expected


def test_examples_are_messages_of_the_gateway():
    """Each JSON example is what the gateway sends for these values, key for key."""
    blocks = [block.text for block in parse(DOCUMENT).blocks if block.language == "json"]
    assert list(map(json.loads, blocks)) == [json.loads(each.to_json()) for each in MESSAGES]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.status)
def test_fields_are_those_of_the_message_with_their_types(message: ServerMessage):
    """The table of a message names each of its fields in their order, and its type in JSON."""
    documented = [(row[0].strip("`"), row[1]) for row in rows(f"\n**`{message.status}`**")]
    sent = flat(json.loads(message.to_json()))
    assert documented == [(field, type_of(field, value)) for field, value in sent]
