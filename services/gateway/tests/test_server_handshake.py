"""Who is let in, and what the others are told, over real sockets."""

import asyncio
import json
import re
import ssl
import uuid
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import ip_network

import pytest
from speech_gateway.handshake import Refusal
from speech_gateway.testing import CONFIG, LIMITS, hear, raw_client, request, run_server, until
from structlog.testing import capture_logs
from websockets.asyncio.client import connect

pytestmark = pytest.mark.anyio

DONE = '{"event":"done"}'
PCM = bytes(640)
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
PICKY = replace(
    CONFIG,
    origin_allowlist=frozenset({"https://app.example"}),
    handshake_timeout=0.5,
)
HALF = request()[:40]
HTML = frozenset({"Upgrade", "Connection"})
BAD_LANGUAGE = "/ws/audio?language=not_a_tag"
EVIL = ("Origin", "https://evil.example")
GOOD = ("Origin", "https://app.example")


async def answer(server, head):
    """Send a request; return the status, the headers and the body of the answer."""
    async with raw_client(server.port, head, upgrade=False) as client:
        top, _, body = (await client.read_rest()).partition(b"\r\n\r\n")
    status, *lines = top.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    del headers["Date"]
    return status, headers, body


def refused(refusal, **headers):
    """Return what `answer` should return."""
    rule, body = refusal.value, refusal.value.body()
    return (
        f"HTTP/1.1 {rule.status.value} {rule.status.phrase}",
        {
            "Connection": "close",
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            **headers,
        },
        body,
    )


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        # Everything is wrong, then one thing less in each row.
        (
            request("/nowhere?language=not_a_tag", method="PUT", headers=[EVIL], without=HTML),
            refused(Refusal.NOT_FOUND),
        ),
        (
            request(BAD_LANGUAGE, method="PUT", headers=[EVIL], without=HTML),
            refused(Refusal.METHOD_NOT_ALLOWED, Allow="GET"),
        ),
        (
            request(BAD_LANGUAGE, headers=[EVIL], without=HTML),
            refused(
                Refusal.UPGRADE_REQUIRED, Upgrade="websocket", **{"Sec-WebSocket-Version": "13"}
            ),
        ),
        (request(BAD_LANGUAGE, headers=[EVIL]), refused(Refusal.INVALID_LANGUAGE)),
        (request(headers=[EVIL]), refused(Refusal.ORIGIN_NOT_ALLOWED)),
        (request(headers=[GOOD]), refused(Refusal.DRAINING, **{"Retry-After": "1"})),
    ],
)
async def test_the_first_thing_that_is_wrong_is_told(head, expected):
    """A request that is wrong in several ways gets the earliest refusal, as JSON, and no slot."""
    async with (
        run_server(PICKY, max_connections=1) as server,
        raw_client(server.port, request(headers=[GOOD])),
    ):
        server.drain(60)
        server.ready.on = False
        assert await answer(server, head) == expected
        assert server.live == 1


async def test_refusals_of_a_full_gateway_come_in_their_order():
    """Not ready goes before full, full before too many from one address."""
    async with run_server(max_connections=2, max_per_address=1) as server:
        assert await kinds_of_refusal(server) == [
            refused(Refusal.NOT_READY, **{"Retry-After": "1"}),
            refused(Refusal.TOO_MANY_FROM_ADDRESS, **{"Retry-After": "1"}),
        ]
    async with run_server(max_connections=1, max_per_address=1) as server:
        assert await kinds_of_refusal(server) == [
            refused(Refusal.NOT_READY, **{"Retry-After": "1"}),
            refused(Refusal.AT_CAPACITY, **{"Retry-After": "1"}),
        ]


async def kinds_of_refusal(server):
    """Return what a second client is told while the gateway is not ready, and after."""
    async with raw_client(server.port):
        server.ready.on = False
        first = await answer(server, request())
        server.ready.on = True
        return [first, await answer(server, request())]


async def test_head_is_refused_without_a_body():
    """HEAD gets the headers of the refusal alone."""
    async with run_server() as server:
        status, headers, body = await answer(server, request(method="HEAD"))
        expected = refused(Refusal.METHOD_NOT_ALLOWED, Allow="GET")
        assert (status, headers, body) == (*expected[:2], b"")


async def test_refusals_are_counted_by_code():
    """Each refusal is a metric with its code as label."""
    async with run_server() as server:
        await answer(server, request("/nowhere"))
        await answer(server, request("/nowhere"))
        registry = server.gateway.metrics.registry
        labels = {"code": "not_found"}
        assert registry.get_sample_value("speech_gateway_refusals_total", labels) == 2


async def test_clients_behind_a_trusted_proxy_are_counted_apart():
    """The limit by address counts the client that a trusted proxy names."""
    config = replace(CONFIG, trusted_proxies=(ip_network("127.0.0.0/8"),))

    def from_address(address):
        return request(headers=[("X-Forwarded-For", address)])

    async with (
        run_server(config, max_per_address=1) as server,
        raw_client(server.port, from_address("192.0.2.1")),
    ):
        full = refused(Refusal.TOO_MANY_FROM_ADDRESS, **{"Retry-After": "1"})
        assert await answer(server, from_address("192.0.2.1")) == full
        async with raw_client(server.port, from_address("192.0.2.2")):
            assert server.live == 2


async def test_a_tls_client_gets_a_bare_close():
    """A client that speaks TLS to the plain port fails, in the handshake's time."""
    config = replace(CONFIG, handshake_timeout=0.3)
    async with run_server(config) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(
                "127.0.0.1",
                server.port,
                ssl=ssl.create_default_context(),
                server_hostname="gateway",
            )
        assert server.live == 0
        await until(lambda: len(server.gateway._handshakes) == 0)


async def test_the_switch_is_bare():
    """A 101 names neither server nor extensions, although compression is offered."""
    offered = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
    async with (
        run_server() as server,
        raw_client(server.port, request(headers=[offered]), upgrade=False) as client,
    ):
        lines = (await client.read_head()).split("\r\n")
        assert sorted(line.partition(":")[0] for line in lines if line) == [
            "Connection",
            "Date",
            "HTTP/1.1 101 Switching Protocols",
            "Sec-WebSocket-Accept",
            "Upgrade",
        ]


@pytest.mark.parametrize(
    ("offered", "picked"),
    [
        (None, None),
        (["speech-ingress.v1"], "speech-ingress.v1"),
        (["speech-ingress.v2", "speech-ingress.v1"], "speech-ingress.v1"),
        (["chat"], None),
    ],
)
async def test_our_subprotocol_is_picked_where_it_is_offered(offered, picked):
    """A client that offers none, or only others, is welcome too."""
    async with run_server() as server, connect(server.url, subprotocols=offered) as client:
        assert client.subprotocol == picked
        assert json.loads(await client.recv())["protocol"] == "speech-ingress.v1"


async def published_context(server, query="", **headers):
    """Publish one utterance; return its context."""
    async with connect(server.url + query, additional_headers=headers) as client:
        await client.send(PCM)
        await client.send(DONE)
        heard = await hear(client)
    context = server.store.published[-1].context
    assert {message["correlation_id"] for message in heard.messages} == {context.correlation_id}
    return context


async def test_an_utterance_says_which_of_them_have_one_address_and_no_log_does():
    """A name that only this process can make; a /64 of IPv6 is one address."""
    config = replace(CONFIG, trusted_proxies=(ip_network("127.0.0.0/8"),))
    with capture_logs() as lines:
        async with run_server(config) as server:
            one, same, other = [
                (await published_context(server, **{"X-Forwarded-For": address})).source
                for address in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1")
            ]
    assert one == same != other
    assert len(lines) >= 3
    assert one not in repr(lines)


async def test_a_trace_is_continued():
    """A valid `traceparent` gives the trace id and the flags; the span is our own."""
    async with run_server() as server:
        trace = (await published_context(server, traceparent=TRACEPARENT)).trace
        assert (trace.trace_id, trace.flags) == (TRACE, 1)
        assert trace.span_id != "b7ad6b7169203331"


@pytest.mark.parametrize("traceparent", ["", "nonsense", f"00-{'0' * 32}-b7ad6b7169203331-01"])
async def test_a_trace_is_begun_where_there_is_none(traceparent):
    """A `traceparent` that is not valid is as good as none: a new trace begins."""
    async with run_server() as server:
        trace = (await published_context(server, traceparent=traceparent)).trace
        assert re.fullmatch("[0-9a-f]{32}", trace.trace_id)
        assert trace.trace_id != TRACE


async def test_a_doubled_trace_is_none():
    """Of two `traceparent` headers neither is believed."""
    doubled = request(headers=[("traceparent", TRACEPARENT)] * 2)
    async with run_server() as server:
        async with raw_client(server.port, doubled) as client:
            client.send(b"\x82\x82\x00\x00\x00\x00ab")  # two bytes of audio, masked by zeros
            client.end_sending()
            await server.store.until_given()
        assert server.store.published[0].context.trace.trace_id != TRACE


@pytest.mark.parametrize(
    ("query", "hint"),
    [("", None), ("?language=en-US", "en-US"), ("?x=1&language=de", "de"), ("?lang=fr", None)],
)
async def test_the_language_becomes_the_hint(query, hint):
    """`language` is handed on as it was given."""
    async with run_server() as server:
        assert (await published_context(server, query)).language_hint == hint


async def test_a_correlation_id_of_the_clients_own_is_ignored():
    """In a header, the query or the JSON: the server's own UUID4 stands everywhere."""
    mine = "11111111-1111-4111-8111-111111111111"
    async with run_server() as server:
        url = f"{server.url}?correlation_id={mine}"
        names = ("X-Correlation-ID", "correlation_id", "X-Request-ID")
        async with connect(url, additional_headers=dict.fromkeys(names, mine)) as client:
            await client.send(PCM)
            await client.send(json.dumps({"event": "done", "correlation_id": mine}))
            heard = await hear(client)
        context = server.store.published[0].context
        assert mine not in json.dumps(heard.messages)
        assert {m["correlation_id"] for m in heard.messages} == {context.correlation_id}
        assert uuid.UUID(context.correlation_id).version == 4


def half(server, number):
    """Return a client of the address with that number, which sends half a request."""
    return raw_client(server.port, HALF, upgrade=False, source=f"127.0.1.{number + 1}")


async def test_an_address_opens_no_more_than_its_rate():
    """Its burst is let in, then it is told to wait a second; another address is let in."""
    async with run_server(sessions_per_second=2) as server:
        for _ in range(2):
            async with raw_client(server.port):
                pass
        expected = refused(Refusal.TOO_MANY_FROM_ADDRESS, **{"Retry-After": "1"})
        assert await answer(server, request()) == expected
        async with raw_client(server.port, source="127.0.0.2"):
            pass


async def test_clients_of_one_ipv6_network_behind_a_proxy_are_one():
    """Whoever has one address of a /64 has all of them; the next /64 is another's."""
    config = replace(CONFIG, trusted_proxies=(ip_network("127.0.0.0/8"),))

    def from_address(address):
        return request(headers=[("X-Forwarded-For", address)])

    async with (
        run_server(config, max_per_address=1) as server,
        raw_client(server.port, from_address("2001:db8:0:1::1")),
    ):
        full = refused(Refusal.TOO_MANY_FROM_ADDRESS, **{"Retry-After": "1"})
        assert await answer(server, from_address("2001:db8:0:1:2:3:4:5")) == full
        async with raw_client(server.port, from_address("2001:db8:0:2::1")):
            assert server.live == 2


async def test_a_burst_through_a_trusted_proxy_is_let_in():
    """Its connections are not one address's, as long as their heads are on the way."""
    config = replace(CONFIG, trusted_proxies=(ip_network("127.0.0.0/8"),))
    async with run_server(config, max_connections=50) as server, AsyncExitStack() as opened:
        clients = [
            await opened.enter_async_context(raw_client(server.port, HALF, upgrade=False))
            for _ in range(50)
        ]
        for client in clients:
            client.send(request()[len(HALF) :])
        heads = [await client.read_head() for client in clients]
        assert [head[9:12] for head in heads] == ["101"] * 50


async def test_unfinished_handshakes_are_bounded():
    """Of more than a hundred the oldest are cut, and a whole one still gets in."""
    async with run_server() as server, AsyncExitStack() as opened:
        unfinished = server.gateway._handshakes
        clients = [await opened.enter_async_context(half(server, n)) for n in range(102)]
        await until(lambda: len(unfinished) == 100)
        assert [await client.read_rest() for client in clients[:2]] == [b"", b""]
        async with raw_client(server.port):
            assert server.live == 1
            await until(lambda: len(unfinished) == 100 - 1)
        await opened.aclose()
        await until(lambda: len(unfinished) == 0)


async def test_unfinished_handshakes_are_bounded_by_address():
    """The twenty-first costs its own address the oldest, and not who came before it."""
    async with run_server() as server, AsyncExitStack() as opened:
        unfinished = server.gateway._handshakes
        patient = await opened.enter_async_context(half(server, 1))
        clients = [await opened.enter_async_context(half(server, 2)) for _ in range(21)]
        assert await clients[0].read_rest() == b""
        await until(lambda: len(unfinished) == 21)
        patient.send(request()[len(HALF) :])
        assert (await patient.read_head()).startswith("HTTP/1.1 101 ")
        await opened.aclose()
        await until(lambda: len(unfinished) == 0)


async def test_the_greeting_tells_the_limits():
    """What a client may do is what the gateway was told."""
    limits = replace(LIMITS, max_messages_per_second=50, max_chunk_bytes=8192)
    async with run_server(replace(CONFIG, limits=limits)) as server:
        async with connect(server.url) as client:
            greeting = json.loads(await client.recv())
        assert greeting["limits"] == {
            "max_chunk_bytes": 8192,
            "max_audio_bytes": 1_572_820,
            "max_messages_per_second": 50,
            "idle_timeout_seconds": 10.0,
            "max_session_seconds": 60.0,
        }
