"""A gateway that does what a test tells it to, to every client that connects.

What it says by itself is as `docs/protocol.md` has it; a script may say anything else.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

CORRELATION_ID = "7d5a1c3e-7a51-4f0a-9f0e-0c6f3d6f1b52"
LIMITS = {
    "max_chunk_bytes": 65536,
    "max_audio_bytes": 1_572_820,
    "max_messages_per_second": 200,
    "idle_timeout_seconds": 10,
    "max_session_seconds": 60,
}
_HEARING_SECONDS = 10.0

Script = Callable[["Visit"], None]
Judge = Callable[[ServerConnection, Request], Response | None]


@dataclass
class Visit:
    """One client: what it sent, and means to answer it."""

    connection: ServerConnection
    chunks: list[bytes] = field(default_factory=list)

    def say(self, **frame: Any) -> None:
        """Send a message with the fixed correlation id."""
        self.connection.send(json.dumps({"correlation_id": CORRELATION_ID, **frame}))

    def greet(self, **limits: Any) -> None:
        """Send the greeting."""
        self.say(status="connected", protocol="speech-ingress.v1", limits={**LIMITS, **limits})

    def hear(self, chunks: int | None = None) -> None:
        """Take audio until `done`, or only so many messages."""
        while chunks is None or len(self.chunks) < chunks:
            message = self.connection.recv(_HEARING_SECONDS)
            if isinstance(message, str):
                return
            self.chunks.append(message)

    def receipt(self) -> dict[str, Any]:
        """Return what an `accepted` says of the audio that was heard."""
        heard = b"".join(self.chunks)
        return {
            "status": "accepted",
            "event_id": "0b0f6d2c-5a5e-4bb1-8f0c-5d1f7a1b9e11",
            "topic": "speech.audio.ingress",
            "partition": 0,
            "offset": 41,
            "audio_bytes": len(heard),
            "duration_ms": len(heard) // 32,
            "sha256": hashlib.sha256(heard).hexdigest(),
            "ended_by": "done",
        }

    def accept(self, **changed: Any) -> None:
        """Send the receipt for what was heard, and close."""
        self.say(**{**self.receipt(), **changed})
        self.connection.close(1000, "done")

    def recognise(self, text: str) -> None:
        """Send the receipt for what was heard, then its text, and close."""
        self.say(**self.receipt())
        self.say(
            status="recognized",
            text=text,
            language="en",
            confidence=0.5,
            event_id="5b3a6f0e-2f7e-4c0b-9a55-0d4f3a0f7c21",
            topic="speech.asr.text",
            partition=0,
            offset=7,
        )
        self.connection.close(1000, "done")

    def fail(self, code: str, close_code: int, *, retryable: bool, stored: str) -> None:
        """Send an error, and close."""
        self.say(status="error", code=code, message="m", retryable=retryable, stored=stored)
        self.connection.close(close_code, code)


@contextmanager
def scripted(
    script: Script, process_request: Judge | None = None
) -> Iterator[tuple[str, list[Visit]]]:
    """Serve `script` to each client on a free port, unless `process_request` refuses it."""
    visits: list[Visit] = []

    def handle(connection: ServerConnection) -> None:
        visits.append(Visit(connection))
        with suppress(ConnectionClosed):  # the client has seen enough
            script(visits[-1])

    with serve(
        handle, "127.0.0.1", 0, compression=None, process_request=process_request, max_size=None
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws/audio", visits
        finally:
            server.shutdown()
            thread.join()
