"""Who gets the next free worker: for `pool`, in the order of `fair`."""

import asyncio
from collections import Counter, deque
from typing import Generic, TypeVar

from speech_asr.fair import FairQueue

_MOST_SOURCES = 128
"""About as many as utterances can wait (`pipeline.WINDOW_RECORDS`)."""

WorkerT = TypeVar("WorkerT")


class Turns(Generic[WorkerT]):
    """The workers without an utterance, and the utterances without a worker.

    The last idle worker goes to nobody who has one already. So a source that keeps all others busy
    does not have the next one wait until one of its long utterances is done.
    """

    def __init__(self) -> None:
        self._idle: deque[WorkerT] = deque()
        self._served: Counter[str] = Counter()
        """How many workers each source has."""
        self._waiting: FairQueue[tuple[str, asyncio.Future[WorkerT]]] = FairQueue(_MOST_SOURCES)

    def add(self, worker: WorkerT) -> None:
        """Take a worker in."""
        self._idle.append(worker)
        self._match()

    async def get(self, source: str, cost: float) -> WorkerT:
        """Wait for a worker, and return it; who is cancelled takes none.

        The caller owes one `give_back`.

        Args:
            source: Whose utterance it is for.
            cost: Seconds of audio that the source is charged for.
        """
        turn: asyncio.Future[WorkerT] = asyncio.get_running_loop().create_future()
        self._waiting.put(source, cost, (source, turn))
        self._match()
        try:
            return await turn
        except asyncio.CancelledError:
            if not self._waiting.discard((source, turn)) and not turn.cancelled():
                self.give_back(turn.result(), source)
            raise

    def give_back(self, worker: WorkerT, source: str) -> None:
        """Free a worker that `get` has returned for a source."""
        self._served[source] -= 1
        self._served += Counter()  # without those that have none
        self.add(worker)

    def _match(self) -> None:
        while self._idle:
            found = self._waiting.take(self._served if len(self._idle) == 1 else ())
            if found is None:
                return
            source, turn = found
            if not turn.done():  # cancelled, and about to notice
                self._served[source] += 1
                turn.set_result(self._idle.popleft())
