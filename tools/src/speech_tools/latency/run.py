"""The run of `speech latency`: speak utterances, and collect what is told of each, to its text.

Used by `latency.measure`. A client speaks its next utterance when the text of the last one is
there. So never more than `clients` of them are on their way, and no queue is measured that the
measuring itself has made.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from speech_lib.kafka.headers import CORRELATION_ID, now_ms
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.kafka.settings import KafkaSettings

from speech_tools.latency.hops import ACCEPTED, CONNECTED, OPENING, TEXT_READ
from speech_tools.latency.tail import Tail
from speech_tools.protocol.client import Frame, Refused
from speech_tools.speakers import Speakers, Spoken, Tape
from speech_tools.topics import Topics

PAUSE_SECONDS = 0.5
"""The longest pause before an utterance. Its length is random: otherwise each utterance would meet
the pipeline's timers, such as a broker's, at the same moment."""

LOST_IN_A_ROW = 3
"""After so many the pipeline counts as broken, and the run ends."""


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
    greeting: Frame
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
    """One run. It lives on one event loop.

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
        topics: Topics,
        on_utterance: Callable[[Utterance], None],
    ) -> None:
        self._speakers = Speakers(url, plan.clients, paced=plan.paced, clock=now_ms)
        self._plan = plan
        self._tape = tape
        self._topics = topics
        self._on_utterance = on_utterance
        self._numbers = itertools.count()  # shared by all clients
        self._chance = random.Random(0)  # noqa: S311 - the same pauses in every run
        self._ways: dict[str, _Way] = {}
        self._done: list[Utterance] = []
        self._lost_in_a_row = 0

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
            await self._speakers.run(self._speak)
        return sorted(self._done, key=lambda each: each.number)

    def _left(self) -> Iterator[int]:
        """Yield the numbers of the utterances that a client is to speak."""
        for number in self._numbers:
            if number >= self._plan.count or self._lost_in_a_row >= LOST_IN_A_ROW:
                return
            yield number

    async def _speak(self) -> None:
        """Speak as one client."""
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
        spoken = await self._speakers.say(self._tape.cut(number, self._plan.seconds))
        if isinstance(spoken.error, Refused) and not spoken.error.retryable:
            raise spoken.error  # the next one gets the same answer
        problem = str(spoken.error or spoken.code)
        return Utterance(number, spoken.greeting, _times(spoken), (), problem)

    async def _wait(self, way: _Way) -> None:
        try:
            async with asyncio.timeout(self._plan.patience_seconds):
                await way.whole.wait()
        except TimeoutError:
            pass  # what is there names the hop that is not

    def _way(self, correlation_id: str) -> _Way:
        return self._ways.setdefault(correlation_id, _Way())

    def _read(self, record: ReceivedRecord, at_ms: int) -> None:
        """Keep a record. Others may use the topics too; what is theirs costs some bytes."""
        way = self._way(record.headers.get(CORRELATION_ID, ""))
        if record.topic == self._topics.text:
            way.text_read_ms = way.text_read_ms or at_ms
        else:
            record = replace(record, value=b"")  # audio: nobody looks at it
        way.records.append(record)
        if self._is_whole(way.records):
            way.whole.set()

    def _is_whole(self, records: Sequence[ReceivedRecord]) -> bool:
        """Tell whether utterance and outcome are there. They come in any order."""
        found = {record.topic for record in records}
        outcomes = {self._topics.text, self._topics.dead_letter}
        return self._topics.audio in found and bool(found & outcomes)


def _times(spoken: Spoken) -> dict[str, int]:
    times = {OPENING: int(spoken.began)}
    for frame, at in spoken.frames:
        for status, point in (("connected", CONNECTED), ("accepted", ACCEPTED)):
            if frame.get("status") == status:
                times[point] = int(at)
    return times
