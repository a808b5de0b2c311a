"""What is fuzzed: each place of the pipeline that reads bytes which somebody else has written.

Used by `tests/security/test_fuzz.py`. A target takes any bytes at all. It lets out no exception
but the ones that the code under test documents, and raises `Defect` where a result is wrong.
"""

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import NoReturn

from speech_asr import wav as reader
from speech_asr.errors import Unprocessable
from speech_gateway import handshake, messages
from speech_gateway import wav as writer
from speech_gateway.actions import Actions, Publish
from speech_gateway.admission import client_address
from speech_gateway.errors import InvalidMessage
from speech_gateway.session import Session
from speech_lib.errors import EventError
from speech_lib.events import (
    AnyEvent,
    AudioInput,
    AudioInputEvent,
    TextRecognized,
    TextRecognizedEvent,
    codec,
)
from speech_lib.events.schemas import schema_text
from speech_lib.telemetry.context import TraceContext

LIMITS = messages.Limits(
    max_chunk_bytes=65_536,
    max_audio_bytes=64,
    max_messages_per_second=100_000,
    idle_timeout_seconds=10,
    max_session_seconds=60,
)
TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
ORIGINS = frozenset({"https://app.example", "null"})
SCHEMA_ID = 7


class Defect(Exception):
    """What came back is wrong."""


@dataclass(frozen=True, slots=True)
class Target:
    """One reader of bytes.

    Attributes:
        what: the reader, in a few words.
        run: takes an input; whatever it raises is a finding.
        seeds: inputs to begin with, good and bad ones.
        longest: the longest input worth trying, in bytes.
    """

    what: str
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    longest: int = 1024


def client_message(data: bytes) -> None:
    """Try the gateway's text message: accepted if it is valid JSON that says done, else refused."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return  # RFC 6455 leaves that to the library, which closes with 1007
    try:
        messages.check_client_message(text)
    except InvalidMessage:
        _hold(not _says_done(text), "a valid message is refused")
    else:
        _hold(_says_done(text), "an invalid message is accepted")


def first_bytes(data: bytes) -> None:
    """Try how an utterance begins: cut into messages, it ends as in one piece."""
    size, pcm = (data or b"\0")[0] % 16 + 1, data[1:]
    _hold(_spoken(pcm, size) == _spoken(pcm, len(data) or 1), "how it is cut changes the end")


def written_wav(data: bytes) -> None:
    """Try the gateway's WAV files: the recogniser reads what was written."""
    pcm = data[: len(data) // writer.SAMPLE_BYTES * writer.SAMPLE_BYTES]
    file = writer.wrap(pcm)
    _hold(len(file) == writer.HEADER_BYTES + len(pcm), "the header has another length")
    _hold(reader.samples_of(AudioInput(file)) == pcm, "other samples are read than written")


def read_wav(data: bytes) -> None:
    """Try the recogniser's WAV reader: whole samples that are in the file, or `Unprocessable`."""
    try:
        samples = reader.samples_of(AudioInput(data))
    except Unprocessable:
        return
    _hold(len(samples) % writer.SAMPLE_BYTES == 0, "half a sample is read")
    _hold(samples in data, "samples are read that are not in the file")


def record_value(data: bytes) -> None:
    """Try a record's value as each event: what is read can be written, and is read again."""
    for kind in (AudioInputEvent, TextRecognizedEvent):
        schema = schema_text(kind.event_type)
        try:
            event = codec.decode(kind, data, schema)
        except EventError:
            continue
        again = codec.decode(kind, codec.encode(event, SCHEMA_ID), schema)
        _hold(again == event, "an event is another one after a round trip")


def writer_schema(data: bytes) -> None:
    """Try a schema from the registry on good records: it fits, or it is refused."""
    for event in EVENTS:
        value = codec.encode(event, SCHEMA_ID)
        try:
            codec.decode(type(event), value, data.decode(errors="replace"))
        except EventError:
            continue


def traceparent(data: bytes) -> None:
    """Try the header `traceparent`: what is taken is passed on as W3C wants it."""
    context = TraceContext.parse(data.decode("latin-1"))
    if context is None:
        return
    _hold(TraceContext.parse(context.header()) == context, "it is not read as written")
    _hold(context.header()[2:35] in data.decode("latin-1"), "the trace is another one")


def forwarded_for(data: bytes) -> None:
    """Try X-Forwarded-For: an address, or what the connection says; ignored of strangers."""
    peer, *values = data.decode("latin-1").split("\n")
    address = client_address(peer, values, TRUSTED)
    known = address == peer or str(ip_network(address)).removesuffix("/32") == address
    _hold(known, "it is no address, or has a zone of the sender's choice")
    alone = client_address(peer, [], TRUSTED)
    _hold(client_address(peer, values, ()) == alone, "a stranger is believed")


def opening_handshake(data: bytes) -> None:
    """Try a request: the hint of an admitted one is a language tag of bounded length."""
    method, target, *lines = (data.decode("latin-1") + "\n").split("\n")
    fields = _Fields([line.partition(": ")[::2] for line in lines])
    verdict = handshake.judge(handshake.Request(method, target, fields), ORIGINS)
    if isinstance(verdict, handshake.Refusal) or verdict.language_hint is None:
        return
    _hold(handshake.is_language_tag(verdict.language_hint), "the hint is no language tag")
    _hold(set(fields.get_all("origin")) <= ORIGINS, "a stranger's page is let in")


class _Fields:
    """Header fields as they came; which names and values can come at all is the library's."""

    def __init__(self, fields: Sequence[tuple[str, str]]) -> None:
        self._fields = fields

    def get_all(self, key: str) -> Sequence[str]:
        """Return all values of a header."""
        return [value for name, value in self._fields if name.lower() == key.lower()]


def _says_done(text: str) -> bool:
    """Say by other means whether this is the one valid message."""
    if len(text.encode()) > messages.MAX_TEXT_BYTES:
        return False
    try:
        pairs = json.loads(text, parse_constant=_refuse, object_pairs_hook=_Object)
    except (ValueError, RecursionError):
        return False
    return isinstance(pairs, _Object) and dict(pairs).get("event") == "done"


class _Object(list[tuple[str, object]]):
    """A JSON object, told apart from an array."""


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _spoken(pcm: bytes, size: int) -> tuple[object, list[Actions]]:
    """Return how an utterance in messages of `size` ends, and what is stored of it."""
    session = Session("id", LIMITS, 0.0, fill_at_limit=True)
    given = [session.receive_audio(pcm[at : at + size], 0.0) for at in range(0, len(pcm), size)]
    given.append(session.receive_text('{"event":"done"}', 0.0))
    return session.ending, [each for each in given if any(isinstance(a, Publish) for a in each)]


def _hold(condition: bool, otherwise: str) -> None:  # noqa: FBT001 - as `assert` reads
    if not condition:
        raise Defect(otherwise)


_AT = datetime(2026, 1, 1, tzinfo=UTC)
_ID = str(uuid.UUID(int=0x0B0F6D2C5A5E4BB18F0C5D1F7A1B9E11))
EVENTS: tuple[AnyEvent, ...] = (
    AudioInputEvent(_ID, _ID, _AT, "gateway", AudioInput(writer.wrap(bytes(8)))),
    TextRecognizedEvent(_ID, _ID, _AT, "asr", TextRecognized("go", "en-US", 0.5)),
)
_SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"
_UPGRADE = b"\nConnection: Upgrade\nUpgrade: websocket\nOrigin: https://app.example"

TARGETS = {
    "message": Target(
        "the gateway's text messages",
        client_message,
        (b'{"event":"done"}', b'{"event":"\\u0064one","x":[1.5e3,null]}', b"[NaN]", b"[[[[", b'"'),
        longest=messages.MAX_TEXT_BYTES + 1,
    ),
    "audio": Target(
        "the first bytes of an utterance, and how it is cut",
        first_bytes,
        (b"\1RIFF\0\0\0\0WAVEfmt ", b"\2OggS", b"\3ID3\3\0", bytes(70)),
    ),
    "wav-writer": Target(
        "WAV files that the gateway writes", written_wav, (b"", b"\1\2\3", bytes(64))
    ),
    "wav-reader": Target(
        "WAV files that the recogniser reads",
        read_wav,
        (writer.wrap(bytes(8)), writer.wrap(bytes(8))[:-3], b"RIFF", b"RIFX\0\0\0\0WAVEfmt "),
    ),
    "avro": Target(
        "values of records",
        record_value,
        (b"\0\0\0\0\7", *(codec.encode(event, SCHEMA_ID) for event in EVENTS)),
    ),
    "schema": Target(
        "schemas from the registry",
        writer_schema,
        (b'"string"', *(schema_text(event.event_type).encode() for event in EVENTS)),
        longest=2048,
    ),
    "traceparent": Target(
        "the header traceparent",
        traceparent,
        (b"00-" + _SPAN + b"-01", b"01-" + _SPAN + b"-01-more", b"ff-" + _SPAN + b"-01"),
        longest=128,
    ),
    "forwarded": Target(
        "the header X-Forwarded-For",
        forwarded_for,
        (b"10.0.0.1\n192.0.2.1, 10.0.0.2", b"::1\n10.1.1.1", b"10.0.0.1\n::ffff:192.0.2.1\n,"),
        longest=256,
    ),
    "handshake": Target(
        "a request before its upgrade",
        opening_handshake,
        (
            b"GET\n/ws/audio?language=en-US" + _UPGRADE,
            b"GET\n/ws/audio?language=%65n&language=" + _UPGRADE,
            b"HEAD\n/\nOrigin: null\nOrigin: null",
        ),
    ),
}
"""By name."""
