"""How the gateway stops, over real sockets: nobody loses what they have said."""

import asyncio
import json
from dataclasses import replace

import pytest
from speech_gateway.errors import Ending
from speech_gateway.server import GatewayServer
from speech_gateway.testing import CONFIG, hear, raw_client, run_server, until
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

pytestmark = pytest.mark.anyio

DONE = '{"event":"done"}'
PCM = bytes(640)


def given(server):
    return [(p.utterance.ended_by, p.pcm) for p in server.store.published]


async def greeted(client):
    return json.loads(await client.recv())["correlation_id"]


async def test_who_speaks_is_told_and_may_end():
    """A client hears `draining` with the time that is left, ends with `done`, and is accepted."""
    async with run_server() as server, connect(server.url) as client:
        cid = await greeted(client)
        await client.send(PCM)
        server.drain(20)
        draining = json.loads(await client.recv())
        left = draining.pop("deadline_ms")
        assert draining == {"status": "draining", "correlation_id": cid}
        assert 19_000 < left <= 20_000
        await client.send(DONE)
        heard = await hear(client)
        assert [message["status"] for message in heard.messages] == ["accepted"]
        assert (heard.code, heard.reason) == (1000, "done")


async def test_at_the_deadline_what_was_sent_is_published():
    """Who still speaks is accepted as far as they came, with 1001; the silent get an error."""
    async with run_server() as server, connect(server.url) as speaker, connect(server.url) as mute:
        await speaker.send(PCM)
        await (await speaker.ping())
        cid = await greeted(mute)
        server.drain(0.1)
        spoken, unspoken = await asyncio.gather(hear(speaker), hear(mute))
        assert [message["status"] for message in spoken.messages[1:]] == ["draining", "accepted"]
        assert (spoken.code, spoken.reason) == (1001, "shutting_down")
        assert given(server) == [("shutting_down", PCM)]
        rule = Ending.SHUTTING_DOWN.value
        assert unspoken.messages[1] == {
            "status": "error",
            "correlation_id": cid,
            "code": "shutting_down",
            "message": rule.message,
            "retryable": True,
            "stored": "no",
        }
        assert (unspoken.code, unspoken.reason) == (1001, "shutting_down")


async def test_a_second_call_moves_the_deadline_nearer():
    """A second signal ends everything now; it is not announced twice."""
    async with run_server() as server, connect(server.url) as client:
        await client.send(PCM)
        await (await client.ping())
        server.drain(60)
        server.drain(0)
        async with asyncio.timeout(2):
            heard = await hear(client)
        statuses = [message["status"] for message in heard.messages]
        assert statuses == ["connected", "draining", "accepted"]


async def test_a_later_deadline_does_not_put_off_the_first():
    """A call with more time changes nothing."""
    async with run_server() as server, connect(server.url) as client:
        server.drain(0.1)
        server.drain(60)
        async with asyncio.timeout(2):
            assert (await hear(client)).reason == "shutting_down"


async def test_new_clients_are_refused_until_the_last_session_ends():
    """The listener stays open and says `draining`; when the last session is over it is closed."""
    async with run_server() as server:
        async with connect(server.url) as client:
            await client.send(PCM)
            server.drain(60)
            closing = asyncio.create_task(server.gateway.close())
            with pytest.raises(InvalidStatus) as refused:
                await connect(server.url)
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["Retry-After"] == "1"
            assert json.loads(refused.value.response.body)["code"] == "draining"
            assert not closing.done()
            await client.send(DONE)
            assert (await hear(client)).code == 1000
        async with asyncio.timeout(3):
            await closing
        with pytest.raises(ConnectionRefusedError):
            await connect(server.url)


async def test_closing_waits_for_an_answer_that_is_owed():
    """A client whose audio is being stored when the drain begins gets its receipt first."""
    async with run_server() as server, connect(server.url) as client:
        server.store.hold()
        await client.send(PCM)
        await client.send(DONE)
        await server.store.until_given()
        server.drain(0)
        closing = asyncio.create_task(server.gateway.close())
        server.store.release()
        heard = await hear(client)
        assert [message["status"] for message in heard.messages] == ["connected", "accepted"]
        await closing


async def test_closing_waits_for_a_client_that_has_gone():
    """Audio of a client that left is stored before the gateway ends."""
    async with run_server() as server:
        server.store.hold()
        async with connect(server.url) as client:
            await client.send(PCM)
        await server.store.until_given()
        server.drain(0)
        closing = asyncio.create_task(server.gateway.close())
        done, _ = await asyncio.wait([closing], timeout=0.05)
        assert done == set()
        server.store.release()
        async with asyncio.timeout(2):
            await closing


async def test_a_client_between_switch_and_greeting_is_told_too(monkeypatch):
    """A client that was let in just before the drain hears of it like the others."""
    serve_client = GatewayServer._serve_client

    async def drain_first(self, connection):
        now = asyncio.get_running_loop().time()
        self.drain(now + 60)
        self.drain(now + 600)
        await serve_client(self, connection)

    monkeypatch.setattr(GatewayServer, "_serve_client", drain_first)
    async with run_server() as server, connect(server.url) as client:
        greeting, draining = [json.loads(await client.recv()) for _ in range(2)]
        assert (greeting["status"], draining["status"]) == ("connected", "draining")
        assert 59_000 < draining["deadline_ms"] <= 60_000


async def test_half_open_handshakes_do_not_hold_up_the_end():
    """A client that never finishes its handshake is cut when the gateway closes."""
    async with (
        run_server(replace(CONFIG, handshake_timeout=60.0)) as server,
        raw_client(server.port, b"GET ", upgrade=False) as client,
    ):
        await until(lambda: len(server.gateway._handshakes) == 1)
        server.drain(0)
        async with asyncio.timeout(2):
            await server.gateway.close()
        assert await client.read_rest() == b""


async def test_a_drain_without_clients_ends_at_once():
    """With nobody there, nothing is waited for."""
    async with run_server() as server:
        server.drain(60)
        async with asyncio.timeout(1):
            await server.gateway.close()
