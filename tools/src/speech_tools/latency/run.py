"""Speak utterances to a running pipeline and collect what is told of each, to its text.

Used by `latency.py`. A client speaks its next utterance when the text of the last one is there, so
that never more than `clients` of them are on their way: what is measured is the way, and not a
queue that the measuring itself has made.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from speech_lib.kafka.headers import CORRELATION_ID, now_ms
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.kafka.settings import KafkaSettings

from speech_tools import client
from speech_tools.latency.hops import ACCEPTED, CONNECTED, OPENING, TEXT_READ
from speech_tools.latency.tail import Tail
from speech_tools.load.clients import Tape, judge
from speech_tools.trace import tracing

PAUSE_SECONDS = 0.5
"""The longest pause before an utterance; its length is chance, or the run would fall into step with
timers of the pipeline, such as those of a broker, and meet them in the same moment every time."""

LOST_IN_A_ROW = 3
"""After so many the pipeline is taken for broken, and the run ends."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to speak.

    Attributes:
        count: How many utterances.
        seconds: How long each is.
        paced: At the pace of speech, or as fast as the gateway permits.
        clients: How many speak at once.
        patience_seconds: How long a text may take from the receipt on.
    """

    count: int
    seconds: float
    paced: bool
    clients: int
    patience_seconds: float


@dataclass(frozen=True, slots=True)
class Utterance:
    """What was seen of an utterance.

    Attributes:
        number: From 0, in the order in which they began.
        greeting: The gateway's first message; empty where there was none.
        times: The client's own: when it began, what it was told and when its text was read.
        records: What was read of it from the topics.
        problem: Why there is no receipt for what was sent; empty where there is one.
    """

    number: int
    greeting: client.Frame
    times: dict[str, int]
    records: tuple[ReceivedRecord, ...]
    problem: str = ""

    @property
    def came_out(self) -> bool:
        """Whether it was accepted and there is a text."""
        return not self.problem and TEXT_READ in self.times

    @property
    def correlation_id(self) -> str | None:
        """Its name, if the gateway has given it one."""
        return self.greeting.get("correlation_id")


@dataclass
class _Way:
    """What has been read of one utterance so far."""

    records: list[ReceivedRecord] = field(default_factory=list)
    text_read_ms: int | None = None
    whole: asyncio.Event = field(default_factory=asyncio.Event)

    def times(self) -> dict[str, int]:
        """Return when the text was read, if there is one."""
        return {} if self.text_read_ms is None else {TEXT_READ: self.text_read_ms}


class Run:
    """One run; lives on one event loop.

    Args:
        url: Of the gateway.
        plan: What to speak.
        tape: Where the samples are cut from.
        topics: Where the records come.
        on_utterance: Called for each utterance at its end.
    """

    def __init__(
        self,
        url: str,
        plan: Plan,
        tape: Tape,
        topics: tracing.Topics,
        on_utterance: Callable[[Utterance], None],
    ) -> None:
        self._url = url
        self._plan = plan
        self._tape = tape
        self._topics = topics
        self._on_utterance = on_utterance
        self._numbers = itertools.count()  # shared by all clients
        self._chance = random.Random(0)  # noqa: S311 - the same pauses in every run
        self._ways: dict[str, _Way] = {}
        self._done: list[Utterance] = []
        self._lost_in_a_row = 0
        self._met = False

    async def run(self, kafka: KafkaSettings) -> list[Utterance]:
        """Speak all utterances and return them in their order.

        Raises:
            StreamError: There is no gateway, or it does not take such utterances.
            BrokerUnavailable: The broker cannot be reached.
            TopicMissing: One of the topics does not exist.
        """
        loop = asyncio.get_running_loop()

        def read(record: ReceivedRecord, at_ms: int) -> None:
            loop.call_soon_threadsafe(self._read, record, at_ms)

        names = (self._topics.audio, self._topics.text, self._topics.dead_letter)
        with Tail(kafka, names, read):  # blocks, but not while anyone speaks
            await self._speak()
        return sorted(self._done, key=lambda each: each.number)

    async def _speak(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._plan.clients):
                    group.create_task(self._client())
        except ExceptionGroup as errors:  # a client gave up for all
            raise errors.exceptions[0] from errors

    def _left(self) -> Iterator[int]:
        """Yield the numbers of the utterances that a client is to speak."""
        for number in self._numbers:
            if number >= self._plan.count or self._lost_in_a_row >= LOST_IN_A_ROW:
                return
            yield number

    async def _client(self) -> None:
        for number in self._left():
            await asyncio.sleep(self._chance.uniform(0, PAUSE_SECONDS))
            utterance = await self._utterance(number)
            self._done.append(utterance)
            self._lost_in_a_row = 0 if utterance.came_out else self._lost_in_a_row + 1
            self._on_utterance(utterance)

    async def _utterance(self, number: int) -> Utterance:
        """Speak one utterance, and wait for its text."""
        spoken = await self._stream(number)
        if spoken.correlation_id is None:
            return spoken
        way = self._way(spoken.correlation_id)
        if not spoken.problem:
            await self._wait(way)
        del self._ways[spoken.correlation_id]
        times = spoken.times | way.times() if way.whole.is_set() else spoken.times
        return replace(spoken, times=times, records=tuple(way.records))

    async def _stream(self, number: int) -> Utterance:
        pcm = self._tape.cut(number, self._plan.seconds)
        frames: list[tuple[client.Frame, int]] = []
        hooks = client.Hooks(frame=lambda frame: frames.append((frame, now_ms())))
        begun = now_ms()
        try:
            outcome = await client.stream(self._url, pcm, paced=self._plan.paced, hooks=hooks)
            problem = judge(outcome, len(pcm), 0).code
        except client.StreamError as error:
            if self._is_hopeless(error):
                raise
            problem = str(error)
        self._met = True
        return Utterance(number, _greeting(frames), _times(begun, frames), (), problem)

    def _is_hopeless(self, error: client.StreamError) -> bool:
        """Tell whether no utterance can get through; a gateway that was met may come again."""
        match error:
            case client.TooLong() | client.WrongUrl():
                return True
            case client.NoAnswer():
                return False
            case client.Refused():
                return not error.retryable
            case _:
                return not self._met

    async def _wait(self, way: _Way) -> None:
        try:
            async with asyncio.timeout(self._plan.patience_seconds):
                await way.whole.wait()
        except TimeoutError:
            pass  # what is there names the hop that is not

    def _way(self, correlation_id: str) -> _Way:
        return self._ways.setdefault(correlation_id, _Way())

    def _read(self, record: ReceivedRecord, at_ms: int) -> None:
        """Keep a record; others may use the topics too, and what is theirs costs some bytes."""
        way = self._way(record.headers.get(CORRELATION_ID, ""))
        if record.topic == self._topics.text:
            way.text_read_ms = way.text_read_ms or at_ms
        else:
            record = replace(record, value=b"")  # audio: nobody looks at it
        way.records.append(record)
        if self._is_whole(way.records):
            way.whole.set()

    def _is_whole(self, records: Sequence[ReceivedRecord]) -> bool:
        """Tell whether utterance and outcome are there; they come in any order."""
        found = {record.topic for record in records}
        outcomes = {self._topics.text, self._topics.dead_letter}
        return self._topics.audio in found and bool(found & outcomes)


def _greeting(frames: Sequence[tuple[client.Frame, int]]) -> client.Frame:
    return frames[0][0] if frames else {}


def _times(begun: int, frames: Sequence[tuple[client.Frame, int]]) -> dict[str, int]:
    names = {"connected": CONNECTED, "accepted": ACCEPTED}
    told = {names[frame["status"]]: at for frame, at in frames if frame.get("status") in names}
    return {OPENING: begun} | told
