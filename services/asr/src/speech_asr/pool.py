"""The worker processes: a recogniser in each, one utterance at a time in each.

Used by `pipeline`. Every worker has an executor of its own, because a process that dies breaks its
whole executor: shared, it would take the utterances of the others with it, and nobody could tell
which of them had killed it.
"""

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from speech_lib.service.logs import get_logger
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential

from speech_asr import model_files, worker
from speech_asr.engine import EngineChoice, Recognition, duration_s
from speech_asr.errors import EngineFailed, EngineUnavailable, Reason, Unprocessable
from speech_asr.native_log import NativeLog
from speech_asr.turns import Turns

RECOGNITION_LIMIT_SECONDS = 600.0
"""Who takes longer for one utterance hangs: the largest is 49 s of speech, on a busy machine."""
_ATTEMPTS = 2
_ANY_SECONDS = 0.1
"""What an utterance counts besides its length, so that silence and noise count too."""
_T = TypeVar("_T")
Report = Callable[[bool, str], None]
"""Takes whether every worker can be started, and if not, why."""
_log = get_logger(__name__)


class _Worker:
    """One process with its engine; replaced whole when anything goes wrong in it."""

    def __init__(self, choice: EngineChoice, limit_seconds: float) -> None:
        self.choice = choice
        self._limit_seconds = limit_seconds
        self._executor: ProcessPoolExecutor | None = None
        self._native_log: NativeLog | None = None
        self.pid: int | None = None

    async def load(self) -> None:
        """Start the process and load the engine, unless that is done.

        Raises:
            EngineUnavailable: It cannot be loaded.
        """
        if self.pid is not None:
            return
        try:
            self.pid = await self._call(worker.load, self.choice)
            if self._native_log is not None:
                self._native_log.loaded = True
        except BrokenProcessPool:
            self.discard()
            raise EngineUnavailable(_ended(self.choice)) from None
        except (OSError, RuntimeError):  # no more processes; no more threads to watch over them
            self.discard()
            raise EngineUnavailable(
                "ASR_WORKERS: a recogniser cannot be started; each takes a process and some threads"
            ) from None

    async def transcribe(self, samples: bytes, hint: str | None) -> tuple[Recognition, float]:
        """Return what the engine hears and the seconds that it took.

        Raises:
            EngineFailed: The engine raised, took too long or was killed; the process is replaced.
        """
        try:
            async with asyncio.timeout(self._limit_seconds):
                return await self._call(worker.transcribe, self.choice, samples, hint)
        except (EngineFailed, BrokenProcessPool, TimeoutError) as error:
            self.discard()
            raise EngineFailed(type(error).__name__) from None

    async def _call(self, function: Callable[..., _T], *arguments: object) -> _T:
        if self._executor is None:
            self._native_log = NativeLog()
            # Spawned, as a fork would copy the threads' locks and the broker's connections.
            self._executor = ProcessPoolExecutor(
                1,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=worker.prepare,
                initargs=(self._native_log.writer,),
            )
            called = self._submit(function, *arguments)  # starts the process
            self._native_log.started()
            return await called
        return await self._submit(function, *arguments)

    def _submit(self, function: Callable[..., _T], *arguments: object) -> asyncio.Future[_T]:
        return asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    def discard(self) -> None:
        """End the process, whatever it is doing; the next `load` starts another."""
        for process in multiprocessing.active_children():
            if process.pid == self.pid:
                process.kill()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
        if self._native_log is not None:
            self._native_log.close()
        self._executor = self._native_log = self.pid = None


def _checked(choice: EngineChoice) -> EngineChoice:
    """Return the choice with its model's directory. Reads the whole model: once for all workers.

    Raises:
        EngineUnavailable: There is none, or it is not what it should be.
    """
    if not choice.model:
        return choice
    return replace(choice, model=str(model_files.find(choice.model, choice.folders)))


def _ended(choice: EngineChoice) -> str:
    """Return what to look at where a process ended while it loaded its engine."""
    if choice.name == "pocketsphinx":
        return "ASR_WORKERS: a recogniser ended while it was loading; each takes some 190 MB"
    return (
        "ASR_MODEL: a recogniser ended while it was loading: a file of the model is not what"
        f" {'ASR_MODEL_FAMILY' if choice.family else 'its engine'} expects, or ASR_WORKERS of them"
        " need more memory than there is"
    )


class RecogniserPool:
    """Recognises as many utterances side by side as it has workers; the others wait their turn.

    A free worker gets the next utterance of the source that has had the least seconds of audio; the
    last one goes to no source that has one already (`turns`).

    Args:
        choice: Which engine to load.
        workers: How many processes.
        on_replaced: Called for each worker that had to be replaced.
        report: Told when a worker cannot be started, and when all can again.
        limit_seconds: What one recognition may take.

    The caller owes one `start` before the first utterance and one `close`.
    """

    def __init__(
        self,
        choice: EngineChoice,
        workers: int,
        *,
        on_replaced: Callable[[], None] = lambda: None,
        report: Report = lambda *_: None,
        limit_seconds: float = RECOGNITION_LIMIT_SECONDS,
    ) -> None:
        self._choice = choice
        self._workers = [_Worker(choice, limit_seconds) for _ in range(workers)]
        self._idle: Turns[_Worker] = Turns()
        self._on_replaced = on_replaced
        self._report = report
        self._missing: set[_Worker] = set()

    @property
    def pids(self) -> frozenset[int]:
        """The ids of the worker processes that have loaded their engine."""
        return frozenset(each.pid for each in self._workers if each.pid is not None)

    async def start(self) -> None:
        """Check the model, then load the engine in every worker.

        Raises:
            EngineUnavailable: It cannot be loaded.
        """
        choice = await asyncio.to_thread(_checked, self._choice)
        for each in self._workers:
            each.choice = choice
        await asyncio.gather(*(each.load() for each in self._workers))
        for each in self._workers:
            self._idle.add(each)

    async def recognise(
        self,
        samples: bytes,
        on_begun: Callable[[], None] = lambda: None,
        source: str = "",
        hint: str | None = None,
    ) -> tuple[Recognition, float]:
        """Return what was said in one utterance, and the seconds that hearing it took.

        A worker that fails is replaced and the utterance tried once more. When cancelled, the
        worker still ends its utterance.

        Args:
            samples: The utterance.
            on_begun: Called when a worker is free for it.
            source: Whose it is: each gets its share.
            hint: The language that is claimed; see `Engine`.

        Raises:
            Unprocessable: It failed again.
        """
        cost = duration_s(samples) + _ANY_SECONDS
        async with self._idle_worker(source, cost) as one:
            on_begun()
            for _ in range(_ATTEMPTS):
                await self._load_again(one)
                try:
                    return await one.transcribe(samples, hint)
                except EngineFailed as error:
                    _log.warning("worker_replaced", reason=str(error))
                    self._on_replaced()
        raise Unprocessable(Reason.RECOGNISER_FAILED)

    @asynccontextmanager
    async def _idle_worker(self, source: str, cost: float) -> AsyncIterator[_Worker]:
        one = await self._idle.get(source, cost)
        try:
            yield one
        finally:
            self._idle.give_back(one, source)

    async def _load_again(self, one: _Worker) -> None:
        """Load until it succeeds.

        That a machine is short of memory or processes is not the utterance's fault.
        """

        def complain(_: object) -> None:
            _log.warning("engine_unavailable")
            self._missing.add(one)
            self._report(False, "engine_unavailable")

        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(EngineUnavailable),
            wait=wait_exponential(multiplier=0.2, max=5),
            before_sleep=complain,
        ):
            with attempt:
                await one.load()
        if one in self._missing:
            self._missing.discard(one)
            if not self._missing:
                self._report(True, "")

    def close(self) -> None:
        """End all workers, also those that are recognising."""
        for each in self._workers:
            each.discard()
