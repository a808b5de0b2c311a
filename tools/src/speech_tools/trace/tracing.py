"""What the records of one utterance tell: every hop, and the one that is missing.

Pure: records in, a `Trace` out. Used by `trace.tracer` and by `speech latency`. Headers are enough,
except for the text itself, which the caller decodes. Nobody looks at the audio.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from speech_lib.events import TextRecognizedEvent
from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord

from speech_tools.topics import Topics

HANDSHAKE = "handshake"
FIRST_AUDIO = "first audio"
END_OF_AUDIO = "end of audio"
STORED = "stored"
FETCHED = "fetched"
RECOGNISED = "recognised"
TEXT_STORED = "text stored"
DEAD_LETTER = "dead letter"

HOPS = (HANDSHAKE, FIRST_AUDIO, END_OF_AUDIO, STORED, FETCHED, RECOGNISED, TEXT_STORED)
"""The hops of an utterance that becomes a text, in their order."""

_MAX_DIGITS = 14  # thousands of years


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of the way.

    Attributes:
        name: One of the constants of this module.
        at_ms: When, in milliseconds since the epoch by the clock of whoever did it; for a record
            its timestamp. Nothing where the record does not say.
        place: The record, where the hop left one.
        wait_ms: Since the hop before whose time is known.
    """

    name: str
    at_ms: int | None
    place: Place | None = None
    wait_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """One recognised text. `repeats` counts the further records of the same result."""

    text: str
    language: str
    confidence: float
    repeats: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the utterance could not be processed, as its dead letter says."""

    reason: str
    place: Place


@dataclass(frozen=True, slots=True)
class Recogniser:
    """How far the recogniser's consumer group is.

    Attributes:
        group: Its name.
        next_offsets: Where it goes on in each partition of the utterances. All before have an
            outcome that is stored. Empty where the broker does not tell.
        members: How many recognisers are running. Nothing where the broker does not tell.
    """

    group: str
    next_offsets: Mapping[int, int]
    members: int | None


@dataclass(frozen=True, slots=True)
class Missing:
    """The first hop that did not happen, and what to make of that.

    Attributes:
        hop: One of the constants of this module.
        line: For people.
        before: How many utterances the recogniser has to do first. Nothing where not known.
        members: How many recognisers are running. Nothing where not known.
    """

    hop: str
    line: str
    before: int | None = None
    members: int | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """The way of one utterance.

    Attributes:
        correlation_id: Whose way.
        ended_by: How the utterance ended, where its record is there.
        client_ref: The client's own name for what it said, the same on every attempt.
        hops: In order.
        results: The texts; more than one only where the utterance was put in more than once.
        refusal: Its dead letter.
        missing: Nothing where the text is there.
    """

    correlation_id: str
    ended_by: str | None
    client_ref: str | None
    hops: tuple[Hop, ...]
    results: tuple[Result, ...]
    refusal: Refusal | None
    missing: Missing | None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self)


Decode = Callable[[bytes], TextRecognizedEvent]


def trace(
    correlation_id: str,
    records: Sequence[ReceivedRecord],
    topics: Topics,
    decode: Decode,
    recogniser: Recogniser | None = None,
) -> Trace:
    """Put the records of one utterance in order.

    Args:
        correlation_id: Whose they are.
        records: In any order.
        topics: Which topic means what.
        decode: Returns the event in the value of a text's record; what it raises is passed on.
        recogniser: What the search saw of it, where it asked.
    """
    audio, refused = _first(records, topics.audio), _first(records, topics.dead_letter)
    texts = _by_input([record for record in records if record.topic == topics.text])
    hops = [
        *_heard(audio, refused),
        *([Hop(DEAD_LETTER, _time(refused), _place(refused))] if refused else []),
        *(hop for repeated in texts for hop in _recognised(repeated[0])),
    ]
    refusal = _refusal(refused) if refused else None
    return Trace(
        correlation_id=correlation_id,
        ended_by=audio.headers.get(headers.ENDED_BY) if audio else None,
        client_ref=next(filter(None, map(headers.client_ref_of, records)), None),
        hops=tuple(_with_waits(hops)),
        results=tuple(_result(repeated, decode) for repeated in texts),
        refusal=refusal,
        missing=None if texts else _missing(audio, refusal, topics, recogniser),
    )


def _first(records: Sequence[ReceivedRecord], topic: str) -> ReceivedRecord | None:
    return min(
        (record for record in records if record.topic == topic),
        key=lambda record: record.timestamp_ms,
        default=None,
    )


def _by_input(texts: Sequence[ReceivedRecord]) -> list[list[ReceivedRecord]]:
    """Put the records of the same result together: the recogniser gives at least one of each."""
    results: dict[str | None, list[ReceivedRecord]] = {}
    for record in sorted(texts, key=lambda record: record.timestamp_ms):
        results.setdefault(record.headers.get(headers.INPUT_EVENT_ID), []).append(record)
    return list(results.values())


def _heard(audio: ReceivedRecord | None, refused: ReceivedRecord | None) -> list[Hop]:
    """Return what the gateway did. A dead letter still carries the headers of its utterance."""
    record = audio or refused
    told = record.headers if record else {}
    return [
        Hop(HANDSHAKE, told_number(told, headers.HANDSHAKE_MS)),
        Hop(FIRST_AUDIO, told_number(told, headers.FIRST_AUDIO_MS)),
        Hop(END_OF_AUDIO, told_number(told, headers.ENDED_MS)),
        Hop(STORED, _time(audio), _place(audio)) if audio else Hop(STORED, None),
    ]


def _recognised(text: ReceivedRecord) -> list[Hop]:
    return [
        Hop(FETCHED, told_number(text.headers, headers.FETCHED_MS)),
        Hop(RECOGNISED, told_number(text.headers, headers.RECOGNISED_MS)),
        Hop(TEXT_STORED, _time(text), _place(text)),
    ]


def _with_waits(hops: Sequence[Hop]) -> Iterator[Hop]:
    before: int | None = None
    for hop in hops:
        if hop.at_ms is None:
            yield hop
            continue
        yield hop if before is None else replace(hop, wait_ms=hop.at_ms - before)
        before = hop.at_ms


def _result(repeated: Sequence[ReceivedRecord], decode: Decode) -> Result:
    heard = decode(repeated[0].value).payload
    return Result(heard.text, heard.language, heard.confidence, len(repeated) - 1)


def _refusal(record: ReceivedRecord) -> Refusal:
    return Refusal(record.headers.get(headers.DLQ_REASON, "not told"), _place(record))


def _missing(
    audio: ReceivedRecord | None,
    refusal: Refusal | None,
    topics: Topics,
    recogniser: Recogniser | None,
) -> Missing:
    if refusal:
        return Missing(RECOGNISED, f"not recognised: it is a dead letter ({refusal.reason})")
    if audio and recogniser and audio.partition in recogniser.next_offsets:
        return _waiting(audio.offset, recogniser, recogniser.next_offsets[audio.partition])
    if audio:
        return Missing(FETCHED, "stored but not fetched: is the ASR service running?")
    return Missing(
        STORED,
        f"not stored: nothing on {topics.audio} has this id; still being spoken, refused, "
        "or older than the topic's retention?",
    )


def _waiting(offset: int, recogniser: Recogniser, next_offset: int) -> Missing:
    """Tell an utterance that waits from one that is being recognised, and from one that is lost."""
    group, members, before = recogniser.group, recogniser.members, offset - next_offset
    if before < 0:
        line = (
            f"no text: group {group} is past it, yet it has neither text nor dead letter; "
            "was the group's offset set by hand, or the text deleted?"
        )
        return Missing(TEXT_STORED, line, None, members)
    queue = f"{_utterances(before)} before it on its partition"
    if members == 0:
        line = f"stored but not fetched: no ASR service is running in group {group}; {queue}"
        return Missing(FETCHED, line, before, members)
    if members is None:
        line = f"stored but not fetched: {queue}; is the ASR service running?"
        return Missing(FETCHED, line, before, members)
    if before:
        line = f"stored but not fetched: {queue}; ASR services running: {members}"
        return Missing(FETCHED, line, before, members)
    line = "not recognised yet: it is the next of its partition; the ASR service is at it"
    return Missing(RECOGNISED, line, before, members)


def _utterances(count: int) -> str:
    match count:
        case 0:
            return "no utterance is"
        case 1:
            return "1 utterance is"
        case _:
            return f"{count} utterances are"


def _place(record: ReceivedRecord) -> Place:
    return Place(record.topic, record.partition, record.offset)


def _time(record: ReceivedRecord) -> int | None:
    return record.timestamp_ms if 0 <= record.timestamp_ms < 10**_MAX_DIGITS else None


def told_number(told: Mapping[str, str], name: str) -> int | None:
    """Return a number that a header tells, or nothing where it tells something else."""
    text = told.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None
