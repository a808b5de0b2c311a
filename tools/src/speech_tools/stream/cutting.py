"""Where to cut a recording that is longer than an utterance may be: in a pause. Pure."""

import numpy as np
from speech_lib.events import SAMPLE_BYTES, SAMPLE_RATE_HZ

BLOCK_SAMPLES = SAMPLE_RATE_HZ // 50
"""20 ms, the step in which pauses are looked for."""
PAUSE_BLOCKS = 10
"""A pause lasts 200 ms."""
QUIET = 0.5
"""The loudness of a pause, at most, in terms of all that is looked at."""


def cut(pcm: bytes) -> int:
    """Return where to cut these samples, in bytes from their begin.

    That is the middle of the quietest 200 ms, the last of them where several are as quiet. Where
    nothing is quiet it is the end. Loudness is the root of the mean square.

    Args:
        pcm: PCM16 little-endian, 16 kHz, mono: the stretch in which the cut may lie.
    """
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    count = len(samples) // BLOCK_SAMPLES
    if count < PAUSE_BLOCKS:
        return len(pcm)
    squares = np.square(samples[: count * BLOCK_SAMPLES]).reshape(count, BLOCK_SAMPLES)
    blocks = squares.mean(axis=1)
    pauses = np.convolve(blocks, np.full(PAUSE_BLOCKS, 1 / PAUSE_BLOCKS), "valid")
    # Sums of floats differ in their last digits where the samples do not.
    quietest = len(pauses) - 1 - int(np.argmin(pauses[::-1].round(6)))
    if pauses[quietest] > QUIET**2 * blocks.mean():
        return len(pcm)
    return (quietest + PAUSE_BLOCKS // 2) * BLOCK_SAMPLES * SAMPLE_BYTES
