"""A TCP proxy that does harm to what it passes on.

Used by the tests of broken connections: between the services and a broker, and between clients and
a gateway.
"""

import asyncio
import threading
from typing import Literal

Fault = Literal["none", "lose answers", "break on answer", "keep requests", "swallow", "refuse"]


class Proxy:
    """Passes bytes on, on a thread of its own, and does one harm at a time.

    Attributes:
        fault: What it does, to connections that are open too: "lose answers" and "keep requests"
            let one direction through, "swallow" none, "break on answer" breaks a connection where
            the server answers, "refuse" one that is new or used.
        port: Where it listens, on 127.0.0.1.
        passed_on: How many bytes of requests it has passed on.

    The caller owes one `close`.
    """

    def __init__(self, target: int) -> None:
        self.fault: Fault = "none"
        self.passed_on = 0
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        serving = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result(5)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def break_all(self) -> None:
        """Break every connection."""
        self._loop.call_soon_threadsafe(self._break_all)

    def close(self) -> None:
        """Break everything and end the thread."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        self._break_all()
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=5)

    def _break_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.fault == "refuse":
            writer.transport.abort()
            return
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        both = {writer, server_writer}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, server_writer, "keep requests"))
                pumps.create_task(self._pump(server_reader, writer, "lose answers"))
        except* ConnectionError:
            pass
        finally:
            self._writers -= both
            for each in both:
                each.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, held_by: Fault
    ) -> None:
        while data := await reader.read(65_536):
            if self.fault == "refuse":
                break
            if self.fault == "break on answer" and held_by == "lose answers":
                break
            if self.fault not in {held_by, "swallow"}:
                writer.write(data)
                self.passed_on += len(data) if held_by == "keep requests" else 0
        raise ConnectionResetError  # ends the other direction too
