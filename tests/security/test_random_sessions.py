"""Crowds of random clients on a live server: each gets what the rules say, and nothing is left.

A client is a random sequence of messages, fragments, pings and bad frames over a real socket, and a
way to part: it stays, ends its side, or breaks the connection. The store works, is slow, fails or
is defective. What must come of each is foreseen by the session without sockets, which has random
sequences of its own (`services/gateway/tests/test_session_stateful.py`).
"""

import asyncio
import contextlib
import gc
import json
import logging
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from speech_gateway.actions import Close, Publish, Reply
from speech_gateway.connection import GatewayConnection
from speech_gateway.driver import SessionDriver
from speech_gateway.errors import Ending, NotStored
from speech_gateway.session import Session, State
from speech_gateway.session_report import LineBudget
from speech_gateway.testing import (
    CONFIG,
    LIMITS,
    Published,
    RawClient,
    RunningServer,
    raw_client,
    run_server,
    until,
)
from speech_gateway.utterance import Receipt
from speech_gateway.wav import HEADER_BYTES
from structlog.testing import capture_logs
from support.random_clients import (
    FAILURES,
    FEWEST,
    MAX_AUDIO,
    Crowd,
    Script,
    crowds,
    examples,
)
from websockets.frames import Close as CloseFrame
from websockets.frames import Frame, Opcode

pytestmark = pytest.mark.security

SMALL = replace(LIMITS, max_audio_bytes=MAX_AUDIO)
IDLE_SECONDS = 0.25
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
TURNS = 20
"""Of the loop, for what was sent to arrive."""


@dataclass(frozen=True)
class Fate:
    """What comes of one client: in the log, in the store, and what it is told."""

    ended_by: str
    outcome: str
    pcm: bytes | None
    told: tuple[dict[str, Any], ...]
    close: Close | None


@dataclass
class Met:
    """What was seen of a crowd: the frames that each script was sent, the store, the log."""

    heard: list[list[Frame]] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)
    logged: list[dict[str, Any]] = field(default_factory=list)
    uncaught: list[object] = field(default_factory=list)


# What must come of it


def foresee(script: Script, crowd: Crowd, of: tuple[str, int | None], moved: int) -> Fate:
    """Let a session tell what comes of the first moves of a script, and of its parting.

    Args:
        script: whose fate it is.
        crowd: what it is part of.
        of: its correlation id, and the offset of its utterance if it was stored.
        moved: how many moves come to the server.
    """
    correlation_id, offset = of
    session, given = play(script, crowd, correlation_id, moved)
    if session.deadline is not None:
        given += (
            fall_silent(session, crowd) if script.parting == "stays" else session.disconnect(0.0)
        )
    stored = [each.utterance.wav[HEADER_BYTES:] for each in given if isinstance(each, Publish)]
    if session.state is State.STORING:
        given += answer(session, crowd.store, offset)
    return Fate(
        ended_by=session.ending.value.code,
        outcome=session.outcome,
        pcm=stored[0] if stored and crowd.store != "is defective" else None,
        told=tuple(json.loads(each.message.to_json()) for each in given if isinstance(each, Reply)),
        close=next((each for each in given if isinstance(each, Close)), None),
    )


def play(script: Script, crowd: Crowd, correlation_id: str, moved: int):
    """Return a session after the first moves of a script, and the actions that it gave."""
    session = Session(correlation_id, SMALL, 0.0, fill_at_limit=crowd.fill)
    given: list[object] = []
    for move in script.moves[:moved]:
        if session.deadline is not None:  # what comes later is ignored, but may cost the last words
            given += move.tell(session, 0.0)
    return session, given


def fall_silent(session: Session, crowd: Crowd):
    if crowd.silence is Ending.IDLE_TIMEOUT:
        return session.tick(session.deadline)
    return (*session.drain(0.0, 0.0), *session.tick(0.0))


def answer(session: Session, store: str, offset: int | None):
    if failure := FAILURES.get(store):
        return session.not_stored(*failure)
    return session.stored(Receipt(f"event-{offset}", "speech.audio.ingress", 0, offset), 0.0)


def is_certain(script: Script, crowd: Crowd) -> bool:
    """Tell whether all that a client sends is taken, before anything else ends its utterance.

    Not where it breaks the connection, nor where its silence ends it: drains and clocks may be
    faster than what is still on its way.
    """
    if script.parting in {"leaves", "resets"} or crowd.silence is Ending.IDLE_TIMEOUT:
        return False
    session, _ = play(script, crowd, "", len(script.moves))
    return session.deadline is None or script.parting == "ends its side"


def hears_all(script: Script) -> bool:
    """Tell whether a client keeps the connection open to the end, and has not failed it."""
    lost = {Ending.DISCONNECT, Ending.CHUNK_TOO_LARGE, Ending.PROTOCOL_ERROR}
    return script.parting == "stays" and not any(move.ending in lost for move in script.moves)


# The meeting


async def listen(client: RawClient, *, polite: bool) -> list[Frame]:
    """Return what a client is sent until the end; it may answer a close frame."""
    frames = []
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            frames.append(await client.read_frame())
            if polite and frames[-1].opcode is Opcode.CLOSE:
                client.send(frames[-1])
    return frames


async def act(client: RawClient, script: Script) -> None:
    """Send a script, each move in a write of its own, and part."""
    for move in script.moves:
        client.send(move.wire)
        await asyncio.sleep(0)
    client.send(script.unfinished)
    if script.parting == "ends its side":
        client.end_sending()
    elif script.parting != "stays":
        if script.parting == "resets":
            connection = client._writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        client.reset()


async def meddle(port: int, sent: bytes) -> None:
    async with raw_client(port, sent, upgrade=False) as client:
        for _ in range(TURNS):
            await asyncio.sleep(0)
        client.end_sending()
        await client.read_rest()


def prepare(server: RunningServer, store: str) -> None:
    """Have the store do what the crowd is to meet."""
    if store == "held":
        server.store.hold()
    elif store == "is defective":
        server.store.defect = ZeroDivisionError()
    elif store == "breaks":
        server.store.failure = ZeroDivisionError()
    elif store in FAILURES:
        server.store.failure = NotStored(*FAILURES[store])


def holds_nothing(server: RunningServer) -> bool:
    gateway = server.gateway
    return not (server.live or gateway._drivers or len(gateway._handshakes))


async def meet(crowd: Crowd, met: Met) -> None:
    """Bring a crowd together with a server, and stop the server."""
    idle = IDLE_SECONDS if crowd.silence is Ending.IDLE_TIMEOUT else SMALL.idle_timeout_seconds
    limits = replace(SMALL, idle_timeout_seconds=idle)
    config = replace(CONFIG, limits=limits, close_timeout=0.1, fill_at_limit=crowd.fill)
    async with run_server(config) as server, contextlib.AsyncExitStack() as opened:
        prepare(server, crowd.store)
        server.gateway._session_lines = LineBudget(0.0, per_second=1e6)  # a line each
        clients = [await opened.enter_async_context(raw_client(server.port)) for _ in crowd.scripts]
        met.heard = [[await client.read_frame()] for client in clients]
        listeners = [
            asyncio.create_task(listen(client, polite=script.polite and script.parting == "stays"))
            for client, script in zip(clients, crowd.scripts, strict=True)
        ]
        strangers = [asyncio.create_task(meddle(server.port, sent)) for sent in crowd.strangers]
        await asyncio.gather(*map(act, clients, crowd.scripts))
        for _ in range(TURNS):
            await asyncio.sleep(0)
        server.store.release()
        if certain := [
            listener
            for listener, script in zip(listeners, crowd.scripts, strict=True)
            if is_certain(script, crowd)
        ]:
            await asyncio.wait(certain)
        if crowd.silence is Ending.SHUTTING_DOWN:
            server.drain(0)
        for heard, later in zip(met.heard, await asyncio.gather(*listeners), strict=True):
            heard.extend(later)
        await asyncio.gather(*strangers)
        await until(lambda: holds_nothing(server))
        met.published = server.store.published


class Loop:
    """An event loop for one crowd after the other, watched for what is left over."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._uncaught: list[object] = []
        runner.get_loop().set_exception_handler(lambda _, context: self._uncaught.append(context))

    def meet(self, crowd: Crowd, caplog: pytest.LogCaptureFixture) -> Met:
        """Return what was seen of a crowd; neither task, descriptor nor session is left of it."""
        met, files = Met(), descriptors()
        gc.freeze()  # what is found afterwards is this crowd's, and there is little to look through
        with capture_logs() as met.logged:
            self._runner.run(meet(crowd, met))
        assert (alive(), descriptors()) == (0, files)
        errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
        met.uncaught = [*self._uncaught, *errors]
        return met


def alive() -> int:
    """Return how many sessions, connections and tasks there are: they hold the buffers."""
    gc.collect()  # a task whose exception nobody fetched says so when it goes
    kinds = (Session, SessionDriver, GatewayConnection, asyncio.Task)
    return sum(issubclass(type(each), kinds) for each in gc.get_objects())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def judge(crowd: Crowd, met: Met) -> Counter[str]:
    """Compare what was seen with what was foreseen; return how the utterances ended."""
    assert met.uncaught == []
    lines = {line["correlation_id"]: line for line in met.logged if line["event"] == "session"}
    errors = [line["event"] for line in met.logged if line["log_level"] in {"error", "critical"}]
    assert len(errors) == sum(line["outcome"] == "internal_error" for line in lines.values())
    ids = [json.loads(heard[0].data)["correlation_id"] for heard in met.heard]
    assert set(ids) <= set(lines)
    assert len(lines) <= len(ids) + len(crowd.strangers)
    stored = {each.context.correlation_id: offset for offset, each in enumerate(met.published)}
    assert len(stored) == len(met.published)
    for script, cid, heard in zip(crowd.scripts, ids, met.heard, strict=True):
        offset = stored.get(cid)
        pcm = None if offset is None else met.published[offset].pcm
        every = len(script.moves)
        possible = [every] if is_certain(script, crowd) else range(every + 1)
        fates = [foresee(script, crowd, (cid, offset), moved) for moved in possible]
        seen = (lines[cid]["ended_by"], lines[cid]["outcome"], pcm)
        fates = [fate for fate in fates if (fate.ended_by, fate.outcome, fate.pcm) == seen]
        assert fates, f"{lines[cid]} is not what comes of {script}"
        told = [was_told(heard[1:], fate, whole=hears_all(script)) for fate in fates]
        assert any(told), f"{heard[1:]} is not what is told to {script}"
    return Counter(f"{lines[cid]['ended_by']}: {lines[cid]['outcome']}" for cid in ids)


def was_told(frames: list[Frame], fate: Fate, *, whole: bool) -> bool:
    """Tell whether a client was told its fate, or at least nothing else."""
    said = tuple(json.loads(each.data) for each in frames if each.opcode is Opcode.TEXT)
    closes = [CloseFrame.parse(each.data) for each in frames if each.opcode is Opcode.CLOSE]
    if not whole:
        return said == fate.told[: len(said)]
    close = fate.close
    return said == fate.told and closes == [CloseFrame(close.code, close.reason)]


EVERY_ENDING = {
    "done",
    "disconnect",
    "idle_timeout",
    "shutting_down",
    "audio_too_long",
    "chunk_too_large",
    "protocol_error",
    "rate_limited",
    "invalid_message",
    "unsupported_audio",
    "empty_audio",
}


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # it would hide the failure
@pytest.mark.parametrize(
    "sequences",
    [
        pytest.param(300, marks=pytest.mark.timeout(120)),
        pytest.param(10_000, marks=[pytest.mark.full, pytest.mark.timeout(1800)]),
    ],
)
def test_random_clients_get_what_the_rules_say_and_leave_nothing(sequences, caplog):
    """No uncaught exception, and no slot, buffer, task or descriptor is lost."""
    ends: Counter[str] = Counter()
    gc.collect()
    with asyncio.Runner() as runner:
        loop = Loop(runner)

        @settings(
            max_examples=sequences // FEWEST,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # to shrink takes minutes, with clients who wait for an answer
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        @given(crowds)
        def try_random(crowd: Crowd) -> None:
            try_crowd(crowd)

        def try_crowd(crowd: Crowd) -> None:
            ends.update(judge(crowd, loop.meet(crowd, caplog)))

        try:
            for crowd in [
                *examples("works", Ending.SHUTTING_DOWN),
                *examples("unavailable", Ending.IDLE_TIMEOUT),
            ]:
                try_crowd(crowd)
            try_random()
        finally:
            gc.unfreeze()
    assert ends.total() >= sequences
    assert {end.partition(":")[0] for end in ends} == EVERY_ENDING
    assert {end.partition(": ")[2] for end in ends} >= {"accepted", "broker_unavailable"}
