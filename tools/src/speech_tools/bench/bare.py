"""A bare `websockets` server in a process of its own: it throws audio away, and answers `done`.

It has no rules, no buffer and no broker: it is what the gateway could cost at best.
`BENCH_LOOP` names its event loop, `asyncio` or `uvloop`.
"""

import asyncio
import json
import os
import signal

from websockets.asyncio.server import ServerConnection, serve

LOOP = "BENCH_LOOP"
ANSWER = json.dumps({"status": "accepted"})
MAX_MESSAGE_BYTES = 65_536
"""As large as the gateway takes them, so that both have the same bound."""


async def throw_away(connection: ServerConnection) -> None:
    """Drop what is binary, and answer the first text."""
    async for message in connection:
        if isinstance(message, str):
            await connection.send(ANSWER)
            return


async def run() -> None:
    """Serve on a free port of loopback until SIGTERM, and tell the port in a line of JSON."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with serve(
        throw_away, "127.0.0.1", 0, compression=None, ping_interval=None, max_size=MAX_MESSAGE_BYTES
    ) as server:
        port = server.sockets[0].getsockname()[1]
        print(json.dumps({"event": "listening", "port": port}), flush=True)
        await stop.wait()


def main() -> None:
    """Run on the event loop that the environment names."""
    if os.environ.get(LOOP) == "uvloop":
        import uvloop  # noqa: PLC0415 - not on every platform

        uvloop.run(run())
    else:
        asyncio.run(run())


if __name__ == "__main__":
    main()
