"""What is told of a session after its end: its line, its span, only the network of its client."""

import pytest
from speech_gateway.errors import Failure, NotStored
from speech_gateway.session_report import LineBudget, cut, write_line_within, write_refusal_within
from speech_gateway.testing import hear, run_server, until
from speech_lib.testing.spans import KeptSpans
from structlog.testing import capture_logs
from websockets.asyncio.client import connect

CLIENTS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def spans_of(failure, *messages, **headers):
    """Lead one session, and return the spans that were recorded."""
    async with run_server() as server:
        sink = server.gateway.spans = KeptSpans()
        server.store.failure = failure
        async with connect(server.url, additional_headers=headers) as client:
            for message in messages:
                await client.send(message)
            await hear(client)
        await until(lambda: server.live == 0)
        return sink.spans


@pytest.mark.anyio
async def test_a_session_is_a_span_in_the_clients_trace():
    """From its handshake to its end, with what became of it."""
    (span,) = await spans_of(None, bytes(640), '{"event":"done"}', traceparent=CLIENTS)
    assert (span.name, span.parent.header(), span.error) == ("GET /ws/audio", CLIENTS, None)
    assert (span.attributes["speech.outcome"], span.attributes["speech.audio.bytes"]) == (
        "accepted",
        640,
    )
    assert span.start_ns < span.end_ns


@pytest.mark.anyio
async def test_a_session_without_the_clients_trace_begins_one():
    """The header may be missing, or no trace context at all."""
    for headers in ({}, {"traceparent": "nonsense"}):
        (span,) = await spans_of(None, bytes(640), '{"event":"done"}', **headers)
        assert span.parent is None


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("messages", "error"),
    [((bytes(640), '{"event":"done"}'), "broker_unavailable"), (("{}",), None)],
    ids=["ours", "the client's"],
)
async def test_only_what_the_gateway_failed_at_is_an_error(messages, error):
    """A client that breaks the rules is told so, and is none of the server's errors."""
    failure = NotStored(Failure.BROKER_UNAVAILABLE, "unknown")
    (span,) = await spans_of(failure, *messages)
    assert span.error == error


def test_ten_lines_at_once_then_ten_a_second_and_the_rest_are_counted():
    """The first line after some were left out tells how many, and no other does."""
    budget = LineBudget(100.0)
    assert [budget.take(100.0) for _ in range(13)] == [0] * 10 + [None] * 3
    assert [budget.take(at) for at in (100.05, 100.1, 100.15, 100.2)] == [None, 4, None, 1]
    assert [budget.take(200.0) for _ in range(11)] == [0] * 10 + [None]


def test_refusals_do_not_fill_the_log():
    """Any of them may be left out."""
    budget = LineBudget(0.0, per_second=2)
    with capture_logs() as logs:
        for now in (0.0, 0.0, 0.0, 0.5):
            write_refusal_within(budget, now, "origin")
    refused = {"event": "refused", "log_level": "info", "code": "origin"}
    assert logs == [refused, refused, {**refused, "omitted": 1}]


async def ended(server, *messages):
    """Lead one session to its end, and return the driver."""
    async with connect(server.url) as client:
        await until(lambda: server.gateway._drivers)
        (driver,) = server.gateway._drivers
        for message in messages:
            await client.send(message)
        await hear(client)
    await until(lambda: server.live == 0)
    return driver


@pytest.mark.anyio
async def test_sessions_do_not_fill_the_log():
    """Lines are bounded; those of sessions with audio on the topic have a larger budget apart."""
    async with run_server() as server:
        without = await ended(server, '{"event":"done"}')
        stored = await ended(server, bytes(640), '{"event":"done"}')
    budget = LineBudget(0.0)
    with capture_logs() as logs:
        for driver in (*[without] * 12, *[stored] * 1_002, without):
            write_line_within(budget, 0.0, driver, "192.0.2.77")
        for driver in (stored, stored, stored, without):
            write_line_within(budget, 0.1, driver, "192.0.2.77")
    assert [(line["outcome"], line.get("omitted")) for line in logs] == [
        *[("empty_audio", None)] * 10,
        ("accepted", 2),
        *[("accepted", None)] * 999,
        ("accepted", 3),
        ("accepted", None),
        ("empty_audio", 1),
    ]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1234:5678::9", "2001:db8:1234::/48"),
        ("2001:db8:1234:5678::/64", "2001:db8:1234::/48"),
        ("::1", "::/48"),
        ("", "unknown"),
        ("not an address", "unknown"),
    ],
)
def test_a_clients_address_is_cut_to_its_network(address, network):
    """Enough to see where a storm comes from, too little to name a person."""
    assert cut(address) == network
