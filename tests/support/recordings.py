"""What engines are made to hear: recorded speech with its words, the same in noise, and no speech.

The recordings are in `tests/words`. What is made here is the same on every machine.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from speech_tools.protocol.audio import load

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "words"
RATE_HZ = 16_000
LONGEST_SECONDS = 49.0
"""What the gateway takes at most, but for an instant."""
SHORTEST_LONG_SECONDS = 43.0
_GAP_SECONDS = 0.5
_FULL_SCALE = 32_767.0
Wave = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Clip:
    """An utterance and what is said in it.

    Attributes:
        kind: Who speaks, and how: prompts, readings or commands; long for several together.
        samples: PCM16, 16 kHz, mono.
        said: Its words.
    """

    kind: str
    samples: bytes
    said: str

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / 2 / RATE_HZ


def clips() -> list[Clip]:
    """Return all recordings, in the order of the list."""
    lines = (FOLDER / "transcripts.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = (line.split("\t") for line in lines)
    return [Clip(kind, load(ROOT / file).pcm, said) for file, kind, said in rows]


def long_clips() -> Iterator[Clip]:
    """Yield utterances of 43 to 49 s, of several recordings with half a second between them."""
    left = clips()
    while True:
        held: list[Clip] = []
        for clip in left:
            if _joined([*held, clip]).seconds <= LONGEST_SECONDS:
                held.append(clip)
        long = _joined(held)
        if long.seconds < SHORTEST_LONG_SECONDS:
            return
        yield long
        left = [clip for clip in left if clip not in held]


def _joined(parts: list[Clip]) -> Clip:
    gap = bytes(int(_GAP_SECONDS * RATE_HZ) * 2)
    samples = gap.join(each.samples for each in parts)
    return Clip("long", samples, " ".join(each.said for each in parts))


def in_noise(clip: Clip, decibels: float) -> Clip:
    """Return the same with pink noise that is so much less loud than the speech."""
    speech = np.frombuffer(clip.samples, dtype="<i2").astype(np.float64)
    noise = coloured(len(speech) / RATE_HZ, exponent=1.0)[: len(speech)]
    level = np.sqrt(np.mean(speech**2) / np.mean(noise**2)) * 10 ** (-decibels / 20)
    return replace(clip, samples=_pcm((speech + level * noise) / _FULL_SCALE))


def no_speech() -> dict[str, bytes]:
    """Return fifteen kinds of sound in which nobody speaks, 3 s each but for what is recorded."""
    signals = ("ascending-2tone", "descending-2tone", "beeperr")
    recorded = {name: load(FOLDER / "recordings" / f"{name}.flac").pcm for name in signals}
    return {name: _pcm(make()) for name, make in _SOUNDS.items()} | recorded


def coloured(seconds: float, exponent: float) -> Wave:
    """Return noise of which a frequency f has the power 1 / f ** exponent; its deviation is 1."""
    count = int(seconds * RATE_HZ)
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(count))
    wave = np.fft.irfft(spectrum * np.arange(1, len(spectrum) + 1) ** (-exponent / 2), count)
    return np.asarray(wave / wave.std())


def _time(seconds: float = 3.0) -> Wave:
    return np.arange(int(seconds * RATE_HZ)) / RATE_HZ


def _tones(*frequencies: float) -> Wave:
    return np.asarray(sum(np.sin(2 * np.pi * f * _time()) for f in frequencies) / len(frequencies))


def _on_and_off(wave: Wave, period: float, share: float) -> Wave:
    return np.where(_time() % period < share * period, wave, 0.0)


def _noise(exponent: float, decibels: float) -> Callable[[], Wave]:
    return lambda: coloured(3.0, exponent) * 10 ** (decibels / 20)


_SOUNDS: dict[str, Callable[[], Wave]] = {
    "digital silence": lambda: np.zeros(3 * RATE_HZ),
    "a silent room": _noise(0.0, -70),
    "white noise": _noise(0.0, -30),
    "loud white noise": _noise(0.0, -12),
    "pink noise": _noise(1.0, -24),
    "brown noise": _noise(2.0, -18),
    "mains hum": lambda: 0.1 * _tones(50, 100, 150, 250),
    "clicks": lambda: 0.8 * _on_and_off(np.ones(3 * RATE_HZ), 0.25, 0.002),
    "typing": lambda: _on_and_off(coloured(3.0, 0.0) * 0.2, 0.18, 0.08),
    "a beep": lambda: 0.3 * _on_and_off(_tones(1000), 1.0, 0.3),
    "dialling": lambda: 0.3 * _on_and_off(_tones(770, 1336), 0.2, 0.5),
    "ringing": lambda: 0.3 * _on_and_off(_tones(440, 480), 3.0, 0.6),
}


def _pcm(wave: Wave) -> bytes:
    return np.clip(np.round(wave * _FULL_SCALE), -32_768, _FULL_SCALE).astype("<i2").tobytes()
