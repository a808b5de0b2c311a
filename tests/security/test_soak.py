"""Thousands of mixed sessions on a real gateway process: nothing grows, and no file is written.

Good clients, clients who leave, clients who break rules and handshakes that are refused, side by
side, until memory has had every occasion to grow. What they should be answered is in one table, so
that none of them goes another way than its own.
"""

import asyncio
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from speech_gateway.testing import LIMITS, RawClient, raw_client, request, until
from speech_lib.testing.embedded import EmbeddedPipeline
from speech_tools import stack
from support import moves
from support.lone_gateway import lone_gateway
from support.moves import Move
from websockets.frames import Close, Opcode

pytestmark = [pytest.mark.security, pytest.mark.anyio]

AT_ONCE = 8
MAX_GROWTH = 1024
"""Bytes of resident memory a session: a megabyte in a thousand."""
SAMPLE_EVERY = 20
SETTLED_SECONDS = 20.0
FEW = 200
OPENING = ("open", "openat", "openat2")
CHANGING = (
    "creat",
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir"),
    *("link", "linkat", "symlink", "symlinkat", "mknod", "mknodat", "truncate", "ftruncate"),
)

SPEECH = moves.speak(bytes(range(200)) * 16)
LARGEST = [moves.speak(bytes(65_000))] * (LIMITS.max_audio_bytes // 65_000)
BAD_KEY = request(without=frozenset({"Sec-WebSocket-Key"}), headers=[("Sec-WebSocket-Key", "x")])
TOPIC = "speech.audio.ingress"
ORIGIN = "https://app.example"
SETTINGS = {
    **stack.MANY_FROM_ONE_ADDRESS,
    "MAX_CONNECTIONS": "100",  # room for clients who have broken off and are not yet missed
    "MAX_CONNECTIONS_PER_ADDRESS": "100",
    "ORIGIN_ALLOWLIST": f"{ORIGIN},none",
}


@dataclass(frozen=True)
class Kind:
    """One kind of session: how it begins, what the client sends, and how it should end.

    `ends` is the status of a refusal, code and reason of the close frame (the code alone where the
    reason is the library's), `left` for who breaks off, or `cut` for who is told nothing.
    """

    ends: str
    moves: tuple[Move, ...] = ()
    head: bytes = field(default_factory=request)
    ends_its_side: bool = False


BREAKS = moves.break_protocol(moves.BAD_FRAMES["a reserved opcode"])
KINDS = {
    "done": Kind("1000 done", (SPEECH, SPEECH, moves.DONE)),
    "longest": Kind("1000 done", (*LARGEST, moves.DONE)),
    "fragments": Kind(
        "1000 done", (moves.speak_in_fragments(bytes(9000), 500, moves.PING.wire), moves.DONE)
    ),
    "pings": Kind("1000 done", (*[moves.PING, moves.PONG] * 9, SPEECH, moves.DONE)),
    "closes": Kind("1000 ", (SPEECH, moves.close())),
    "breaks off": Kind("left", (SPEECH, SPEECH)),
    "breaks off in a frame": Kind("left", (SPEECH, moves.Move("half", SPEECH.wire[:99]))),
    "ends its side": Kind("cut", (SPEECH,), ends_its_side=True),
    "too long": Kind("1009 audio_too_long", (*LARGEST, LARGEST[0])),
    "bad text": Kind("1003 invalid_message", (SPEECH, moves.say("[" * 4000))),
    "container": Kind("1003 unsupported_audio", (moves.speak(b"OggS" + bytes(99)),)),
    "half a sample": Kind("1003 unsupported_audio", (moves.speak(b"\0"), moves.DONE)),
    "empty": Kind("1008 empty_audio", (moves.DONE,)),
    "flood": Kind("1008 rate_limited", (SPEECH, moves.flood(moves.PING.wire))),
    "too large": Kind("1009 ", (SPEECH, moves.TOO_LARGE)),
    "bad frame": Kind("1002 ", (SPEECH, BREAKS)),
    "bad UTF-8": Kind("1007 ", (moves.break_protocol(moves.BAD_FRAMES["text that is not UTF-8"]),)),
    "language": Kind("1000 done", (SPEECH, moves.DONE), request("/ws/audio?language=de-CH")),
    "origin": Kind("1000 done", (SPEECH, moves.DONE), request(headers=[("Origin", ORIGIN)])),
    "another origin": Kind("403", head=request(headers=[("Origin", "https://evil.example")])),
    "another path": Kind("404", head=request("/")),
    "POST": Kind("405", head=request(method="POST")),
    "no upgrade": Kind("426", head=request(without=frozenset({"Upgrade"}))),
    "no language": Kind("400", head=request("/ws/audio?language=123456789")),
    "bad key": Kind("400", head=BAD_KEY),
    "HTTP/1.0": Kind("505", head=request(version="HTTP/1.0")),
    "no HTTP": Kind("cut", head=b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(40) + b"\n"),
    "half a request": Kind("left", head=request()[:60]),
}


async def live(port: int, kind: Kind) -> str:
    """Be one client; return how it ended."""
    try:
        async with raw_client(port, kind.head, upgrade=False) as client:
            return await behave(client, kind)
    except (asyncio.IncompleteReadError, ConnectionError):
        return "cut"


async def behave(client: RawClient, kind: Kind) -> str:
    if kind.ends == "left" and not kind.moves:
        return "left"
    if (status := (await client.read_head())[9:12]) != "101":
        return status
    for move in kind.moves:
        client.send(move.wire)
    if kind.ends == "left":
        return "left"
    if kind.ends_its_side:
        client.end_sending()
    while (frame := await client.read_frame()).opcode is not Opcode.CLOSE:
        pass
    client.send(frame)
    close = Close.parse(frame.data)
    return f"{close.code} {close.reason}"


@dataclass(frozen=True)
class Held:
    """What a process holds of the system."""

    threads: int
    descriptors: int

    def is_within(self, other: "Held") -> bool:
        return self.threads <= other.threads and self.descriptors <= other.descriptors


@dataclass(frozen=True)
class Watched:
    """A process, looked at through proc(5)."""

    pid: int

    @property
    def folder(self) -> Path:
        return Path(f"/proc/{self.pid}")

    def memory(self) -> int:
        """Return the bytes that are resident."""
        return self._number("status", "VmRSS") * 1024

    def held(self) -> Held:
        return Held(self._number("status", "Threads"), len(list((self.folder / "fd").iterdir())))

    def written(self) -> int:
        """Return the bytes of files that were changed so far."""
        return self._number("io", "write_bytes")

    def files_to_write(self) -> list[str]:
        """Return the paths of regular files that are open for writing."""
        return [
            path
            for file in (self.folder / "fd").iterdir()
            if (path := str(file.readlink())).startswith("/")
            and Path(path).is_file()
            and int(self._text(f"fdinfo/{file.name}", r"flags:\s*(\d+)"), 8) & os.O_ACCMODE
        ]

    def _number(self, file: str, name: str) -> int:
        return int(self._text(file, rf"{name}:\s*(\d+)"))

    def _text(self, file: str, pattern: str) -> str:
        found = re.search(f"^{pattern}", (self.folder / file).read_text(), re.MULTILINE)
        assert found, f"{file} has no {pattern}"
        return found[1]


async def soak(port: int, sessions: int, on_end: Callable[[], None] = lambda: None) -> None:
    """Live so many sessions, some at once; each ends as its kind should."""
    waiting = islice(cycle(KINDS.items()), sessions)

    async def client() -> None:
        for name, kind in waiting:
            end = await live(port, kind)
            assert end == kind.ends or (kind.ends[-1] == " " and end.startswith(kind.ends)), name
            on_end()

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(client())


@pytest.fixture(scope="module")
def gateway(logs) -> Iterator[stack.Gateway]:
    """The gateway on a broker that keeps little: gigabytes of silence are for no real one."""
    with EmbeddedPipeline([TOPIC]) as broker, stack.gateway(broker, logs, SETTINGS) as running:
        yield running


@pytest.fixture
def port(gateway) -> int:
    return urlsplit(gateway.url).port


@pytest.fixture
def watched(gateway) -> Watched:
    return Watched(gateway.process._process.pid)


def grown(memory: list[tuple[int, int]]) -> float:
    """Return the bytes by which the memory has grown with each session.

    It compares the least of the last third with that of the first: what a session leaves behind
    raises that, while what the allocator holds for a while does not.
    """
    third = len(memory) // 3
    first, last = memory[:third], memory[-third:]
    return (min(held for _, held in last) - min(held for _, held in first)) / (
        last[0][0] - first[0][0]
    )


def test_what_a_session_leaves_behind_shows_whatever_comes_and_goes():
    """A kilobyte of each session is a kilobyte, beside 4 MB that are held for a while."""
    leaked = [(n, 95_000_000 + 1_024 * n + 4_000_000 * (n % 7 == 0)) for n in range(20, 4_001, 20)]
    held = [(n, 95_000_000 + 4_000_000 * (1_800 < n < 3_700)) for n in range(20, 4_001, 20)]
    assert (round(grown(leaked)), round(grown(held))) == (1_024, 0)


@pytest.mark.parametrize(
    ("warm_up", "sessions"),
    [
        pytest.param(4_000, 4_000, marks=pytest.mark.timeout(120)),
        pytest.param(4_000, 10_000, marks=[pytest.mark.full, pytest.mark.timeout(900)]),
    ],
)
async def test_mixed_sessions_leave_nothing_behind(port, watched, warm_up, sessions):
    """Memory stays, descriptors and threads are given back, and no file was changed."""
    await soak(port, warm_up)
    held, written, memory = watched.held(), watched.written(), []
    ended = itertools.count(1)

    def sample() -> None:
        if (number := next(ended)) % SAMPLE_EVERY == 0:
            memory.append((number, watched.memory()))

    await soak(port, sessions, sample)
    await until(lambda: watched.held().is_within(held), SETTLED_SECONDS)
    assert len(memory) == sessions // SAMPLE_EVERY
    growth = grown(memory)
    assert growth < MAX_GROWTH, f"{growth:.0f} bytes a session: {memory}"
    assert (watched.written(), watched.files_to_write()) == (written, [])


@pytest.mark.timeout(120)
async def test_no_task_and_no_slot_is_left_of_mixed_sessions(logs):
    """The event loop of a gateway of its own has as many tasks as before the first client came."""
    with lone_gateway(logs, SETTINGS) as gateway:
        before = gateway.look_inside()
        await soak(gateway.port, FEW)
        await until(lambda: gateway.look_inside() == before, SETTLED_SECONDS)


@contextmanager
def traced(pid: int, calls: Sequence[str], log: Path) -> Iterator[None]:
    """Have strace write down what a process and its threads ask of the system."""
    known = ",".join(f"?{call}" for call in calls)  # not every machine has each
    command = ["strace", "-f", "-p", str(pid), "-e", f"trace={known}", "-o", str(log)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:  # noqa: S603
        assert strace.stderr is not None
        if "attached" not in (said := strace.stderr.readline()):
            pytest.skip(f"strace may not look at other processes here: {said.strip()}")
        try:
            yield
        finally:
            strace.terminate()
            strace.stderr.read()


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace: apt-get install strace")
@pytest.mark.timeout(120)
async def test_no_session_has_a_file_opened_for_writing(port, watched, tmp_path):
    """Nor is any made, moved or taken away, as the system itself sees it."""
    log = tmp_path / "strace"
    with traced(watched.pid, ["accept4", *OPENING, *CHANGING], log):
        await soak(port, FEW)
    calls = log.read_text().splitlines()
    assert sum("accept4(" in call for call in calls) >= FEW  # it has looked at the right process
    names = "|".join(CHANGING)
    writes = rf"({'|'.join(OPENING)})\(.*(O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND)|({names})\("
    assert [call for call in calls if re.search(writes, call)] == []
