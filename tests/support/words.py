"""Count the words that an engine gets wrong, and what it costs; the table of docs/models.md.

    PYTHONPATH=tests uv run python -m support.words [MODEL | pocketsphinx]…

Each engine is loaded as the service loads it, in a process of its own, on one core. Words are
counted as the Open ASR Leaderboard does (Whisper's English normaliser: 10 is ten, Mr. is mister).
"""

import asyncio
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import jiwer
from speech_asr.engine import EngineChoice, EngineName, Recognition
from speech_asr.pool import RecogniserPool
from speech_tools.models import manifest
from speech_tools.models.fetching import fetch, first_folder
from whisper_normalizer.english import EnglishTextNormalizer

from support.recordings import Clip, clips, in_noise, long_clips, no_speech

NOISE_DECIBELS = 10.0
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_normal = EnglishTextNormalizer()
POCKETSPHINX: EngineName = "pocketsphinx"


@dataclass(frozen=True, slots=True)
class Heard:
    """What an engine said of some clips, and what that cost.

    Attributes:
        clips: What it heard.
        said: What it said, one for each.
        cpu_seconds: Processor time.
        memory_mb: The most that its process had of memory by then.
    """

    clips: Sequence[Clip]
    said: Sequence[Recognition]
    cpu_seconds: float
    memory_mb: float

    def wrong(self, kind: str | None = None) -> float:
        """Return the word error rate in percent, of one kind of clips or of all."""
        pairs = [
            (_normal(clip.said), _normal(each.text))
            for clip, each in zip(self.clips, self.said, strict=True)
            if kind in {None, clip.kind}
        ]
        references, hypotheses = zip(*pairs, strict=True)
        return 100 * float(jiwer.wer(list(references), list(hypotheses)))

    @property
    def real_time_factor(self) -> float:
        """Processor time in terms of what was heard."""
        return self.cpu_seconds / sum(clip.seconds for clip in self.clips)


def choice(name: str) -> EngineChoice:
    """Return the engine of a model's name; the model is fetched the first time."""
    if name == POCKETSPHINX:
        return EngineChoice(POCKETSPHINX)
    model, folder = manifest.model(name), first_folder()
    fetch(model, folder)
    place = str(folder.absolute() / name)
    if model.engine == "sherpa":
        return EngineChoice("sherpa", place, family=model.family, language="en")  # type: ignore[arg-type]
    return EngineChoice("whisper", place, language="en")


def hear(engine: EngineChoice, some: Iterable[Clip], hint: str | None = None) -> Heard:
    """Have an engine hear some clips, one after the other, with a language that is claimed."""
    return asyncio.run(_hear(engine, list(some), hint))


def no_words(engine: EngineChoice) -> dict[str, Recognition]:
    """Return what an engine hears where nobody speaks, by the kind of sound."""
    sounds = no_speech()
    heard = hear(engine, [Clip("", samples, "") for samples in sounds.values()])
    return dict(zip(sounds, heard.said, strict=True))


async def _hear(engine: EngineChoice, some: Sequence[Clip], hint: str | None) -> Heard:
    with closing(RecogniserPool(engine, 1)) as pool:
        await pool.start()
        (pid,) = pool.pids
        before = _cpu_seconds(pid)
        said = [(await pool.recognise(clip.samples, hint=hint))[0] for clip in some]
        return Heard(some, said, _cpu_seconds(pid) - before, _memory_mb(pid))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


def _memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def row(name: str) -> str:
    """Measure an engine; return its line of the table."""
    engine = choice(name)
    clean, noisy = (
        hear(engine, clips()),
        hear(engine, (in_noise(c, NOISE_DECIBELS) for c in clips())),
    )
    long = hear(engine, long_clips())
    worst = max(
        Heard([clip], [said], 0, 0).wrong()
        for clip, said in zip(long.clips, long.said, strict=True)
    )
    spoken = sum(bool(each.text) for each in no_words(engine).values())
    kinds = [f"{clean.wrong(kind):.1f}" for kind in ("prompts", "readings", "commands")]
    figures = [f"{clean.wrong():.1f}", *kinds, f"{noisy.wrong():.1f}", f"{worst:.1f}", str(spoken)]
    cost = [f"{clean.real_time_factor:.2f}", f"{max(clean.memory_mb, long.memory_mb):.0f}"]
    return " | ".join([f"| `{name}`", *figures, *cost]) + " |"


_COLUMNS = (
    *("model", "wrong, %", "prompts", "readings", "commands", "10 dB noise", "worst of 43 to 49 s"),
    *("words in 15 sounds", "CPU per second", "MB"),
)
HEAD = f"| {' | '.join(_COLUMNS)} |\n|{' --- |' * len(_COLUMNS)}"


def main() -> None:
    """Print the table of the engines that are named, or of all."""
    print(HEAD)  # noqa: T201 - a table for the document
    for name in sys.argv[1:] or [*manifest.models(), POCKETSPHINX]:
        print(row(name), flush=True)  # noqa: T201 - a table for the document


if __name__ == "__main__":
    main()
