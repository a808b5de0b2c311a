"""Hold every frame that passes in a test against `docs/asyncapi.yaml`. `conftest.py` installs it.

Both ways: what a gateway of this process says, what the tools' client sends, and what it hears from
a gateway in a process of its own. Tests that speak to a scripted gateway, or send what no client
should, go their own way: only honest frames must be described.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import fastjsonschema
import yaml  # type: ignore[import-untyped]
from speech_gateway.connection import GatewayConnection
from speech_tools.protocol.connection import Connection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

DOCUMENT = Path(__file__).parents[2] / "docs" / "asyncapi.yaml"
Check = Callable[[object], object]


@cache
def document() -> dict[str, Any]:
    """Return the whole document."""
    parsed: dict[str, Any] = yaml.safe_load(DOCUMENT.read_text())
    return parsed


@cache
def checks() -> dict[str, Check]:
    """Return what raises for a message that is not as described, by the message's name."""
    schemas = {"components": {"schemas": document()["components"]["schemas"]}}
    return {
        name: fastjsonschema.compile(
            {"$schema": "http://json-schema.org/draft-07/schema#", **schemas, **message["payload"]}
        )
        for name, message in document()["components"]["messages"].items()
        if message.get("x-frame") == "text"
    }


def complaint(text: str | bytes) -> str | None:
    """Return what is wrong with a text frame; nothing where it is as described."""
    frame = json.loads(text)
    name = frame.get("status") or frame.get("event")
    try:
        checks()[name](frame)
    except KeyError:
        return f"{name!r} is not described"
    except fastjsonschema.JsonSchemaException as error:
        return f"{name}: {error}"
    return None


@contextmanager
def frames_checked() -> Iterator[list[str]]:
    """Hold frames against the document meanwhile; yield what is wrong with them, as it comes."""
    complaints: list[str] = []

    def hold(text: str | bytes) -> None:
        if (wrong := complaint(text)) is not None:
            complaints.append(wrong)

    say, process_event, send = (
        GatewayConnection.say,
        Connection.process_event,
        Connection.send,
    )

    def checked_say(self: GatewayConnection, text: str) -> None:
        hold(text)
        say(self, text)

    def checked_event(self: Connection, event: Event) -> None:
        if isinstance(event, Frame) and event.opcode is Opcode.TEXT and _of_gateway(self, event):
            hold(bytes(event.data))
        process_event(self, event)

    async def checked_send(self: Connection, message: Any, *more: Any) -> None:
        if isinstance(message, str):
            hold(message)
        await send(self, message, *more)

    GatewayConnection.say = checked_say  # type: ignore[method-assign]
    Connection.process_event = checked_event  # type: ignore[method-assign]
    Connection.send = checked_send  # type: ignore[method-assign, assignment]
    try:
        yield complaints
    finally:
        GatewayConnection.say = say  # type: ignore[method-assign]
        Connection.process_event = process_event  # type: ignore[method-assign]
        Connection.send = send  # type: ignore[method-assign]


def _of_gateway(connection: Connection, event: Frame) -> bool:
    """Tell a gateway by its greeting: a scripted one leaves out what its test does not need."""
    if b'"connected"' in event.data:
        connection.__dict__["greeted_in_full"] = b'"recommended_chunk_bytes"' in event.data
    return bool(connection.__dict__.get("greeted_in_full"))
