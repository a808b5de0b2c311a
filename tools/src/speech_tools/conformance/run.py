"""Run checks, and say what each means for the verdict on a deployment.

Used by `command`. One check runs after another, so that a deployment hardly notices; those that
wait for its clocks run side by side, at the end.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from speech_tools.conformance.checks import Check
from speech_tools.conformance.exchange import Gateway, NotTestable, Target, Violation


class Verdict(Enum):
    """What came of a check."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_TESTABLE = "not testable here"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a check.

    Attributes:
        why: What was wrong, or why it could not be tested.
        frames: What passed, both ways.
        expected: Whether it is on the list of expected failures.
    """

    check: Check
    verdict: Verdict
    why: str
    frames: tuple[str, ...]
    seconds: float
    expected: bool = False

    @property
    def stale(self) -> bool:
        """Whether it passes though it is expected to fail."""
        return self.expected and self.verdict is Verdict.PASSED

    @property
    def bad(self) -> bool:
        """Whether the deployment is not as it should be, or the list of failures is not."""
        return self.stale or (self.verdict is Verdict.FAILED and not self.expected)


async def run(
    target: Target, checks: Sequence[Check], expected: Collection[str] = ()
) -> AsyncIterator[Result]:
    """Yield the result of each check as it is there, the slow ones at the end."""
    for each in checks:
        if not each.slow:
            yield await _run(target, each, expected)
    slow = [asyncio.ensure_future(_run(target, each, expected)) for each in checks if each.slow]
    try:
        for done in asyncio.as_completed(slow):
            yield await done
    finally:
        for task in slow:
            task.cancel()


async def _run(target: Target, check: Check, expected: Collection[str]) -> Result:
    gateway, began = Gateway(target), time.monotonic()
    verdict, why = Verdict.PASSED, ""
    try:
        await check.run(gateway)
    except Violation as violation:
        verdict, why = Verdict.FAILED, str(violation)
    except NotTestable as reason:
        verdict, why = Verdict.NOT_TESTABLE, str(reason)
    seconds = time.monotonic() - began
    return Result(check, verdict, why, tuple(gateway.trace), seconds, check.name in expected)
