"""Wait for what nobody tells."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

Answer = TypeVar("Answer")


def until(
    ask: Callable[[], Answer],
    fits: Callable[[Answer], object] = bool,
    *,
    seconds: float,
    every: float = 0.05,
    despite: tuple[type[Exception], ...] = (),
) -> Answer:
    """Ask until the answer fits, and return it.

    Args:
        ask: The question.
        fits: Whether this is the answer that is waited for; by default, whether it is true.
        seconds: How long to ask at most.
        every: How long to wait in between, in seconds.
        despite: What may be raised instead of an answer.

    Raises:
        AssertionError: None fitted in time; it tells the last one.
    """
    deadline = time.monotonic() + seconds
    answer: Answer | None = None
    while True:
        with suppress(*despite):
            answer = ask()
            if fits(answer):
                return answer
        assert time.monotonic() < deadline, f"not within {seconds} s: {answer!r}"
        time.sleep(every)
