"""The JSON of `speech-ingress.v1`, both ways."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_gateway.errors import InvalidMessage
from speech_gateway.messages import (
    Accepted,
    Connected,
    Draining,
    Failed,
    Limits,
    ServerMessage,
    check_client_message,
)

ID = "7d5a1c3e-7a51-4f0a-9f0e-0c6f3d6f1b52"

SERVER_MESSAGES = [
    (
        Connected(ID, Limits(65_536, 1_572_820, 200, 10.0, 60.0)),
        (
            '{"status":"connected","correlation_id":"7d5a1c3e-7a51-4f0a-9f0e-0c6f3d6f1b52",'
            '"protocol":"speech-ingress.v1",'
            '"audio":{"encoding":"pcm_s16le","sample_rate_hz":16000,"channels":1,'
            '"recommended_chunk_bytes":3200},'
            '"limits":{"max_chunk_bytes":65536,"max_audio_bytes":1572820,'
            '"max_messages_per_second":200,"idle_timeout_seconds":10.0,"max_session_seconds":60.0}}'
        ),
    ),
    (
        Draining(ID, 20_000),
        (
            '{"status":"draining","correlation_id":"7d5a1c3e-7a51-4f0a-9f0e-0c6f3d6f1b52",'
            '"deadline_ms":20000}'
        ),
    ),
    (
        Accepted(ID, "e", "speech.audio.ingress", 0, 41, 89_160, 2786, "ab12", "done"),
        (
            '{"status":"accepted","correlation_id":"7d5a1c3e-7a51-4f0a-9f0e-0c6f3d6f1b52",'
            '"event_id":"e","topic":"speech.audio.ingress","partition":0,"offset":41,'
            '"audio_bytes":89160,"duration_ms":2786,"sha256":"ab12","ended_by":"done"}'
        ),
    ),
    (
        Failed(ID, "broker_unavailable", "too late", retryable=True, stored="unknown"),
        (
            '{"status":"error","correlation_id":"7d5a1c3e-7a51-4f0a-9f0e-0c6f3d6f1b52",'
            '"code":"broker_unavailable","message":"too late","retryable":true,"stored":"unknown"}'
        ),
    ),
    (
        Failed(ID, "audio_too_long", "too long", False, "no", limit=0, observed=1_576_000),
        (
            '{"status":"error","correlation_id":"7d5a1c3e-7a51-4f0a-9f0e-0c6f3d6f1b52",'
            '"code":"audio_too_long","message":"too long","retryable":false,"stored":"no",'
            '"limit":0,"observed":1576000}'
        ),
    ),
]


@pytest.mark.parametrize(("message", "expected"), SERVER_MESSAGES)
def test_a_server_message_is_the_json_that_the_protocol_promises(
    message: ServerMessage, expected: str
) -> None:
    """Every field, its name and its type; limit and observed only where a limit was passed."""
    assert message.to_json() == expected


@pytest.mark.parametrize(
    "text",
    [
        '{"event":"done"}',
        ' {\n\t"event" : "done" }\r\n',
        '{"event":"\\u0064one"}',
        '{"correlation_id":"mine","event":"done","more":[1,{"x":null}]}',
        '{"event":"done","event_id":"ümlaut"}',
        '{"event":"done","pad":"' + "x" * (4096 - 25) + '"}',
        '{"event":"done","x":' + "[" * 100 + "]" * 100 + "}",
    ],
)
def test_done_is_understood_however_it_is_written(text: str) -> None:
    """JSON, not a string to compare: spaces, escapes, order and further keys do not matter."""
    check_client_message(text)


NOT_JSON = "a text message must be JSON"
NOT_AN_OBJECT = "a text message must be a JSON object"
UNKNOWN = 'the only event that a client sends is {"event": "done"}'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", NOT_JSON),
        ("done", NOT_JSON),
        ("{'event': 'done'}", NOT_JSON),
        ('{"event":"done"', NOT_JSON),
        ('{"event":"done"}{"event":"done"}', NOT_JSON),
        ('{"event":"done",}', NOT_JSON),
        ('\ufeff{"event":"done"}', NOT_JSON),
        ('{"event":"done","x":NaN}', NOT_JSON),
        ('{"event":"done","x":-Infinity}', NOT_JSON),
        ("[" * 4096, NOT_JSON),
        ('{"a":' * 800, NOT_JSON),
        ("9" * 4096, NOT_AN_OBJECT),
        ('"done"', NOT_AN_OBJECT),
        ('["event","done"]', NOT_AN_OBJECT),
        ("null", NOT_AN_OBJECT),
        ("true", NOT_AN_OBJECT),
        ("{}", UNKNOWN),
        ('{"event":"DONE"}', UNKNOWN),
        ('{"event":"start"}', UNKNOWN),
        ('{"event":["done"]}', UNKNOWN),
        ('{"event":null}', UNKNOWN),
        ('{"Event":"done"}', UNKNOWN),
    ],
)
def test_any_other_text_is_refused_with_what_was_expected(text: str, problem: str) -> None:
    """No text makes the parser fail in another way, however deep or long."""
    with pytest.raises(InvalidMessage) as caught:
        check_client_message(text)
    assert (str(caught.value), caught.value.limit, caught.value.observed) == (problem, None, None)


@pytest.mark.parametrize(("text", "size"), [("x" * 4097, 4097), ("€" * 1366, 4098)])
def test_a_text_of_more_than_4096_bytes_is_not_even_parsed(text: str, size: int) -> None:
    """Bytes count, not characters; the limit and the size are told."""
    with pytest.raises(InvalidMessage, match="at most 4096 bytes") as caught:
        check_client_message(text)
    assert (caught.value.limit, caught.value.observed) == (4096, size)


values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=8), values, max_size=4))
def test_only_the_event_decides(message: dict) -> None:
    """Any object passes with `done`, none with anything else."""
    if len(json.dumps(message)) > 4000:
        return
    check_client_message(json.dumps({**message, "event": "done"}, ensure_ascii=False))
    with pytest.raises(InvalidMessage):
        check_client_message(json.dumps({**message, "event": message}))
