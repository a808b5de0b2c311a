"""The parts of the bench. Each starts what it needs, measures it in rounds, and stops it."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from speech_tools import stack
from speech_tools.bench import accepted, memory, recogniser
from speech_tools.bench.measure import PACED_SIZES, Case, bursts, measure_all, paced, warm_up
from speech_tools.bench.recogniser import SETUPS, Backlog
from speech_tools.bench.result import BASE, Line, cost_lines
from speech_tools.bench.servers import bare_server, gateway_server, room_for, servers


class Part(StrEnum):
    """What is measured."""

    BURST = "burst"
    PACED = "paced"
    STREAMS = "streams"
    LATENCY = "latency"
    MEMORY = "memory"
    RECOGNISER = "recogniser"


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Attributes:
        parts: Which parts.
        is_quick: Whether it is a rough look.
        rounds: How often everything has its turn.
        utterances: How many a burst has.
        live: How many streams the part `paced` has at once.
        streams: Likewise of each case of the part `streams`.
        seconds: How long each of them speaks.
        spoken: How often the part `latency` speaks in a round.
        backlogs: What the recogniser is given.
    """

    parts: tuple[Part, ...]
    is_quick: bool
    rounds: int
    utterances: int
    live: int
    streams: tuple[int, ...]
    seconds: float
    spoken: int
    backlogs: tuple[Backlog, ...]


QUICK = Plan(tuple(Part), True, 1, 1, 10, (10, 20), 1.0, 3, (Backlog(4, 1.0), Backlog(1, 4.0)))
USUAL = Plan(
    tuple(Part), False, 3, 5, 400, (100, 500, 1000), 10.0, 20, (Backlog(12, 2.0), Backlog(4, 10.0))
)


@dataclass(frozen=True, slots=True)
class Bench:
    """What every part needs.

    Attributes:
        kafka: Where broker and registry are.
        plan: How much is measured.
        logs: A folder for what the servers log.
        say: Called with what is measured next.
    """

    kafka: stack.Addresses
    plan: Plan
    logs: Path
    say: Callable[[str], None]

    def rounds(self, what: str) -> Iterator[int]:
        """Yield the numbers of the rounds, and say each."""
        for number in range(self.plan.rounds):
            self.say(f"{what}, round {number + 1} of {self.plan.rounds}")
            yield number


def _cases(plan: Plan) -> Iterator[tuple[Part, Case]]:
    """Yield what is sent to the gateway and to the bare servers alike."""
    large = PACED_SIZES[-1]
    made = {
        Part.BURST: bursts(plan.utterances),
        Part.PACED: (paced(plan.live, size, plan.seconds) for size in PACED_SIZES),
        Part.STREAMS: (paced(streams, large, plan.seconds) for streams in plan.streams),
    }
    for part, cases in made.items():
        yield from ((part, case) for case in cases if part in plan.parts)


async def _cost(bench: Bench) -> list[Line]:
    cases, found = list(_cases(bench.plan)), list[Line]()
    if not cases:
        return []
    most = max(case.live for _, case in cases)
    with servers(bench.kafka, most, bench.logs) as listening:
        await warm_up(listening)
        for part, case in cases:
            rounds = await measure_all(listening, case, bench.rounds(f"{part}: {case.name}"))
            found += cost_lines(part, case.name, case.live, rounds)
    return found


async def _latency(bench: Bench) -> list[Line]:
    found = list[Line]()
    producer = accepted.RawProducer(bench.kafka)
    room = room_for(max(accepted.CLIENTS))
    with (
        bare_server(BASE, bench.logs) as bare,
        gateway_server(bench.kafka, bench.logs, room) as gateway,
    ):
        for at_once in accepted.CLIENTS:
            await accepted.round_of(producer, bare, gateway, 1, at_once)  # the warm-up
            rounds = [
                await accepted.round_of(producer, bare, gateway, bench.plan.spoken, at_once)
                for _ in bench.rounds(f"latency: clients {at_once}")
            ]
            found += accepted.lines(Part.LATENCY, at_once, rounds)
    return found


async def _memory(bench: Bench) -> list[Line]:
    rounds = []
    for _ in bench.rounds(
        "memory"
    ):  # of a new process each: memory that was used is not given back
        with gateway_server(bench.kafka, bench.logs, room_for(memory.CONNECTIONS)) as gateway:
            started = gateway.memory_bytes()
            await warm_up([gateway])
            rounds.append(await memory.measure(gateway, started))
    return memory.lines(Part.MEMORY, rounds)


async def _recogniser(bench: Bench) -> list[Line]:
    found, backlogs = list[Line](), bench.plan.backlogs
    with gateway_server(bench.kafka, bench.logs, room_for(1) | recogniser.TOPICS) as gateway:
        for setup in SETUPS:
            rounds = [
                await recogniser.measure(bench.kafka, gateway, setup, backlogs, bench.logs)
                for _ in bench.rounds(f"recogniser: {setup}")
            ]
            found += recogniser.lines(Part.RECOGNISER, setup, backlogs, rounds)
    return found


_APART: dict[Part, Callable[[Bench], Awaitable[list[Line]]]] = {
    Part.LATENCY: _latency,
    Part.MEMORY: _memory,
    Part.RECOGNISER: _recogniser,
}


async def measured(bench: Bench) -> list[Line]:
    """Measure the parts of the plan, one after the other.

    Raises:
        BenchError: Something was not stored, not accepted or not recognised.
        StackError: A server did not start.
    """
    found = await _cost(bench)
    for part, measure in _APART.items():
        if part in bench.plan.parts:
            found += await measure(bench)
    return found
