"""Worker processes: what they hear, and what becomes of an utterance when one of them dies."""

import asyncio
import errno
import hashlib
import multiprocessing.util
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from speech_asr.engine import EngineChoice
from speech_asr.errors import EngineUnavailable, Reason, Unprocessable
from speech_asr.pool import RecogniserPool

pytestmark = pytest.mark.pipeline

CHOICE = EngineChoice("pocketsphinx")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@asynccontextmanager
async def running(workers=1, **options):
    pool = RecogniserPool(CHOICE, workers, **options)
    try:
        await pool.start()
        yield pool
    finally:
        pool.close()


async def until(condition):
    """Wait until something is so that nobody tells; the test's own time limit bounds it."""
    while not condition():  # noqa: ASYNC110 - another process has no event to wait for
        await asyncio.sleep(0.01)


def stat(pid):
    """Return what Linux tells of a process (proc(5), `/proc/pid/stat`) from its state on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):  # it has gone before, or meanwhile
        return None


def exists(pid):
    """Tell whether a process lives; one that has ended and waits for its parent does not."""
    fields = stat(pid)
    return fields is not None and fields[0] != "Z"


def cpu_ticks(pid):
    """Return the processor time that a process has taken, in hundredths of a second."""
    return int(stat(pid)[11])


def test_workers_recognise_side_by_side(meters):
    """Each process has its own engine, and both hear the same in the same samples."""

    async def scenario():
        async with running(2) as pool:
            assert len(pool.pids) == 2
            heard = await asyncio.gather(*(pool.recognise(meters) for _ in range(3)))
        return {recognition for recognition, _ in heard}, [seconds > 0 for _, seconds in heard]

    recognitions, timed = asyncio.run(scenario())
    assert {each.text for each in recognitions} == {"go forward ten meters"}
    assert (len(recognitions), timed) == (1, [True] * 3)


@LINUX
def test_a_worker_hears_with_one_thread(meters):
    """Each core has its own; the detector's library would take four, which wait for each other."""

    async def scenario():
        async with running() as pool:
            (tasks,) = (Path(f"/proc/{pid}/task") for pid in pool.pids)
            before = set(tasks.iterdir())
            await pool.recognise(meters)
            return before, set(tasks.iterdir())

    before, after = asyncio.run(scenario())
    assert after == before


def test_a_free_worker_goes_to_the_source_that_has_had_least():
    """Behind many of one source, the one of another is next; who does not wait any more is not."""
    begun = []

    async def scenario():
        async with running() as pool:

            def hear(source, name):
                told = partial(begun.append, name)
                return asyncio.create_task(pool.recognise(bytes(3_200), told, source))

            flood = [hear("flood", f"flood {number}") for number in range(4)]
            await asyncio.sleep(0)
            live = hear("live", "live")
            await asyncio.sleep(0)
            flood[1].cancel()
            await asyncio.gather(live, *flood, return_exceptions=True)

    asyncio.run(scenario())
    assert begun == ["flood 0", "live", "flood 2", "flood 3"]


@LINUX
def test_an_utterance_outlives_the_death_of_its_worker(meters):
    """A worker killed while it recognises is replaced, and the utterance is heard after all."""
    replaced = []

    async def scenario():
        async with running(on_replaced=lambda: replaced.append(1)) as pool:
            (victim,) = pool.pids
            loaded = cpu_ticks(victim)
            hearing = asyncio.create_task(pool.recognise(meters))
            await until(lambda: cpu_ticks(victim) > loaded + 5)
            os.kill(victim, signal.SIGKILL)
            recognition, _ = await hearing
            return recognition.text, victim in pool.pids

    assert asyncio.run(scenario()) == ("go forward ten meters", False)
    assert replaced == [1]


def refusing(errors):
    """Return what starts processes, after it has raised these errors."""
    real = multiprocessing.util.spawnv_passfds

    def spawn(*arguments):
        if errors:
            raise errors.pop(0)
        return real(*arguments)

    return spawn


async def _refusal(choice):
    """Return what the pool says as it does not start."""
    pool = RecogniserPool(choice, 2)
    try:
        with pytest.raises(EngineUnavailable) as caught:
            await pool.start()
    finally:
        pool.close()
    return str(caught.value)


def test_a_model_with_a_byte_changed_is_refused_before_any_worker_starts(tmp_path, monkeypatch):
    """It is read once, however many workers there will be."""
    started = []
    monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", lambda *_: started.append(1))
    (tmp_path / "model.bin").write_bytes(b"weightt")
    digest = hashlib.sha256(b"weights").hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{digest}  model.bin\n")
    line = asyncio.run(_refusal(EngineChoice("whisper", str(tmp_path))))
    assert line.startswith("ASR_MODEL: model.bin of the model is not what its SHA256SUMS says")
    assert started == []


@pytest.mark.parametrize(
    ("engine", "line"),
    [("pocketsphinx", "ASR_WORKERS: "), ("whisper", "ASR_MODEL: .* or ASR_WORKERS of them need")],
)
def test_a_worker_that_is_killed_while_it_loads_is_one_line(tmp_path, engine, line):
    """As the kernel does where there is too little memory for it."""
    before = set(multiprocessing.active_children())  # a test before may have some that are ending

    def loading():
        return set(multiprocessing.active_children()) - before

    async def scenario():
        refusal = asyncio.create_task(_refusal(EngineChoice(engine, f"{tmp_path}/")))
        await until(lambda: len(loading()) == 2)
        for process in loading():
            process.kill()
        return await refusal

    assert re.match(line, asyncio.run(scenario()))


@pytest.mark.parametrize(
    "error",
    [
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
    ],
    ids=["no process", "no memory", "no thread"],
)
def test_a_machine_that_is_short_is_waited_for(monkeypatch, error):
    """A worker that cannot be started shows, and is tried again until its utterance is heard."""
    told = []

    async def scenario():
        async with running(report=lambda *report: told.append(report)) as pool:
            (victim,) = pool.pids
            os.kill(victim, signal.SIGKILL)
            await until(lambda: not exists(victim))
            # Nothing of our own to injure: the machine refuses inside of the standard library.
            monkeypatch.setattr(multiprocessing.util, "spawnv_passfds", refusing([error] * 2))
            recognition, _ = await pool.recognise(bytes(32_000))
            return recognition.text, len(pool.pids)

    assert asyncio.run(scenario()) == ("", 1)
    assert told == [(False, "engine_unavailable")] * 2 + [(True, "")]


def test_the_death_of_one_worker_does_not_touch_the_utterance_of_another(meters):
    """Who dies takes only its own utterance with it, so the other needs no second attempt."""
    replaced = []

    async def scenario():
        async with running(2, on_replaced=lambda: replaced.append(1)) as pool:
            hearing = [asyncio.create_task(pool.recognise(meters)) for _ in range(2)]
            await asyncio.sleep(0)
            os.kill(min(pool.pids), signal.SIGKILL)
            return [(await each)[0].text for each in hearing]

    assert asyncio.run(scenario()) == ["go forward ten meters"] * 2
    assert replaced == [1]


def test_an_utterance_that_ends_its_worker_twice_is_given_up(dashwood):
    """It would end the next one as well; the utterances after it are heard as ever."""

    async def scenario():
        async with running(limit_seconds=1.0) as pool:
            with pytest.raises(Unprocessable) as caught:
                await pool.recognise(dashwood * 3)
            given_up = caught.value.reason
            silence, _ = await pool.recognise(bytes(320))
            return given_up, silence.text, len(pool.pids)

    assert asyncio.run(scenario()) == (Reason.RECOGNISER_FAILED, "", 1)


@LINUX
def test_closing_ends_a_worker_that_is_recognising(dashwood):
    """Whoever stops the service does not wait for a long utterance."""

    async def scenario():
        async with running() as pool:
            pids = pool.pids
            hearing = asyncio.create_task(pool.recognise(dashwood))
            await asyncio.sleep(0)
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
        await until(lambda: not any(map(exists, pids)))
        return len(pids)

    assert asyncio.run(scenario()) == 1


PARENT = """
    import asyncio, sys
    from speech_asr.engine import EngineChoice
    from speech_asr.pool import RecogniserPool

    async def live():
        pool = RecogniserPool(EngineChoice("pocketsphinx"), 2)
        await pool.start()
        print(*pool.pids, flush=True)
        await asyncio.Event().wait()

    if __name__ == "__main__":
        asyncio.run(live())
"""


@LINUX
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    """No decoder stays behind with its 100 MB, even if the service had no time to say so."""
    program = tmp_path / "parent.py"
    program.write_text(textwrap.dedent(PARENT))
    with subprocess.Popen(  # noqa: S603 - this interpreter, a program of ours
        [sys.executable, str(program)], stdout=subprocess.PIPE, text=True
    ) as parent:
        try:
            pids = [int(pid) for pid in parent.stdout.readline().split()]
        finally:
            parent.kill()
    assert len(pids) == 2
    deadline = time.monotonic() + 10
    while any(map(exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [pid for pid in pids if exists(pid)] == []
