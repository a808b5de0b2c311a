"""What `stream` makes of a gateway that breaks HTTP or WebSocket, or sends without end.

`load`, `latency` and the demo have the same client. What a gateway may *say* is in
`test_hostile_gateway.py`.
"""

import json
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from speech_tools.protocol import connection
from speech_tools.stream import command as stream
from support.scripted_gateway import CORRELATION_ID, LIMITS
from typer.testing import CliRunner
from websockets.frames import Frame, Opcode
from websockets.utils import accept_key

RAW = Path(__file__).parents[2] / "samples" / "go-forward-ten-meters.raw"
KILOBYTES = 50_000
"""What a flood may make the client's memory grow by, at its peak."""
GREETING = {
    "status": "connected",
    "protocol": "speech-ingress.v1",
    "correlation_id": CORRELATION_ID,
    "limits": LIMITS,
}
OTHER = b'{"status":"other"}'

Answer = Callable[[str], Iterator[bytes]]
"""Takes the client's Sec-WebSocket-Key, and yields what is sent."""


def switching(key: str, *more: str) -> bytes:
    """Return a good answer to the handshake, with more headers."""
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key(key)}",
        *more,
    ]
    return "\r\n".join((*lines, "\r\n")).encode()


def text(payload: bytes, *, fin: bool = True) -> bytes:
    return Frame(Opcode.TEXT, payload, fin=fin).serialize(mask=False)


def head(sent: bytes, repeated: bytes = b"") -> Answer:
    """Answer the handshake with these bytes, and then others without end."""

    def answer(_key: str) -> Iterator[bytes]:
        yield sent
        while repeated:
            yield repeated

    return answer


def headers(*more: str) -> Answer:
    def answer(key: str) -> Iterator[bytes]:
        yield switching(key, *more)

    return answer


def frames(sent: bytes, repeated: bytes = b"", *, greets: bool = True) -> Answer:
    """Answer the handshake as it should be, perhaps greet, and then send these bytes."""

    def answer(key: str) -> Iterator[bytes]:
        yield switching(key)
        yield (text(json.dumps(GREETING).encode()) if greets else b"") + sent
        while repeated:
            yield repeated

    return answer


def close(code: int) -> Answer:
    return frames(Frame(Opcode.CLOSE, code.to_bytes(2)).serialize(mask=False))


PING = Frame(Opcode.PING, bytes(125)).serialize(mask=False)
DRAINING = text(b'{"status":"draining","deadline_ms":1}')
NO_WEBSOCKET = {
    "a header of 10 MB": head(b"HTTP/1.1 101 x\r\nX: " + b"y" * 10_000_000),
    "headers without end": head(b"HTTP/1.1 101 x\r\n", b"X: y\r\n" * 1000),
    "a status line without end": head(b"HTTP/1.1 101 ", b"x" * 65_536),
    "a status of 5,000 digits": head(b"HTTP/1.1 " + b"9" * 5_000 + b" x\r\n\r\n"),
    "a body of 5,000 digits": head(
        b"HTTP/1.1 403 x\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n"
    ),
    "a chunk of 8,000 digits": head(
        b"HTTP/1.1 403 x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 8_000 + b"\r\n"
    ),
    "a reason that speaks to a terminal": head(b"HTTP/1.1 403 \x1b[2J\r\n\r\n"),
    "another subprotocol": headers("Sec-WebSocket-Protocol: " + "x" * 8_000),
    "the subprotocol twice": headers(*["Sec-WebSocket-Protocol: speech-ingress.v1"] * 2),
    "compression": headers("Sec-WebSocket-Extensions: permessage-deflate"),
    "a wrong accept": head(switching("another key")),
    "a compressed frame": frames(b"\xc1\x02{}"),
    "a masked frame": frames(Frame(Opcode.TEXT, b"{}").serialize(mask=True)),
    "a frame of 2**63 bytes": frames(b"\x81\x7f" + b"\xff" * 8),
    "a frame of 1 GiB": frames(b"\x81\x7f" + (1 << 30).to_bytes(8), bytes(65_536)),
    "fragments without end": frames(text(b"{", fin=False), b"\x00\x00" * 10_000),
    "large fragments without end": frames(text(b"{", fin=False), b"\x00\x7d" + b" " * 125),
    **{f"close code {code}": close(code) for code in (0, 999, 1005, 1006, 1015, 1016, 5000)},
    "a close code of a byte": frames(b"\x88\x01\x03"),
    "pings without end": frames(PING, PING * 1_000),
    "pings in place of a greeting": frames(PING, PING * 1_000, greets=False),
    "messages without end": frames(text(OTHER), text(OTHER) * 1_000),
    "draining without end": frames(DRAINING, DRAINING * 1_000),
}


def serve(client: socket.socket, answer: Answer) -> None:
    """Read a request, and send; reads nothing else."""
    with client, suppress(OSError):
        asked = b""
        while b"\r\n\r\n" not in asked:
            asked += client.recv(65_536)
        fields = dict(line.split(": ", 1) for line in asked.decode().split("\r\n")[1:] if line)
        for part in answer(fields["Sec-WebSocket-Key"]):
            client.sendall(part)
        client.shutdown(socket.SHUT_WR)
        while client.recv(65_536):
            pass


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """Answer the one client that comes."""

    def accept() -> None:
        with suppress(OSError):
            serve(listening.accept()[0], answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        thread = threading.Thread(target=accept)
        thread.start()
        yield f"ws://127.0.0.1:{listening.getsockname()[1]}/ws/audio"
        thread.join()


def ran(answer: Answer, folder: Path) -> tuple[int, str, int]:
    """Stream a tenth of a second; return exit code, complaint, and how memory grew, in kB."""
    short = folder / "short.raw"
    short.write_bytes(RAW.read_bytes()[:3200])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with answering(answer) as url:
        done = CliRunner().invoke(
            stream.app, [str(short), "--fast", "--attempts", "1", "--url", url]
        )
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return done.exit_code, done.stderr, grown


@pytest.mark.parametrize("answer", NO_WEBSOCKET.values(), ids=NO_WEBSOCKET)
def test_what_is_no_websocket_is_told_in_one_short_line(
    answer: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is no gateway, or does not answer in time; and it takes no memory."""
    for name in ("OPEN_TIMEOUT_SECONDS", "CLOSE_TIMEOUT_SECONDS"):
        monkeypatch.setattr(connection, name, 1.0)
    code, complaint, grown = ran(answer, tmp_path)
    assert complaint.startswith(("stream: what answers ", "stream: the handshake ", "stream: no "))
    assert (code, complaint.count("\n")) == (3 if "no answer" in complaint else 1, 1)
    assert (len(complaint) < 300, "\x1b" in complaint) == (True, False)
    assert grown < KILOBYTES
