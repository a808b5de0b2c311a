"""Checks of the handshake that succeeds, and of the greeting (docs/protocol.md, "Connecting")."""

import uuid

from speech_tools.conformance.checks import check, expect
from speech_tools.conformance.exchange import UPGRADE, Gateway
from speech_tools.protocol.messages import SUBPROTOCOL

_OWN = "conformance.note-1"
_FORMAT = {"encoding": "pcm_s16le", "sample_rate_hz": 16_000, "channels": 1}


@check("what-the-gateway-sends/connected")
async def connected(gateway: Gateway) -> None:
    """The greeting comes at once, with the audio format and the limits."""
    async with gateway.open() as exchange:
        audio = exchange.greeting.get("audio") or {}
    told = {name: audio.get(name) for name in _FORMAT}
    expect(told == _FORMAT, f"the greeting's audio is {told}, expected {_FORMAT}")
    chunk = audio.get("recommended_chunk_bytes")
    expect(type(chunk) is int and chunk > 0, f"recommended_chunk_bytes is {chunk!r}")


@check("connecting/language")
async def language(gateway: Gateway) -> None:
    """A BCP 47 tag is taken."""
    for tag in ("en-US", "de", "zh-Hant-TW"):
        async with gateway.open(f"language={tag}"):
            pass


@check("connecting/client_ref")
async def client_ref(gateway: Gateway) -> None:
    """The greeting repeats `client_ref`, and has none where none was given."""
    async with gateway.open(f"client_ref={_OWN}") as exchange:
        told = exchange.greeting.get("client_ref")
        expect(told == _OWN, f"the greeting says client_ref {told!r}, expected {_OWN!r}")
    async with gateway.open() as exchange:
        expect("client_ref" not in exchange.greeting, "the greeting has a client_ref of its own")


@check("connecting/on_disconnect")
async def on_disconnect(gateway: Gateway) -> None:
    """`store` and `discard` are taken."""
    for value in ("store", "discard"):
        async with gateway.open(f"on_disconnect={value}"):
            pass


@check("connecting/any-other-query-parameter")
async def other_parameter(gateway: Gateway) -> None:
    """Other parameters of the query are ignored."""
    async with gateway.open("volume=11&volume=12&x"):
        pass


@check("connecting/a-correlation-id-in-any-form")
async def correlation_id(gateway: Gateway) -> None:
    """The gateway makes a new id for each connection, whatever the client says."""
    own, seen = str(uuid.uuid4()), set()
    for _ in range(2):
        headers = {"X-Correlation-ID": own, "correlation_id": own}
        async with gateway.open(f"correlation_id={own}", headers=headers) as exchange:
            seen.add(exchange.greeting["correlation_id"])
    expect(own not in seen, "the client's correlation id was taken")
    expect(len(seen) == 2, "two connections have one correlation id")  # noqa: PLR2004


@check("connecting/sec-websocket-protocol")
async def subprotocol(gateway: Gateway) -> None:
    """`speech-ingress.v1` is picked where it is offered, and nothing else."""
    for offered, picked in (
        ((SUBPROTOCOL,), SUBPROTOCOL),
        (("chat", SUBPROTOCOL), SUBPROTOCOL),
        (("chat",), None),
        ((), None),
    ):
        answer = await gateway.ask(
            headers=UPGRADE | ({"Sec-WebSocket-Protocol": ", ".join(offered)} if offered else {})
        )
        told = answer.headers.get("sec-websocket-protocol")
        expect(told == picked, f"of {list(offered)} it picked {told}, expected {picked}")


@check("connecting/sec-websocket-extensions")
async def extensions(gateway: Gateway) -> None:
    """Compression is not negotiated."""
    headers = UPGRADE | {"Sec-WebSocket-Extensions": "permessage-deflate"}
    told = (await gateway.ask(headers=headers)).headers.get("sec-websocket-extensions")
    expect(told is None, f"it negotiated {told}")


@check("connecting/traceparent")
async def traceparent(gateway: Gateway) -> None:
    """A trace is taken, and one that is malformed does no harm."""
    for value in ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "nonsense"):
        async with gateway.open(headers={"traceparent": value}):
            pass
